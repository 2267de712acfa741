#pragma once
// Bottleneck adapters (Houlsby et al. 2019, 1902.00751; Pfeiffer et al. 2020, 2005.00247): a small Mlp behind a sublayer.
#include <tenon/peft/attach.hpp>

namespace tenon::inline TENON_ABI {

struct BottleneckConfig {
  Index bottleneck = 16;
  Activation activation = Activation::relu;
  /// Where adapters go when `targets` is empty: behind the feed-forward (Pfeiffer), the attention, or both (Houlsby).
  enum class Placement { mlp, attention, both } placement = Placement::mlp;
  std::vector<std::string> targets{};
};

/// y <- y + s up(act(down(y))), behind a layer and before its residual sum. `up` begins at zero, so nothing changes at first.
template <class T>
struct Bottleneck final : OutputPatch<T>, ReadsOutput {
  Linear<T> down;  ///< D -> bottleneck
  Linear<T> up;    ///< bottleneck -> D
  Activation act;

  Bottleneck(Index width, Index bottleneck, Activation function) : down(width, bottleneck), up(bottleneck, width), act(function) {}
  void initialize(Generator& generator) {
    down.initialize(generator);
    init::constant(up.weight, T(0));
    init::constant(up.bias, T(0));
  }

  std::string_view kind() const override { return "bottleneck"; }
  std::vector<NamedParam<T>> params() override {
    return {{"adapter_down.0.weight", &down.weight}, {"adapter_down.0.bias", &down.bias}, {"adapter_up.weight", &up.weight}, {"adapter_up.bias", &up.bias}};
  }
  bool has_after() const override { return true; }
  Var<T> after(const Var<T>&, const Var<T>& y, T scale) const override {
    const Var<T> delta = up(down(y, act));
    return y + (scale == T(1) ? delta : delta * scale);
  }
};

template <class T>
bool fits_by_default(const BottleneckConfig& config, const SiteRef<T>& site) {
  const bool mlp = std::holds_alternative<Mlp<T>*>(site.layer), attention = std::holds_alternative<Attention<T>*>(site.layer);
  return (mlp && config.placement != BottleneckConfig::Placement::attention) ||
         (attention && config.placement != BottleneckConfig::Placement::mlp);
}

/// The patch of one site, initialised. Adapters fit every layer whose output has features on its last axis.
template <class T>
NewPatch<T> make_patch(const BottleneckConfig& config, const SiteRef<T>& site, Generator& generator) {
  check(config.bottleneck >= 1, "BottleneckConfig", "expected a bottleneck of at least 1, got ", config.bottleneck);
  const Index width = std::visit([](auto* layer) -> Index {
    if constexpr (requires { layer->out_proj; })
      return layer->out_proj.out();
    else if constexpr (requires { layer->fc2; })
      return layer->fc2.out();
    else if constexpr (std::is_same_v<std::remove_pointer_t<decltype(layer)>, Embedding<T>>)
      return layer->weight->shape()[1];
    else
      return layer->weight->shape()[0];
  }, site.layer);
  auto patch = std::make_unique<Bottleneck<T>>(width, config.bottleneck, config.activation);
  patch->initialize(generator);
  return {std::move(patch), nullptr};
}

}  // namespace tenon::inline TENON_ABI
