#pragma once
// AutoencoderTiny: a small and fast pair of encoder and decoder for Stable Diffusion's latents (TAESD; diffusers'
// AutoencoderTiny). Its latents are already scaled as a U-Net takes them.
#include <tenon/models/diffusion/autoencoder_kl.hpp>

namespace tenon::inline TENON_ABI {

/// relu(x + three convolutions of x).
template <class T>
struct TinyBlock {
  Conv2d<T> first, second, third;
  Activation act = Activation::relu;

  TinyBlock() = default;
  TinyBlock(Index channels, Activation activation)
      : first(channels, channels, 3, {.padding = 1}), second(channels, channels, 3, {.padding = 1}), third(channels, channels, 3, {.padding = 1}), act(activation) {}
  Var<T> operator()(const Var<T>& x) const { return relu(third(activation(second(activation(first(x), act)), act)) + x); }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv.0", s.first);
    f("conv.2", s.second);
    f("conv.4", s.third);
  }
};

/// One element of a TAESD's list: a block, a convolution, the activation, or larger pictures.
template <class T>
struct TinyLayer {
  std::optional<Conv2d<T>> conv;
  std::optional<TinyBlock<T>> block;
  Activation act = Activation::none;
  Index upsampling = 1;

  Var<T> operator()(const Var<T>& x) const {
    if (block) return (*block)(x);
    if (conv) return (*conv)(x);
    return upsampling > 1 ? upsample_nearest(x, upsampling * x.extent(1), upsampling * x.extent(2)) : activation(x, act);
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("", s.conv);
    f("", s.block);
  }
};

/// Layers one after the other.
template <class T>
struct TinyLayers {
  std::vector<TinyLayer<T>> layers;

  void conv(Index in, Index out, const Conv2dConfig& config) { layers.emplace_back().conv.emplace(in, out, 3, config); }
  void blocks(Index count, Index channels, Activation act) {
    for (Index i = 0; i < count; ++i) layers.emplace_back().block.emplace(channels, act);
  }
  Var<T> operator()(Var<T> x) const {
    for (const auto& layer : layers) x = layer(x);
    return x;
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("layers", s.layers);
  }
};

template <class T>
struct AutoencoderTiny {
  AutoencoderTinyConfig config;
  TinyLayers<T> encoder, decoder;

  AutoencoderTiny() = default;
  /// Declared: to be loaded.
  explicit AutoencoderTiny(const AutoencoderTinyConfig& c) : config(c) {
    for (std::size_t i = 0; i < c.num_encoder_blocks.size(); ++i) {
      const Index width = c.encoder_block_out_channels[i];
      if (i == 0) encoder.conv(c.in_channels, width, {.padding = 1});
      if (i > 0) encoder.conv(width, width, {.stride = 2, .padding = 1, .bias = false});
      encoder.blocks(c.num_encoder_blocks[i], width, c.act_fn);
    }
    encoder.conv(c.encoder_block_out_channels.back(), c.latent_channels, {.padding = 1});
    decoder.conv(c.latent_channels, c.decoder_block_out_channels.front(), {.padding = 1});
    decoder.layers.emplace_back().act = c.act_fn;
    for (std::size_t i = 0; i < c.num_decoder_blocks.size(); ++i) {
      const Index width = c.decoder_block_out_channels[i];
      const bool last = i + 1 == c.num_decoder_blocks.size();
      decoder.blocks(c.num_decoder_blocks[i], width, c.act_fn);
      if (!last) decoder.layers.emplace_back().upsampling = c.upsampling_scaling_factor;
      decoder.conv(width, last ? c.out_channels : width, {.padding = 1, .bias = last});
    }
  }

  /// Pictures [N, H, W, 3] in -1..1 -> latents [N, H / 8, W / 8, C] (8: config.scale()).
  Var<T> encode(const Var<T>& pictures) const {
    check<ShapeError>(pictures.rank() == 4 && pictures.extent(3) == config.in_channels, "autoencoder", "expected pictures [N, H, W, ",
                      config.in_channels, "], got ", pictures.shape());
    return encoder((pictures + T(1)) / T(2));
  }
  /// Latents [N, h, w, C] -> pictures [N, 8 h, 8 w, 3] in about -1..1.
  Var<T> decode(const Var<T>& latents) const {
    check<ShapeError>(latents.rank() == 4 && latents.extent(3) == config.latent_channels, "autoencoder", "expected latents [N, h, w, ",
                      config.latent_channels, "], got ", latents.shape());
    return decoder(tanh(latents / T(3)) * T(3)) * T(2) - T(1);
  }
  Var<T> scale_latents(const Var<T>& z) const { return (z - static_cast<T>(config.shift_factor)) * static_cast<T>(config.scaling_factor); }
  Var<T> unscale_latents(const Var<T>& latents) const { return latents / static_cast<T>(config.scaling_factor) + static_cast<T>(config.shift_factor); }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("encoder", s.encoder);
    f("decoder", s.decoder);
  }
};

/// A frozen model from a diffusers folder. Throws FileError as load_autoencoder_kl.
template <class T>
AutoencoderTiny<T> load_autoencoder_tiny(const std::string& folder, const AutoencoderLoadOptions& options = {}) {
  AutoencoderTiny<T> vae(read_autoencoder_tiny_config(Json::read(folder + "/config.json")));
  LoadOptions load;
  load.weights = options.weights;
  load_params(params(vae), open_checkpoint(folder, {"diffusion_pytorch_model", "diffusion_pytorch_model.fp16"}), load);
  return vae;
}

}  // namespace tenon::inline TENON_ABI
