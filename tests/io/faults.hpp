#pragma once
// File systems that fail: one operation of many, or a power failure that loses what was not made durable.
#include <sys/stat.h>

#include <unistd.h>

#include <tenon/io/atomic.hpp>

#include <cerrno>
#include <map>
#include <set>
#include <vector>

#include "io/scratch.hpp"

/// Thrown in place of dying.
struct Killed {};

enum class Fault { kill_before, kill_after, io_error, disk_full, short_write, interrupted };
inline constexpr Fault all_faults[] = {Fault::kill_before, Fault::kill_after,  Fault::io_error,
                                       Fault::disk_full,   Fault::short_write, Fault::interrupted};

/// The real file system without the wait for the disk.
class QuickFiles : public tenon::FileOperations {
 public:
  int fsync(int) override { return 0; }
  int fsync_directory(const char*) override { return 0; }
};

/// The real file system until operation `at`, which meets the fault; after a kill nothing happens any more.
class FaultyFiles : public QuickFiles {
 public:
  FaultyFiles(long at, Fault fault) : at_(at), fault_(fault) {}
  long operations() const { return count_; }

  int open(const char* path, int flags, unsigned mode) override {
    return run([&] { return FileOperations::open(path, flags, mode); });
  }
  ::ssize_t write(int file, const void* data, std::size_t size) override {
    if (!dead_ && fault_ == Fault::short_write && count_ == at_ && size > 1) size /= 2;
    return run([&] { return FileOperations::write(file, data, size); });
  }
  int chmod(int file, unsigned mode) override {
    return run([&] { return FileOperations::chmod(file, mode); });
  }
  int fsync(int file) override {
    return run([&] { return QuickFiles::fsync(file); });
  }
  int close(int file) override {
    if (dead_) return ::close(file);  // as the system does for the dead
    const int result = run([&] { return 0; });
    ::close(file);
    return result;
  }
  int rename(const char* from, const char* to) override {
    return run([&] { return FileOperations::rename(from, to); });
  }
  int unlink(const char* path) override {
    return run([&] { return FileOperations::unlink(path); });
  }
  int fsync_directory(const char* path) override {
    return run([&] { return QuickFiles::fsync_directory(path); });
  }

 private:
  template <class Operation>
  auto run(Operation&& operation) -> decltype(operation()) {
    if (dead_) return -1;
    if (count_++ != at_) return operation();
    switch (fault_) {
      case Fault::kill_before: return die();
      case Fault::kill_after: operation(); return die();
      case Fault::io_error: errno = EIO; return -1;
      case Fault::disk_full: errno = ENOSPC; return -1;
      case Fault::interrupted: errno = EINTR; return -1;
      case Fault::short_write: return operation();
    }
    return -1;
  }
  int die() {
    dead_ = true;
    if (std::uncaught_exceptions() == 0) throw Killed{};
    return -1;
  }
  long at_, count_ = 0;
  Fault fault_;
  bool dead_ = false;
};

/// The real file system, with a log from which every state that a power failure can leave is made.
class LoggedFiles : public QuickFiles {
 public:
  explicit LoggedFiles(const std::string& folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) start_[entry.path()] = contents(entry.path());
  }
  int open(const char* path, int flags, unsigned mode) override {
    const int file = FileOperations::open(path, flags, mode);
    log_.push_back({Kind::create, path, {}, {}, true});
    paths_[file] = path;
    return file;
  }
  ::ssize_t write(int file, const void* data, std::size_t size) override {
    size = std::min<std::size_t>(size, 256);  // several writes to a file, so that one can be lost
    const auto written = FileOperations::write(file, data, size);
    log_.push_back({Kind::write, paths_[file], {}, std::string(static_cast<const char*>(data), static_cast<std::size_t>(written)), false});
    return written;
  }
  int fsync(int file) override {
    for (auto& entry : log_)
      if (entry.kind == Kind::write && entry.path == paths_[file] && entry.durable_from == never) entry.durable_from = log_.size();
    return QuickFiles::fsync(file);
  }
  int rename(const char* from, const char* to) override {
    log_.push_back({Kind::rename, from, to, {}, false});
    return FileOperations::rename(from, to);
  }
  int unlink(const char* path) override {
    log_.push_back({Kind::unlink, path, {}, {}, false});
    return FileOperations::unlink(path);
  }
  int fsync_directory(const char* path) override {
    for (auto& entry : log_)
      if (entry.kind != Kind::write && entry.durable_from == never) entry.durable_from = log_.size();
    return QuickFiles::fsync_directory(path);
  }

  /// Calls `check(files)` for the folder's contents after each prefix of the log with up to two operations lost that
  /// were not durable by then. Returns the number of states.
  template <class Check>
  std::size_t for_each_crash(Check&& check) const {
    std::set<std::map<std::string, std::string>> seen;
    std::size_t states = 0;
    for (std::size_t end = 0; end <= log_.size(); ++end) {
      std::vector<std::size_t> loose;
      for (std::size_t i = 0; i < end; ++i)
        if (!log_[i].always && log_[i].durable_from > end) loose.push_back(i);
      const auto visit = [&](std::size_t a, std::size_t b) {
        ++states;
        auto files = replay(end, a, b);
        if (seen.insert(files).second) check(files);
      };
      visit(never, never);
      for (std::size_t a = 0; a < loose.size(); ++a) {
        visit(loose[a], never);
        for (std::size_t b = a + 1; b < loose.size(); ++b) visit(loose[a], loose[b]);
      }
    }
    return states;
  }

 private:
  static constexpr std::size_t never = ~std::size_t{0};
  enum class Kind { create, write, rename, unlink };
  struct Entry {
    Kind kind;
    std::string path, to, data;
    bool always;
    std::size_t durable_from = never;
  };
  std::map<std::string, std::string> replay(std::size_t end, std::size_t lost_a, std::size_t lost_b) const {
    std::map<std::string, std::string> files = start_;
    for (std::size_t i = 0; i < end; ++i) {
      const auto& entry = log_[i];
      const bool lost = i == lost_a || i == lost_b;
      switch (entry.kind) {
        case Kind::create: files[entry.path].clear(); break;
        case Kind::write: {
          auto& file = files[entry.path];
          file += lost ? std::string(entry.data.size(), '\0') : entry.data;
          break;
        }
        case Kind::rename:
          if (lost) break;
          files[entry.to] = files[entry.path];
          files.erase(entry.path);
          break;
        case Kind::unlink:
          if (!lost) files.erase(entry.path);
          break;
      }
    }
    return files;
  }

  std::map<std::string, std::string> start_;
  std::map<int, std::string> paths_;
  std::vector<Entry> log_;
};
