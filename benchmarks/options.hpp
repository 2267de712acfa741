#pragma once
// The options that all benchmarks take.
#include <cstdlib>
#include <iostream>
#include <string>

namespace tenon_benchmark {

struct Options {
  std::string json, python;
  int threads = 0;
};

/// Reads the command line; ends the program with a line on a wrong one.
inline Options parse(int count, char** arguments) {
  Options out;
  for (int i = 1; i < count; i += 2) {
    const std::string name = arguments[i];
    if (i + 1 == count || (name != "--json" && name != "--threads" && name != "--python")) {
      std::cerr << "usage: " << arguments[0] << " [--json FILE] [--threads N] [--python PYTHON_WITH_TORCH]\n";
      std::exit(1);
    }
    if (name == "--json") out.json = arguments[i + 1];
    if (name == "--python") out.python = arguments[i + 1];
    if (name == "--threads") out.threads = std::atoi(arguments[i + 1]);
  }
  return out;
}

}  // namespace tenon_benchmark
