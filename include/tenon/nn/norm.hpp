#pragma once
// LayerNorm (Ba et al. 2016, 1607.06450) and GroupNorm (Wu, He 2018, 1803.08494).
#include <tenon/nn/init.hpp>
#include <tenon/ops/norm.hpp>

namespace tenon::inline TENON_ABI {

/// Normalises the last axis, then scales and shifts.
template <class T>
struct LayerNorm {
  Param<T> weight;  ///< [D]
  Param<T> bias;    ///< [D]
  double eps = 1e-5;

  LayerNorm() = default;
  /// Declared: to be loaded or initialised.
  explicit LayerNorm(Index width, double epsilon = 1e-5) : weight(Shape{width}), bias(Shape{width}), eps(epsilon) {}
  void initialize() {
    init::constant(weight, T(1));
    init::constant(bias, T(0));
  }

  /// x [..., D] -> [..., D].
  Var<T> operator()(const Var<T>& x) const { return layer_norm(x, weight->var(), bias->var(), eps); }

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

  GroupNorm() = default;
  /// Declared: to be loaded or initialised.
  GroupNorm(Index group_count, Index channels, double epsilon = 1e-5)
      : weight(Shape{channels}), bias(Shape{channels}), groups(group_count), eps(epsilon) {}
  void initialize() {
    init::constant(weight, T(1));
    init::constant(bias, T(0));
  }

  /// x [N, H, W, C] -> the same shape.
  Var<T> operator()(const Var<T>& x, bool silu = false) const {
    return group_norm(x, groups, weight->var(), bias->var(), eps, silu);
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("weight", s.weight);
    f("bias", s.bias);
  }
};

}  // namespace tenon::inline TENON_ABI
