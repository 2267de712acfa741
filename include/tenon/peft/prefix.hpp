#pragma once
// Prefix-tuning (Li, Liang 2021, 2101.00190): learned keys and values that every query of an attention sees, self and cross.
#include <tenon/peft/attach.hpp>

namespace tenon::inline TENON_ABI {

struct PrefixConfig {
  /// Learned positions in front of the keys.
  Index length = 8;
  /// Deviation of the first keys; the first values are zero.
  double deviation = 0.02;
  /// Attention layers; all when empty.
  std::vector<std::string> targets{};
};

/// Attention over [P_k; K] and [P_v; V]. Unlike the other methods a fresh prefix does change the output: it takes its
/// share of the softmax, and zero values leave the rest a little smaller.
template <class T>
struct Prefix final : KeyValuePatch<T> {
  Param<T> keys;    ///< [P, D]
  Param<T> values;  ///< [P, D]

  Prefix(Index length, Index width) : keys(Shape{length, width}), values(Shape{length, width}) {}
  void initialize(double deviation, Generator& generator) {
    init::normal(keys, deviation, generator);
    init::constant(values, T(0));
  }

  std::string_view kind() const override { return "prefix"; }
  void params(const std::function<void(std::string_view, Param<T>&)>& f) override {
    f("prefix_keys", keys);
    f("prefix_values", values);
  }
  typename KeyValuePatch<T>::KeysValues keys_values() const override { return {keys->var(), values->var()}; }
};

template <class T>
bool fits_by_default(const PrefixConfig&, const SiteRef<T>& site) {
  return std::holds_alternative<Attention<T>*>(site.layer);
}

/// The patch of one site, initialised, or none where the layer is no Attention.
template <class T>
NewPatch<T> make_patch(const PrefixConfig& config, const SiteRef<T>& site, Generator& generator) {
  check(config.length >= 1, "PrefixConfig", "expected a length of at least 1, got ", config.length);
  auto* const* attention = std::get_if<Attention<T>*>(&site.layer);
  if (attention == nullptr) return {};
  auto patch = std::make_unique<Prefix<T>>(config.length, (*attention)->k_proj.out());
  patch->initialize(config.deviation, generator);
  return {nullptr, std::move(patch)};
}

}  // namespace tenon::inline TENON_ABI
