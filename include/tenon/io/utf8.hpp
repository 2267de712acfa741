#pragma once
// UTF-8 as file headers need it: checked, and written.
#include <cstdint>
#include <string>
#include <string_view>

#include <tenon/core/config.hpp>

namespace tenon::inline TENON_ABI::detail {

/// The first byte that breaks UTF-8 (overlong forms and surrogates included), or npos.
inline std::size_t first_invalid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t k) { return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u; };
    const unsigned lead = byte(0);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const std::size_t more = lead >= 0xc2 && lead <= 0xdf ? 1 : (lead & 0xf0u) == 0xe0 ? 2 : lead >= 0xf0 && lead <= 0xf4 ? 3 : 0;
    const unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80, high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (more == 0 || byte(1) < low || byte(1) > high) return i;
    for (std::size_t k = 2; k <= more; ++k)
      if ((byte(k) & 0xc0u) != 0x80) return i;
    i += more + 1;
  }
  return std::string_view::npos;
}

inline void append_utf8(std::string& out, std::uint32_t point) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (point < 0x80) return put(point);
  if (point < 0x800) {
    put(0xc0 | point >> 6);
  } else {
    if (point < 0x10000) {
      put(0xe0 | point >> 12);
    } else {
      put(0xf0 | point >> 18);
      put(0x80 | (point >> 12 & 0x3f));
    }
    put(0x80 | (point >> 6 & 0x3f));
  }
  put(0x80 | (point & 0x3f));
}

}  // namespace tenon::inline TENON_ABI::detail
