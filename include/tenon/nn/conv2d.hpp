#pragma once
// Conv2d: two-dimensional convolution on channels-last activations.
#include <tenon/nn/fields.hpp>
#include <tenon/nn/init.hpp>
#include <tenon/ops/conv2d.hpp>
#include <tenon/ops/shape.hpp>

namespace tenon::inline TENON_ABI {

struct Conv2dConfig {
  Index stride = 1;
  Index padding = 0;
  Index dilation = 1;
  Index groups = 1;
  bool bias = true;
  Index upsample = 1;  ///< x is enlarged so many times by the nearest pixel first; only with stride 1
};

/// A convolution that patches may tune.
template <class T>
struct Conv2d {
  Param<T> weight;  ///< [out, in / groups, kh, kw], as checkpoints hold it
  Param<T> bias;    ///< [out], or absent
  Index stride = 1, padding = 0, dilation = 1, groups = 1, upsample = 1;
  std::shared_ptr<const ConvAlgorithm<T>> algorithm;  ///< of the product with the weight in inference; null: the direct one
  OutputSlot<T> patches;

  Conv2d() = default;
  /// Declared: to be loaded or initialised. Throws ShapeError when the groups do not divide the channels.
  Conv2d(Index in, Index out, Index kernel, const Conv2dConfig& config = {});
  Conv2d(Index in, Index out, Index kernel, Generator& generator, const Conv2dConfig& config = {}) : Conv2d(in, out, kernel, config) {
    initialize(generator);
  }
  Conv2dOptions options() const { return {stride, padding, dilation, groups, upsample}; }
  void initialize(Generator& generator) { init::fan_in_uniform(weight, bias, generator); }

  /// x [N, H, W, in] -> [N, H', W', out], plus a bias of its own [N, out] for each sample (a time embedding) where given.
  Var<T> operator()(Var<T> x, const std::optional<Var<T>>& sample_bias = {}) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("weight", s.weight);
    f("bias", s.bias);
  }
};

template <class T>
Conv2d<T>::Conv2d(Index in, Index out, Index kernel, const Conv2dConfig& config)
    : stride(config.stride), padding(config.padding), dilation(config.dilation), groups(config.groups), upsample(config.upsample) {
  check<ShapeError>(groups > 0 && in % groups == 0 && out % groups == 0, "Conv2d", "expected channels that ", groups,
                    " groups divide, got ", in, " in and ", out, " out");
  weight = Param<T>(Shape{out, in / groups, kernel, kernel});
  if (config.bias) bias = Param<T>(Shape{out});
}

template <class T>
Var<T> Conv2d<T>::operator()(Var<T> x, const std::optional<Var<T>>& sample_bias) const {
  if (patches.empty()) return conv2d(std::move(x), *weight, bias.get_if(), options(), {}, sample_bias, algorithm.get());
  if (const auto parts = row_groups(patches); !parts.empty()) {
    if (!sample_bias) return by_rows(parts, x, [&](const Var<T>& part) { return (*this)(part); });
    return by_rows(parts, x, *sample_bias, [&](const Var<T>& part, const Var<T>& own) { return (*this)(part, own); });
  }
  const bool fused = !changes_output(patches);
  const Var<T> y = through(
      patches, x,
      [&](const Var<T>& input, std::span<const LowRank<T>> low_rank, bool with_bias) {
        return conv2d(input, *weight, with_bias ? bias.get_if() : nullptr, options(), low_rank, fused ? sample_bias : std::nullopt, algorithm.get());
      },
      [&](const Var<T>& product) { return bias ? product + bias->var() : product; });
  return fused || !sample_bias ? y : y + reshape(*sample_bias, {sample_bias->extent(0), 1, 1, -1});
}

TENON_COMPILED_TEMPLATE(struct Conv2d<float>)

}  // namespace tenon::inline TENON_ABI
