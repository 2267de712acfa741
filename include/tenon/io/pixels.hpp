#pragma once
// Image: an 8-bit picture, and its conversions from and to a tensor. Needs no image library.
#include <cmath>
#include <cstdint>
#include <vector>

#include <tenon/tensor/tensor.hpp>

namespace tenon::inline TENON_ABI {

/// Limits that hold before a picture is decoded or resized: they bound the memory that a hostile picture can ask for.
inline constexpr Index max_image_side = 16384;
inline constexpr Index max_image_pixels = 64'000'000;

/// A picture of 8-bit pixels, channels last: [height, width, channels], 1 (grey), 3 (RGB) or 4 (RGBA) channels.
struct Image {
  Index height = 0, width = 0, channels = 3;
  std::vector<std::uint8_t> pixels;

  Image() = default;
  /// A picture filled with one value. Throws ShapeError on a side below 1 or other than 1, 3 or 4 channels.
  Image(Index h, Index w, Index c = 3, std::uint8_t fill = 0) : height(h), width(w), channels(c) {
    check<ShapeError>(h > 0 && w > 0 && (c == 1 || c == 3 || c == 4), "Image",
                      "expected sides of at least 1 and 1, 3 or 4 channels, got ", Shape{h, w, c});
    pixels.assign(static_cast<std::size_t>(Shape{h, w, c}.size()), fill);
  }
  /// The channels of the pixel in row y and column x.
  std::uint8_t* at(Index y, Index x) { return pixels.data() + (y * width + x) * channels; }
  const std::uint8_t* at(Index y, Index x) const { return pixels.data() + (y * width + x) * channels; }
  friend bool operator==(const Image&, const Image&) = default;
};

/// [height, width, channels] with values 0..1.
inline Tensor<float> as_tensor(const Image& image) {
  auto out = Tensor<float>::uninitialized({image.height, image.width, image.channels});
  check<ShapeError>(static_cast<Index>(image.pixels.size()) == out.size(), "as_tensor", "expected ", out.size(), " bytes for ",
                    out.shape(), ", got ", image.pixels.size());
  for (std::size_t i = 0; i < image.pixels.size(); ++i) out.data()[i] = static_cast<float>(image.pixels[i]) / 255.0f;
  return out;
}

/// The picture of values [height, width, channels]: clamped to 0..1 (NaN gives 0), times 255, rounded half to even.
inline Image as_image(const Tensor<float>& values) {
  check<ShapeError>(values.shape().rank() == 3, "as_image", "expected [height, width, channels], got ", values.shape());
  Image out(values.shape()[0], values.shape()[1], values.shape()[2]);
  for (std::size_t i = 0; i < out.pixels.size(); ++i) {
    const float v = values.data()[i];
    const float clamped = v >= 0.0f ? (v <= 1.0f ? v : 1.0f) : 0.0f;
    out.pixels[i] = static_cast<std::uint8_t>(std::nearbyint(clamped * 255.0f));
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI
