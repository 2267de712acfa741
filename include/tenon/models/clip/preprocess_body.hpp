#pragma once
// The definitions of preprocess.hpp.
#include <tenon/models/clip/preprocess.hpp>

namespace tenon::inline TENON_ABI {

TENON_IN_BODY ClipImageProcessor read_image_processor(const Json& json, const ImageSize& image_size) {
  ClipImageProcessor p(image_size);
  const bool open_clip = json.contains("model_cfg") || json.contains("preprocess_cfg");
  const char* const nested = open_clip ? "preprocess_cfg" : "image_processor";
  const Json part = json.contains(nested) ? json.at(nested) : json;
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
    p.even_crop = true;
    if (mode == "squash") p.exact_height = image_size.height, p.exact_width = image_size.width;
    return p;
  }

  const auto side = [&](const std::string& key) {
    const Index out = part.get<Index>(key);
    check<FileError>(out > 0 && out <= max_image_side, "image_processor", json.file(), ": ", key, ": expected 1 to ", max_image_side, ", found ", out);
    return out;
  };
  const auto is_object = [&](const std::string& key) { return part.contains(key) && part.at(key).is_object(); };
  const auto wants = [&](const std::string& step) { return !part.contains(step) || part.get(step, false); };  // null: no, as in transformers
  if (is_object("crop_size")) {
    p.crop_height = side("crop_size.height");
    p.crop_width = side("crop_size.width");
  } else if (part.contains("crop_size")) {
    p.crop_height = p.crop_width = side("crop_size");
  }
  p.resize = wants("do_resize");
  if (p.resize) {
    check<FileError>(part.is_null("size.longest_edge"), "image_processor", json.file(),
                     ": size: expected shortest_edge, or height and width, found longest_edge");
    if (part.contains("size.height")) {
      p.exact_height = side("size.height");
      p.exact_width = side("size.width");
    } else if (part.contains("size")) {
      p.cover = false;
      p.shortest_edge = side(is_object("size") ? "size.shortest_edge" : "size");
    }
    check<FileError>(part.get("resample", 3) == 3, "image_processor", json.file(), ": expected resample 3 (bicubic), found ", part.get("resample", 3));
  }
  if (!wants("do_center_crop")) {
    check<FileError>(p.exact_height > 0, "image_processor", json.file(), ": do_center_crop is false, so size must be a height and a width");
    p.crop_height = p.exact_height;
    p.crop_width = p.exact_width;
  }
  p.rescale_factor = wants("do_rescale") ? part.get("rescale_factor", p.rescale_factor) : 1.0;
  if (!wants("do_normalize")) p.mean = {0, 0, 0}, p.std = {1, 1, 1};
  return p;
}

}  // namespace tenon::inline TENON_ABI
