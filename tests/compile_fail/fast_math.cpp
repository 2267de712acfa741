// expect: compile without -ffast-math
// flags: -ffast-math
#include <tenon/core/config.hpp>
