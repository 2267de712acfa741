#pragma once
// What a patch keeps of the Linear or Conv2d that it sits on, and a patch that is a weight delta of the layer's own shape.
#include <cmath>

#include <tenon/ops/matmul.hpp>
#include <tenon/ops/random.hpp>
#include <tenon/peft/attach.hpp>

namespace tenon::inline TENON_ABI {

/// A Linear or Conv2d as seen by its patch. Weights live on the heap, so it survives moves of the model.
template <class T>
struct TunedLayer {
  Weight<T>* weight = nullptr;
  Weight<T>* bias = nullptr;  ///< null when the layer has none
  Conv2dOptions conv{};
  bool table = false;  ///< an Embedding [vocabulary, D], which only tuned_layer_or_table gives
  std::optional<typename Weight<T>::Stored> unmerged{};  ///< the weight's elements without what is merged into it now

  const Shape& shape() const { return weight->shape(); }
  bool is_conv() const { return shape().rank() == 4; }
  Index out() const { return shape()[table ? 1 : 0]; }
  /// The weight's elements, without what is merged into it.
  typename Weight<T>::Stored base() const { return unmerged ? *unmerged : weight->stored(); }
  /// Inputs of one output: in, in / groups * kh * kw, or the vocabulary.
  Index fan_in() const { return out() == 0 ? 0 : weight->size() / out(); }
  /// x times another weight of this layer's shape, without bias.
  Var<T> product(const Var<T>& x, const Weight<T>& other) const {
    return is_conv() ? conv2d(x, other, nullptr, conv) : linear(x, other);
  }
};

/// The Linear or Conv2d at a site, or none.
template <class T>
std::optional<TunedLayer<T>> tuned_layer(const SiteRef<T>& site) {
  if (auto* const* linear = std::get_if<Linear<T>*>(&site.layer))
    return TunedLayer<T>{(*linear)->weight.get(), (*linear)->bias ? (*linear)->bias.get() : nullptr, {}, false, site.patches->original};
  if (auto* const* conv = std::get_if<Conv2d<T>*>(&site.layer))
    return TunedLayer<T>{(*conv)->weight.get(), (*conv)->bias ? (*conv)->bias.get() : nullptr,
                         (*conv)->options(), false, site.patches->original};
  return std::nullopt;
}

/// The Linear, Conv2d or Embedding at a site, or none.
template <class T>
std::optional<TunedLayer<T>> tuned_layer_or_table(const SiteRef<T>& site) {
  auto* const* table = std::get_if<Embedding<T>*>(&site.layer);
  return table != nullptr ? TunedLayer<T>{(*table)->weight.get(), nullptr, {}, true, site.patches->original} : tuned_layer(site);
}

namespace detail {
/// The groups of a convolution, 1 for any other layer.
template <class T>
Index groups_of(const SiteRef<T>& site) {
  const auto* const* conv = std::get_if<Conv2d<T>*>(&site.layer);
  return conv != nullptr ? (*conv)->groups : 1;
}
}  // namespace detail

namespace detail {
/// A configuration's rank and alpha for the layer at `path`: those of the first pattern that names it, else its own. Throws
/// Error for a rank below 1 and an alpha that is no finite number.
template <class Config>
std::pair<Index, double> rank_and_alpha(std::string_view what, const Config& config, std::string_view path) {
  const auto of = [&](auto value, const auto& patterns) {
    const auto at = std::find_if(patterns.begin(), patterns.end(), [&](const auto& pattern) { return target_matches(pattern.first, path); });
    return at != patterns.end() ? at->second : value;
  };
  const Index rank = of(config.rank, config.rank_pattern);
  const double alpha = of(config.alpha, config.alpha_pattern);
  check(rank >= 1, what, "expected a rank of at least 1, got ", rank, " for ", path);
  check(std::isfinite(alpha), what, "expected a finite alpha, got ", alpha, " for ", path);
  return {rank, alpha};
}
/// Throws Error for a share outside [0, 1).
inline void check_dropout(std::string_view what, std::initializer_list<double> shares) {
  for (const double share : shares) check(0 <= share && share < 1, what, "expected a dropout in [0, 1), got ", share);
}
}  // namespace detail

/// What a Training drops of a weight delta, as peft's LoHa and LoKr do.
struct DeltaDropout {
  double rows = 0;       ///< the share of its rows, one draw for the whole batch (peft's rank_dropout)
  bool rescaled = true;  ///< the rows that are kept are multiplied by all / kept
  double module = 0;     ///< the share of the steps in which it is left out
};

/// y += e x delta^T for a delta of the weight's shape that is made anew from few parameters in each forward.
template <class T>
struct WeightDelta : OutputPatch<T> {
  TunedLayer<T> layer;
  DeltaDropout drops{};

  explicit WeightDelta(const TunedLayer<T>& tuned) : layer(tuned) { layer.unmerged.reset(); }
  /// The delta in the weight's shape, the method's own scale in it.
  virtual Var<T> delta() const = 0;

  bool has_after() const override { return true; }
  Var<T> after(const Var<T>& x, const Var<T>& y, T scale) const override {
    const Var<T> d = delta();
    return y + dropped(layer.product(x, Weight<T>(scale == T(1) ? d : d * static_cast<double>(scale))));
  }
  bool can_merge() const override { return true; }
  std::optional<Tensor<T>> merged(const Tensor<T>& weight, T scale) const override {
    const NoGrad none;
    return (Var<T>(weight) + delta() * static_cast<double>(scale)).value();
  }

 protected:
  /// What is added to the output [..., out], with what a Training drops of it.
  Var<T> dropped(Var<T> change) const {
    if (!is_training()) return change;
    if (drops.rows > 0) {
      Tensor<T> rows = dropout(Var<T>(Tensor<T>::full(Shape{layer.out()}, T(1))), drops.rows).value();
      const Index kept = std::count_if(rows.begin(), rows.end(), [](T row) { return row != T(0); });
      const T factor = drops.rescaled && kept > 0 ? static_cast<T>(rows.size()) / static_cast<T>(kept) : T(1);
      for (T& row : rows) row = row != T(0) ? factor : T(0);
      change = change * Var<T>(std::move(rows));
    }
    if (drops.module > 0) change = change * (dropout(Var<T>(Tensor<T>::full(Shape{1}, T(1))), drops.module) * (1 - drops.module));  // 0 or 1
    return change;
  }
};

/// core [r1, r2, kh, kw] with a [r1, out] and b [r2, in] as a kernel [out, in, kh, kw] (Tucker decomposition).
template <class T>
Var<T> tucker_kernel(const Var<T>& core, const Var<T>& a, const Var<T>& b) {
  const Shape& c = core.shape();
  const Index pixels = c[2] * c[3], in = b.extent(1), out = a.extent(1);
  const Var<T> inner = matmul(b, reshape(core, Shape{c[0], c[1], pixels}), {.transpose_a = true});  // [r1, in, pixels]
  return reshape(matmul(a, reshape(inner, Shape{c[0], in * pixels}), {.transpose_a = true}), Shape{out, in, c[2], c[3]});
}

}  // namespace tenon::inline TENON_ABI
