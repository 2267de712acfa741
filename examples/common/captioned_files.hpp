#pragma once
// Files of pictures with captions as CLIP's input, read when they are needed.
#include <iostream>
#include <numeric>
#include <optional>
#include <set>

#include <tenon/models/clip/preprocess.hpp>

#include "captioned_pictures.hpp"
#include "progress.hpp"

namespace tenon::examples {

class CaptionedFiles {
 public:
  /// The pictures in a folder and their captions (see captions_of). All are read once: those that cannot be are left out, with a line on
  /// stderr for each. Throws FileError on fewer than 4 that can, on one without a caption, and when all captions are the same.
  CaptionedFiles(const std::string& folder, const std::string& trigger, const ClipImageProcessor& processor) : processor_(processor) {
    const auto metadata = read_metadata(folder);
    const auto found = pictures_in(folder);
    std::vector<std::vector<std::string>> captions;
    std::set<std::string> different;
    for (const auto& file : found) {
      captions.push_back(captions_of(file, folder, metadata, trigger));
      different.insert(captions.back().begin(), captions.back().end());
    }
    const auto errors = errors_of(found);
    for (std::size_t i = 0; i < found.size(); ++i)
      if (errors[i].empty()) files_.push_back(found[i]), captions_.push_back(std::move(captions[i]));
    const auto left_out = found.size() - files_.size();
    check<FileError>(files_.size() >= 4, "pictures", folder, ": expected at least 4 pictures with captions, found ", files_.size(),
                     left_out > 0 ? join_text(" beside ", left_out, " that cannot be read") : std::string());
    check<FileError>(different.size() > 1, "pictures", folder, ": expected captions that tell the pictures apart, found '", *different.begin(), "' for all");
    for (const auto& error : errors)
      if (!error.empty()) std::cerr << error << '\n';
    if (left_out > 0) std::cerr << left_out << " of " << found.size() << " pictures could not be read and were left out\n";
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
  /// What is wrong with each file; nothing where it can be read.
  static std::vector<std::string> errors_of(const std::vector<std::string>& files) {
    std::vector<std::string> errors(files.size());
    LateProgress progress("pictures", static_cast<Index>(files.size()));
    std::vector<Index> all(files.size());
    std::iota(all.begin(), all.end(), Index{0});
    for_each_part(all, [&](std::span<const Index> ids) {
      parallel_for(static_cast<Index>(ids.size()), [&](Index i) {
        const auto n = static_cast<std::size_t>(ids[static_cast<std::size_t>(i)]);
        try {
          load_image(files[n], {.on_white = true});
        } catch (const std::exception& e) {
          errors[n] = e.what();
        }
      });
      progress.add(static_cast<Index>(ids.size()));
    });
    return errors;
  }

  ClipImageProcessor processor_;
  std::vector<std::string> files_;
  std::vector<std::vector<std::string>> captions_;  // of each file at least one
};

}  // namespace tenon::examples
