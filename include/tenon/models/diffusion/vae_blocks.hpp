#pragma once
// The halves of AutoencoderKL (Rombach et al. 2021, 2112.10752; diffusers models/autoencoders/vae.py), and what the first
// one says about a picture: a normal distribution for each latent. Every norm has an eps of 1e-6.
#include <tenon/models/diffusion/attention_block.hpp>
#include <tenon/models/diffusion/pictures.hpp>
#include <tenon/models/diffusion/resnet.hpp>
#include <tenon/models/diffusion/sampling.hpp>
#include <tenon/models/diffusion/schedulers/scheduler.hpp>
#include <tenon/models/diffusion/vae_config.hpp>
#include <tenon/ops/reduce.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {
inline constexpr double vae_eps = 1e-6;

template <class Layers>
void initialize_all(Layers& layers, Generator& generator) {
  for (auto& layer : layers) layer.initialize(generator);
}
}  // namespace detail

/// Independent normal distributions of all latents.
template <class T>
struct DiagonalGaussian {
  Var<T> mean, logvar;  ///< [N, h, w, C]

  /// From moments [N, h, w, 2 C]: means, then logarithms of variances, which are cut to [-30, 20].
  explicit DiagonalGaussian(const Var<T>& moments) {
    const auto halves = chunk(moments, 2);
    mean = halves[0];
    logvar = clamp(halves[1], -30, 20);
  }
  /// A draw, by numbers in the order [N, C, h, w] as torch has them.
  Var<T> sample(Generator& generator) const {
    const Shape& s = mean.shape();
    return mean + exp(logvar * T(0.5)) * Var<T>(channels_last(draw_noise<T>({s[0], s[3], s[1], s[2]}, generator)));
  }
  /// The divergence from the standard normal distribution, [N].
  Var<T> kl() const { return sum(square(mean) + exp(logvar) - T(1) - logvar, {1, 2, 3}) * T(0.5); }
};

/// Resnets around attention of one head.
template <class T>
struct VaeMidBlock {
  std::vector<ResnetBlock<T>> resnets;
  std::vector<AttentionBlock<T>> attentions;  ///< one, or none

  VaeMidBlock() = default;
  VaeMidBlock(Index channels, Index groups, bool attention) {
    for (int i = 0; i < 2; ++i) resnets.emplace_back(channels, channels, 0, groups, detail::vae_eps);
    if (attention) attentions.emplace_back(channels, 1, groups, detail::vae_eps);
  }
  void initialize(Generator& generator) {
    detail::initialize_all(resnets, generator);
    detail::initialize_all(attentions, generator);
  }
  Var<T> operator()(const Var<T>& x) const {
    const Var<T> h = resnets[0](x);
    return resnets[1](attentions.empty() ? h : attentions[0](h));
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("resnets", s.resnets);
    f("attentions", s.attentions);
  }
};

/// Resnets, then half the size but for the last.
template <class T>
struct VaeDownBlock {
  std::vector<ResnetBlock<T>> resnets;
  std::vector<Downsample<T>> downsamplers;  ///< one, or none

  VaeDownBlock() = default;
  VaeDownBlock(Index in, Index out, Index layers, Index groups, bool downsample) {
    for (Index i = 0; i < layers; ++i) resnets.emplace_back(i == 0 ? in : out, out, 0, groups, detail::vae_eps);
    if (downsample) downsamplers.emplace_back(out, true);
  }
  void initialize(Generator& generator) {
    detail::initialize_all(resnets, generator);
    detail::initialize_all(downsamplers, generator);
  }
  Var<T> operator()(Var<T> x) const {
    for (const auto& resnet : resnets) x = resnet(std::move(x));
    return downsamplers.empty() ? x : downsamplers[0](x);
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("resnets", s.resnets);
    f("downsamplers", s.downsamplers);
  }
};

/// Resnets, then double the size but for the last.
template <class T>
struct VaeUpBlock {
  std::vector<ResnetBlock<T>> resnets;
  std::vector<Upsample<T>> upsamplers;  ///< one, or none

