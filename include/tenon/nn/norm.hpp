#pragma once
// LayerNorm (Ba et al. 2016, 1607.06450) and GroupNorm (Wu, He 2018, 1803.08494).
#include <tenon/nn/init.hpp>
#include <tenon/nn/patch.hpp>
#include <tenon/ops/norm.hpp>
#include <tenon/ops/unary.hpp>

namespace tenon::inline TENON_ABI {

/// Normalises the last axis, then scales and shifts.
template <class T>
struct LayerNorm {
  Param<T> weight;  ///< [D]
  Param<T> bias;    ///< [D]
  double eps = 1e-5;
  OutputSlot<T> patches;

  LayerNorm() = default;
  /// Declared: to be loaded or initialised.
  explicit LayerNorm(Index width, double epsilon = 1e-5) : weight(Shape{width}), bias(Shape{width}), eps(epsilon) {}
  void initialize() {
    init::constant(weight, T(1));
    init::constant(bias, T(0));
  }

  /// x [..., D] -> [..., D].
  Var<T> operator()(const Var<T>& x) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("weight", s.weight);
    f("bias", s.bias);
  }
};

/// Normalises groups of channels over all pixels, then scales and shifts; optionally followed by SiLU in the same pass.
template <class T>
struct GroupNorm {
  Param<T> weight;  ///< [C]
  Param<T> bias;    ///< [C]
  Index groups = 32;
  double eps = 1e-5;
  OutputSlot<T> patches;

  GroupNorm() = default;
  /// Declared: to be loaded or initialised.
  GroupNorm(Index group_count, Index channels, double epsilon = 1e-5)
      : weight(Shape{channels}), bias(Shape{channels}), groups(group_count), eps(epsilon) {}
  void initialize() {
    init::constant(weight, T(1));
    init::constant(bias, T(0));
  }

  /// x [N, H, W, C] -> the same shape; see group_norm for an x that is moved here.
  Var<T> operator()(Var<T> x, bool silu = false) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("weight", s.weight);
    f("bias", s.bias);
  }
};

template <class T>
Var<T> LayerNorm<T>::operator()(const Var<T>& x) const {
  const auto norm = [&](const Var<T>& input) { return layer_norm(input, weight->var(), bias->var(), eps); };
  if (patches.empty()) return norm(x);
  if (const auto groups = row_groups(patches); !groups.empty()) return by_rows(groups, x, [&](const Var<T>& part) { return (*this)(part); });
  return through(
      patches, x, [&](const Var<T>& input, std::span<const LowRank<T>>, bool) { return norm(input); }, [](const Var<T>& y) { return y; });
}

template <class T>
Var<T> GroupNorm<T>::operator()(Var<T> x, bool silu) const {
  if (patches.empty()) return group_norm(std::move(x), groups, weight->var(), bias->var(), eps, silu);
  if (const auto parts = row_groups(patches); !parts.empty()) return by_rows(parts, x, [&](const Var<T>& part) { return (*this)(part, silu); });
  const bool fused = !changes_output(patches);
  const Var<T> y = through(
      patches, x,
      [&](const Var<T>& input, std::span<const LowRank<T>>, bool) {
        return group_norm(input, groups, weight->var(), bias->var(), eps, silu && fused);
      },
      [](const Var<T>& normed) { return normed; });
  return fused || !silu ? y : activation(y, Activation::silu);
}

TENON_COMPILED_TEMPLATE(struct LayerNorm<float>)
TENON_COMPILED_TEMPLATE(struct GroupNorm<float>)

}  // namespace tenon::inline TENON_ABI
