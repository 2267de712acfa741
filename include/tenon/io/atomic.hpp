#pragma once
// Writing a file so that a crash at any moment leaves the old file or the new one, never a part.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include <sys/types.h>

#include <tenon/core/error.hpp>

namespace tenon::inline TENON_ABI {

/// The operations of the file system that writing needs, each as POSIX has it: -1 and errno on failure.
/// Tests override them to make any one fail.
class FileOperations {
 public:
  virtual ~FileOperations() = default;
  TENON_MEMBER_IN_BODY virtual int open(const char* path, int flags, unsigned mode);
  TENON_MEMBER_IN_BODY virtual ::ssize_t write(int file, const void* data, std::size_t size);
  TENON_MEMBER_IN_BODY virtual int chmod(int file, unsigned mode);
  TENON_MEMBER_IN_BODY virtual int fsync(int file);
  TENON_MEMBER_IN_BODY virtual int close(int file);
  TENON_MEMBER_IN_BODY virtual int rename(const char* from, const char* to);
  TENON_MEMBER_IN_BODY virtual int unlink(const char* path);
  /// Makes the entries of a directory durable.
  TENON_MEMBER_IN_BODY virtual int fsync_directory(const char* path);
};

/// The real file system.
TENON_IN_BODY FileOperations& system_files();

namespace detail {

TENON_IN_BODY [[noreturn]] void fail_file(std::string_view op, const std::string& path, std::string_view action);

/// The directory part of a path, "." when there is none.
TENON_IN_BODY std::string directory_of(const std::string& path);

}  // namespace detail

/// Where atomic_write's writer puts the bytes of the file.
class FileSink {
 public:
  FileSink(FileOperations& files, int file, const std::string& path) : files_(files), file_(file), path_(path) {}

  /// Calls `observer` with all bytes from now on, for a checksum.
  void watch(std::function<void(std::span<const std::byte>)> observer);

  /// Appends bytes. Throws FileError when the disk is full or fails.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

 private:
  FileOperations& files_;
  int file_;
  const std::string& path_;
  std::function<void(std::span<const std::byte>)> observer_;
};

/// Writes `path` whole or not at all: `writer(FileSink&)` fills a temporary file in the same directory, which is made
/// durable, renamed to `path`, and the directory made durable. An existing file's mode is kept; a symbolic link is
/// replaced, not followed; whoever has the old file open or mapped keeps it. Temporary files of writers that were killed are
/// removed from the directory after an hour.
/// Throws FileError, or what the writer throws: then the old file is untouched and no temporary file remains.
TENON_IN_BODY void atomic_write(const std::string& path, const std::function<void(FileSink&)>& writer, FileOperations& files = system_files());

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/io/atomic_body.hpp>
#endif
