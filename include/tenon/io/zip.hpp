#pragma once
// Zip archives whose members are stored without compression, as torch.save writes them (APPNOTE.TXT 6.3.9; zip64 too).
#include <cstring>
#include <map>
#include <vector>

#include <tenon/io/mapped_file.hpp>

namespace tenon::inline TENON_ABI {

/// A mapped archive. Every member's place is checked when the archive is opened; copies share the mapping.
class ZipFile {
 public:
  /// Throws FileError on a file that is no zip archive, or whose directory points outside the file.
  static ZipFile open(const std::string& path) {
    const FileReader reader(path);
    ZipFile out;
    out.path_ = path;
    out.memory_ = map_file(reader);
    out.bytes_ = {out.memory_.get(), static_cast<std::size_t>(reader.size())};
    out.read_directory();
    return out;
  }

  const std::string& path() const { return path_; }
  /// The names of all members, sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, member] : members_) out.push_back(name);
    return out;
  }
  bool contains(const std::string& name) const { return members_.contains(name); }
  /// The bytes of one member, within the mapping. Throws FileError when there is none, or when it is compressed.
  std::span<const std::byte> bytes(const std::string& name) const {
    const auto at = members_.find(name);
    check<FileError>(at != members_.end(), "zip", path_, ": no member ", name);
    check<FileError>(at->second.stored, "zip", path_, ": member ", name, " is compressed or encrypted, which tenon does not read");
    return bytes_.subspan(at->second.begin, at->second.size);
  }
  /// What keeps the mapping alive.
  const std::shared_ptr<const std::byte>& memory() const { return memory_; }

 private:
  struct Member {
    std::size_t begin = 0, size = 0;
    bool stored = false;
  };

  /// A little-endian number at `at`. Throws FileError past the end of the file.
  template <class T>
  T number(std::uint64_t at) const {
    check<FileError>(at <= bytes_.size() && bytes_.size() - at >= sizeof(T), "zip", path_, ": the archive ends at byte ", bytes_.size(),
                     ", a field was expected at ", at);
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof(T));
    return value;
  }
  std::string_view text(std::uint64_t at, std::size_t size) const {
    check<FileError>(at <= bytes_.size() && bytes_.size() - at >= size, "zip", path_, ": a name runs past the end of the archive");
    return {reinterpret_cast<const char*>(bytes_.data()) + at, size};
  }

  void read_directory() {
    constexpr std::uint64_t end_size = 22, max_comment = 65535;
    check<FileError>(bytes_.size() >= end_size, "zip", path_, ": expected a zip archive, found ", bytes_.size(), " bytes");
    std::uint64_t end = bytes_.size() - end_size;
    const std::uint64_t last = end > max_comment ? end - max_comment : 0;
    while (number<std::uint32_t>(end) != 0x06054b50u) {
      check<FileError>(end > last, "zip", path_, ": expected a zip archive, found no end-of-directory record");
      --end;
    }
    std::uint64_t count = number<std::uint16_t>(end + 10), at = number<std::uint32_t>(end + 16);
    if (count == 0xffff || at == 0xffffffffu) {
      check<FileError>(end >= 20 && number<std::uint32_t>(end - 20) == 0x07064b50u, "zip", path_, ": expected a zip64 locator");
      const auto end64 = number<std::uint64_t>(end - 12);
      check<FileError>(number<std::uint32_t>(end64) == 0x06064b50u, "zip", path_, ": expected a zip64 record at byte ", end64);
      count = number<std::uint64_t>(end64 + 32);
      at = number<std::uint64_t>(end64 + 48);
    }
    check<FileError>(count <= bytes_.size() / 46, "zip", path_, ": the archive is too short for its ", count, " members");
    for (std::uint64_t i = 0; i < count; ++i) {
      check<FileError>(number<std::uint32_t>(at) == 0x02014b50u, "zip", path_, ": expected a directory entry at byte ", at);
      const auto flags = number<std::uint16_t>(at + 8), method = number<std::uint16_t>(at + 10);
      std::uint64_t packed = number<std::uint32_t>(at + 20), size = number<std::uint32_t>(at + 24), local = number<std::uint32_t>(at + 42);
      const std::uint64_t name_size = number<std::uint16_t>(at + 28), extra_size = number<std::uint16_t>(at + 30);
      const std::string name(text(at + 46, name_size));
      read_zip64(at + 46 + name_size, extra_size, {&size, &packed, &local});
      at += 46 + name_size + extra_size + number<std::uint16_t>(at + 32);

      check<FileError>(number<std::uint32_t>(local) == 0x04034b50u, "zip", path_, ": member ", name, ": expected its header at byte ", local);
      const std::uint64_t begin = local + 30 + number<std::uint16_t>(local + 26) + number<std::uint16_t>(local + 28);
      check<FileError>(begin <= bytes_.size() && bytes_.size() - begin >= packed, "zip", path_, ": member ", name, " of ", packed,
                       " bytes runs past the end of the archive");
      const bool stored = method == 0 && (flags & 1u) == 0 && packed == size;
      check<FileError>(members_.emplace(name, Member{static_cast<std::size_t>(begin), static_cast<std::size_t>(packed), stored}).second,
                       "zip", path_, ": member ", name, " occurs twice");
    }
  }
  /// Replaces those fields that are 0xffffffff by the 64-bit ones of the extra field 1.
  void read_zip64(std::uint64_t at, std::uint64_t size, std::initializer_list<std::uint64_t*> fields) const {
    for (const std::uint64_t end = at + size; at + 4 <= end;) {
      const auto id = number<std::uint16_t>(at), length = number<std::uint16_t>(at + 2);
      std::uint64_t value = at + 4;
      at += 4u + length;
      if (id != 1) continue;
      for (std::uint64_t* field : fields) {
        if (*field != 0xffffffffu) continue;
        check<FileError>(value + 8 <= at && at <= end, "zip", path_, ": a zip64 field is too short");
        *field = number<std::uint64_t>(value);
        value += 8;
      }
    }
  }

  std::string path_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const std::byte> memory_;
  std::map<std::string, Member> members_;
};

}  // namespace tenon::inline TENON_ABI
