#pragma once
// What a diffusion model is tuned on: latents of pictures, their captions and sizes, and the file that keeps the latents.
#include <array>
#include <iostream>
#include <map>
#include <optional>

#include <tenon/io/safetensors.hpp>
#include <tenon/models/diffusion/autoencoder_kl.hpp>

#include "captioned_pictures.hpp"
#include "progress.hpp"

namespace tenon::examples {

/// Where latents are kept from one run to the next, and the text of all that they depend on.
struct LatentCache {
  std::string path, fingerprint;
  bool quiet = false;  ///< nothing is said of latents that are taken from it
};

/// The latents of pictures, computed once, a caption of each to draw, and what SDXL is told of it.
class TuningData {
 public:
  /// With a cache, the latents are taken from it where they are of the same pictures, and put there where not. Throws FileError on
  /// another file in its place.
  TuningData(const AutoencoderKl<float>& vae, CaptionedPictures set, const std::optional<LatentCache>& cache = {}) : vae_(vae), captions_(std::move(set.captions)) {
    const NoGrad no_grad;
    for (const auto& picture : set.pictures) {
      const auto [height, width] = picture.size();
      sizes_.push_back(picture.size());
      const std::array ids{picture.original.height, picture.original.width, picture.top, picture.left, height, width};
      std::ranges::transform(ids, time_ids_.emplace_back().begin(), [](Index x) { return static_cast<float>(x); });
    }
    if (cache && read(*cache)) return;
    {
      Progress progress("latents", set.size());
      for (const auto& picture : set.pictures) {
        posteriors_.push_back(vae.encode(Var<float>(picture.values.reshape(Shape{1, picture.values.extent(0), picture.values.extent(1), 3}))));
        progress.update(size());
      }
    }
    if (cache) write(*cache);
  }
  Index size() const { return static_cast<Index>(posteriors_.size()); }

  /// A draw of one picture's latents [1, h, w, C], scaled for the U-Net.
  Tensor<float> latents(Index i, Generator& generator) const {
    const NoGrad no_grad;
    return vae_.scale_latents(posteriors_[static_cast<std::size_t>(i)].sample(generator)).value();
  }
  const std::string& caption(Index i, Generator& generator) const {
    const auto& all = captions_[static_cast<std::size_t>(i)];
    return all[static_cast<std::size_t>(generator.integer(0, static_cast<std::int64_t>(all.size())))];
  }
  /// Height and width before resizing, top and left of what was cut out, height and width after.
  const std::array<float, 6>& time_ids(Index i) const { return time_ids_[static_cast<std::size_t>(i)]; }

  /// Whether two pictures fit into one batch.
  bool alike(Index a, Index b) const { return sizes_[static_cast<std::size_t>(a)] == sizes_[static_cast<std::size_t>(b)]; }
  /// `512x512 7, 640x384 3`: widths and heights, and how many pictures have them.
  std::string buckets() const {
    std::map<PictureSize, Index> counts;
    for (const auto& size : sizes_) ++counts[size];
    std::string out;
    for (const auto& [size, n] : counts) out += join_text(out.empty() ? "" : ", ", size.width, 'x', size.height, ' ', n);
    return out;
  }

 private:
  static constexpr const char* key = "tenon_latents_of";

  bool read(const LatentCache& cache) {
    if (!detail::exists(cache.path)) return false;
    const auto file = SafetensorsFile::open(cache.path);
    const auto at = file.metadata().find(key);
    check<FileError>(at != file.metadata().end(), "finetune", "--cache: ", cache.path, ": expected latents that a run has kept there, found something else");
    if (at->second != cache.fingerprint) {
      std::cerr << cache.path << ": latents of other pictures, sizes or another model; they are computed again\n";
      return false;
    }
    for (std::size_t i = 0; i < sizes_.size(); ++i) posteriors_.emplace_back(Var<float>(file.load<float>(name(i))));
    if (!cache.quiet) std::cerr << cache.path << ": latents of " << size() << " pictures are taken from it\n";
    return true;
  }
  void write(const LatentCache& cache) const {
    std::vector<NamedTensor> moments;
    for (std::size_t i = 0; i < posteriors_.size(); ++i) moments.push_back({name(i), raw_copy(concat({posteriors_[i].mean, posteriors_[i].logvar}, 3).value())});
    save_safetensors(cache.path, moments, {{key, cache.fingerprint}});
  }
  static std::string name(std::size_t i) { return join_text("moments.", i); }

  const AutoencoderKl<float>& vae_;
  std::vector<std::vector<std::string>> captions_;
  std::vector<PictureSize> sizes_;
  std::vector<std::array<float, 6>> time_ids_;
  std::vector<DiagonalGaussian<float>> posteriors_;
};

}  // namespace tenon::examples