  VaeUpBlock() = default;
  VaeUpBlock(Index in, Index out, Index layers, Index groups, bool upsample) {
    for (Index i = 0; i < layers; ++i) resnets.emplace_back(i == 0 ? in : out, out, 0, groups, detail::vae_eps);
    if (upsample) upsamplers.emplace_back(out);
  }
  void initialize(Generator& generator) {
    detail::initialize_all(resnets, generator);
    detail::initialize_all(upsamplers, generator);
  }
  Var<T> operator()(Var<T> x) const {
    for (const auto& resnet : resnets) x = resnet(std::move(x));
    return upsamplers.empty() ? x : upsamplers[0](x);
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("resnets", s.resnets);
    f("upsamplers", s.upsamplers);
  }
};

/// Pictures [N, H, W, 3] -> moments [N, h, w, 2 C].
template <class T>
struct VaeEncoder {
  Conv2d<T> conv_in;
  std::vector<VaeDownBlock<T>> down_blocks;
  VaeMidBlock<T> mid_block;
  GroupNorm<T> conv_norm_out;
  Conv2d<T> conv_out;

  VaeEncoder() = default;
  explicit VaeEncoder(const AutoencoderKlConfig& c) {
    const auto& widths = c.block_out_channels;
    conv_in = Conv2d<T>(c.in_channels, widths.front(), 3, {.padding = 1});
    for (std::size_t i = 0; i < widths.size(); ++i)
      down_blocks.emplace_back(widths[i > 0 ? i - 1 : 0], widths[i], c.layers_per_block, c.norm_num_groups, i + 1 < widths.size());
    mid_block = VaeMidBlock<T>(widths.back(), c.norm_num_groups, c.mid_block_add_attention);
    conv_norm_out = GroupNorm<T>(c.norm_num_groups, widths.back(), detail::vae_eps);
    conv_out = Conv2d<T>(widths.back(), 2 * c.latent_channels, 3, {.padding = 1});
  }
  void initialize(Generator& generator) {
    conv_in.initialize(generator);
    detail::initialize_all(down_blocks, generator);
    mid_block.initialize(generator);
    conv_norm_out.initialize();
    conv_out.initialize(generator);
  }
  Var<T> operator()(const Var<T>& pictures) const {
    Var<T> x = conv_in(pictures);
    for (const auto& block : down_blocks) x = block(std::move(x));
    x = mid_block(x);
    x = conv_norm_out(std::move(x), true);
    return conv_out(std::move(x));
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv_in", s.conv_in);
    f("down_blocks", s.down_blocks);
    f("mid_block", s.mid_block);
    f("conv_norm_out", s.conv_norm_out);
    f("conv_out", s.conv_out);
  }
};

/// Latents [N, h, w, C] -> pictures [N, H, W, 3].
template <class T>
struct VaeDecoder {
  Conv2d<T> conv_in;
  VaeMidBlock<T> mid_block;
  std::vector<VaeUpBlock<T>> up_blocks;
  GroupNorm<T> conv_norm_out;
  Conv2d<T> conv_out;

  VaeDecoder() = default;
  explicit VaeDecoder(const AutoencoderKlConfig& c) {
    const auto& widths = c.block_out_channels;
    conv_in = Conv2d<T>(c.latent_channels, widths.back(), 3, {.padding = 1});
    mid_block = VaeMidBlock<T>(widths.back(), c.norm_num_groups, c.mid_block_add_attention);
    for (std::size_t i = widths.size(); i-- > 0;)
      up_blocks.emplace_back(widths[std::min(i + 1, widths.size() - 1)], widths[i], c.layers_per_block + 1, c.norm_num_groups, i > 0);
    conv_norm_out = GroupNorm<T>(c.norm_num_groups, widths.front(), detail::vae_eps);
    conv_out = Conv2d<T>(widths.front(), c.out_channels, 3, {.padding = 1});
  }
  void initialize(Generator& generator) {
    conv_in.initialize(generator);
    mid_block.initialize(generator);
    detail::initialize_all(up_blocks, generator);
    conv_norm_out.initialize();
    conv_out.initialize(generator);
  }
  Var<T> operator()(const Var<T>& latents) const {
    Var<T> x = mid_block(conv_in(latents));
    for (const auto& block : up_blocks) x = block(std::move(x));
    x = conv_norm_out(std::move(x), true);
    return conv_out(std::move(x));
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv_in", s.conv_in);
    f("mid_block", s.mid_block);
    f("up_blocks", s.up_blocks);
    f("conv_norm_out", s.conv_norm_out);
    f("conv_out", s.conv_out);
  }
};

}  // namespace tenon::inline TENON_ABI
