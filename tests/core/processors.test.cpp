#include <filesystem>
#include <fstream>

#include <unistd.h>

#include <tenon/core/parallel.hpp>

#include "catch.hpp"

using namespace tenon;

namespace {

/// A root folder with files of its own; removed at the end.
struct Root {
  std::string path = (std::filesystem::temp_directory_path() / ("tenon_processors_" + std::to_string(::getpid()))).string();
  ~Root() { std::filesystem::remove_all(path); }
  void file(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(path + name).parent_path());
    std::ofstream(path + name) << text;
  }
};

}  // namespace

TEST_CASE("a control group's quota limits the processors", "[processors]") {
  const Root root;
  CHECK(detail::group_processors(root.path) == 0);  // no control groups at all

  SECTION("v2, the tightest of the group and its parents, rounded up") {
    root.file("/proc/self/cgroup", "0::/outer/inner\n");
    root.file("/sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
    CHECK(detail::group_processors(root.path) == 0);
    root.file("/sys/fs/cgroup/outer/cpu.max", "250000 100000\n");
    CHECK(detail::group_processors(root.path) == 3);
    root.file("/sys/fs/cgroup/cpu.max", "50000 100000\n");
    CHECK(detail::group_processors(root.path) == 1);
  }
  SECTION("v2 as a container sees it") {
    root.file("/proc/self/cgroup", "0::/\n");
    root.file("/sys/fs/cgroup/cpu.max", "400000 100000\n");
    CHECK(detail::group_processors(root.path) == 4);
  }
  SECTION("v1") {
    root.file("/proc/self/cgroup", "5:cpuset:/set\n3:cpu,cpuacct:/box\n");
    root.file("/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n");
    root.file("/sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
    CHECK(detail::group_processors(root.path) == 0);
    root.file("/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "200000\n");
    CHECK(detail::group_processors(root.path) == 2);
  }
  SECTION("nonsense is no limit") {
    root.file("/proc/self/cgroup", "nonsense\n0::\n");
    root.file("/sys/fs/cgroup/cpu.max", "many few\n");
    CHECK(detail::group_processors(root.path) == 0);
  }
}

TEST_CASE("there is at least one processor, and a scope overrides the count", "[processors]") {
  CHECK(available_processors() >= 1);
  const ThreadScope scope(5);
#if defined(_OPENMP)
  CHECK(thread_count() == 5);
#else
  CHECK(thread_count() == 1);
#endif
}
