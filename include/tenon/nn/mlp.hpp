#pragma once
// Mlp: the feed-forward block of a transformer.
#include <tenon/nn/linear.hpp>

namespace tenon::inline TENON_ABI {

/// y = fc2(act(fc1(x))); gated: y = fc2(value gelu(gate)), value and gate being the halves of fc1(x) (GEGLU, 2002.05202).
template <class T>
struct Mlp {
  Linear<T> fc1;  ///< D -> hidden; gated: twice that
  Linear<T> fc2;  ///< hidden -> D
  Activation act = Activation::gelu;
  bool gated = false;
  OutputSlot<T> patches;

  Mlp() = default;
  /// Declared: to be loaded or initialised.
  Mlp(Index width, Index hidden, Activation function, bool with_gate = false);
  void initialize(Generator& generator) {
    fc1.initialize(generator);
    fc2.initialize(generator);
  }

  /// x [..., D] -> [..., D].
  Var<T> operator()(const Var<T>& x) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("fc1", s.fc1);
    f("fc2", s.fc2);
  }

 private:
  Var<T> forward(const Var<T>& x) const;
};

template <class T>
Mlp<T>::Mlp(Index width, Index hidden, Activation function, bool with_gate)
    : fc1(width, with_gate ? 2 * hidden : hidden), fc2(hidden, width), act(function), gated(with_gate) {
  check(!gated || act == Activation::gelu, "Mlp", "a gate takes gelu, got ", name_of(act));
}

template <class T>
Var<T> Mlp<T>::operator()(const Var<T>& x) const {
  if (patches.empty()) return forward(x);
  if (const auto groups = row_groups(patches); !groups.empty()) return by_rows(groups, x, [&](const Var<T>& part) { return (*this)(part); });
  return through(
      patches, x, [&](const Var<T>& input, std::span<const LowRank<T>>, bool) { return forward(input); }, [](const Var<T>& y) { return y; });
}

template <class T>
Var<T> Mlp<T>::forward(const Var<T>& x) const { return fc2(gated ? fc1.geglu(x) : fc1(x, act)); }

TENON_COMPILED_TEMPLATE(struct Mlp<float>)

}  // namespace tenon::inline TENON_ABI
