#pragma once
// Activation checkpointing of a whole layer: backward keeps the layer's inputs only and computes the layer again.
#include <tenon/autograd/checkpoint.hpp>
#include <tenon/nn/fields.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// All that a layer's result depends on besides its inputs.
template <class T>
struct LayerState {
  struct Parameter {
    std::string path;
    Weight<T>* weight;
    std::uint64_t version;
    bool operator==(const Parameter&) const = default;
  };
  struct Attached {
    std::string path;
    const Patch<T>* patch;
    T scale;
    bool operator==(const Attached&) const = default;
  };
  std::vector<Parameter> parameters;  // the layer's and its active patches'
  std::vector<Attached> patches;      // the active ones

  template <class M>
  static LayerState of(M& layer) {
    LayerState out;
    const auto add = [&](const std::string& path, Weight<T>* weight) { out.parameters.push_back({path, weight, weight->version()}); };
    for (const auto& ref : params(layer)) add(ref.path, ref.weight);
    for (const auto& site : sites(layer))
      for_each_patch(site, [&](auto& entry) {
        if (!entry.active()) return;
        out.patches.push_back({site.path, entry.patch.get(), entry.scale});
        for (const auto& [name, param] : entry.patch->params())
          if (*param) add(join_text(site.path, site.path.empty() ? "" : ".", name), param->get());
      });
    return out;
  }
  /// Throws GraphError when anything differs from `before`.
  void check_same(const LayerState& before) const {
    check<GraphError>(patches == before.patches, "checkpoint", "the layer's patches changed between forward and backward");
    for (std::size_t i = 0; i < parameters.size(); ++i)
      check<GraphError>(i < before.parameters.size() && parameters[i] == before.parameters[i], "checkpoint", "the parameter ",
                        parameters[i].path, " was written between forward and backward");
  }
};

}  // namespace detail

/// `layer(x...)` without keeping what is inside; `layer` must outlive backward. The same bits, values and gradients.
/// backward throws GraphError when a parameter or patch of the layer has changed since.
template <class M, class... X>
  requires(std::same_as<X, scalar_of<M>> && ...)
Var<scalar_of<M>> checkpoint(const M& layer, const Var<X>&... x) {
  using T = scalar_of<M>;
  using State = detail::LayerState<T>;
  M& listed = const_cast<M&>(layer);  // lists of a const layer, which nothing here writes
  State before = State::of(listed);
  std::vector<Var<T>> leaves;
  for (const auto& parameter : before.parameters)
    if (parameter.weight->trainable()) leaves.push_back(parameter.weight->var());
  const auto run = [&layer, rows = detail::row_adapters](std::span<const Var<T>> inputs) {
    const detail::RowScope same_adapters(rows);
    return [&]<std::size_t... I>(std::index_sequence<I...>) { return layer(inputs[I]...); }(std::index_sequence_for<X...>());
  };
  return checkpoint<T>(run, std::vector<Var<T>>{x...}, leaves,
                       [&listed, before = std::move(before)] { State::of(listed).check_same(before); });
}

}  // namespace tenon::inline TENON_ABI
