#pragma once
// From pictures to CLIP's input: transformers' CLIPImageProcessor on Pillow pictures, to the bit.
#include <array>
#include <cmath>
#include <span>

#include <tenon/io/json.hpp>
#include <tenon/io/resize.hpp>
#include <tenon/models/clip/config.hpp>

namespace tenon::inline TENON_ABI {

/// RGB pictures to values: shortest edge resized (bicubic), middle cut out, scaled to 0..1, normalised per channel.
struct ClipImageProcessor {
  Index shortest_edge = 224;
  Index crop_height = 224, crop_width = 224;
  double rescale_factor = 1.0 / 255.0;
  std::array<float, 3> mean{0.48145466f, 0.4578275f, 0.40821073f};
  std::array<float, 3> std{0.26862954f, 0.26130258f, 0.27577711f};
  /// When not 0, pictures are resized to this size whatever their shape, in the place of the shortest edge.
  Index exact_height = 0, exact_width = 0;
  bool resize = true;  ///< false: only the middle is cut out
  /// Resized in proportion until it just covers the crop, in the place of the shortest edge: what open_clip does where the crop
  /// is no square (ResizeKeepRatio, then torchvision's CenterCrop).
  bool cover = false;
  /// A crop that would begin at half a pixel begins at the even one beside it, as torchvision's CenterCrop has it (open_clip,
  /// OpenAI's own code), in the place of the one before.
  bool even_crop = false;

  ClipImageProcessor() = default;
  explicit ClipImageProcessor(const ImageSize& size)
      : shortest_edge(std::min(size.height, size.width)), crop_height(size.height), crop_width(size.width), cover(!size.square()) {}

  ImageSize crop_size() const { return {crop_height, crop_width}; }

  /// The same for crops of `size`: what it resizes to changes in proportion; what is no square is covered.
  ClipImageProcessor at_size(const ImageSize& size) const {
    const auto scaled = [](Index edge, Index crop, Index to) { return crop > 0 ? (edge * to + crop / 2) / crop : to; };
    ClipImageProcessor out = *this;
    out.shortest_edge = scaled(shortest_edge, std::min(crop_height, crop_width), std::min(size.height, size.width));
    out.exact_height = scaled(exact_height, crop_height, size.height);
    out.exact_width = scaled(exact_width, crop_width, size.width);
    out.crop_height = size.height;
    out.crop_width = size.width;
    out.cover = !size.square();
    return out;
  }

  /// The resized and cropped picture. The long edge is cut down, not rounded, to a whole pixel.
  Image crop(const Image& image) const {
    check<ShapeError>(image.channels == 3 && image.height > 0 && image.width > 0, "ClipImageProcessor",
                      "expected an RGB picture, got ", Shape{image.height, image.width, image.channels});
    const auto real = [](Index n) { return static_cast<double>(n); };
    const auto rounded = [](double x) { return static_cast<Index>(std::nearbyint(x)); };  // as Python: halves to the even number
    const auto middle = [&](const Image& resized) {
      if (!cover && !even_crop) return center_crop(resized, crop_height, crop_width);
      return crop_at(resized, rounded(real(resized.height - crop_height) / 2), rounded(real(resized.width - crop_width) / 2), crop_height, crop_width);
    };
    if (!resize) return center_crop(image, crop_height, crop_width);
    if (exact_height > 0) return center_crop(resize_bicubic(image, exact_height, exact_width), crop_height, crop_width);
    if (cover) {
      const double ratio = std::min(real(image.height) / real(crop_height), real(image.width) / real(crop_width));
      return middle(resize_bicubic(image, rounded(real(image.height) / ratio), rounded(real(image.width) / ratio)));
    }
    const bool upright = image.width <= image.height;
    const Index short_edge = upright ? image.width : image.height, long_edge = upright ? image.height : image.width;
    const Index new_long = shortest_edge * long_edge / short_edge;
    return middle(upright ? resize_bicubic(image, new_long, shortest_edge) : resize_bicubic(image, shortest_edge, new_long));
  }

  /// The normalised values of a picture, into [crop_height, crop_width, 3].
  void write(const Image& image, float* to) const {
    std::array<std::array<float, 256>, 3> table;
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t v = 0; v < 256; ++v)
        table[c][v] = (static_cast<float>(static_cast<double>(v) * rescale_factor) - mean[c]) / std[c];
    const auto picture = crop(image);
    for (std::size_t i = 0; i < picture.pixels.size(); i += 3)
      for (std::size_t c = 0; c < 3; ++c) *to++ = table[c][picture.pixels[i + c]];
  }

  /// [N, crop_height, crop_width, 3]. Throws ShapeError on a picture that is not RGB.
  Tensor<float> operator()(std::span<const Image> images) const {
    auto out = Tensor<float>::uninitialized({static_cast<Index>(images.size()), crop_height, crop_width, 3});
    const Index size = crop_height * crop_width * 3;
    parallel_for(static_cast<Index>(images.size()), [&](Index n) { write(images[static_cast<std::size_t>(n)], out.data() + n * size); });
    return out;
  }
  Tensor<float> operator()(const Image& image) const { return (*this)(std::span(&image, 1)); }
};

/// The processor of a preprocessor_config.json or processor_config.json (transformers), or an open_clip_config.json: what is
/// absent is OpenAI's, at the model's image size. Throws FileError on a wrong value, and on what would give other numbers
/// than the file asks for: resampling other than bicubic, a longest edge, pictures that are not cropped to one size.
TENON_IN_BODY ClipImageProcessor read_image_processor(const Json& json, const ImageSize& image_size);

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/models/clip/preprocess_body.hpp>
#endif
