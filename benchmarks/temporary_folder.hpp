#pragma once
#include <filesystem>
#include <string>

#include <unistd.h>

namespace tenon_benchmark {

/// A folder that goes away with the program.
struct TemporaryFolder {
  std::string path = (std::filesystem::temp_directory_path() / ("tenon-benchmark-" + std::to_string(::getpid()))).string();
  TemporaryFolder() { std::filesystem::create_directories(path); }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
};

}  // namespace tenon_benchmark
