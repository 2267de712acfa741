#pragma once
// The orientation that cameras write into pictures (EXIF 2.32, section 4.6.4; XMP's tiff:Orientation), and turning a picture by it.
#include <algorithm>
#include <span>
#include <string_view>

#include <tenon/io/pixels.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// The orientation 1..8 in an EXIF block, with or without "Exif\0\0" before it: `absent` when the block is broken or says nothing,
/// 1 when it says something else.
inline int exif_orientation(std::span<const std::uint8_t> block, int absent = 1) {
  constexpr std::string_view mark("Exif\0\0", 6);
  if (block.size() >= mark.size() && std::equal(mark.begin(), mark.end(), block.begin(), [](char a, std::uint8_t b) { return a == static_cast<char>(b); }))
    block = block.subspan(mark.size());
  if (block.size() < 8) return absent;
  const bool big = block[0] == 'M' && block[1] == 'M';
  if (!big && !(block[0] == 'I' && block[1] == 'I')) return absent;
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) value |= std::uint32_t{block[at + i]} << 8 * (big ? bytes - 1 - i : i);
    return value;
  };
  if (number(2, 2) != 42) return absent;
  const std::size_t directory = number(4, 4);
  if (directory < 8 || directory > block.size() - 2) return absent;
  const std::size_t entries = number(directory, 2);
  for (std::size_t i = 0, at = directory + 2; i < entries && at + 12 <= block.size(); ++i, at += 12) {
    if (number(at, 2) != 0x0112) continue;
    const std::uint32_t type = number(at + 2, 2);  // 3: 16 bits, 4: 32 bits
    if ((type != 3 && type != 4) || number(at + 4, 4) != 1) return 1;
    const std::uint32_t value = number(at + 8, type == 3 ? 2 : 4);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return absent;
}

/// The orientation 1..8 in an XMP packet, as an attribute or an element; 1 when it says nothing or something else.
inline int xmp_orientation(std::string_view packet) {
  constexpr std::string_view mark = "tiff:Orientation";
  for (auto at = packet.find(mark); at != packet.npos; at = packet.find(mark, at + 1)) {
    std::string_view rest = packet.substr(at + mark.size());
    rest.remove_prefix(rest.starts_with("=\"") ? 2 : rest.starts_with('>') ? 1 : rest.size());
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] >= '1' && rest[0] <= '8' ? rest[0] - '0' : 1;
  }
  return 1;
}

/// The bytes of ImageMagick's "Raw profile type exif": a line of nothing, one of the name, one of the length, then hexadecimal
/// digits; nothing when it is broken.
inline std::vector<std::uint8_t> raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const auto newline = text.find('\n');
    text.remove_prefix(newline == text.npos ? text.size() : newline + 1);
  }
  std::vector<std::uint8_t> out;
  int high = -1;
  for (const char c : text) {
    if (c == '\n') continue;
    const int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
    if (digit < 0) return {};
    if (high >= 0) out.push_back(static_cast<std::uint8_t>(high * 16 + digit));
    high = high >= 0 ? -1 : digit;
  }
  return out;
}

}  // namespace detail

/// The picture turned and mirrored as an EXIF orientation 1..8 asks (Pillow's ImageOps.exif_transpose); others change nothing.
inline Image oriented(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const bool swapped = orientation >= 5;  // rows become columns
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  Image out(swapped ? image.width : image.height, swapped ? image.height : image.width, image.channels);
  for (Index y = 0; y < out.height; ++y)
    for (Index x = 0; x < out.width; ++x) {
      const Index row = swapped ? x : y, column = swapped ? y : x;
      std::copy_n(image.at(from_bottom ? image.height - 1 - row : row, from_right ? image.width - 1 - column : column), image.channels, out.at(y, x));
    }
  return out;
}

}  // namespace tenon::inline TENON_ABI
