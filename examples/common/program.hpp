#pragma once
// What all programs share: the first line, and one clear line for a user's error.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>

#include <unistd.h>

#include <CLI/CLI.hpp>

#include <tenon/core/cpu.hpp>
#include <tenon/core/parallel.hpp>

#include "data.hpp"

namespace tenon::examples {

inline std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

/// Memory that can be had without swapping, in bytes; 0 when the system does not tell.
inline std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string key; file >> key;) {
    std::uint64_t kilobytes = 0;
    if (key == "MemAvailable:" && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

/// `finetune: avx512, 2 threads, float32, 21.5 GB of memory free`, on stderr.
inline void print_first_line(const std::string& program, const std::string& dtype) {
  const std::uint64_t memory = available_memory();
  std::cerr << program << ": " << name_of(current_isa()) << ", " << thread_count() << (thread_count() == 1 ? " thread, " : " threads, ") << dtype;
  if (memory > 0) std::cerr << ", " << fixed(static_cast<double>(memory) / 1e9, 1) << " GB of memory free";
  std::cerr << '\n';
}

/// Parses the command line and runs `body`. Exit code 1 and one line on a user's error.
template <class F>
int run_program(CLI::App& app, int argc, char** argv, F&& body) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 1;
  }
  try {
    body();
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << '\n';
    return 1;
  }
  return 0;
}

/// The mean of each value and up to `window` - 1 before it.
inline std::vector<double> smooth(const std::vector<double>& values, std::size_t window) {
  std::vector<double> out;
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    sum += values[i] - (i >= window ? values[i - window] : 0.0);
    out.push_back(sum / static_cast<double>(std::min(i + 1, window)));
  }
  return out;
}

}  // namespace tenon::examples
