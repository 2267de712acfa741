#pragma once
// Where the data that ships lies.
#include <cstdlib>
#include <string>

namespace tenon::examples {

/// The folder of the data that ships: TENON_DATA in the environment, else that of the source tree.
inline std::string default_data() {
  if (const char* path = std::getenv("TENON_DATA"); path != nullptr && *path != '\0') return path;
  return TENON_EXAMPLES_DATA;
}

}  // namespace tenon::examples
