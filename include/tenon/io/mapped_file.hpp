#pragma once
// Reading files: `FileReader` copies, `MappedFile` shows the file's pages as memory.
#include <memory>

#include <tenon/core/memory.hpp>
#include <tenon/io/atomic.hpp>

namespace tenon::inline TENON_ABI {

/// A regular file open for reading. Safe to use from several threads.
class FileReader {
 public:
  /// Follows symbolic links. Throws FileError on anything but a readable regular file.
  explicit FileReader(const std::string& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  const std::string& path() const { return path_; }
  /// Bytes in the file when it was opened.
  std::uint64_t size() const { return size_; }
  int descriptor() const { return file_; }

  /// Fills `out` from the bytes at `offset`. Throws FileError when the file ends before or the disk fails.
  void read(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_;
  int file_ = -1;
  std::uint64_t size_ = 0;
};

/// The pages of a file as read-only memory. Replacing the file by rename leaves the mapping as it was; cutting it short
/// in place makes the missing pages fatal to touch (SIGBUS): copy with FileReader what others may cut.
class MappedFile {
 public:
  explicit MappedFile(const FileReader& file);
  ~MappedFile();
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
TENON_IN_BODY std::string read_file(const std::string& path, std::uint64_t limit);

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/io/mapped_file_body.hpp>
#endif
