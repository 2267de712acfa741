#pragma once
// ResnetBlock: two convolutions with a way around them, in a U-Net with the time between them
// (diffusers models/resnet.py, ResnetBlock2D; Ho et al. 2020, 2006.11239).
#include <tenon/nn/conv2d.hpp>
#include <tenon/nn/linear.hpp>
#include <tenon/nn/norm.hpp>
#include <tenon/ops/arithmetic.hpp>
#include <tenon/ops/shape.hpp>

namespace tenon::inline TENON_ABI {

/// How the time enters: added before the second norm, or as a scale and a shift after it (Dhariwal, Nichol 2021, 2105.05233).
enum class TimeEmbeddingNorm { add, scale_shift };

/// x -> norm, SiLU, conv -> time -> norm, SiLU, conv -> + x.
template <class T>
struct ResnetBlock {
  GroupNorm<T> norm1;
  Conv2d<T> conv1;
  std::optional<Linear<T>> time_emb_proj;  ///< absent without a time
  GroupNorm<T> norm2;
  Conv2d<T> conv2;
  std::optional<Conv2d<T>> conv_shortcut;  ///< absent when the channels stay
  TimeEmbeddingNorm time_norm = TimeEmbeddingNorm::add;

  ResnetBlock() = default;
  /// Declared: to be loaded or initialised. `time_width` 0: no time.
  ResnetBlock(Index in, Index out, Index time_width, Index groups = 32, double eps = 1e-5, TimeEmbeddingNorm norm = TimeEmbeddingNorm::add)
      : norm1(groups, in, eps),
        conv1(in, out, 3, {.padding = 1}),
        norm2(groups, out, eps),
        conv2(out, out, 3, {.padding = 1}),
        time_norm(norm) {
    if (time_width > 0) time_emb_proj.emplace(time_width, norm == TimeEmbeddingNorm::add ? out : 2 * out);
    if (in != out) conv_shortcut.emplace(in, out, 1);
  }
  void initialize(Generator& generator) {
    norm1.initialize();
    conv1.initialize(generator);
    if (time_emb_proj) time_emb_proj->initialize(generator);
    norm2.initialize();
    conv2.initialize(generator);
    if (conv_shortcut) conv_shortcut->initialize(generator);
  }

  /// x [N, H, W, in] -> [N, H, W, out], without a time. Throws ShapeError when the block has one.
  Var<T> operator()(Var<T> x) const {
    check<ShapeError>(!time_emb_proj, "ResnetBlock", "this block needs a time embedding");
    const Var<T> around = shortcut(x);
    x = norm1(std::move(x), true);
    x = conv1(std::move(x));
    x = norm2(std::move(x), true);
    x = conv2(std::move(x));
    return around + x;
  }
  /// x [N, H, W, in] and time [N, time_width] -> [N, H, W, out]. SiLU is applied to the time here. Throws ShapeError when the
  /// block has no time.
  Var<T> operator()(Var<T> x, const Var<T>& time) const {
    check<ShapeError>(time_emb_proj.has_value(), "ResnetBlock", "this block has no time embedding");
    const Var<T> t = (*time_emb_proj)(silu(time)), around = shortcut(x);
    x = norm1(std::move(x), true);
    if (time_norm == TimeEmbeddingNorm::add) {
      x = conv1(std::move(x), t);
      x = norm2(std::move(x), true);
    } else {
      const auto scale_and_shift = chunk(reshape(t, {t.extent(0), 1, 1, t.extent(1)}), 2);
      x = silu(norm2(conv1(x)) * (scale_and_shift[0] + 1.0) + scale_and_shift[1]);
    }
    x = conv2(std::move(x));
    return around + x;
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("norm1", s.norm1);
    f("conv1", s.conv1);
    f("time_emb_proj", s.time_emb_proj);
    f("norm2", s.norm2);
    f("conv2", s.conv2);
    f("conv_shortcut", s.conv_shortcut);
  }

 private:
  /// Comes first, so that the norm's input is free when the convolution runs: at the end of a decoder that is half of all memory.
  Var<T> shortcut(const Var<T>& x) const { return conv_shortcut ? (*conv_shortcut)(x) : x; }
};

}  // namespace tenon::inline TENON_ABI
