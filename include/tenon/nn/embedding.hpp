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
  Var<T> operator()(const Tensor<std::int32_t>& ids) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("weight", s.weight);
  }
};

template <class T>
Var<T> Embedding<T>::operator()(const Tensor<std::int32_t>& ids) const {
  if (patches.empty()) return embedding(ids, *weight);
  if (const auto groups = row_groups(patches); !groups.empty()) {
    check<ShapeError>(ids.rank() >= 2, "RowAdapters", "a patched Embedding of adapters by row takes ids [N, L], got ", ids.shape());
    return by_rows(groups, ids, [&](const Tensor<std::int32_t>& part) { return (*this)(part); });
  }
  std::vector<LowRank<T>> low_rank;
  Tensor<std::int32_t> known(ids);
  for (const auto& entry : patches) {
    if (!takes_part(entry)) continue;
    if (auto term = entry.patch->low_rank(Var<T>())) {
      term->scale *= entry.scale;
      low_rank.push_back(std::move(*term));
    }
    const auto [first, last] = entry.patch->own_ids();
    for (auto& id : known)
      if (first <= id && id < last) id = 0;
  }
  Var<T> y = embedding(known, *weight, low_rank);
  for (const auto& entry : patches)
    if (takes_part(entry) && entry.patch->has_after()) y = entry.patch->after_rows(ids, y, entry.scale);
  return y;
}

TENON_COMPILED_TEMPLATE(struct Embedding<float>)

}  // namespace tenon::inline TENON_ABI
