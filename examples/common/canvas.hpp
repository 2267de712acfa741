#pragma once
// Drawing on RGB pictures: rectangles, smooth lines, text in a bitmap font, pictures in pictures. Whatever lies outside is cut off.
#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include <tenon/io/image.hpp>

#include "data.hpp"

namespace tenon::examples {

using Colour = std::array<std::uint8_t, 3>;
inline constexpr Colour white{255, 255, 255}, black{0, 0, 0}, grey{110, 110, 110}, light_grey{226, 226, 226}, green{0, 122, 80}, red{196, 50, 30};

struct Point {
  double x, y;
};

/// Mixes a colour into a pixel; `cover` 0 leaves it, 1 replaces it.
inline void blend(Image& image, Index y, Index x, const Colour& colour, double cover) {
  if (y < 0 || x < 0 || y >= image.height || x >= image.width) return;
  for (std::size_t c = 0; c < 3; ++c) {
    auto& value = image.at(y, x)[c];
    value = static_cast<std::uint8_t>(std::lround(value + (colour[c] - value) * cover));
  }
}

inline void fill(Image& image, Index y, Index x, Index height, Index width, const Colour& colour) {
  for (Index row = y; row < y + height; ++row)
    for (Index column = x; column < x + width; ++column) blend(image, row, column, colour, 1.0);
}

/// A line through the points, `width` pixels wide, with soft edges. A point that is not finite breaks it.
inline void draw_lines(Image& image, const std::vector<Point>& points, const Colour& colour, double width = 1.5) {
  std::vector<double> cover(static_cast<std::size_t>(image.height * image.width), 0.0);  // so that joints are not mixed in twice
  const auto finite = [](const Point& p) { return std::isfinite(p.x) && std::isfinite(p.y); };
  const double reach = width / 2 + 0.5;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const Point a = points[i], b = i + 1 < points.size() && finite(points[i + 1]) ? points[i + 1] : a;
    if (!finite(a)) continue;
    const auto clip = [](double v, Index limit) { return static_cast<Index>(std::clamp(v, 0.0, static_cast<double>(limit))); };
    const Index top = clip(std::min(a.y, b.y) - reach, image.height), bottom = clip(std::max(a.y, b.y) + reach + 1, image.height);
    const Index left = clip(std::min(a.x, b.x) - reach, image.width), right = clip(std::max(a.x, b.x) + reach + 1, image.width);
    const double dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
    for (Index y = top; y < bottom; ++y)
      for (Index x = left; x < right; ++x) {
        const double px = static_cast<double>(x) - a.x, py = static_cast<double>(y) - a.y;
        const double along = length > 0 ? std::clamp((px * dx + py * dy) / length, 0.0, 1.0) : 0.0;
        const double distance = std::hypot(px - along * dx, py - along * dy);
        auto& here = cover[static_cast<std::size_t>(y * image.width + x)];
        here = std::max(here, std::clamp(reach - distance, 0.0, 1.0));
      }
  }
  for (Index y = 0; y < image.height; ++y)
    for (Index x = 0; x < image.width; ++x)
      if (const double c = cover[static_cast<std::size_t>(y * image.width + x)]; c > 0) blend(image, y, x, colour, c);
}

/// Each letter is 6 pixels wide and 12 high.
inline constexpr Index letter_width = 6, letter_height = 12;

/// The letters of a text that the font has; one `?` for each other code point.
inline std::string to_letters(std::string_view text) {
  std::string out;
  for (const char c : text)
    if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) out += c >= ' ' && c <= '~' ? c : '?';
  return out;
}
inline Index text_width(std::string_view text) { return static_cast<Index>(to_letters(text).size()) * letter_width; }

/// Text with its upper left corner at (y, x).
inline void draw_text(Image& image, Index y, Index x, std::string_view text, const Colour& colour = black) {
  static const Image font = load_image(default_data() + "/font.png");
  check<FileError>(font.height == letter_height && font.width == 95 * letter_width, "draw_text", "expected a font of 95 letters, got ",
                   Shape{font.height, font.width});
  for (const char c : to_letters(text)) {
    for (Index row = 0; row < letter_height; ++row)
      for (Index column = 0; column < letter_width; ++column)
        blend(image, y + row, x + column, colour, font.at(row, (c - ' ') * letter_width + column)[0] / 255.0);
    x += letter_width;
  }
}

/// A picture, each pixel `zoom` pixels wide and high, with its upper left corner at (y, x).
inline void draw_image(Image& image, Index y, Index x, const Image& picture, Index zoom = 1) {
  for (Index row = 0; row < picture.height; ++row)
    for (Index column = 0; column < picture.width; ++column) {
      const std::uint8_t* p = picture.at(row, column);
      const Colour colour = picture.channels == 1 ? Colour{p[0], p[0], p[0]} : Colour{p[0], p[1], p[2]};
      fill(image, y + row * zoom, x + column * zoom, zoom, zoom, colour);
    }
}

}  // namespace tenon::examples
