#pragma once
// Pictures with captions to tune a diffusion model on: a folder of them, or the emoji that ship in some style.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include <tenon/io/json.hpp>
#include <tenon/io/resize.hpp>
#include <tenon/models/clip/checkpoint.hpp>

#include "emoji.hpp"
#include "files.hpp"

namespace tenon::examples {

struct CaptionedPictures {
  Tensor<float> pictures;                          ///< [N, side, side, 3] in -1..1
  std::vector<std::vector<std::string>> captions;  ///< of each picture at least one; a step draws one of them

  Index size() const { return pictures.extent(0); }
};

/// A picture as values [side, side, 3] in -1..1: its middle square, resized (Lanczos).
inline Tensor<float> square_picture(const Image& image, Index side) {
  const Index shorter = std::min(image.height, image.width);
  const auto scaled = [&](Index x) { return std::max(side, (x * side + shorter / 2) / shorter); };
  const Image middle = center_crop(resize_lanczos(image, scaled(image.height), scaled(image.width)), side, side);
  auto out = Tensor<float>::uninitialized({side, side, 3});
  for (Index i = 0; i < out.size(); ++i) out.data()[i] = static_cast<float>(middle.pixels[static_cast<std::size_t>(i)]) / 127.5f - 1;
  return out;
}

/// file_name -> text of a folder's metadata.jsonl, as Hugging Face's imagefolder has it. Throws FileError with the line.
inline std::map<std::string, std::string> read_metadata(const std::string& path) {
  std::map<std::string, std::string> out;
  std::stringstream lines(read_file(path, 64u << 20));
  Index number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const Json json = Json::parse(line, join_text(path, ", line ", number));
    out[json.get<std::string>("file_name")] = json.get<std::string>("text");
  }
  return out;
}

/// The pictures in a folder and the folders in it. Captions are the lines of a .txt beside each picture, or come from
/// metadata.jsonl; `trigger` is put before each, and is the caption of pictures that have none. Throws FileError on a broken
/// picture, and on one without a caption when there is no trigger.
inline CaptionedPictures load_captioned_pictures(const std::string& folder, Index side, const std::string& trigger) {
  namespace fs = std::filesystem;
  const auto files = pictures_in(folder);
  check<FileError>(!files.empty(), "pictures", folder, ": no PNG, JPEG or PNM files in this folder");
  std::map<std::string, std::string> metadata;
  if (detail::exists(folder + "/metadata.jsonl")) metadata = read_metadata(folder + "/metadata.jsonl");
  CaptionedPictures out{Tensor<float>::uninitialized({static_cast<Index>(files.size()), side, side, 3}), {}};
  float* to = out.pictures.data();
  for (const auto& file : files) {
    const Tensor<float> picture = square_picture(load_image(file, {.on_white = true}), side);
    to = std::copy(picture.begin(), picture.end(), to);
    std::vector<std::string> captions;
    const std::string beside = fs::path(file).replace_extension(".txt").string();
    if (detail::exists(beside)) {
      captions = read_lines(beside);
    } else if (const auto at = metadata.find(fs::relative(file, folder).generic_string()); at != metadata.end()) {
      captions = {at->second};
    }
    check<FileError>(!captions.empty() || !trigger.empty(), "pictures", file, ": expected a caption in ", beside,
                     " or in metadata.jsonl, or --trigger WORDS for all pictures");
    if (captions.empty()) captions = {""};
    if (!trigger.empty())
      for (auto& caption : captions) caption = caption.empty() ? trigger : trigger + ", " + caption;
    out.captions.push_back(std::move(captions));
  }
  return out;
}

/// One picture [height, width, 3] as outlines on white: as dark as it differs from the pixels to the right and below, times `gain`.
inline void draw_outlines(float* picture, Index height, Index width, float gain) {
  for (Index y = 0; y < height; ++y)
    for (Index x = 0; x < width; ++x) {
      float* here = picture + (y * width + x) * 3;  // neither neighbour is written yet
      const float *right = x + 1 < width ? here + 3 : here, *below = y + 1 < height ? here + 3 * width : here;
      float squares = 0;
      for (int k = 0; k < 3; ++k) squares += (right[k] - here[k]) * (right[k] - here[k]) + (below[k] - here[k]) * (below[k] - here[k]);
      here[0] = here[1] = here[2] = std::max(0.0f, 1 - gain * std::sqrt(squares));
    }
}

/// Names of `emoji_in_style`.
inline const std::vector<std::string> style_names{"plain", "line-art", "neon"};

/// The training characters in a style, with all captions that name the character. plain: as they are; line-art: Symbola's
/// drawings of them; neon: their outlines in their own colours, bright on black.
inline CaptionedPictures emoji_in_style(const EmojiSet& set, const std::string& style, const std::string& trigger) {
  const auto ids = set.split(false, style == "line-art");
  CaptionedPictures out{pick(style == "line-art" ? set.line_art : set.colour, ids), {}};
  const Index each = out.pictures.size() / out.size();
  for (Index i = 0; i < out.size(); ++i) {
    float* picture = out.pictures.data() + i * each;
    if (style == "neon") {
      const std::vector<float> colours(picture, picture + each);
      draw_outlines(picture, EmojiSet::side, EmojiSet::side, 2);
      for (Index p = 0; p < each; p += 3) {
        const float* colour = colours.data() + p;
        const float light = 1 - picture[p], brightest = std::max({colour[0], colour[1], colour[2], 0.01f});
        for (int k = 0; k < 3; ++k) picture[p + k] = light * colour[k] / brightest;
      }
    }
    for (Index k = 0; k < each; ++k) picture[k] = 2 * picture[k] - 1;
    std::vector<std::string> captions;
    for (std::size_t t = 0; t < set.captions.size(); ++t)
      if (set.level(t) == 2) captions.push_back(trigger.empty() ? set.caption(ids[static_cast<std::size_t>(i)], t) : trigger + ", " + set.caption(ids[static_cast<std::size_t>(i)], t));
    out.captions.push_back(std::move(captions));
  }
  return out;
}

}  // namespace tenon::examples
