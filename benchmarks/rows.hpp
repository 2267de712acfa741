#pragma once
// What the kernel benchmarks share: rivals timed in turn, rows on the screen and in JSON.
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <tenon/core/memory.hpp>

#include "peak.hpp"

namespace tenon_benchmark {

using tenon::Index;
using Floats = tenon::Buffer<float>;  // as tenon holds tensors: large blocks on huge pages, for every rival

inline Floats random_values(Index count, std::uint32_t seed) {
  Floats out(count);
  for (Index i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    out[i] = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
  }
  return out;
}

/// max |y - exact| / max |exact| over about `samples` elements of y [count].
template <class Exact>
double relative_error(const float* y, Index count, Exact exact, Index samples = 2000) {
  double worst = 0, largest = 0;
  const Index step = count / samples | 1;
  for (Index i = 0; i < count; i += step) {
    const double right = exact(i), error = std::abs(right - static_cast<double>(y[i]));
    worst = error <= worst ? worst : error;
    largest = std::max(largest, std::abs(right));
  }
  return worst / largest;
}

struct Rival {
  std::string name, dtype, impl;
  std::function<void()> run;
  const float* result;
  std::vector<double> seconds{};
  std::function<double()> timed{};  ///< instead of run, where the rival tells its own seconds
  std::string isa{};                ///< of tenon, where it is not the one of the run
  double scaling = 0;               ///< seconds of one thread over these, where measured
};

inline double seconds_of(Rival& rival) {
  if (rival.timed) return rival.timed();
  const double begin = seconds_now();
  rival.run();
  return seconds_now() - begin;
}
/// Runs all in turn until `budget` seconds are over, in at least five turns each. A turn lasts 20 ms and two runs or more after one
/// that does not count: the threads of the rival before still spin, waiting for work, and its data fill the caches.
inline void interleave(std::vector<Rival>& rivals, double budget) {
  const double begin = seconds_now();
  for (int round = 0; round < 5 || seconds_now() - begin < budget; ++round)
    for (Rival& rival : rivals) {
      seconds_of(rival);
      const double turn = seconds_now();
      for (int run = 0; run < 2 || seconds_now() - turn < 0.02; ++run) rival.seconds.push_back(seconds_of(rival));
    }
  for (Rival& rival : rivals) std::sort(rival.seconds.begin(), rival.seconds.end());
}

/// Rows as they are measured. A row faster than 1.03 of its peak is a mistake of the measurement, and is said at the end.
class Report {
 public:
  explicit Report(const Peaks& peaks) : peaks_(peaks) {}

  /// `peaks` are those of the rival's instruction set, where it is not that of the run.
  void row(const Rival& rival, const std::vector<Index>& shape, double operations, double error, const Peaks* peaks = nullptr) {
    write(rival, shape, "gflops", "GFLOP/s", operations, (peaks != nullptr ? *peaks : peaks_).of(rival.dtype), error);
  }
  /// A kernel that memory feeds, beside the GB/s of a copy.
  void bytes_row(const Rival& rival, const std::vector<Index>& shape, double bytes, double copied, double error) {
    write(rival, shape, "gbytes_per_second", "GB/s", bytes, copied / 1e9, error);
  }
  /// A figure of the whole run.
  void figure(const std::string& name, double value) {
    std::printf("%s %.3g\n", name.c_str(), value);
    json_ += std::string(json_.size() > 1 ? "," : "") + "\n  {\"name\": \"" + name + "\", \"value\": " + std::to_string(value) + "}";
  }
  /// Writes the rows where a file is named. The exit status: 1 when it cannot, when a row lies above its peak or is wrong.
  int finish(const std::string& path) const {
    if (!path.empty()) {
      std::ofstream file(path);
      file << json_ << "\n]\n";
      if (!file.flush()) {
        std::fprintf(stderr, "cannot write %s\n", path.c_str());
        return 1;
      }
    }
    if (impossible_ > 0) std::fprintf(stderr, "%d rows lie above 1.03 of the peak measured in this run\n", impossible_);
    if (wrong_ > 0) std::fprintf(stderr, "%d rows are wrong by more than 0.1 of the largest element\n", wrong_);
    return impossible_ + wrong_ > 0;
  }

 private:
  void write(const Rival& rival, const std::vector<Index>& shape, const char* unit, const char* unit_text, double work, double peak, double error) {
    const double best = rival.seconds.front(), median = rival.seconds[rival.seconds.size() / 2], rate = work / best / 1e9;
    const bool copies = std::string(unit) != "gflops";  // a cache may beat the copy
    if (rival.impl.starts_with("winograd")) peak = 0;   // it saves operations that are counted
    std::string sizes;
    for (Index extent : shape) sizes += (sizes.empty() ? "" : ", ") + std::to_string(extent);
    const std::string impl = rival.isa.empty() ? rival.impl : rival.impl + " " + rival.isa;
    char scaling[32] = "";
    if (rival.scaling > 0) std::snprintf(scaling, sizeof scaling, "  x%.2f", rival.scaling);
    std::printf("%-18s %-28s %-4s %-11s best %7.1f  median %7.1f %s  %5.1f %% of %s  error %.1e%s\n", rival.name.c_str(), sizes.c_str(),
                rival.dtype.c_str(), impl.c_str(), rate, work / median / 1e9, unit_text, peak > 0 ? 100 * rate / peak : 0.0,
                copies ? "a copy" : "peak", error, scaling);
    std::fflush(stdout);
    char text[512];
    std::snprintf(text, sizeof text,
                  "%s\n  {\"name\": \"%s\", \"shape\": [%s], \"dtype\": \"%s\", \"impl\": \"%s\", \"seconds\": %.9g, "
                  "\"seconds_median\": %.9g, \"%s\": %.6g, \"%s\": %.4g, \"max_rel_err\": %.3g",
                  json_.size() > 1 ? "," : "", rival.name.c_str(), sizes.c_str(), rival.dtype.c_str(), rival.impl.c_str(), best, median, unit,
                  rate, copies ? "copy_fraction" : "peak_fraction", peak > 0 ? rate / peak : 0.0, error);
    json_ += text;
    if (!rival.isa.empty()) json_ += ", \"isa\": \"" + rival.isa + "\"";
    if (rival.scaling > 0) json_ += ", \"scaling\": " + std::to_string(rival.scaling);
    json_ += "}";
    if (!copies && peak > 0 && rate > 1.03 * peak) ++impossible_;
    if (!(error < 0.1)) ++wrong_;
  }

  Peaks peaks_;
  std::string json_ = "[";
  int impossible_ = 0, wrong_ = 0;
};

}  // namespace tenon_benchmark
