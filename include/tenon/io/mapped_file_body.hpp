#pragma once
// The definitions of mapped_file.hpp.
#include <cerrno>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tenon/io/mapped_file.hpp>

namespace tenon::inline TENON_ABI {

TENON_MEMBER_IN_BODY FileReader::FileReader(const std::string& path)
    : path_(path) {
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

TENON_MEMBER_IN_BODY FileReader::~FileReader() { ::close(file_); }

TENON_MEMBER_IN_BODY void FileReader::read(std::uint64_t offset, std::span<std::byte> out) const {
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

TENON_MEMBER_IN_BODY MappedFile::MappedFile(const FileReader& file)
    : size_(static_cast<std::size_t>(file.size())) {
  if (size_ == 0) return;
  address_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (address_ == MAP_FAILED) detail::fail_file("MappedFile", file.path(), "cannot map");
}

TENON_MEMBER_IN_BODY MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(address_, size_);
}

TENON_IN_BODY std::string read_file(const std::string& path, std::uint64_t limit) {
  const FileReader file(path);
  check<FileError>(file.size() <= limit, "read_file", path, ": expected at most ", limit, " bytes, found ", file.size());
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace tenon::inline TENON_ABI
