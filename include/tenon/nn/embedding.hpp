#pragma once
// Embedding: a table's rows by id.
#include <tenon/nn/fields.hpp>
#include <tenon/nn/init.hpp>
#include <tenon/ops/embedding.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
struct Embedding {
  Param<T> weight;  ///< [vocabulary, D]
  OutputSlot<T> patches;

  Embedding() = default;
  /// Declared: to be loaded or initialised.
  Embedding(Index vocabulary, Index width) : weight(Shape{vocabulary, width}) {}
  Embedding(Index vocabulary, Index width, Generator& generator) : Embedding(vocabulary, width) { initialize(generator); }
  void initialize(Generator& generator, double deviation = 1.0) { init::normal(weight, deviation, generator); }

  /// ids [...] -> [..., D].
  Var<T> operator()(const Tensor<std::int32_t>& ids) const {
    if (patches.empty()) return embedding(ids, *weight);
    return through(
        patches, Var<T>(),
        [&](const Var<T>&, std::span<const LowRank<T>> low_rank, bool) { return embedding(ids, *weight, low_rank); },
        [](const Var<T>& product) { return product; });
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("weight", s.weight);
  }
};

}  // namespace tenon::inline TENON_ABI
