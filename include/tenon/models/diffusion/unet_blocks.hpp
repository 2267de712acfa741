#pragma once
// The blocks of a U-Net: down, mid and up (diffusers models/unets/unet_2d_blocks.py; Ronneberger et al. 2015, 1505.04597).
#include <tenon/models/diffusion/attention_block.hpp>
#include <tenon/models/diffusion/sampling.hpp>
#include <tenon/models/diffusion/unet_config.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// The resnets of a block, and what follows each of them.
template <class T>
struct UnetLayers {
  std::vector<ResnetBlock<T>> resnets;
  std::vector<Transformer2d<T>> attentions;
  std::vector<AttentionBlock<T>> self_attentions;  ///< in their place in pixel U-Nets
  bool checkpointing = false;

  void add_resnet(const UnetConfig& c, Index in, Index out) {
    resnets.emplace_back(in, out, c.time_width(), c.norm_num_groups, c.norm_eps, c.resnet_time_scale_shift);
  }
  /// `level` counts the blocks of the way down; `groups` are those of a self-attention's norm; `mid`: only_cross_attention is not for it.
  void add_attention(const UnetConfig& c, UnetBlockType type, std::size_t level, Index depth, Index groups, bool mid = false) {
    const Index channels = c.block_out_channels[level], size = UnetConfig::of(c.attention_head_dim, level);
    if (type == UnetBlockType::cross_attention)
      attentions.emplace_back(channels, size, depth, UnetConfig::of(c.cross_attention_dim, level), c.norm_num_groups, c.use_linear_projection,
                              !mid && UnetConfig::of(c.only_cross_attention, level));
    if (type == UnetBlockType::self_attention) self_attentions.emplace_back(channels, size > 0 ? channels / size : 1, groups, c.norm_eps);
  }
  void initialize(Generator& generator) {
    for (auto& resnet : resnets) resnet.initialize(generator);
    for (auto& attention : attentions) attention.initialize(generator);
    for (auto& attention : self_attentions) attention.initialize(generator);
  }
  void set_checkpointing(bool on) {
    checkpointing = on;
    for (auto& attention : attentions) attention.checkpointing = on;
  }

  Var<T> resnet(std::size_t i, const Var<T>& x, const Var<T>& time) const { return run(checkpointing, resnets[i], x, time); }
  Var<T> attention(std::size_t i, const Var<T>& x, const Var<T>& states) const {
    if (!attentions.empty()) return attentions[i](x, states);
    return self_attentions.empty() ? x : run(checkpointing, self_attentions[i], x);
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("attentions", s.attentions);
    f("attentions", s.self_attentions);
    f("resnets", s.resnets);
  }
};

inline Index transformer_depth(const std::vector<std::vector<Index>>& depths, std::size_t block, std::size_t layer) {
  return UnetConfig::of(UnetConfig::of(depths, block), layer);
}

}  // namespace detail

/// Resnets at one size, then, but for the last block, half of it.
template <class T>
struct UnetDownBlock {
  detail::UnetLayers<T> layers;
  std::vector<Downsample<T>> downsamplers;  ///< one or none

  UnetDownBlock() = default;
  /// Declared: to be loaded or initialised. Block i of the way down.
  UnetDownBlock(const UnetConfig& c, std::size_t i) {
    const Index out = c.block_out_channels[i], count = UnetConfig::of(c.layers_per_block, i);
    for (std::size_t layer = 0; layer < static_cast<std::size_t>(count); ++layer) {
      layers.add_resnet(c, layer > 0 || i == 0 ? c.block_out_channels[layer > 0 ? i : 0] : c.block_out_channels[i - 1], out);
      layers.add_attention(c, c.down_block_types[i], i, detail::transformer_depth(c.transformer_layers_per_block, i, layer),
                           c.norm_num_groups);
    }
    if (i + 1 < c.levels()) downsamplers.emplace_back(out, c.downsample_padding == 0);
  }
  void initialize(Generator& generator) {
    layers.initialize(generator);
    for (auto& downsampler : downsamplers) downsampler.initialize(generator);
  }

