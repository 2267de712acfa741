#include <cstring>
#include <sys/file.h>
#include <sys/stat.h>

#include <fcntl.h>
#include <unistd.h>

#include <tenon/io/atomic.hpp>
#include <tenon/io/mapped_file.hpp>

#include "catch.hpp"
#include "io/faults.hpp"

using namespace tenon;

namespace {

void write_text(const std::string& path, const std::string& text, FileOperations& files = system_files()) {
  atomic_write(
      path,
      [&](FileSink& sink) {
        sink.write(std::string_view(text).substr(0, text.size() / 2));
        sink.write(std::string_view(text).substr(text.size() / 2));
      },
      files);
}

unsigned mode_of(const std::string& path) {
  struct ::stat status {};
  ::stat(path.c_str(), &status);
  return status.st_mode & 07777u;
}

}  // namespace

TEST_CASE("a file is written whole, and nothing else is left") {
  const Scratch folder("atomic");
  write_text(folder / "a", "hello");
  REQUIRE(contents(folder / "a") == "hello");
  write_text(folder / "a", "");
  REQUIRE(contents(folder / "a").empty());
  REQUIRE(folder.count() == 1);
  const auto here = std::filesystem::current_path();
  std::filesystem::current_path(folder.path);
  write_text("b", "in the current directory");
  std::filesystem::current_path(here);
  REQUIRE(contents(folder / "b") == "in the current directory");
}

TEST_CASE("an existing file's mode is kept, and a new one has what the umask leaves") {
  const Scratch folder("mode");
  const auto before = ::umask(027);
  write_text(folder / "new", "x");
  ::umask(before);
  REQUIRE(mode_of(folder / "new") == 0640);
  for (const unsigned mode : {0600u, 0644u, 0660u}) {
    REQUIRE(::chmod((folder / "new").c_str(), mode) == 0);
    write_text(folder / "new", "y");
    REQUIRE(mode_of(folder / "new") == mode);
  }
}

TEST_CASE("a symbolic link is replaced, and whoever has the old file mapped keeps it") {
  const Scratch folder("link");
  put(folder / "target", "old");
  std::filesystem::create_symlink("target", folder / "link");
  const MappedFile mapped(FileReader(folder / "link"));
  write_text(folder / "link", "new");
  REQUIRE(contents(folder / "target") == "old");
  REQUIRE(contents(folder / "link") == "new");
  REQUIRE(!std::filesystem::is_symlink(folder / "link"));
  write_text(folder / "target", "newer");
  REQUIRE(std::memcmp(mapped.bytes().data(), "old", 3) == 0);
}

TEST_CASE("what a killed writer left is removed; what is new, locked or not ours stays") {
  const Scratch folder("stale");
  namespace fs = std::filesystem;
  const std::string stale = ".tenon-0123456789abcdef.tmp", fresh = ".tenon-1123456789abcdef.tmp", locked = ".tenon-2123456789abcdef.tmp",
                    linked = ".tenon-3123456789abcdef.tmp", nested = ".tenon-4123456789abcdef.tmp";
  const std::vector<std::string> others{".tenon-0123456789abcde.tmp", ".tenon-0123456789abcdeg.tmp", ".tenon-0123456789ABCDEF.tmp",
                                        "x.tenon-0123456789abcdef.tmp", ".tenon-0123456789abcdef.tmp2", "old"};
  const auto age = [&](const std::string& name) { fs::last_write_time(folder / name, fs::file_time_type::clock::now() - std::chrono::minutes(61)); };
  for (const auto& name : others) put(folder / name, "x"), age(name);
  for (const auto& name : {stale, fresh, locked}) put(folder / name, "x");
  age(stale), age(locked);
  fs::create_symlink("old", folder / linked);
  fs::create_directory(folder / nested);
  age(nested);
  const int holder = ::open((folder / locked).c_str(), O_RDONLY);  // another writer at work
  REQUIRE(::flock(holder, LOCK_EX | LOCK_NB) == 0);
  write_text(folder / "new", "y");
  const auto there = [&](const std::string& name) { return fs::exists(fs::symlink_status(folder / name)); };
  CHECK(!there(stale));
  for (const auto& name : {fresh, locked, linked, nested}) CHECK(there(name));
  for (const auto& name : others) CHECK(there(name));
  ::close(holder);  // it dies
  write_text(folder / "new", "z");
  CHECK(!there(locked));
  CHECK(contents(folder / "new") == "z");
}

