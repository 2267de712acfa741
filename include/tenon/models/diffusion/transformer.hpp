#pragma once
// Transformer2d: transformer blocks over the pixels of a feature map, which attend to themselves and to a text
// (diffusers models/transformers/transformer_2d.py and models/attention.py; Rombach et al. 2022, 2112.10752).
#include <tenon/nn/attention.hpp>
#include <tenon/nn/checkpoint.hpp>
#include <tenon/nn/conv2d.hpp>
#include <tenon/nn/mlp.hpp>
#include <tenon/nn/norm.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// diffusers' names of an Attention's four layers.
inline const Renames& diffusers_attention() {
  static const Renames names{{"q_proj", "to_q"}, {"k_proj", "to_k"}, {"v_proj", "to_v"}, {"out_proj", "to_out.0"}};
  return names;
}

/// `layer(x...)`; with `checkpointing`, backward computes the layer again.
template <class M, class... X>
auto run(bool checkpointing, const M& layer, const X&... x) {
  return checkpointing ? checkpoint(layer, x...) : layer(x...);
}

}  // namespace detail

/// x + attn1(norm1(x)), then + attn2(norm2(x), states), then + ff(norm3(x)).
/// Keys and values of the states are made anew in each call: keeping them for a generation would save 0.4 % of SD 1.5's
/// multiplications at 512 pixels, and 0.5 to 3 % of the time of U-Nets of 11 to 17 M parameters at 16x16.
template <class T>
struct BasicTransformerBlock {
  LayerNorm<T> norm1;
  Attention<T> attn1;  ///< over x itself; over the states when `only_cross_attention`
  LayerNorm<T> norm2;
  Attention<T> attn2;
  LayerNorm<T> norm3;
  Mlp<T> ff;  ///< gated
  bool only_cross_attention = false;

  BasicTransformerBlock() = default;
  /// Declared: to be loaded or initialised.
  BasicTransformerBlock(Index width, Index heads, Index context_width, bool only_cross = false)
      : norm1(width),
        attn1(width, heads, false, only_cross ? context_width : width, false),
        norm2(width),
        attn2(width, heads, false, context_width, false),
        norm3(width),
        ff(width, 4 * width, Activation::gelu, true),
        only_cross_attention(only_cross) {}
  void initialize(Generator& generator) {
    for (LayerNorm<T>* norm : {&norm1, &norm2, &norm3}) norm->initialize();
    attn1.initialize(generator);
    attn2.initialize(generator);
    ff.initialize(generator);
  }

  /// x [N, L, D], states [N, S, C], those of the patches on attn2 last -> [N, L, D].
  Var<T> operator()(Var<T> x, const Var<T>& states) const {
    const Var<T> h = norm1(x);
    const Index own = only_cross_attention ? attn2.own_rows() : 0;
    x = x + (!only_cross_attention ? attn1(h) : attn1(h, own == 0 ? states : slice(states, 1, 0, states.extent(1) - own)));
    x = x + attn2(norm2(x), states);
    return x + ff(norm3(x));
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("norm1", s.norm1);
    f("attn1", s.attn1, detail::diffusers_attention());
    f("norm2", s.norm2);
    f("attn2", s.attn2, detail::diffusers_attention());
    f("norm3", s.norm3);
    f("ff", s.ff, {{"fc1", "net.0.proj"}, {"fc2", "net.2"}});
  }
};

/// One matrix for every pixel: a 1x1 convolution in the checkpoints of SD 1, a Linear in those of SD 2 and XL.
template <class T>
struct PixelProjection {
  std::optional<Conv2d<T>> conv;
  std::optional<Linear<T>> linear;

  PixelProjection() = default;
  /// Declared: to be loaded or initialised.
  PixelProjection(Index channels, bool as_linear) {
    if (as_linear)
      linear.emplace(channels, channels);
    else
      conv.emplace(channels, channels, 1);
  }
  void initialize(Generator& generator) { linear ? linear->initialize(generator) : conv->initialize(generator); }

  /// x [N, H, W, C] -> the same shape.
  Var<T> operator()(const Var<T>& x) const { return linear ? (*linear)(x) : (*conv)(x); }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("", s.conv);
    f("", s.linear);
  }
};

/// Norm, projection, transformer blocks over all pixels, projection, and the input added.
template <class T>
struct Transformer2d {
  GroupNorm<T> norm;  ///< eps 1e-6, whatever the U-Net's
  PixelProjection<T> proj_in;
  std::vector<BasicTransformerBlock<T>> transformer_blocks;
  PixelProjection<T> proj_out;
  bool checkpointing = false;  ///< backward keeps each transformer block's input only and computes the block again

  Transformer2d() = default;
  /// Declared: to be loaded or initialised.
  Transformer2d(Index channels, Index heads, Index depth, Index context_width, Index groups = 32, bool linear_projection = false,
                bool only_cross_attention = false)
      : norm(groups, channels, 1e-6), proj_in(channels, linear_projection), proj_out(channels, linear_projection) {
    for (Index i = 0; i < depth; ++i) transformer_blocks.emplace_back(channels, heads, context_width, only_cross_attention);
  }
  void initialize(Generator& generator) {
    norm.initialize();
    proj_in.initialize(generator);
    for (auto& block : transformer_blocks) block.initialize(generator);
    proj_out.initialize(generator);
  }

  /// x [N, H, W, C], states [N, S, D] -> [N, H, W, C].
  Var<T> operator()(const Var<T>& x, const Var<T>& states) const {
    Var<T> h = reshape(proj_in(norm(x)), {x.extent(0), x.extent(1) * x.extent(2), x.extent(3)});
    for (const auto& block : transformer_blocks) h = detail::run(checkpointing, block, h, states);
    return proj_out(reshape(h, x.shape())) + x;
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("norm", s.norm);
    f("proj_in", s.proj_in);
    f("transformer_blocks", s.transformer_blocks);
    f("proj_out", s.proj_out);
  }
};

}  // namespace tenon::inline TENON_ABI
