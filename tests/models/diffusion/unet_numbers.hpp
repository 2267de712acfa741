#pragma once
// The parameters and inputs of golden/make_unet.py, by the same formula.
#include <cmath>

#include <tenon/nn/param.hpp>

namespace golden {

using namespace tenon;

/// Uniform in [-1, 1), by a hash of the name and the place.
template <class T = double>
Tensor<T> uniform(const std::string& name, const Shape& shape) {
  std::uint32_t seed = 0xFFFFFFFFu;  // zlib's crc32
  for (const char c : name) {
    seed ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) seed = (seed >> 1) ^ ((seed & 1u) != 0 ? 0xEDB88320u : 0u);
  }
  seed = ~seed;
  auto out = Tensor<T>::uninitialized(shape);
  for (Index i = 0; i < out.size(); ++i) {
    std::uint32_t h = static_cast<std::uint32_t>(i) * 2654435761u + seed;
    h = (h ^ (h >> 16)) * 0x7FEB352Du;
    h = (h ^ (h >> 15)) * 0x846CA68Bu;
    h ^= h >> 16;
    out.data()[i] = static_cast<T>(static_cast<double>(h) / 2147483648.0 - 1.0);
  }
  return out;
}

/// An input of `make_unet.py`, given as [N, C, H, W] there: [N, H, W, C].
template <class T>
Tensor<T> pixels(const std::string& name, const Shape& shape) {
  const Index n = shape[0], c = shape[1], h = shape[2], w = shape[3];
  const Tensor<double> u = uniform("input." + name, shape);
  auto out = Tensor<T>::uninitialized({n, h, w, c});
  for (Index i = 0; i < n; ++i)
    for (Index k = 0; k < c; ++k)
      for (Index p = 0; p < h * w; ++p)
        out.data()[(i * h * w + p) * c + k] = static_cast<T>(static_cast<float>(2.0 * u.data()[(i * c + k) * h * w + p]));
  return out;
}
template <class T>
Tensor<T> input(const std::string& name, const Shape& shape) {
  Tensor<T> out = uniform<T>("input." + name, shape);
  for (T& x : out) x = static_cast<T>(static_cast<float>(2.0 * static_cast<double>(x)));
  return out;
}

/// Fills a model's parameters; `tiny` is the factor of those that feed a norm.
template <class T>
void fill(const std::vector<ParamRef<T>>& list, double tiny = 1) {
  for (const auto& ref : list) {
    const Shape& shape = ref.weight->shape();
    Tensor<double> u = uniform(ref.path, shape);
    const auto has = [&](std::string_view part) { return ref.path.find(part) != std::string::npos; };
    bool feeds = false;
    for (const char* part : {"conv_in", "conv1", "conv2", "time_emb_proj", "proj_in", "to_out", "net.2"}) feeds = feeds || has(part);
    const double fan_in = shape.rank() > 1 ? static_cast<double>(u.size() / shape[0]) : 1;
    auto value = Tensor<T>::uninitialized(shape);
    for (Index i = 0; i < u.size(); ++i) {
      double x = has("norm") && ref.path.ends_with("weight") ? 1.0 + 0.5 * u.data()[i]
                 : shape.rank() == 1                         ? 0.3 * u.data()[i]
                                                             : u.data()[i] * std::sqrt(3.0 / fan_in);
      if (tiny != 1 && feeds) x *= tiny;
      value.data()[i] = static_cast<T>(static_cast<float>(x));
    }
    ref.weight->set(std::move(value));
  }
}

}  // namespace golden
