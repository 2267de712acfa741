#pragma once
// A cheap look at latents: colours as a linear function of them, fitted to the autoencoder once.
#include <tenon/models/diffusion/autoencoder_kl.hpp>
#include <tenon/models/diffusion/pictures.hpp>

namespace tenon::inline TENON_ABI {

/// Least squares from the colours of decoded patches of constant latents.
template <class T>
class LatentPreview {
 public:
  /// Decodes 24 x 24 latents: a seventh of the work for a picture of 64 x 64.
  explicit LatentPreview(const AutoencoderKl<T>& vae) : scale_(vae.config.scale()), channels_(vae.config.latent_channels) {
    constexpr Index patches = 6, side = 4;
    const NoGrad no_grad;
    Generator generator(0);
    const Tensor<T> colours = draw_noise<T>({patches, patches, channels_}, generator);
    auto latents = Tensor<T>::uninitialized({1, patches * side, patches * side, channels_});
    for (Index y = 0; y < patches * side; ++y)
      for (Index x = 0; x < patches * side; ++x)
        std::copy_n(colours.data() + (y / side * patches + x / side) * channels_, channels_, latents.data() + (y * patches * side + x) * channels_);
    const Tensor<T> decoded = vae.decode(vae.unscale_latents(Var<T>(std::move(latents)))).value();

    const Index n = channels_ + 1, columns = n + 3, width = decoded.extent(2);  // normal equations [A | b]
    std::vector<double> equations(static_cast<std::size_t>(n * columns), 0.0);
    for (Index p = 0; p < patches * patches; ++p) {
      std::vector<double> row(static_cast<std::size_t>(columns), 1.0);
      for (Index c = 0; c < channels_; ++c) row[static_cast<std::size_t>(c)] = static_cast<double>(colours.data()[p * channels_ + c]);
      const Index top = (p / patches * side + 1) * scale_, left = (p % patches * side + 1) * scale_, inner = (side - 2) * scale_;
      for (Index c = 0; c < 3; ++c) {
        double sum = 0;
        for (Index y = 0; y < inner; ++y)
          for (Index x = 0; x < inner; ++x) sum += static_cast<double>(decoded.data()[((top + y) * width + left + x) * 3 + c]);
        row[static_cast<std::size_t>(n + c)] = sum / static_cast<double>(inner * inner);
      }
      for (Index i = 0; i < n; ++i)
        for (Index j = 0; j < columns; ++j)
          equations[static_cast<std::size_t>(i * columns + j)] += row[static_cast<std::size_t>(i)] * row[static_cast<std::size_t>(j)];
    }
    const auto at = [&](Index i, Index j) -> double& { return equations[static_cast<std::size_t>(i * columns + j)]; };
    for (Index k = 0; k < n; ++k)  // positive definite: no pivots needed
      for (Index i = 0; i < n; ++i)
        if (const double factor = at(i, k) / at(k, k); i != k)
          for (Index j = k; j < columns; ++j) at(i, j) -= factor * at(k, j);
    for (Index i = 0; i < n; ++i)
      for (Index c = 0; c < 3; ++c) map_.push_back(static_cast<float>(at(i, n + c) / at(i, i)));
  }

  /// The picture of latents [1, C, h, w], each one a square of the autoencoder's scale.
  Image operator()(const Tensor<T>& latents) const {
    check<ShapeError>(latents.rank() == 4 && latents.extent(0) == 1 && latents.extent(1) == channels_, "preview", "expected latents [1, ", channels_,
                      ", h, w], got ", latents.shape());
    const Index h = latents.extent(2), w = latents.extent(3);
    auto out = Tensor<float>::uninitialized({1, h * scale_, w * scale_, 3});
    for (Index y = 0; y < h * scale_; ++y)
      for (Index x = 0; x < w * scale_; ++x)
        for (Index c = 0; c < 3; ++c) {
          float value = map_[static_cast<std::size_t>(3 * channels_ + c)];
          for (Index k = 0; k < channels_; ++k)
            value = std::fma(map_[static_cast<std::size_t>(3 * k + c)], static_cast<float>(latents.data()[(k * h + y / scale_) * w + x / scale_]), value);
          out.data()[(y * w * scale_ + x) * 3 + c] = value;
        }
    return picture_of(out);
  }

 private:
  Index scale_, channels_;
  std::vector<float> map_;  ///< [C + 1, 3], the constant last
};

}  // namespace tenon::inline TENON_ABI
