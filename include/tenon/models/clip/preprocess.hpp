#pragma once
// From pictures to CLIP's input: transformers' CLIPImageProcessor on Pillow pictures, to the bit.
#include <array>
#include <span>

#include <tenon/io/resize.hpp>

namespace tenon::inline TENON_ABI {

/// RGB pictures to values: shortest edge resized (bicubic), middle cut out, scaled to 0..1, normalised per channel.
struct ClipImageProcessor {
  Index shortest_edge = 224;
  Index crop_height = 224, crop_width = 224;
  double rescale_factor = 1.0 / 255.0;
  std::array<float, 3> mean{0.48145466f, 0.4578275f, 0.40821073f};
  std::array<float, 3> std{0.26862954f, 0.26130258f, 0.27577711f};

  /// The resized and cropped picture. The long edge is cut down, not rounded, to a whole pixel.
  Image crop(const Image& image) const {
    check<ShapeError>(image.channels == 3 && image.height > 0 && image.width > 0, "ClipImageProcessor",
                      "expected an RGB picture, got ", Shape{image.height, image.width, image.channels});
    const bool upright = image.width <= image.height;
    const Index short_edge = upright ? image.width : image.height, long_edge = upright ? image.height : image.width;
    const Index new_long = shortest_edge * long_edge / short_edge;
    const auto resized = upright ? resize_bicubic(image, new_long, shortest_edge) : resize_bicubic(image, shortest_edge, new_long);
    return center_crop(resized, crop_height, crop_width);
  }

  /// [N, crop_height, crop_width, 3]. Throws ShapeError on a picture that is not RGB.
  Tensor<float> operator()(std::span<const Image> images) const {
    std::array<std::array<float, 256>, 3> table;
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t v = 0; v < 256; ++v)
        table[c][v] = (static_cast<float>(static_cast<double>(v) * rescale_factor) - mean[c]) / std[c];
    auto out = Tensor<float>::uninitialized({static_cast<Index>(images.size()), crop_height, crop_width, 3});
    const Index size = crop_height * crop_width * 3;
    parallel_for(static_cast<Index>(images.size()), [&](Index n) {
      const auto picture = crop(images[static_cast<std::size_t>(n)]);
      float* to = out.data() + n * size;
      for (Index i = 0; i < size; ++i) to[i] = table[static_cast<std::size_t>(i % 3)][picture.pixels[static_cast<std::size_t>(i)]];
    });
    return out;
  }
  Tensor<float> operator()(const Image& image) const { return (*this)(std::span(&image, 1)); }
};

}  // namespace tenon::inline TENON_ABI
