#pragma once
// Peak memory of this process (Linux).
#include <fstream>
#include <string>

namespace tenon_benchmark {

/// The most memory that was resident since the start or `reset_peak`, in GB (1e9 bytes); 0 where the system does not tell.
inline double peak_gb() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) * 1024 / 1e9;
  return 0;
}

/// Lets the peak begin at what is resident now.
inline void reset_peak() { std::ofstream("/proc/self/clear_refs") << 5; }

}  // namespace tenon_benchmark
