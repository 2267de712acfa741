#pragma once
// Mlp: the feed-forward block of a transformer.
#include <tenon/nn/linear.hpp>

namespace tenon::inline TENON_ABI {

/// y = fc2(act(fc1(x))).
template <class T>
struct Mlp {
  Linear<T> fc1;  ///< D -> hidden
  Linear<T> fc2;  ///< hidden -> D
  Activation act = Activation::gelu;
  OutputSlot<T> patches;

  Mlp() = default;
  /// Declared: to be loaded or initialised.
  Mlp(Index width, Index hidden, Activation function) : fc1(width, hidden), fc2(hidden, width), act(function) {}
  void initialize(Generator& generator) {
    fc1.initialize(generator);
    fc2.initialize(generator);
  }

  /// x [..., D] -> [..., D].
  Var<T> operator()(const Var<T>& x) const {
    if (patches.empty()) return fc2(fc1(x, act));
    return through(
        patches, x, [&](const Var<T>& input, std::span<const LowRank<T>>, bool) { return fc2(fc1(input, act)); },
        [](const Var<T>& y) { return y; });
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("fc1", s.fc1);
    f("fc2", s.fc2);
  }
};

}  // namespace tenon::inline TENON_ABI
