#pragma once
// Pictures under shift: what a classifier meets that it was not trained on.
#include <cmath>
#include <functional>
#include <numbers>
#include <string>
#include <vector>

#include <tenon/core/parallel.hpp>
#include <tenon/core/random.hpp>
#include <tenon/tensor/tensor.hpp>

namespace tenon::examples {

/// Calls `change(from, to)` for each picture of [N, H, W, 3] and returns what it wrote.
inline Tensor<float> each_picture(const Tensor<float>& pictures, const std::function<void(const float*, float*)>& change) {
  auto out = Tensor<float>::uninitialized(pictures.shape());
  const Index size = pictures.size() / pictures.extent(0);
  parallel_for(pictures.extent(0), [&](Index n) { change(pictures.data() + n * size, out.data() + n * size); });
  return out;
}

/// Luma (ITU-R 601) in all three channels.
inline Tensor<float> in_grey(const Tensor<float>& pictures) {
  Tensor<float> out = pictures;
  for (Index i = 0; i < out.size(); i += 3) {
    float* p = out.data() + i;
    p[0] = p[1] = p[2] = 0.299f * p[0] + 0.587f * p[1] + 0.114f * p[2];
  }
  return out;
}

/// Normal noise on each value, cut to 0..1.
inline Tensor<float> with_noise(const Tensor<float>& pictures, double deviation, Generator& generator) {
  Tensor<float> out(pictures.shape());
  fill_normal(out.span(), 0.0f, static_cast<float>(deviation), generator);
  for (Index i = 0; i < out.size(); ++i) out.data()[i] = std::clamp(out.data()[i] + pictures.data()[i], 0.0f, 1.0f);
  return out;
}

/// A Gaussian blur of `sigma` pixels over white ground.
inline Tensor<float> blurred(const Tensor<float>& pictures, double sigma) {
  const Index height = pictures.extent(1), width = pictures.extent(2), reach = static_cast<Index>(std::ceil(3 * sigma));
  std::vector<float> weights;
  double sum = 0;
  for (Index k = -reach; k <= reach; ++k) sum += std::exp(-0.5 * static_cast<double>(k * k) / (sigma * sigma));
  for (Index k = -reach; k <= reach; ++k) weights.push_back(static_cast<float>(std::exp(-0.5 * static_cast<double>(k * k) / (sigma * sigma)) / sum));
  return each_picture(pictures, [&](const float* from, float* to) {
    std::vector<float> rows(static_cast<std::size_t>(height * width * 3));
    for (const bool down : {false, true})
      for (Index y = 0; y < height; ++y)
        for (Index x = 0; x < width; ++x)
          for (Index c = 0; c < 3; ++c) {
            float value = 0;
            for (Index k = -reach; k <= reach; ++k) {
              const Index v = down ? y + k : y, u = down ? x : x + k;
              const bool inside = v >= 0 && v < height && u >= 0 && u < width;
              const float here = !inside ? 1.0f : down ? rows[static_cast<std::size_t>((v * width + u) * 3 + c)] : from[(v * width + u) * 3 + c];
              value += weights[static_cast<std::size_t>(k + reach)] * here;
            }
            (down ? to[(y * width + x) * 3 + c] : rows[static_cast<std::size_t>((y * width + x) * 3 + c)]) = value;
          }
  });
}

/// Turned counterclockwise about the middle by some degrees, bilinear, over white ground.
inline Tensor<float> rotated(const Tensor<float>& pictures, double degrees) {
  const Index height = pictures.extent(1), width = pictures.extent(2);
  const double angle = degrees * std::numbers::pi / 180;
  const float c = static_cast<float>(std::cos(angle)), s = static_cast<float>(std::sin(angle));
  const float middle_y = static_cast<float>(height - 1) / 2, middle_x = static_cast<float>(width - 1) / 2;
  return each_picture(pictures, [&](const float* from, float* to) {
    for (Index y = 0; y < height; ++y)
      for (Index x = 0; x < width; ++x) {
        const float v = static_cast<float>(y) - middle_y, u = static_cast<float>(x) - middle_x;
        const float py = c * v + s * u + middle_y, px = c * u - s * v + middle_x;
        const Index top = static_cast<Index>(std::floor(py)), left = static_cast<Index>(std::floor(px));
        for (Index k = 0; k < 3; ++k) {
          float ink = 0;  // distance from white
          for (const Index dy : {Index{0}, Index{1}})
            for (const Index dx : {Index{0}, Index{1}}) {
              const Index yy = top + dy, xx = left + dx;
              if (yy < 0 || yy >= height || xx < 0 || xx >= width) continue;
              const float far_y = py - static_cast<float>(top), far_x = px - static_cast<float>(left);
              ink += (dy == 0 ? 1 - far_y : far_y) * (dx == 0 ? 1 - far_x : far_x) * (1 - from[(yy * width + xx) * 3 + k]);
            }
          to[(y * width + x) * 3 + k] = 1 - ink;
        }
      }
  });
}

/// Names of `shifted`.
inline const std::vector<std::string> shift_names{"grey", "blur", "noise", "rotation"};

/// Pictures [N, H, W, 3] in 0..1 under one of them, as strong whatever their size.
inline Tensor<float> shifted(const Tensor<float>& pictures, const std::string& name, Generator& generator) {
  if (name == "grey") return in_grey(pictures);
  if (name == "blur") return blurred(pictures, static_cast<double>(pictures.extent(1)) / 32);
  if (name == "noise") return with_noise(pictures, 0.2, generator);
  check(name == "rotation", "shifted", "expected grey, blur, noise or rotation, got ", name);
  return rotated(pictures, 45);
}

}  // namespace tenon::examples
