#pragma once
// AutoencoderKl: pictures to latents and back (diffusers' AutoencoderKL), whole or tile by tile, from a diffusers folder.
//
//   auto vae = load_autoencoder_kl<float>("sd15/vae");
//   auto latents = vae.scale_latents(vae.encode(pictures).sample(generator));   // [N, H / 8, W / 8, 4], as a U-Net takes them
//   auto decoded = vae.decode(vae.unscale_latents(latents));                    // [N, H, W, 3] in about -1..1
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include <tenon/io/checkpoint.hpp>
#include <tenon/models/diffusion/single_file_names.hpp>
#include <tenon/models/diffusion/vae_blocks.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// The first `extent` rows (axis 1) or columns (axis 2) of a tile go over from the tile before it, linearly.
template <class T>
void blend_edge(const Tensor<T>& before, Tensor<T>& tile, Index axis, Index extent) {
  const Index there = before.extent(axis), here = tile.extent(axis);
  extent = std::min({extent, there, here});
  const Index outer = axis == 1 ? tile.extent(0) : tile.extent(0) * tile.extent(1);
  const Index inner = axis == 1 ? tile.extent(2) * tile.extent(3) : tile.extent(3);
  for (Index o = 0; o < outer; ++o)
    for (Index k = 0; k < extent; ++k) {
      const double share = static_cast<double>(k) / static_cast<double>(extent);
      const T mine = static_cast<T>(share), its = static_cast<T>(1 - share);
      const T* from = before.data() + (o * there + there - extent + k) * inner;
      T* to = tile.data() + (o * here + k) * inner;
      for (Index i = 0; i < inner; ++i) to[i] = std::fma(mine, to[i], its * from[i]);
    }
}

/// Where tiles begin, and what becomes of their results.
struct Tiling {
  Index size, step;    ///< of a tile of the input, and from one to the next
  Index blend, keep;   ///< of a tile of the result: the edge that goes over from the tile before, and the side that is kept
};

/// f over tiles of x [N, H, W, C], joined.
template <class T, class F>
Tensor<T> tiled(const Tensor<T>& x, const Tiling& t, F&& f) {
  const NoGrad no_grad;
  check<ShapeError>(t.step > 0 && t.keep > 0, "autoencoder", "expected tiles of at least one latent, got a sample_size of too few pixels");
  const auto cut = [](const Var<T>& v, Index axis, Index begin, Index size) { return slice(v, axis, begin, std::min(begin + size, v.extent(axis))); };
  const Var<T> whole(x);
  std::vector<Tensor<T>> above;
  std::vector<Var<T>> rows;
  for (Index i = 0; i < x.extent(1); i += t.step) {
    const Var<T> band = cut(whole, 1, i, t.size);
    std::vector<Tensor<T>> tiles;
    std::vector<Var<T>> kept;
    for (Index j = 0; j < x.extent(2); j += t.step) {
      Tensor<T> tile = f(cut(band, 2, j, t.size)).value();
      if (!above.empty()) blend_edge(above[tiles.size()], tile, 1, t.blend);
      if (!tiles.empty()) blend_edge(tiles.back(), tile, 2, t.blend);
      kept.push_back(cut(cut(Var<T>(tile), 1, 0, t.keep), 2, 0, t.keep));
      tiles.push_back(std::move(tile));
    }
    rows.push_back(concat<T>(kept, 2));
    above = std::move(tiles);
  }
  return concat<T>(rows, 1).value();
}

}  // namespace detail

template <class T>
struct AutoencoderKl {
  AutoencoderKlConfig config;
  VaeEncoder<T> encoder;
  VaeDecoder<T> decoder;
  std::optional<Conv2d<T>> quant_conv, post_quant_conv;

  AutoencoderKl() = default;
  /// Declared: to be loaded or initialised.
  explicit AutoencoderKl(const AutoencoderKlConfig& c) : config(c), encoder(c), decoder(c) {
    if (c.use_quant_conv) quant_conv.emplace(2 * c.latent_channels, 2 * c.latent_channels, 1);
    if (c.use_post_quant_conv) post_quant_conv.emplace(c.latent_channels, c.latent_channels, 1);
  }
  AutoencoderKl(const AutoencoderKlConfig& c, Generator& generator) : AutoencoderKl(c) {
    encoder.initialize(generator);
    decoder.initialize(generator);
    if (quant_conv) quant_conv->initialize(generator);
    if (post_quant_conv) post_quant_conv->initialize(generator);
  }

