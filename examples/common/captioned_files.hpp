#pragma once
// Files of pictures with captions as CLIP's input, read when they are needed.
#include <tenon/models/clip/preprocess.hpp>

#include "captioned_pictures.hpp"

namespace tenon::examples {

class CaptionedFiles {
 public:
  /// The pictures in a folder and their captions (see captions_of). Throws FileError on fewer than 4, and on any that cannot be read.
  CaptionedFiles(const std::string& folder, const std::string& trigger, const ClipImageProcessor& processor) : processor_(processor), files_(pictures_in(folder)) {
    check<FileError>(files_.size() >= 4, "pictures", folder, ": expected at least 4 pictures with captions, found ", files_.size());
    const auto metadata = read_metadata(folder);
    std::vector<Index> all;
    for (const auto& file : files_) {
      all.push_back(static_cast<Index>(all.size()));
      captions_.push_back(captions_of(file, folder, metadata, trigger));
    }
    for_each_part(all, [&](std::span<const Index> ids) { values(ids); });  // a broken one is found before the first step
  }
  Index size() const { return static_cast<Index>(files_.size()); }

  /// Calls `f(part)` for 32 of them at a time.
  template <class F>
  static void for_each_part(std::span<const Index> ids, F&& f) {
    constexpr std::size_t size = 32;
    for (std::size_t begin = 0; begin < ids.size(); begin += size) f(ids.subspan(begin, std::min(size, ids.size() - begin)));
  }

  /// [ids, H, W, 3], as the model wants them. Throws FileError on a broken picture.
  Tensor<float> values(std::span<const Index> ids) const {
    const Index each = processor_.crop_height * processor_.crop_width * 3;
    auto out = Tensor<float>::uninitialized({static_cast<Index>(ids.size()), processor_.crop_height, processor_.crop_width, 3});
    float* to = out.data();
    std::vector<std::string> errors(ids.size());
    parallel_for(static_cast<Index>(ids.size()), [&](Index i) {
      const auto n = static_cast<std::size_t>(i);
      try {
        processor_.write(load_image(files_[static_cast<std::size_t>(ids[n])], {.on_white = true}), to + i * each);
      } catch (const std::exception& e) {
        errors[n] = e.what();
      }
    });
    for (const auto& error : errors)
      if (!error.empty()) throw FileError(error);
    return out;
  }
  const std::string& caption(Index i, Generator& generator) const {
    const auto& all = captions_[static_cast<std::size_t>(i)];
    return all[static_cast<std::size_t>(generator.integer(0, static_cast<std::int64_t>(all.size())))];
  }
  std::vector<std::string> first_captions(std::span<const Index> ids) const {
    std::vector<std::string> out;
    for (const Index i : ids) out.push_back(captions_[static_cast<std::size_t>(i)].front());
    return out;
  }
  /// [ids, captions]: whether a caption is true of a picture.
  Tensor<bool> fits(std::span<const Index> ids, std::span<const std::string> captions) const {
    Tensor<bool> out({static_cast<Index>(ids.size()), static_cast<Index>(captions.size())});
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto& all = captions_[static_cast<std::size_t>(ids[i])];
      for (std::size_t j = 0; j < captions.size(); ++j) out(i, j) = std::find(all.begin(), all.end(), captions[j]) != all.end();
    }
    return out;
  }

 private:
  ClipImageProcessor processor_;
  std::vector<std::string> files_;
  std::vector<std::vector<std::string>> captions_;  // of each file at least one
};

}  // namespace tenon::examples
