#pragma once
// Training state: several files that change together, or not at all.
//
// A set lives in a directory. Its files carry the number of the save that wrote them (`state.7.safetensors`); the file
// COMMIT, replaced by rename when all of them are durable, names the files of the latest whole set with their sizes and
// checksums. A crash at any moment leaves the previous COMMIT, and with it the previous set.
#include <cerrno>
#include <charconv>

#include <sys/stat.h>

#include <tenon/core/nearest.hpp>
#include <tenon/core/random.hpp>
#include <tenon/io/safetensors.hpp>

namespace tenon::inline TENON_ABI {

/// One file of a set: its name, such as `state.safetensors`, and what writes it.
struct SetFile {
  std::string name;
  std::function<void(FileSink&)> write;
};

namespace detail {

/// FNV-1a over 64-bit words, the last one padded with zeros, and then the length. Flipping any one bit changes it.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes) {
    length_ += bytes.size();
    for (; used_ != 0 && !bytes.empty(); bytes = bytes.subspan(1)) put(bytes[0]);
    for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
      std::uint64_t word;
      std::memcpy(&word, bytes.data(), 8);
      mix(word);
    }
    for (const std::byte b : bytes) put(b);
  }
  std::uint64_t value() const {
    Checksum end = *this;
    if (end.used_ > 0) end.mix(end.partial_);
    end.mix(length_);
    return end.hash_;
  }

 private:
  void mix(std::uint64_t word) { hash_ = (hash_ ^ word) * 1099511628211u; }
  void put(std::byte b) {
    partial_ |= static_cast<std::uint64_t>(b) << (8 * used_);
    if (++used_ == 8) {
      mix(partial_);
      partial_ = 0;
      used_ = 0;
    }
  }
  std::uint64_t hash_ = 14695981039346656037u, partial_ = 0, length_ = 0;
  unsigned used_ = 0;
};

/// What COMMIT says: `tenon-set 1`, the number of the save, and a line `size checksum name` for each file.
struct Commit {
  std::uint64_t number = 0;
  struct File {
    std::uint64_t size = 0, checksum = 0;
    std::string name;  // with the number
  };
  std::vector<File> files;
};

/// `state.safetensors` of save 7 is stored as `state.7.safetensors`.
inline std::string numbered(const std::string& name, std::uint64_t number) {
  const auto dot = name.rfind('.');
  return join_text(name.substr(0, dot), '.', number, dot == std::string::npos ? "" : name.substr(dot));
}

inline std::optional<Commit> read_commit(const std::string& directory) {
  const auto path = directory + "/COMMIT";
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) return std::nullopt;
  const auto text = read_file(path, 1u << 20);
  const auto broken = [&]() { fail<FileError>("state", path, ": expected a list of files with sizes and checksums, found something else"); };
  const char *at = text.data(), *end = at + text.size();
  const auto number = [&](int base, char after) {
    std::uint64_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value, base);
    if (error != std::errc{} || next == end || *next != after) broken();
    at = next + 1;
    return value;
  };
  constexpr std::string_view head = "tenon-set 1\n";
  if (!text.starts_with(head)) broken();
  at += head.size();
  Commit out;
  out.number = number(10, '\n');
  while (at != end) {
    Commit::File file;
    file.size = number(10, ' ');
    file.checksum = number(16, ' ');
    const auto* line_end = std::find(at, end, '\n');
    if (line_end == end) broken();
    file.name.assign(at, line_end);
    at = line_end + 1;
    if (file.name.empty() || file.name.find('/') != std::string::npos) broken();
    out.files.push_back(std::move(file));
  }
  return out;
}

inline std::string hexadecimal(std::uint64_t value) {
  char digits[16];
  return std::string(digits, std::to_chars(digits, digits + 16, value, 16).ptr);
}

}  // namespace detail

/// Writes the files of a set into an existing directory and commits them. The previous set's files are removed after.
/// Throws FileError, or what a writer throws: then the previous set stays.
inline void save_set(const std::string& directory, const std::vector<SetFile>& set, FileOperations& files = system_files()) {
  std::optional<detail::Commit> previous;
  try {
    previous = detail::read_commit(directory);
  } catch (const FileError&) {
    // a COMMIT that cannot be read protects nothing
  }
  detail::Commit commit{previous ? previous->number + 1 : 1, {}};
  std::string text = join_text("tenon-set 1\n", commit.number, '\n');
  for (const auto& file : set) {
    check<FileError>(!file.name.empty() && file.name.find_first_of("/\n") == std::string::npos, "save_set", directory,
                     ": expected plain file names, got ", detail::quoted(file.name));
    detail::Checksum checksum;
    std::uint64_t size = 0;
    const auto name = detail::numbered(file.name, commit.number);
    atomic_write(
        directory + '/' + name,
        [&](FileSink& sink) {
          sink.watch([&](std::span<const std::byte> bytes) {
            checksum.add(bytes);
            size += bytes.size();
          });
          file.write(sink);
        },
        files);
    text += join_text(size, ' ', detail::hexadecimal(checksum.value()), ' ', name, '\n');
  }
  atomic_write(directory + "/COMMIT", [&](FileSink& sink) { sink.write(text); }, files);
  if (previous)
    for (const auto& file : previous->files) files.unlink((directory + '/' + file.name).c_str());
  if (commit.number > 2)  // what a save that died after its commit left
    for (const auto& file : set) files.unlink((directory + '/' + detail::numbered(file.name, commit.number - 2)).c_str());
}