  /// Pictures [N, H, W, 3] in -1..1 -> the distribution of their latents [N, H / 8, W / 8, C] (8: config.scale()).
  /// `tiling`: what is larger than config.sample_size is encoded tile by tile, as diffusers' enable_tiling does it; without gradients.
  DiagonalGaussian<T> encode(const Var<T>& pictures, bool tiling = false) const {
    check<ShapeError>(pictures.rank() == 4 && pictures.extent(3) == config.in_channels, "autoencoder", "expected pictures [N, H, W, ",
                      config.in_channels, "], got ", pictures.shape());
    const auto run = [&](const Var<T>& x) {
      const Var<T> moments = encoder(x);
      return quant_conv ? (*quant_conv)(moments) : moments;
    };
    const Index pixels = config.sample_size, latents = tile_latents();
    if (!tiling || !larger(pictures, pixels)) return DiagonalGaussian<T>(run(pictures));
    return DiagonalGaussian<T>(Var<T>(detail::tiled(pictures.value(), {pixels, pixels * 3 / 4, latents / 4, latents - latents / 4}, run)));
  }

  /// Latents [N, h, w, C] as `encode` gives them (see `unscale_latents`) -> pictures [N, 8 h, 8 w, 3].
  Var<T> decode(const Var<T>& latents, bool tiling = false) const {
    check<ShapeError>(latents.rank() == 4 && latents.extent(3) == config.latent_channels, "autoencoder", "expected latents [N, h, w, ",
                      config.latent_channels, "], got ", latents.shape());
    const auto run = [&](const Var<T>& z) { return decoder(post_quant_conv ? (*post_quant_conv)(z) : z); };
    const Index pixels = config.sample_size, tile = tile_latents();
    if (!tiling || !larger(latents, tile)) return run(latents);
    return Var<T>(detail::tiled(latents.value(), {tile, tile * 3 / 4, pixels / 4, pixels - pixels / 4}, run));
  }

  /// Latents as a U-Net takes them, of about unit variance.
  Var<T> scale_latents(const Var<T>& z) const {
    if (config.latents_mean.empty()) return (z - static_cast<T>(config.shift_factor)) * static_cast<T>(config.scaling_factor);
    return (z - channel(config.latents_mean)) * static_cast<T>(config.scaling_factor) / channel(config.latents_std);
  }
  /// Back to those that `decode` takes.
  Var<T> unscale_latents(const Var<T>& latents) const {
    if (config.latents_mean.empty()) return latents / static_cast<T>(config.scaling_factor) + static_cast<T>(config.shift_factor);
    return latents * channel(config.latents_std) / static_cast<T>(config.scaling_factor) + channel(config.latents_mean);
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("encoder", s.encoder);
    f("decoder", s.decoder);
    f("quant_conv", s.quant_conv);
    f("post_quant_conv", s.post_quant_conv);
  }

 private:
  Index tile_latents() const { return config.sample_size / config.scale(); }
  static bool larger(const Var<T>& x, Index side) { return x.extent(1) > side || x.extent(2) > side; }
  static Var<T> channel(const std::vector<double>& values) {
    auto out = Tensor<T>::uninitialized({static_cast<Index>(values.size())});
    std::transform(values.begin(), values.end(), out.begin(), [](double v) { return static_cast<T>(v); });
    return Var<T>(std::move(out));
  }
};

struct AutoencoderLoadOptions {
  /// How kernels and matrices are multiplied: bfloat16 or int8 (see LoadOptions), frozen for good; T when not given.
  std::optional<DType> weights{};
};

/// A frozen model from a checkpoint's tensors: diffusers' names, those before 0.17 (query, key, value, proj_attn, as matrices
/// or 1x1 kernels), or the original ones without prefix. Throws one FileError that lists every name that does not fit.
template <class T>
AutoencoderKl<T> load_autoencoder_kl(StateDict dict, const AutoencoderKlConfig& config, const AutoencoderLoadOptions& options = {}) {
  detail::to_diffusers_vae(dict);
  AutoencoderKl<T> vae(config);
  LoadOptions load;
  load.weights = options.weights;
  load_params(params(vae), dict, load);
  return vae;
}
/// A frozen model from a diffusers folder: config.json and diffusion_pytorch_model (safetensors or torch's, sharded or not).
template <class T>
AutoencoderKl<T> load_autoencoder_kl(const std::string& folder, const AutoencoderLoadOptions& options = {}) {
  const auto config = read_autoencoder_kl_config(Json::read(folder + "/config.json"));
  return load_autoencoder_kl<T>(open_checkpoint(folder, {"diffusion_pytorch_model", "diffusion_pytorch_model.fp16"}), config, options);
}

/// Writes config.json and diffusion_pytorch_model.safetensors, floating-point as `dtype`; makes the folder when absent.
template <class T>
void save_autoencoder_kl(AutoencoderKl<T>& vae, const std::string& folder, DType dtype = DType::f32) {
  if (::mkdir(folder.c_str(), 0777) != 0)
    check<FileError>(errno == EEXIST, "save_autoencoder_kl", folder, ": cannot make the directory: ", std::strerror(errno));
  save_params(folder + "/diffusion_pytorch_model.safetensors", params(vae), {{"format", "pt"}}, dtype);
  save_json(folder + "/config.json", write_autoencoder_kl_config(vae.config));
}

}  // namespace tenon::inline TENON_ABI
