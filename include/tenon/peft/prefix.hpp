#pragma once
// Prefix-tuning (Li, Liang 2021, 2101.00190): learned keys and values that every query of an attention sees, self and cross.
//
// In training they may come from a small network that all layers share but for its last matrix (the paper's
// reparametrisation, peft's prefix_projection): table [P, E] -> Linear -> tanh -> Linear for each layer. With a gate, which
// begins at zero, they are attended apart and added (Zhang et al. 2023, 2303.16199, with the gate as it is, without a tanh).
#include <tenon/peft/attach.hpp>

namespace tenon::inline TENON_ABI {

struct PrefixConfig {
  /// Learned positions in front of the keys.
  Index length = 8;
  /// Deviation of the first keys; the first values are zero. Without reparametrisation only.
  double deviation = 0.02;
  /// Hidden width of the network that makes keys and values; 0: they are parameters themselves.
  Index reparametrisation = 0;
  /// Keys and values are attended apart, times a learned number for each layer that begins at zero.
  bool gated = false;
  /// Attention layers; all when empty.
  std::vector<std::string> targets{};
};

/// What the layers share of a reparametrised prefix.
template <class T>
struct PrefixTrunk {
  Param<T> table;    ///< [P, E]
  Linear<T> hidden;  ///< E -> H

  PrefixTrunk(Index length, Index width, Index hidden_width, Generator& generator) : table(Shape{length, width}), hidden(width, hidden_width, generator) {
    init::normal(table, 1.0, generator);
  }
  Var<T> operator()() const { return tanh(hidden(table->var())); }
};

/// Attention over [P_k; K] and [P_v; V], or with a gate beside it. Without one a fresh prefix does change the output: it takes
/// its share of the softmax, and zero values leave the rest a little smaller.
template <class T>
struct Prefix final : KeyValuePatch<T> {
  Param<T> keys, values;                  ///< [P, D] each; absent with a trunk
  Param<T> gate;                          ///< [1], or absent
  std::shared_ptr<PrefixTrunk<T>> trunk;  ///< shared by the adapter's layers, or null
  Linear<T> last;                         ///< H -> 2 D: keys, then values
  bool first = false;                     ///< whether this layer's patch is the one that lists the trunk's parameters

  Prefix(Index length, Index width, bool gated) : keys(Shape{length, width}), values(Shape{length, width}) {
    if (gated) gate = Param<T>(Tensor<T>(Shape{1}));
  }
  Prefix(std::shared_ptr<PrefixTrunk<T>> shared, Index width, bool gated, Generator& generator)
      : trunk(std::move(shared)), last(trunk->hidden.out(), 2 * width, generator) {
    if (gated) gate = Param<T>(Tensor<T>(Shape{1}));
  }
  void initialize(double deviation, Generator& generator) {
    init::normal(keys, deviation, generator);
    init::constant(values, T(0));
  }

  std::string_view kind() const override { return "prefix"; }
  std::vector<NamedParam<T>> params() override {
    std::vector<NamedParam<T>> out;
    if (trunk) {
      if (first) out = {{"prefix_table", &trunk->table}, {"prefix_hidden.weight", &trunk->hidden.weight}, {"prefix_hidden.bias", &trunk->hidden.bias}};
      out.insert(out.end(), {{"prefix_last.weight", &last.weight}, {"prefix_last.bias", &last.bias}});
    } else {
      out = {{"prefix_keys", &keys}, {"prefix_values", &values}};
    }
    if (gate) out.push_back({"prefix_gate", &gate});
    return out;
  }
  bool apart() const override { return static_cast<bool>(gate); }
  typename KeyValuePatch<T>::KeysValues keys_values(const Var<T>& = {}) const override {
    typename KeyValuePatch<T>::KeysValues out;
    if (trunk) {
      const Var<T> both = last((*trunk)());
      const Index width = both.extent(1) / 2;
      out.keys = slice(both, 1, 0, width), out.values = slice(both, 1, width, 2 * width);
    } else {
      out.keys = keys->var(), out.values = values->var();
    }
    if (gate) out.gate = gate->var();
    return out;
  }
};

/// Attaches a prefix to the attention layers that the targets name, to all when there are none. Throws as `attach` does for
/// other methods.
template <class M>
AttachReport attach(M& model, const PrefixConfig& config, Generator& generator, const AttachOptions& options = {}) {
  using T = scalar_of<M>;
  check(config.length >= 1, "PrefixConfig", "expected a length of at least 1, got ", config.length);
  check(config.reparametrisation >= 0, "PrefixConfig", "expected a hidden width of at least 1, or 0 for none, got ", config.reparametrisation);
  std::shared_ptr<PrefixTrunk<T>> trunk;
  const auto is_attention = [](const SiteRef<T>& site) { return std::holds_alternative<Attention<T>*>(site.layer); };
  auto placements = detail::patches_for(model, config.targets, is_attention, [&](const SiteRef<T>& site) -> NewPatch<T> {
    if (!is_attention(site)) return {};
    const Index width = std::get<Attention<T>*>(site.layer)->k_proj.out();
    if (config.reparametrisation == 0) {
      auto patch = std::make_unique<Prefix<T>>(config.length, width, config.gated);
      patch->initialize(config.deviation, generator);
      return {nullptr, std::move(patch)};
    }
    const bool first = trunk == nullptr;
    if (first) trunk = std::make_shared<PrefixTrunk<T>>(config.length, width, config.reparametrisation, generator);
    auto patch = std::make_unique<Prefix<T>>(trunk, width, config.gated, generator);
    patch->first = first;
    return {nullptr, std::move(patch)};
  });
  return detail::place(std::move(placements), options);
}

}  // namespace tenon::inline TENON_ABI