/// The paths of the latest whole set's files, by the names they were saved under; nothing when no set was committed.
/// Throws FileError when a file is missing or its size or checksum differs from what was committed.
inline std::optional<std::map<std::string, std::string>> open_set(const std::string& directory) {
  const auto commit = detail::read_commit(directory);
  if (!commit) return std::nullopt;
  std::map<std::string, std::string> out;
  for (const auto& file : commit->files) {
    const auto path = directory + '/' + file.name;
    const FileReader reader(path);
    check<FileError>(reader.size() == file.size, "state", path, ": expected ", file.size, " bytes, found ", reader.size());
    detail::Checksum checksum;
    std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(file.size, 1u << 20)));
    for (std::uint64_t at = 0; at < file.size; at += buffer.size()) {
      const auto part = std::span(buffer).first(static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), file.size - at)));
      reader.read(at, part);
      checksum.add(part);
    }
    check<FileError>(checksum.value() == file.checksum, "state", path, ": expected checksum ", detail::hexadecimal(file.checksum),
                     ", found ", detail::hexadecimal(checksum.value()), ": the file changed after it was saved");
    auto name = file.name;
    const auto number = join_text('.', commit->number);
    if (const auto at = name.rfind(number); at != std::string::npos) name.erase(at, number.size());
    out.emplace(std::move(name), path);
  }
  return out;
}

namespace detail {
/// The value saved under a name. Throws NameError with the nearest names.
template <class T>
const T& saved(const std::map<std::string, T>& map, const std::string& name) {
  const auto at = map.find(name);
  if (at != map.end()) return at->second;
  std::vector<std::string> names;
  for (const auto& [key, value] : map) names.push_back(key);
  fail<NameError>("State", "nothing saved as ", detail::quoted(name), "; nearest: ", nearest_names(name, names));
}
}  // namespace detail

/// What a training run needs to go on with the same bits: parameters, moments, generators; step, epoch, learning rate.
struct State {
  std::map<std::string, RawTensor> tensors;
  std::map<std::string, std::string> values;

  /// Keeps a number so that `get` returns the same bits.
  template <class T>
    requires std::integral<T> || std::floating_point<T>
  void set(const std::string& name, T value) {
    char digits[64];
    values[name] = std::string(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  }
  void set(const std::string& name, const Generator& generator) {
    const auto bytes = std::make_shared<const std::vector<std::byte>>(generator.state());
    tensors[name] = {DType::u8, Shape{static_cast<Index>(bytes->size())}, std::shared_ptr<const std::byte>(bytes, bytes->data())};
  }
  /// Throws NameError when the name is absent, FileError when its value is no number of type T.
  template <class T>
    requires std::integral<T> || std::floating_point<T>
  T get(const std::string& name) const {
    const auto& text = detail::saved(values, name);
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    check<FileError>(error == std::errc{} && end == text.data() + text.size(), "State", name, ": expected a number, found ",
                     detail::quoted(text));
    return value;
  }
  /// Throws NameError when the name is absent, Error when the tensor is no generator's state.
  void get(const std::string& name, Generator& generator) const {
    const auto& tensor = detail::saved(tensors, name);
    generator.set_state({tensor.bytes.get(), tensor.byte_count()});
  }
};

/// Saves a state as a set of one safetensors file, tensors and values (its metadata) together; makes the directory.
/// `extra` are files to commit with it. Throws FileError: then the previous state stays.
inline void save_state(const std::string& directory, const State& state, std::vector<SetFile> extra = {},
                       FileOperations& files = system_files()) {
  if (::mkdir(directory.c_str(), 0777) == 0)
    files.fsync_directory(detail::directory_of(directory).c_str());
  else if (errno != EEXIST)
    detail::fail_file("save_state", directory, "cannot make the directory");
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : state.tensors) tensors.push_back({name, tensor});
  const auto layout = detail::layout_safetensors(directory, tensors, state.values);
  extra.push_back({"state.safetensors", [&](FileSink& sink) { layout.write([&](auto bytes) { sink.write(bytes); }); }});
  save_set(directory, extra, files);
}

/// The latest whole state in a directory, copied into memory; nothing when none was committed there.
/// Throws FileError when the committed files are damaged.
inline std::optional<State> load_state(const std::string& directory) {
  const auto set = open_set(directory);
  if (!set) return std::nullopt;
  const auto path = set->find("state.safetensors");
  check<FileError>(path != set->end(), "load_state", directory, ": expected state.safetensors among the committed files");
  const auto file = SafetensorsFile::open(path->second, {.mapped = false});
  State out{{}, file.metadata()};
  for (const auto& t : file.tensors()) out.tensors.emplace(t.name, file.raw(t.name));
  return out;
}

}  // namespace tenon::inline TENON_ABI
