#pragma once
// Pictures as an autoencoder and a U-Net take them, by the rules of diffusers' VaeImageProcessor.
#include <tenon/io/resize.hpp>

namespace tenon::inline TENON_ABI {

/// A picture as values [1, height, width, 3], 0..1 times `factor` plus `offset`, resized (Lanczos) where it has another size.
/// Throws ShapeError unless it is RGB.
template <class T>
Tensor<T> picture_values(const Image& image, Index height, Index width, float factor = 2, float offset = -1) {
  check<ShapeError>(image.channels == 3, "picture", "expected an RGB picture, got ", image.channels, " channels");
  const Image fitting = resize_lanczos(image, height, width);
  auto out = Tensor<T>::uninitialized({1, height, width, 3});
  for (Index i = 0; i < out.size(); ++i) {
    const float unit = static_cast<float>(fitting.pixels[static_cast<std::size_t>(i)]) / 255.0f;
    out.data()[i] = static_cast<T>(std::fma(factor, unit, offset));
  }
  return out;
}

/// A mask as zeros and ones [1, height, width, 1], resized first: one where it is at least half white (ITU-R 601 luma).
template <class T>
Tensor<T> mask_values(const Image& mask, Index height, Index width) {
  const Image fitting = resize_lanczos(mask, height, width);
  auto out = Tensor<T>::uninitialized({1, height, width, 1});
  for (Index i = 0; i < out.size(); ++i) {
    const std::uint8_t* p = fitting.pixels.data() + i * fitting.channels;
    const int grey = fitting.channels == 1 ? p[0] : (p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16;
    out.data()[i] = grey >= 128 ? T(1) : T(0);
  }
  return out;
}

/// The picture of values -1..1 [1, height, width, 3]: cut off outside, rounded half to even.
template <class T>
Image picture_of(const Tensor<T>& values) {
  check<ShapeError>(values.rank() == 4 && values.extent(0) == 1 && values.extent(3) == 3, "picture", "expected values [1, H, W, 3], got ", values.shape());
  auto unit = Tensor<float>::uninitialized({values.extent(1), values.extent(2), 3});
  for (Index i = 0; i < unit.size(); ++i) unit.data()[i] = std::fma(static_cast<float>(values.data()[i]), 0.5f, 0.5f);
  return as_image(unit);
}

/// [N, C, H, W] -> [N, H, W, C].
template <class T>
Tensor<T> channels_last(const Tensor<T>& x) {
  const Index n = x.extent(0), channels = x.extent(1), pixels = x.extent(2) * x.extent(3);
  auto out = Tensor<T>::uninitialized({n, x.extent(2), x.extent(3), channels});
  for (Index i = 0; i < n; ++i)
    for (Index c = 0; c < channels; ++c)
      for (Index p = 0; p < pixels; ++p) out.data()[(i * pixels + p) * channels + c] = x.data()[(i * channels + c) * pixels + p];
  return out;
}
/// [N, H, W, C] -> [N, C, H, W].
template <class T>
Tensor<T> channels_first(const Tensor<T>& x) {
  const Index n = x.extent(0), channels = x.extent(3), pixels = x.extent(1) * x.extent(2);
  auto out = Tensor<T>::uninitialized({n, channels, x.extent(1), x.extent(2)});
  for (Index i = 0; i < n; ++i)
    for (Index p = 0; p < pixels; ++p)
      for (Index c = 0; c < channels; ++c) out.data()[(i * channels + c) * pixels + p] = x.data()[(i * pixels + p) * channels + c];
  return out;
}

}  // namespace tenon::inline TENON_ABI
