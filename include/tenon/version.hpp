#pragma once
// The version of tenon as constants.
#include <string_view>

#include <tenon/core/config.hpp>

namespace tenon::inline TENON_ABI {

inline constexpr int version_major = TENON_VERSION_MAJOR;
inline constexpr int version_minor = TENON_VERSION_MINOR;
inline constexpr int version_patch = TENON_VERSION_PATCH;

#define TENON_TEXT_(x) #x
#define TENON_TEXT(x) TENON_TEXT_(x)
/// `major.minor.patch`
inline constexpr std::string_view version =
    TENON_TEXT(TENON_VERSION_MAJOR) "." TENON_TEXT(TENON_VERSION_MINOR) "." TENON_TEXT(TENON_VERSION_PATCH);
#undef TENON_TEXT
#undef TENON_TEXT_

}  // namespace tenon::inline TENON_ABI
