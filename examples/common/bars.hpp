#pragma once
// Bar charts: groups of bars with a name below each group, and the spread of several runs as a line on a bar.
#include "plot.hpp"

namespace tenon::examples {

struct BarSeries {
  std::string label;
  std::vector<double> height;       ///< one for each group
  std::vector<double> spread{};     ///< half the length of the line at a bar's end; empty for none
};

/// The picture. Throws ShapeError when a series has another number of bars than there are groups.
inline Image bars(const PlotConfig& config, const std::vector<std::string>& groups, const std::vector<BarSeries>& series) {
  constexpr Colour colours[] = {{0, 114, 178}, {213, 94, 0}, {0, 158, 115}, {204, 121, 167}, {230, 159, 0}, {86, 180, 233}};  // Okabe and Ito
  double high = 0;
  for (const auto& s : series) {
    check<ShapeError>(s.height.size() == groups.size() && (s.spread.empty() || s.spread.size() == groups.size()), "bars", "series \"", s.label, "\" has ",
                      s.height.size(), " bars for ", groups.size(), " groups");
    for (std::size_t i = 0; i < groups.size(); ++i) high = std::max(high, s.height[i] + (s.spread.empty() ? 0 : s.spread[i]));
  }
  const Ticks ticks(0, std::isfinite(config.y_max) ? config.y_max : high > 0 ? high : 1, static_cast<int>(std::clamp<Index>(config.height / 50, 2, 10)));
  Image image(config.height, config.width, 3, 255);
  constexpr Index pad = 12;
  Index label_width = 0;
  for (int i = 0; i < ticks.size(); ++i) label_width = std::max(label_width, text_width(ticks.text(i)));
  const Index left = pad + label_width + 6, right = config.width - pad, bottom = config.height - pad - letter_height - 6;
  Index top = pad;
  draw_text(image, top, left, config.title);
  top += letter_height + 6;
  Index x = left;
  for (std::size_t i = 0; i < series.size(); ++i) {
    fill(image, top + 2, x, 9, 9, colours[i % std::size(colours)]);
    draw_text(image, top, x + 14, series[i].label);
    x += 14 + text_width(series[i].label) + 18;
  }
  top += letter_height + 6;
  draw_text(image, top, pad, config.y, grey);
  top += letter_height + 4 + letter_height / 2;
  check<ShapeError>(bottom - top > 60 && right - left > 60, "bars", "no room in ", Shape{config.height, config.width});

  const auto to_y = [&](double v) { return std::lround(static_cast<double>(bottom) - v / ticks.last * static_cast<double>(bottom - top)); };
  for (int i = 0; i < ticks.size(); ++i) {
    const Index y = to_y(ticks[i]);
    fill(image, y, left, 1, right - left, light_grey);
    draw_text(image, y - letter_height / 2, left - 6 - text_width(ticks.text(i)), ticks.text(i), grey);
  }
  const Index each = (right - left) / std::max<Index>(1, static_cast<Index>(groups.size())), count = static_cast<Index>(series.size());
  const Index width = std::max<Index>(1, (each - 14) / std::max<Index>(1, count));
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const Index from = left + static_cast<Index>(g) * each + (each - width * count) / 2;
    for (std::size_t s = 0; s < series.size(); ++s) {
      const Index at = from + static_cast<Index>(s) * width, y = to_y(series[s].height[g]);
      fill(image, y, at, bottom - y, width - 2, colours[s % std::size(colours)]);
      if (series[s].spread.empty() || series[s].spread[g] <= 0) continue;
      const Index up = to_y(series[s].height[g] + series[s].spread[g]), down = to_y(std::max(0.0, series[s].height[g] - series[s].spread[g]));
      fill(image, up, at + (width - 2) / 2, down - up, 1, black);
    }
    draw_text(image, bottom + 6, left + static_cast<Index>(g) * each + (each - text_width(groups[g])) / 2, groups[g], grey);
  }
  fill(image, bottom, left, 1, right - left, grey);
  return image;
}

}  // namespace tenon::examples
