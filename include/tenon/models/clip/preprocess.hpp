#pragma once
// From pictures to CLIP's input: transformers' CLIPImageProcessor on Pillow pictures, to the bit.
#include <array>
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

  /// The resized and cropped picture. The long edge is cut down, not rounded, to a whole pixel.
  Image crop(const Image& image) const {
    check<ShapeError>(image.channels == 3 && image.height > 0 && image.width > 0, "ClipImageProcessor",
                      "expected an RGB picture, got ", Shape{image.height, image.width, image.channels});
    if (exact_height > 0) return center_crop(resize_bicubic(image, exact_height, exact_width), crop_height, crop_width);
    const bool upright = image.width <= image.height;
    const Index short_edge = upright ? image.width : image.height, long_edge = upright ? image.height : image.width;
    const Index new_long = shortest_edge * long_edge / short_edge;
    const auto resized = upright ? resize_bicubic(image, new_long, shortest_edge) : resize_bicubic(image, shortest_edge, new_long);
    return center_crop(resized, crop_height, crop_width);
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

/// The processor of a preprocessor_config.json (transformers) or an open_clip_config.json: what is absent is OpenAI's, at the
/// model's image size. Throws FileError on a wrong value, and on resampling other than bicubic or steps left out, which
/// would give other numbers than the file asks for.
inline ClipImageProcessor read_image_processor(const Json& json, Index image_size) {
  ClipImageProcessor p;
  p.shortest_edge = p.crop_height = p.crop_width = image_size;
  const bool open_clip = json.contains("model_cfg") || json.contains("preprocess_cfg");
  const Json part = open_clip && json.contains("preprocess_cfg") ? json.at("preprocess_cfg") : json;
  const auto colours = [&](const std::string& key, std::array<float, 3>& values) {
    if (!part.contains(key)) return;
    const auto found = part.get<std::vector<float>>(key);
    check<FileError>(found.size() == 3, "image_processor", json.file(), ": ", key, ": expected 3 numbers, found ", found.size());
    std::copy(found.begin(), found.end(), values.begin());
  };
  colours(open_clip ? "mean" : "image_mean", p.mean);
  colours(open_clip ? "std" : "image_std", p.std);
  for (const float deviation : p.std) check<FileError>(deviation > 0, "image_processor", json.file(), ": expected deviations above 0");
  if (open_clip) {
    const auto interpolation = part.get<std::string>("interpolation", "bicubic"), mode = part.get<std::string>("resize_mode", "shortest");
    check<FileError>(interpolation == "bicubic" && (mode == "shortest" || mode == "squash"), "image_processor", json.file(),
                     ": expected bicubic interpolation and resize_mode shortest or squash, found ", interpolation, " and ", mode);
    if (mode == "squash") p.exact_height = p.exact_width = image_size;
    return p;
  }
  const auto size = [&](const std::string& key, Index& height, Index& width) {
    if (!json.contains(key)) return;
    const bool pair = json.value().at(key).is_object();
    height = json.get<Index>(pair ? key + ".height" : key);
    width = json.get<Index>(pair ? key + ".width" : key);
    check<FileError>(height > 0 && width > 0 && height <= max_image_side && width <= max_image_side, "image_processor", json.file(), ": ", key,
                     ": expected sides of 1 to ", max_image_side, ", found ", height, " and ", width);
  };
  size("crop_size", p.crop_height, p.crop_width);
  if (json.contains("size.height")) {
    size("size", p.exact_height, p.exact_width);
  } else if (json.contains("size")) {
    p.shortest_edge = json.get<Index>(json.value().at("size").is_object() ? "size.shortest_edge" : "size");
    check<FileError>(p.shortest_edge > 0 && p.shortest_edge <= max_image_side, "image_processor", json.file(), ": size: expected 1 to ",
                     max_image_side, ", found ", p.shortest_edge);
  }
  p.rescale_factor = json.get("rescale_factor", p.rescale_factor);
  check<FileError>(json.get("resample", 3) == 3, "image_processor", json.file(), ": expected resample 3 (bicubic), found ", json.get("resample", 3));
  for (const char* step : {"do_resize", "do_center_crop", "do_rescale", "do_normalize"}) {
    if (step == std::string_view("do_center_crop") && p.exact_height == p.crop_height && p.exact_width == p.crop_width) continue;
    check<FileError>(json.get(step, true), "image_processor", json.file(), ": expected ", step, " to be true");
  }
  return p;
}

}  // namespace tenon::inline TENON_ABI
