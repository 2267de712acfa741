#pragma once
// How many threads pay: one for each physical core of the affinity mask, no more than the control group grants.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <tenon/core/config.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// The first line of a file, or nothing when it cannot be read.
inline std::string first_line(const std::string& path) {
  std::string line;
  if (std::FILE* file = std::fopen(path.c_str(), "re")) {
    for (int c = std::fgetc(file); c != EOF && c != '\n'; c = std::fgetc(file)) line += static_cast<char>(c);
    std::fclose(file);
  }
  return line;
}

/// The processors that a quota of microseconds a period amounts to, rounded up; 0: no limit.
inline int quota_processors(const std::string& quota, const std::string& period) {
  const long long share = std::atoll(quota.c_str()), whole = std::atoll(period.c_str());
  return share > 0 && whole > 0 ? static_cast<int>((share + whole - 1) / whole) : 0;
}

/// The tightest limit of this process's control group and its parents (cgroup v2's cpu.max, v1's cpu.cfs_quota_us); 0: none.
/// `root` stands before /proc and /sys.
inline int group_processors(const std::string& root) {
  int limit = 0;
  const auto take = [&](int found) {
    if (found > 0 && (limit == 0 || found < limit)) limit = found;
  };
  std::FILE* file = std::fopen((root + "/proc/self/cgroup").c_str(), "re");
  if (file == nullptr) return 0;
  char text[4096];
  while (std::fgets(text, sizeof text, file) != nullptr) {  // hierarchy:controllers:path
    std::string line = text;
    while (!line.empty() && (line.back() == '\n' || line.back() == '/')) line.pop_back();
    const auto first = line.find(':'), second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = ',' + line.substr(first + 1, second - first - 1) + ',';
    const bool unified = controllers == ",,";
    if (!unified && controllers.find(",cpu,") == std::string::npos) continue;
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {  // up to the root
      const std::string folder = root + "/sys/fs/cgroup" + (unified ? "" : "/cpu") + path;
      if (unified) {
        const std::string maximum = first_line(folder + "/cpu.max");  // `200000 100000` or `max 100000`
        const auto blank = maximum.find(' ');
        if (blank != std::string::npos) take(quota_processors(maximum.substr(0, blank), maximum.substr(blank + 1)));
      } else {
        take(quota_processors(first_line(folder + "/cpu.cfs_quota_us"), first_line(folder + "/cpu.cfs_period_us")));
      }
      if (path.rfind('/') == std::string::npos) break;
    }
  }
  std::fclose(file);
  return limit;
}

}  // namespace detail

/// Physical cores within the process's affinity mask, at most what its control group grants; at least 1.
inline int available_processors() {
  int count = 0;
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &set)) continue;
      // A second thread of a core is counted only when the first is not ours.
      const std::string siblings = detail::first_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
      const int first = siblings.empty() ? cpu : std::atoi(siblings.c_str());
      count += first == cpu || first < 0 || first >= CPU_SETSIZE || !CPU_ISSET(first, &set);
    }
    const int granted = detail::group_processors("");
    if (granted > 0 && granted < count) count = granted;
  }
#endif
  if (count == 0) count = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  return count > 0 ? count : 1;
}

}  // namespace tenon::inline TENON_ABI
