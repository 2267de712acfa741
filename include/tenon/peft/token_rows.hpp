#pragma once
// Learned rows of an Embedding, by ids that follow its table: textual inversion (Gal et al. 2022, 2208.01618), whose ids a
// tokenizer gives for a new word, and prompt tuning (Lester et al. 2021, 2104.08691), whose ids stand in front of every text.
//
//   attach(clip.text_model, TokenRowsConfig{.count = 4, .targets = {"token_embedding"}}, generator, {.name = "prompt"});
//   auto ids = insert_tokens(tokenizer(texts), token_ids(clip.text_model, "prompt"), 1);  // behind the begin token
#include <tenon/ops/gather.hpp>
#include <tenon/peft/attach.hpp>

namespace tenon::inline TENON_ABI {

struct TokenRowsConfig {
  Index count = 1;
  std::vector<std::string> targets{};
  /// Ids whose rows the new rows begin as, one after the other and again from the first; normal numbers when there are none.
  std::vector<std::int32_t> initial{};
  double deviation = 0.02;
};

template <class T>
struct TokenRows final : OutputPatch<T> {
  Param<T> rows;   ///< [count, D]
  Index first_id;  ///< the id of row 0

  TokenRows(Index count, Index width, Index first) : rows(Shape{count, width}), first_id(first) {}
  std::string_view kind() const override { return "token_rows"; }
  std::vector<NamedParam<T>> params() override { return {{"token_rows", &rows}}; }
  std::pair<Index, Index> own_ids() const override { return {first_id, first_id + rows->shape()[0]}; }
  bool has_after() const override { return true; }
  /// y [..., D] with the rows of own ids in their places, times the entry's scale.
  Var<T> after_rows(const Tensor<std::int32_t>& ids, const Var<T>& y, T scale) const override {
    const Index n = ids.size(), count = rows->shape()[0];
    auto from = Tensor<std::int64_t>::uninitialized({n});
    bool any = false;
    for (Index i = 0; i < n; ++i) {
      const Index row = ids.data()[i] - first_id;
      const bool own = 0 <= row && row < count;
      from.data()[i] = own ? n + row : i;
      any = any || own;
    }
    if (!any) return y;
    const Var<T> table = scale == T(1) ? rows->var() : rows->var() * static_cast<double>(scale);
    return reshape(index_select(concat({reshape(y, Shape{n, y.extent(-1)}), table}, 0), 0, std::move(from)), y.shape());
  }
};

template <class T>
bool fits_by_default(const TokenRowsConfig&, const SiteRef<T>&) {
  return false;
}

/// The first id that neither the table of a site nor rows attached to it have.
template <class T>
Index next_token_id(const SiteRef<T>& site) {
  Index id = site.weight->shape()[0];
  for (const auto& entry : *site.patches) id = std::max(id, entry.patch->own_ids().second);
  return id;
}

/// The patch of one site, initialised, or none where the layer is no Embedding.
template <class T>
NewPatch<T> make_patch(const TokenRowsConfig& config, const SiteRef<T>& site, Generator& generator) {
  check(config.count >= 1, "TokenRowsConfig", "expected at least 1 row, got ", config.count);
  if (!std::holds_alternative<Embedding<T>*>(site.layer)) return {};
  const Index vocabulary = site.weight->shape()[0], width = site.weight->shape()[1];
  auto patch = std::make_unique<TokenRows<T>>(config.count, width, next_token_id(site));
  init::normal(patch->rows, config.deviation, generator);
  if (config.initial.empty()) return {std::move(patch), nullptr};
  const auto table = site.weight->values();
  patch->rows->update([&](Tensor<T>& rows) {
    for (Index r = 0; r < config.count; ++r) {
      const Index id = config.initial[static_cast<std::size_t>(r) % config.initial.size()];
      check(0 <= id && id < vocabulary, "TokenRowsConfig", "expected initial ids in [0, ", vocabulary, ") for ", site.path, ", got ", id);
      std::copy_n(table->data() + id * width, width, rows.data() + r * width);
    }
  });
  return {std::move(patch), nullptr};
}

/// The ids of an attached adapter's rows, in order. Throws NameError when no adapter has that name, Error when it has no rows.
template <class M>
std::vector<std::int32_t> token_ids(M& model, const std::string& name) {
  std::vector<std::int32_t> out;
  detail::for_each_named(model, "token_ids", name, [&](const auto&, auto& entry) {
    if constexpr (requires { entry.patch->own_ids(); }) {
      const auto [first, last] = entry.patch->own_ids();
      for (Index id = first; id < last; ++id) out.push_back(static_cast<std::int32_t>(id));
    }
  });
  check(!out.empty(), "token_ids", "adapter '", name, "' has no rows of its own");
  return out;
}

/// ids [N, L] -> [N, L + P]: the given ids in front of position `at` of every row. Throws ShapeError.
inline Tensor<std::int32_t> insert_tokens(const Tensor<std::int32_t>& ids, const std::vector<std::int32_t>& inserted, Index at = 0) {
  check<ShapeError>(ids.rank() == 2 && 0 <= at && at <= ids.extent(1), "insert_tokens", "expected ids [N, L] and a position in 0 .. L, got ", ids.shape(),
                    " and ", at);
  const Index n = ids.extent(0), l = ids.extent(1), p = static_cast<Index>(inserted.size());
  auto out = Tensor<std::int32_t>::uninitialized({n, l + p});
  for (Index i = 0; i < n; ++i) {
    std::int32_t* to = std::copy_n(ids.data() + i * l, at, out.data() + i * (l + p));
    std::copy_n(ids.data() + i * l + at, l - at, std::copy(inserted.begin(), inserted.end(), to));
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI
