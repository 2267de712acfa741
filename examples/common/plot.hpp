#pragma once
// Line plots with axes, ticks and a legend.
#include <limits>

#include "canvas.hpp"

namespace tenon::examples {

struct Curve {
  std::string label;
  std::vector<double> y;
  std::vector<double> x{};  ///< 1, 2, 3, ... when empty
};

struct PlotConfig {
  std::string title{}, x{}, y{};  ///< what stands above, below, and beside the axes
  Index width = 640, height = 400;
  double y_min = std::numeric_limits<double>::quiet_NaN(), y_max = y_min;  ///< from the values when not finite
};

/// Round numbers that cover [low, high] in about `count` steps of 1, 2 or 5 times a power of ten.
struct Ticks {
  double first, last, step;
  Ticks(double low, double high, int count) {
    const double rough = (high - low) / count, power = std::pow(10.0, std::floor(std::log10(rough)));
    step = power * (rough / power <= 1.0 ? 1.0 : rough / power <= 2.0 ? 2.0 : rough / power <= 5.0 ? 5.0 : 10.0);
    first = std::floor(low / step + 1e-9) * step;
    last = std::ceil(high / step - 1e-9) * step;
  }
  int size() const { return static_cast<int>(std::lround((last - first) / step)) + 1; }
  double operator[](int i) const { return first + i * step; }
  /// With as many decimals as the step needs.
  std::string text(int i) const {
    char out[32];
    const int decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
    const double value = std::abs((*this)[i]) < step / 2 ? 0.0 : (*this)[i];
    if (std::abs(value) >= 1e7 || decimals > 6)
      std::snprintf(out, sizeof out, "%.3g", value);
    else
      std::snprintf(out, sizeof out, "%.*f", decimals, value);
    return out;
  }
};

/// The picture. Throws ShapeError when a curve's x and y differ in length or the picture has no room for the axes.
inline Image plot(const PlotConfig& config, const std::vector<Curve>& curves) {
  constexpr Colour colours[] = {{0, 114, 178}, {213, 94, 0}, {0, 158, 115}, {204, 121, 167}, {230, 159, 0}, {86, 180, 233}, {0, 0, 0}, {140, 140, 140}};  // Okabe and Ito, a grey for their yellow
  constexpr double infinity = std::numeric_limits<double>::infinity();
  double x_low = infinity, x_high = -infinity, y_low = infinity, y_high = -infinity;
  const auto x_of = [](const Curve& curve, std::size_t i) { return curve.x.empty() ? static_cast<double>(i + 1) : curve.x[i]; };
  for (const auto& curve : curves) {
    check<ShapeError>(curve.x.empty() || curve.x.size() == curve.y.size(), "plot", "curve \"", curve.label, "\" has ", curve.x.size(),
                      " values of x and ", curve.y.size(), " of y");
    for (std::size_t i = 0; i < curve.y.size(); ++i) {
      if (!std::isfinite(curve.y[i]) || !std::isfinite(x_of(curve, i))) continue;
      x_low = std::min(x_low, x_of(curve, i));
      x_high = std::max(x_high, x_of(curve, i));
      y_low = std::min(y_low, curve.y[i]);
      y_high = std::max(y_high, curve.y[i]);
    }
  }
  if (x_low > x_high) x_low = y_low = 0.0, x_high = y_high = 1.0;  // nothing to draw
  if (std::isfinite(config.y_min)) y_low = config.y_min;
  if (std::isfinite(config.y_max)) y_high = config.y_max;
  if (!(x_high > x_low)) x_low -= 0.5, x_high += 0.5;
  if (!(y_high > y_low)) y_low -= 0.5, y_high = y_low + 1.0;
  const Ticks xs(x_low, x_high, static_cast<int>(std::clamp<Index>(config.width / 80, 2, 10)));
  const Ticks ys(y_low, y_high, static_cast<int>(std::clamp<Index>(config.height / 50, 2, 10)));

  Index label_width = 0;
  for (int i = 0; i < ys.size(); ++i) label_width = std::max(label_width, text_width(ys.text(i)));
  constexpr Index pad = 12;
  const Index left = pad + label_width + 6, right = config.width - pad - letter_width;
  Index top = pad;
  const Index bottom = config.height - pad - 2 * letter_height - 8;
  check<ShapeError>(right - left > 40 && bottom - top > 80, "plot", "no room for axes in ", Shape{config.height, config.width});

  Image image(config.height, config.width, 3, 255);
  if (!config.title.empty()) {
    draw_text(image, top, left, config.title);
    top += letter_height + 6;
  }
  Index x = left;
  for (std::size_t i = 0; i < curves.size(); ++i) {  // the legend, in rows
    const Index width = 24 + text_width(curves[i].label) + 18;
    if (x > left && x + width > config.width) x = left, top += letter_height + 2;
    fill(image, top + 5, x, 3, 18, colours[i % std::size(colours)]);
    draw_text(image, top, x + 24, curves[i].label);
    x += width;
  }
  if (!curves.empty()) top += letter_height + 6;
  if (!config.y.empty()) {
    draw_text(image, top, pad, config.y, grey);
    top += letter_height + 4;
  }
  top += letter_height / 2;

  const auto to_x = [&](double v) { return static_cast<double>(left) + (v - x_low) / (x_high - x_low) * static_cast<double>(right - left); };
  const auto to_y = [&](double v) { return static_cast<double>(bottom) - (v - ys.first) / (ys.last - ys.first) * static_cast<double>(bottom - top); };
  for (int i = 0; i < ys.size(); ++i) {
    const Index y = std::lround(to_y(ys[i]));
    fill(image, y, left, 1, right - left + 1, light_grey);
    draw_text(image, y - letter_height / 2, left - 6 - text_width(ys.text(i)), ys.text(i), grey);
  }
  for (int i = 0; i < xs.size(); ++i) {
    if (xs[i] < x_low - 1e-9 * xs.step || xs[i] > x_high + 1e-9 * xs.step) continue;
    const Index at = std::lround(to_x(xs[i]));
    fill(image, bottom, at, 4, 1, grey);
    draw_text(image, bottom + 6, at - text_width(xs.text(i)) / 2, xs.text(i), grey);
  }
  fill(image, bottom, left, 1, right - left + 1, grey);
  draw_text(image, config.height - pad - letter_height + 4, (left + right - text_width(config.x)) / 2, config.x, grey);

  for (std::size_t i = 0; i < curves.size(); ++i) {
    std::vector<Point> points;
    for (std::size_t k = 0; k < curves[i].y.size(); ++k)
      points.push_back({to_x(x_of(curves[i], k)), std::clamp(to_y(curves[i].y[k]), static_cast<double>(top), static_cast<double>(bottom))});
    draw_lines(image, points, colours[i % std::size(colours)], 2.0);
    if (points.size() <= 20)
      for (const auto& point : points) draw_lines(image, {point}, colours[i % std::size(colours)], 6.0);
  }
  return image;
}

}  // namespace tenon::examples
