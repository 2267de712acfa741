#pragma once
// Pictures with captions to tune a model on: a folder of them, or the emoji that ship in some style.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>

#include <tenon/io/json.hpp>
#include <tenon/io/resize.hpp>
#include <tenon/models/clip/checkpoint.hpp>

#include "emoji.hpp"
#include "files.hpp"

namespace tenon::examples {

struct PictureSize {
  Index height = 0, width = 0;

  auto operator<=>(const PictureSize&) const = default;
};

/// A picture resized and cut to some size.
struct FittedPicture {
  Tensor<float> values;     ///< [height, width, 3] in -1..1
  PictureSize original;     ///< before it was resized
  Index top = 0, left = 0;  ///< of what was cut out of the resized picture

  PictureSize size() const { return {values.extent(0), values.extent(1)}; }
};

struct CaptionedPictures {
  std::vector<FittedPicture> pictures;
  std::vector<std::vector<std::string>> captions;  ///< of each picture at least one; a step draws one of them
  std::string origin;                              ///< names, sizes and times of the files: the same text, the same pictures

  Index size() const { return static_cast<Index>(pictures.size()); }
};

/// How pictures are fitted: to squares, or, where `multiple` is not 0, each to its bucket (see bucket_of).
struct PictureFit {
  Index resolution = 0, multiple = 0;
};

/// The bucket of a picture: both sides multiples of `fit.multiple`, of about half of `fit.resolution` to twice it, one as long as
/// the other and an area of resolution^2 let it be. Of those the one whose aspect ratio is nearest (in logarithms).
inline PictureSize bucket_of(const PictureSize& picture, const PictureFit& fit) {
  const Index m = fit.multiple, shortest = std::max(m, fit.resolution / 2 / m * m), longest = 2 * fit.resolution / m * m;
  PictureSize best;
  double least = std::numeric_limits<double>::infinity();
  for (Index side = shortest; side <= longest; side += m) {
    const Index other = std::min(longest, fit.resolution * fit.resolution / side / m * m);
    if (other < shortest) break;
    for (const PictureSize& bucket : {PictureSize{side, other}, PictureSize{other, side}}) {
      const double distance = std::abs(std::log(static_cast<double>(bucket.height * picture.width) / static_cast<double>(bucket.width * picture.height)));
      if (distance < least) least = distance, best = bucket;
    }
  }
  return best;
}

/// A picture resized (Lanczos) until it covers the size, and its middle cut out.
inline FittedPicture fitted_picture(const Image& image, const PictureSize& size) {
  const bool by_height = size.height * image.width >= size.width * image.height;
  const Index from = by_height ? image.height : image.width, to = by_height ? size.height : size.width;
  const auto scaled = [&](Index x) { return (x * to + from / 2) / from; };
  const Image resized = resize_lanczos(image, std::max(size.height, scaled(image.height)), std::max(size.width, scaled(image.width)));
  const Image middle = center_crop(resized, size.height, size.width);
  FittedPicture out{Tensor<float>::uninitialized({size.height, size.width, 3}), {image.height, image.width}, (resized.height - size.height) / 2,
                    (resized.width - size.width) / 2};
  for (Index i = 0; i < out.values.size(); ++i) out.values.data()[i] = static_cast<float>(middle.pixels[static_cast<std::size_t>(i)]) / 127.5f - 1;
  return out;
}

/// The parts of a caption between commas in random order; a trigger before them stays there.
inline std::string shuffled_caption(const std::string& caption, const std::string& trigger, Generator& generator) {
  const std::string head = !trigger.empty() && caption.starts_with(trigger + ", ") ? trigger + ", " : "";
  std::vector<std::string> parts;
  std::stringstream text(caption.substr(head.size()));
  for (std::string part; std::getline(text, part, ',');) {
    const auto begin = part.find_first_not_of(' ');
    if (begin != std::string::npos) parts.push_back(part.substr(begin, part.find_last_not_of(' ') + 1 - begin));
  }
  std::string out;
  for (const Index i : permutation(static_cast<Index>(parts.size()), generator)) out += (out.empty() ? "" : ", ") + parts[static_cast<std::size_t>(i)];
  return head + out;
}

/// file_name -> text of a folder's metadata.jsonl, as Hugging Face's imagefolder has it; empty without one. Throws FileError with the line.
inline std::map<std::string, std::string> read_metadata(const std::string& folder) {
  const std::string path = folder + "/metadata.jsonl";
  std::map<std::string, std::string> out;
  if (!detail::exists(path)) return out;
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

/// The captions of a picture in a folder: the lines of the .txt beside it, or what metadata.jsonl says (see read_metadata), `trigger` put
/// before each; the trigger alone where there is none. Throws FileError without both.
inline std::vector<std::string> captions_of(const std::string& file, const std::string& folder, const std::map<std::string, std::string>& metadata, const std::string& trigger) {
  namespace fs = std::filesystem;
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
  return captions;
}

/// The pictures in a folder and the folders in it. Captions are the lines of a .txt beside each picture, or come from
/// metadata.jsonl; `trigger` is put before each, and is the caption of pictures that have none. Throws FileError on a broken
/// picture, and on one without a caption when there is no trigger.
inline CaptionedPictures load_captioned_pictures(const std::string& folder, const PictureFit& fit, const std::string& trigger) {
  namespace fs = std::filesystem;
  const auto files = pictures_in(folder);
  check<FileError>(!files.empty(), "pictures", folder, ": no PNG, JPEG or PNM files in this folder");
  const auto metadata = read_metadata(folder);
  CaptionedPictures out;
  for (const auto& file : files) {
    const Image image = load_image(file, {.on_white = true});
    out.pictures.push_back(fitted_picture(image, fit.multiple > 0 ? bucket_of({image.height, image.width}, fit) : PictureSize{fit.resolution, fit.resolution}));
    out.origin += join_text(file, ' ', fs::file_size(file), ' ', fs::last_write_time(file).time_since_epoch().count(), '\n');
    out.captions.push_back(captions_of(file, folder, metadata, trigger));
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
  constexpr Index side = EmojiSet::side;
  CaptionedPictures out;
  out.origin = "emoji " + style;
  for (const Index id : ids) {
    auto values = pick(style == "line-art" ? set.line_art : set.colour, std::span(&id, 1)).reshape({side, side, 3});
    float* picture = values.data();
    const Index each = values.size();
    if (style == "neon") {
      const std::vector<float> colours(picture, picture + each);
      draw_outlines(picture, side, side, 2);
      for (Index p = 0; p < each; p += 3) {
        const float* colour = colours.data() + p;
        const float light = 1 - picture[p], brightest = std::max({colour[0], colour[1], colour[2], 0.01f});
        for (int k = 0; k < 3; ++k) picture[p + k] = light * colour[k] / brightest;
      }
    }
    for (Index k = 0; k < each; ++k) picture[k] = 2 * picture[k] - 1;
    out.pictures.push_back({std::move(values), {side, side}});
    std::vector<std::string> captions;
    for (std::size_t t = 0; t < set.captions.size(); ++t)
      if (set.level(t) == 2) captions.push_back(trigger.empty() ? set.caption(id, t) : trigger + ", " + set.caption(id, t));
    out.captions.push_back(std::move(captions));
  }
  return out;
}

}  // namespace tenon::examples