  /// x [N, H, W, C], time [N, D], states [N, S, E] -> [N, H', W', C']; `skips` receives what the way up takes in again.
  Var<T> operator()(Var<T> x, const Var<T>& time, const Var<T>& states, std::vector<Var<T>>& skips) const {
    for (std::size_t i = 0; i < layers.resnets.size(); ++i) skips.push_back(x = layers.attention(i, layers.resnet(i, x, time), states));
    for (const auto& downsampler : downsamplers) skips.push_back(x = downsampler(x));
    return x;
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("", s.layers);
    f("downsamplers", s.downsamplers);
  }
};

/// A resnet, then attention and a resnet as often as the configuration says.
template <class T>
struct UnetMidBlock {
  detail::UnetLayers<T> layers;

  UnetMidBlock() = default;
  /// Declared: to be loaded or initialised.
  explicit UnetMidBlock(const UnetConfig& c) {
    const std::size_t last = c.levels() - 1;
    const Index channels = c.block_out_channels[last];
    // diffusers gives a scale_shift model's self-attention no norm here, unless told how many groups
    const Index groups = c.attn_norm_num_groups > 0 || c.resnet_time_scale_shift == TimeEmbeddingNorm::scale_shift ? c.attn_norm_num_groups
                                                                                                                : c.norm_num_groups;
    layers.add_resnet(c, channels, channels);
    for (Index layer = 0; layer < c.mid_block_layers; ++layer) {
      layers.add_attention(c, *c.mid_block_type, last, UnetConfig::of(c.transformer_layers_per_block, last).front(), groups, true);
      layers.add_resnet(c, channels, channels);
    }
  }
  void initialize(Generator& generator) { layers.initialize(generator); }

  /// x [N, H, W, C], time [N, D], states [N, S, E] -> [N, H, W, C].
  Var<T> operator()(const Var<T>& x, const Var<T>& time, const Var<T>& states) const {
    Var<T> h = layers.resnet(0, x, time);
    for (std::size_t i = 1; i < layers.resnets.size(); ++i) h = layers.resnet(i, layers.attention(i - 1, h, states), time);
    return h;
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("", s.layers);
  }
};

/// Resnets that each take in a skip, then, but for the last block, the size of the skips that come next.
template <class T>
struct UnetUpBlock {
  detail::UnetLayers<T> layers;
  std::vector<Upsample<T>> upsamplers;  ///< one or none

  UnetUpBlock() = default;
  /// Declared: to be loaded or initialised. Block i of the way up.
  UnetUpBlock(const UnetConfig& c, std::size_t i) {
    const std::size_t last = c.levels() - 1, level = last - i;
    const auto& channels = c.block_out_channels;
    const Index out = channels[level], before = channels[std::min(level + 1, last)], below = channels[level > 0 ? level - 1 : 0];
    const std::size_t count = static_cast<std::size_t>(UnetConfig::of(c.layers_per_block, level)) + 1;
    const auto& reverse = c.reverse_transformer_layers_per_block;
    for (std::size_t layer = 0; layer < count; ++layer) {
      layers.add_resnet(c, (layer == 0 ? before : out) + (layer + 1 == count ? below : out), out);
      layers.add_attention(c, c.up_block_types[i], level,
                           reverse.empty() ? detail::transformer_depth(c.transformer_layers_per_block, level, layer)
                                           : detail::transformer_depth(reverse, i, layer),
                           c.norm_num_groups);
    }
    if (level > 0) upsamplers.emplace_back(out);
  }
  void initialize(Generator& generator) {
    layers.initialize(generator);
    for (auto& upsampler : upsamplers) upsampler.initialize(generator);
  }

  /// x [N, H, W, C], time [N, D], states [N, S, E] -> [N, H', W', C']; takes its skips from the end of `skips`, and its size
  /// from the one that is then the last.
  Var<T> operator()(Var<T> x, const Var<T>& time, const Var<T>& states, std::vector<Var<T>>& skips) const {
    for (std::size_t i = 0; i < layers.resnets.size(); ++i) {
      const Var<T> joined = concat({x, skips.back()}, 3);
      skips.pop_back();
      x = layers.attention(i, layers.resnet(i, joined, time), states);
    }
    for (const auto& upsampler : upsamplers) x = upsampler(x, skips.back().extent(1), skips.back().extent(2));
    return x;
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("", s.layers);
    f("upsamplers", s.upsamplers);
  }
};

}  // namespace tenon::inline TENON_ABI
