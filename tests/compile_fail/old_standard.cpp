// expect: tenon needs C++20
// flags: -std=c++17
#include <tenon/core/config.hpp>
