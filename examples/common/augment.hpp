#pragma once
// Augmentation: each picture turned, scaled, mirrored, moved and recoloured at random on its white ground, or painted in one colour.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include <tenon/core/parallel.hpp>
#include <tenon/core/random.hpp>
#include <tenon/tensor/tensor.hpp>

namespace tenon::examples {

struct Augment {
  double rotation = 15;                    ///< degrees, either way
  double smallest = 0.65, largest = 1.2;   ///< scale, drawn uniformly in its logarithm
  double aspect = 0.15;                    ///< logarithm of the widest ratio
  double mirror = 0.5;                     ///< probability
  double shift = 0.12;                     ///< of the side, either way
  double ink = 0.25;                       ///< change of contrast against white, and of each colour channel
  double hue = 15;                         ///< degrees about the grey axis, either way
  double grey = 0;                         ///< probability of losing the colours: what is left to learn from is the shape
};

/// pictures [N, H, W, 3] in 0..1, changed; the same generator state gives the same pictures for any number of threads.
inline Tensor<float> augment(const Tensor<float>& pictures, const Augment& how, Generator& generator) {
  struct Draw {
    float xx, xy, x0, yx, yy, y0, contrast, gain[3], hue[3];  // hue: weights of a channel, the next one, and the one after that
  };
  const Index n = pictures.extent(0), height = pictures.extent(1), width = pictures.extent(2);
  const auto between = [&](double low, double high) { return low + (high - low) * generator.uniform<double>(); };
  std::vector<Draw> draws(static_cast<std::size_t>(n));
  for (Draw& d : draws) {
    const double angle = between(-how.rotation, how.rotation) * std::numbers::pi / 180;
    const double scale = std::exp(between(std::log(how.smallest), std::log(how.largest))), aspect = std::exp(between(-how.aspect, how.aspect));
    const double flip = between(0, 1) < how.mirror ? -1 : 1;
    const double sx = flip / (scale * aspect), sy = aspect / scale, c = std::cos(angle), s = std::sin(angle);
    d.xx = static_cast<float>(sx * c), d.xy = static_cast<float>(-sx * s), d.x0 = static_cast<float>(2 * between(-how.shift, how.shift));
    d.yx = static_cast<float>(sy * s), d.yy = static_cast<float>(sy * c), d.y0 = static_cast<float>(2 * between(-how.shift, how.shift));
    d.contrast = static_cast<float>(between(1 - how.ink, 1 + how.ink));
    for (float& gain : d.gain) gain = static_cast<float>(between(1 - how.ink, 1 + how.ink));
    const double turn = between(-how.hue, how.hue) * std::numbers::pi / 180, rest = (1 - std::cos(turn)) / 3, skew = std::sin(turn) / std::sqrt(3.0);
    d.hue[0] = static_cast<float>(std::cos(turn) + rest), d.hue[1] = static_cast<float>(rest - skew), d.hue[2] = static_cast<float>(rest + skew);
    if (how.grey > 0 && between(0, 1) < how.grey) d.hue[0] = d.hue[1] = d.hue[2] = 1.0f / 3;
  }
  auto out = Tensor<float>::uninitialized(pictures.shape());
  parallel_for(n, [&](Index i) {
    const Draw& d = draws[static_cast<std::size_t>(i)];
    const float* from = pictures.data() + i * height * width * 3;
    float* to = out.data() + i * height * width * 3;
    const float w = static_cast<float>(width), h = static_cast<float>(height);
    for (Index y = 0; y < height; ++y)
      for (Index x = 0; x < width; ++x, to += 3) {
        const float u = (2 * static_cast<float>(x) + 1) / w - 1, v = (2 * static_cast<float>(y) + 1) / h - 1;
        const float px = ((d.xx * u + d.xy * v + d.x0 + 1) * w - 1) / 2, py = ((d.yx * u + d.yy * v + d.y0 + 1) * h - 1) / 2;
        const float fx = std::floor(px), fy = std::floor(py);
        float ink[3] = {0, 0, 0};  // distance from white, so that outside is white
        for (int corner = 0; corner < 4; ++corner) {
          const Index cx = static_cast<Index>(fx) + corner % 2, cy = static_cast<Index>(fy) + corner / 2;
          if (cx < 0 || cx >= width || cy < 0 || cy >= height) continue;
          const float weight = (corner % 2 ? px - fx : 1 - (px - fx)) * (corner / 2 ? py - fy : 1 - (py - fy));
          for (int k = 0; k < 3; ++k) ink[k] += weight * (1 - from[(cy * width + cx) * 3 + k]);
        }
        float colour[3];
        for (int k = 0; k < 3; ++k) colour[k] = std::clamp((1 - ink[k] * d.contrast) * d.gain[k], 0.0f, 1.0f);
        for (int k = 0; k < 3; ++k)
          to[k] = std::clamp(d.hue[0] * colour[k] + d.hue[1] * colour[(k + 1) % 3] + d.hue[2] * colour[(k + 2) % 3], 0.0f, 1.0f);
      }
  });
  return out;
}

struct NamedColour {
  const char* name;
  std::array<float, 3> rgb;  // 0..1
};
inline constexpr std::array<NamedColour, 9> plain_colours{{{"red", {0.86f, 0.15f, 0.13f}}, {"orange", {0.96f, 0.53f, 0.09f}}, {"yellow", {0.98f, 0.80f, 0.16f}},
                                                      {"green", {0.30f, 0.65f, 0.20f}}, {"blue", {0.12f, 0.45f, 0.88f}}, {"purple", {0.58f, 0.25f, 0.72f}},
                                                      {"brown", {0.50f, 0.31f, 0.20f}}, {"black", {0.16f, 0.17f, 0.18f}}, {"white", {0.90f, 0.91f, 0.92f}}}};

/// pictures [N, H, W, 3] in 0..1 in the shades of one colour: the median brightness of what is not ground becomes the colour, black and
/// white stay.
inline Tensor<float> painted(const Tensor<float>& pictures, const std::array<float, 3>& rgb) {
  const Index n = pictures.extent(0), pixels = pictures.size() / (3 * n);
  auto out = Tensor<float>::uninitialized(pictures.shape());
  parallel_for(n, [&](Index i) {
    const float* from = pictures.data() + i * pixels * 3;
    float* to = out.data() + i * pixels * 3;
    std::vector<float> bright(static_cast<std::size_t>(pixels)), figure;
    for (Index k = 0; k < pixels; ++k) {
      const float* p = from + 3 * k;
      bright[static_cast<std::size_t>(k)] = 0.299f * p[0] + 0.587f * p[1] + 0.114f * p[2];
      if (std::min({p[0], p[1], p[2]}) < 0.94f) figure.push_back(bright[static_cast<std::size_t>(k)]);
    }
    float middle = 0.5f;
    if (!figure.empty()) {
      std::nth_element(figure.begin(), figure.begin() + static_cast<std::ptrdiff_t>(figure.size() / 2), figure.end());
      middle = std::clamp(figure[figure.size() / 2], 0.15f, 0.85f);
    }
    for (Index k = 0; k < pixels; ++k) {
      const float b = bright[static_cast<std::size_t>(k)];
      for (std::size_t c = 0; c < 3; ++c)
        to[3 * k + static_cast<Index>(c)] = b < middle ? rgb[c] * b / middle : rgb[c] + (1 - rgb[c]) * (b - middle) / (1 - middle);
    }
  });
  return out;
}

}  // namespace tenon::examples
