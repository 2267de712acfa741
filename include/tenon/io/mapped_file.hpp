#pragma once
// Reading files: `FileReader` copies, `MappedFile` shows the file's pages as memory.
#include <memory>

#include <sys/mman.h>

#include <tenon/core/memory.hpp>
#include <tenon/io/atomic.hpp>

namespace tenon::inline TENON_ABI {

/// A regular file open for reading. Safe to use from several threads.
class FileReader {
 public:
  /// Follows symbolic links. Throws FileError on anything but a readable regular file.
  explicit FileReader(const std::string& path) : path_(path) {
    do file_ = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);  // not to wait on a FIFO
    while (file_ < 0 && errno == EINTR);
    if (file_ < 0) detail::fail_file("FileReader", path, "cannot open");
    struct ::stat status {};
    const bool known = ::fstat(file_, &status) == 0;
    if (!known || !S_ISREG(status.st_mode)) {
      ::close(file_);
      fail<FileError>("FileReader", path, ": expected a file, found ",
                      known && S_ISDIR(status.st_mode) ? "a directory" : "something else");
    }
    size_ = static_cast<std::uint64_t>(status.st_size);
  }
  ~FileReader() { ::close(file_); }
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  const std::string& path() const { return path_; }
  /// Bytes in the file when it was opened.
  std::uint64_t size() const { return size_; }
  int descriptor() const { return file_; }

  /// Fills `out` from the bytes at `offset`. Throws FileError when the file ends before or the disk fails.
  void read(std::uint64_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
      const std::size_t chunk = out.size() < (std::size_t{1} << 30) ? out.size() : std::size_t{1} << 30;
      const auto count = ::pread(file_, out.data(), chunk, static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) detail::fail_file("FileReader", path_, "cannot read");
      check<FileError>(count > 0, "FileReader", path_, ": expected ", out.size(), " more bytes at ", offset,
                       ", but the file ends there");
      offset += static_cast<std::uint64_t>(count);
      out = out.subspan(static_cast<std::size_t>(count));
    }
  }

 private:
  std::string path_;
  int file_ = -1;
  std::uint64_t size_ = 0;
};

/// The pages of a file as read-only memory. Replacing the file by rename leaves the mapping as it was; cutting it short
/// in place makes the missing pages fatal to touch (SIGBUS): copy with FileReader what others may cut.
class MappedFile {
 public:
  explicit MappedFile(const FileReader& file) : size_(static_cast<std::size_t>(file.size())) {
    if (size_ == 0) return;
    address_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
    if (address_ == MAP_FAILED) detail::fail_file("MappedFile", file.path(), "cannot map");
  }
  ~MappedFile() {
    if (size_ > 0) ::munmap(address_, size_);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(address_), size_}; }

 private:
  void* address_ = nullptr;
  std::size_t size_;
};

/// The pages of a file as memory that `drop_pages` can give back; null for an empty one. Throws FileError.
inline std::shared_ptr<const std::byte> map_file(const FileReader& file) {
  const auto mapping = std::make_shared<const MappedFile>(file);
  const std::byte* const begin = mapping->bytes().data();
  return {begin, MappedPages{mapping, begin, mapping->bytes().size()}};
}

/// Copies a whole file of at most `limit` bytes. Throws FileError.
inline std::string read_file(const std::string& path, std::uint64_t limit) {
  const FileReader file(path);
  check<FileError>(file.size() <= limit, "read_file", path, ": expected at most ", limit, " bytes, found ", file.size());
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace tenon::inline TENON_ABI