TEST_CASE("a writer at work keeps its temporary file, however long it takes") {
  const Scratch folder("slow");
  atomic_write(folder / "slow", [&](FileSink& sink) {
    sink.write("first");
    for (const auto& entry : std::filesystem::directory_iterator(folder.path))
      std::filesystem::last_write_time(entry, std::filesystem::file_time_type::clock::now() - std::chrono::hours(2));
    write_text(folder / "quick", "y");
  });
  CHECK(contents(folder / "slow") == "first");
  CHECK(folder.count() == 2);
}

TEST_CASE("what cannot be written is one clear error") {
  const Scratch folder("refused");
  REQUIRE_THROWS_WITH(write_text(folder / "absent/a", "x"), contains("[atomic_write]") && contains("absent/a: cannot create") && contains("No such file"));
  REQUIRE_THROWS_WITH(write_text(folder.path, "x"), contains("expected a file"));
  put(folder / "a", "old");
  REQUIRE_THROWS_AS(atomic_write(folder / "a", [](FileSink& sink) { sink.write("half"); throw std::runtime_error("stop"); }), std::runtime_error);
  REQUIRE(contents(folder / "a") == "old");
  REQUIRE(folder.count() == 1);

  FaultyFiles full(2, Fault::disk_full);
  REQUIRE_THROWS_WITH(write_text(folder / "a", "new", full), contains("cannot write") && contains("unchanged") && contains("No space left"));
}

TEST_CASE("a fault at any operation leaves the old file or the new one") {
  const Scratch folder("faults");
  const auto path = folder / "file";
  const bool existing = GENERATE(true, false);
  std::size_t cases = 0;
  for (const Fault fault : all_faults) {
    for (long at = 0;; ++at) {
      std::filesystem::remove_all(folder.path);
      std::filesystem::create_directories(folder.path);
      if (existing) put(path, "the old contents");
      FaultyFiles files(at, fault);
      bool killed = false, failed = false;
      try {
        write_text(path, "the new contents, which are longer", files);
      } catch (const Killed&) {
        killed = true;
      } catch (const FileError&) {
        failed = true;
      }
      const auto now = std::filesystem::exists(path) ? contents(path) : "absent";
      INFO("fault " << static_cast<int>(fault) << " at " << at << ": " << now);
      REQUIRE((now == "the new contents, which are longer" || now == (existing ? "the old contents" : "absent")));
      if (!killed && !failed) REQUIRE(now == "the new contents, which are longer");
      if (!killed) REQUIRE(folder.count() == (now == "absent" ? 0u : 1u));  // no temporary file
      if (fault == Fault::short_write || fault == Fault::interrupted) REQUIRE((!failed || fault == Fault::interrupted));
      QuickFiles quick;
      write_text(path, "and again", quick);  // a following save works
      REQUIRE(contents(path) == "and again");
      ++cases;
      if (at >= files.operations()) break;
    }
  }
  CHECK(cases > 40);
}

TEST_CASE("a power failure that loses up to two operations leaves the old file or the new one") {
  const Scratch folder("power");
  put(folder / "file", "the old contents");
  LoggedFiles files(folder.path);
  const std::string text(2000, 'n');
  write_text(folder / "file", text, files);
  bool old_seen = false, new_seen = false;
  const auto states = files.for_each_crash([&](const std::map<std::string, std::string>& after) {
    const auto& now = after.at(folder / "file");
    REQUIRE((now == "the old contents" || now == text));
    (now == text ? new_seen : old_seen) = true;
  });
  CHECK(states > 20);
  CHECK((old_seen && new_seen));
}

TEST_CASE("readers see directories, short files and limits") {
  const Scratch folder("reader");
  put(folder / "a", "0123456789");
  const FileReader reader(folder / "a");
  REQUIRE(reader.size() == 10);
  std::string part(4, '\0');
  reader.read(3, std::as_writable_bytes(std::span(part)));
  REQUIRE(part == "3456");
  REQUIRE_THROWS_WITH(reader.read(8, std::as_writable_bytes(std::span(part))), contains("the file ends there"));
  REQUIRE(read_file(folder / "a", 10) == "0123456789");
  REQUIRE_THROWS_WITH(read_file(folder / "a", 9), contains("expected at most 9 bytes, found 10"));
  put(folder / "empty", "");
  REQUIRE(MappedFile(FileReader(folder / "empty")).bytes().empty());
}
