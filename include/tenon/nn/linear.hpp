#pragma once
// Linear: y = x W^T + b.
#include <tenon/nn/fields.hpp>
#include <tenon/nn/init.hpp>
#include <tenon/ops/linear.hpp>
#include <tenon/ops/unary.hpp>

namespace tenon::inline TENON_ABI {

/// A fully connected layer that patches may tune.
template <class T>
struct Linear {
  Param<T> weight;  ///< [out, in]
  Param<T> bias;    ///< [out], or absent
  OutputSlot<T> patches;

  Linear() = default;
  /// Declared: to be loaded or initialised.
  Linear(Index in, Index out, bool with_bias = true) : weight(Shape{out, in}) {
    if (with_bias) bias = Param<T>(Shape{out});
  }
  Linear(Index in, Index out, Generator& generator, bool with_bias = true) : Linear(in, out, with_bias) { initialize(generator); }
  void initialize(Generator& generator) { init::fan_in_uniform(weight, bias, generator); }

  Index in() const { return weight->shape()[1]; }
  Index out() const { return weight->shape()[0]; }

  /// x [..., in] -> act(y) [..., out].
  Var<T> operator()(const Var<T>& x, Activation act = Activation::none) const;
  /// x [..., in] -> value gelu(gate) [..., out / 2] of the halves of y (GEGLU).
  Var<T> geglu(const Var<T>& x) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("weight", s.weight);
    f("bias", s.bias);
  }
};

template <class T>
Var<T> Linear<T>::operator()(const Var<T>& x, Activation act) const {
  if (patches.empty()) return linear(x, *weight, bias.get_if(), act);
  if (const auto groups = row_groups(patches); !groups.empty()) return by_rows(groups, x, [&](const Var<T>& part) { return (*this)(part, act); });
  const bool fused = !changes_output(patches);
  const Var<T> y = through(
      patches, x,
      [&](const Var<T>& input, std::span<const LowRank<T>> low_rank, bool with_bias) {
        return linear(input, *weight, with_bias ? bias.get_if() : nullptr, fused ? act : Activation::none, low_rank);
      },
      [&](const Var<T>& product) { return bias ? product + bias->var() : product; });
  return fused || act == Activation::none ? y : activation(y, act);
}

template <class T>
Var<T> Linear<T>::geglu(const Var<T>& x) const {
  if (patches.empty()) return geglu_linear(x, *weight, bias.get_if());
  if (const auto groups = row_groups(patches); !groups.empty()) return by_rows(groups, x, [&](const Var<T>& part) { return geglu(part); });
  if (changes_output(patches)) return tenon::geglu((*this)(x));
  return through(
      patches, x,
      [&](const Var<T>& input, std::span<const LowRank<T>> low_rank, bool) { return geglu_linear(input, *weight, bias.get_if(), low_rank); },
      [](const Var<T>& y) { return y; });
}

TENON_COMPILED_TEMPLATE(struct Linear<float>)

}  // namespace tenon::inline TENON_ABI
