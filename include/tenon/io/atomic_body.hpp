#pragma once
// The definitions of atomic.hpp.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tenon/io/atomic.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

TENON_IN_BODY void fail_file(std::string_view op, const std::string& path, std::string_view action) {
  const int error = errno;
  fail<FileError>(op, path, ": ", action, ": ", std::strerror(error));
}

TENON_IN_BODY std::string directory_of(const std::string& path) {
  const auto slash = path.find_last_of('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

/// `.tenon-<16 random digits>.tmp` beside the path.
inline std::string temporary_beside(const std::string& path) {
  std::uint64_t random = 0;
  if (::getentropy(&random, sizeof random) != 0) fail_file("atomic_write", path, "no random name for a temporary file");
  constexpr std::string_view digits = "0123456789abcdef";
  std::string name = directory_of(path) + "/.tenon-";
  for (int i = 0; i < 16; ++i, random >>= 4) name += digits[random & 15];
  return name + ".tmp";
}
inline bool is_temporary_name(std::string_view name) {
  return name.size() == 27 && name.starts_with(".tenon-") && name.ends_with(".tmp") &&
         name.substr(7, 16).find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// Removes what killed writers left in a directory: our temporary files that nobody has locked and nothing has touched for
/// an hour. A writer locks its own as long as it writes, and the kernel lets go when the writer dies.
inline void remove_stale_temporaries(const std::string& directory, FileOperations& files) {
  const std::unique_ptr<::DIR, int (*)(::DIR*)> listing(::opendir(directory.c_str()), ::closedir);
  if (!listing) return;
  const std::time_t now = std::time(nullptr);
  while (const ::dirent* entry = ::readdir(listing.get())) {
    if (!is_temporary_name(entry->d_name)) continue;
    const std::string path = directory + '/' + entry->d_name;
    const int file = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) continue;
    struct ::stat status {};
    if (::fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_mtime < now - 3600 && ::flock(file, LOCK_EX | LOCK_NB) == 0)
      files.unlink(path.c_str());
    ::close(file);
  }
}

}  // namespace detail

TENON_MEMBER_IN_BODY int FileOperations::open(const char* path, int flags, unsigned mode) { return ::open(path, flags, static_cast<mode_t>(mode)); }
TENON_MEMBER_IN_BODY ::ssize_t FileOperations::write(int file, const void* data, std::size_t size) { return ::write(file, data, size); }
TENON_MEMBER_IN_BODY int FileOperations::chmod(int file, unsigned mode) { return ::fchmod(file, static_cast<mode_t>(mode)); }
TENON_MEMBER_IN_BODY int FileOperations::fsync(int file) { return ::fsync(file); }
TENON_MEMBER_IN_BODY int FileOperations::close(int file) { return ::close(file); }
TENON_MEMBER_IN_BODY int FileOperations::rename(const char* from, const char* to) { return std::rename(from, to); }
TENON_MEMBER_IN_BODY int FileOperations::unlink(const char* path) { return ::unlink(path); }
TENON_MEMBER_IN_BODY int FileOperations::fsync_directory(const char* path) {
  const int directory = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return -1;
  const int result = ::fsync(directory);
  const int error = errno;
  ::close(directory);
  errno = error;
  return result;
}

TENON_IN_BODY FileOperations& system_files() {
  static FileOperations files;
  return files;
}

TENON_MEMBER_IN_BODY void FileSink::watch(std::function<void(std::span<const std::byte>)> observer) { observer_ = std::move(observer); }

TENON_MEMBER_IN_BODY void FileSink::write(std::span<const std::byte> bytes) {
  if (observer_) observer_(bytes);
  while (!bytes.empty()) {
    const std::size_t chunk = bytes.size() < (std::size_t{1} << 30) ? bytes.size() : std::size_t{1} << 30;
    const auto written = files_.write(file_, bytes.data(), chunk);
    if (written < 0) {
      if (errno == EINTR) continue;
      detail::fail_file("atomic_write", path_, "cannot write, and what was there before is unchanged");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

TENON_IN_BODY void atomic_write(const std::string& path, const std::function<void(FileSink&)>& writer, FileOperations& files) {
  struct ::stat existing {};
  const bool exists = ::stat(path.c_str(), &existing) == 0;
  check<FileError>(!exists || S_ISREG(existing.st_mode), "atomic_write", path, ": expected a file, found something else");

  struct Temporary {
    FileOperations& files;
    std::string name;
    int file = -1;
    ~Temporary() {
      if (file >= 0) files.close(file);
      if (!name.empty()) files.unlink(name.c_str());
    }
  } temporary{files, {}, -1};

  detail::remove_stale_temporaries(detail::directory_of(path), files);
  const auto name = detail::temporary_beside(path);
  const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  do temporary.file = files.open(name.c_str(), flags, exists ? 0600u : 0666u);
  while (temporary.file < 0 && errno == EINTR);
  if (temporary.file < 0) detail::fail_file("atomic_write", path, "cannot create a file in its directory");
  temporary.name = name;
  ::flock(temporary.file, LOCK_EX | LOCK_NB);  // a file system without locks keeps its stale files

  if (exists && files.chmod(temporary.file, existing.st_mode & 07777u) != 0)
    detail::fail_file("atomic_write", path, "cannot keep the file's mode");
  FileSink sink(files, temporary.file, path);
  writer(sink);
  int result;
  do result = files.fsync(temporary.file);
  while (result != 0 && errno == EINTR);
  if (result != 0) detail::fail_file("atomic_write", path, "cannot write, and what was there before is unchanged");
  result = files.close(std::exchange(temporary.file, -1));
  if (result != 0 && errno != EINTR)
    detail::fail_file("atomic_write", path, "cannot write, and what was there before is unchanged");
  if (files.rename(name.c_str(), path.c_str()) != 0)
    detail::fail_file("atomic_write", path, "cannot put the new file in place");
  temporary.name.clear();

  do result = files.fsync_directory(detail::directory_of(path).c_str());
  while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EINVAL && errno != ENOTSUP)
    detail::fail_file("atomic_write", path, "written, but a power failure now could still bring the old file back");
}

}  // namespace tenon::inline TENON_ABI
