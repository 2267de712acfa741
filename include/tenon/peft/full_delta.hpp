#pragma once
// Deltas of the layer's own size, with one for the bias: LyCORIS' "full" (diff, diff_b) and "norm" (w_norm, b_norm). Read from files.
#include <tenon/ops/norm.hpp>
#include <tenon/peft/layer.hpp>
#include <tenon/peft/merge.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
struct FullDelta final : WeightDelta<T>, BiasPatch<T> {
  Param<T> diff;    ///< the weight's shape
  Param<T> diff_b;  ///< [out], or absent

  FullDelta(const TunedLayer<T>& tuned, bool with_bias) : WeightDelta<T>(tuned), diff(tuned.shape()) {
    if (with_bias) diff_b = Param<T>(Shape{tuned.out()});
  }
  std::string_view kind() const override { return "full"; }
  std::vector<NamedParam<T>> params() override {
    std::vector<NamedParam<T>> out{{"diff", &diff}};
    if (diff_b) out.push_back({"diff_b", &diff_b});
    return out;
  }
  Var<T> delta() const override { return diff->var(); }
  Var<T> after(const Var<T>& x, const Var<T>& y, T scale) const override {
    const Var<T> out = WeightDelta<T>::after(x, y, scale);
    return diff_b ? out + diff_b->var() * static_cast<double>(scale) : out;
  }
  bool changes_bias() const override { return static_cast<bool>(diff_b); }
  Tensor<T> merged_bias(const Tensor<T>& bias, T scale) const override {
    const NoGrad none;
    return diff_b ? (Var<T>(bias) + diff_b->var() * static_cast<double>(scale)).value() : bias;
  }
};

/// y += e (normalised x * w_norm + b_norm) of a LayerNorm or GroupNorm.
template <class T>
struct NormDelta final : OutputPatch<T>, BiasPatch<T> {
  Param<T> w_norm, b_norm;  ///< [C] each
  double eps;
  Index groups;  ///< 0 for a LayerNorm

  NormDelta(Index width, double epsilon, Index group_count) : w_norm(Shape{width}), b_norm(Shape{width}), eps(epsilon), groups(group_count) {}
  std::string_view kind() const override { return "norm"; }
  std::vector<NamedParam<T>> params() override { return {{"w_norm", &w_norm}, {"b_norm", &b_norm}}; }
  bool has_after() const override { return true; }
  Var<T> after(const Var<T>& x, const Var<T>& y, T scale) const override {
    const double e = static_cast<double>(scale);
    const Var<T> w = w_norm->var() * e, b = b_norm->var() * e;
    return y + (groups > 0 ? group_norm(x, groups, w, b, eps) : layer_norm(x, w, b, eps));
  }
  bool can_merge() const override { return true; }
  std::optional<Tensor<T>> merged(const Tensor<T>& weight, T scale) const override { return moved(weight, *w_norm, scale); }
  Tensor<T> merged_bias(const Tensor<T>& bias, T scale) const override { return moved(bias, *b_norm, scale); }

 private:
  static Tensor<T> moved(const Tensor<T>& from, const Weight<T>& by, T scale) {
    const NoGrad none;
    return (Var<T>(from) + by.var() * static_cast<double>(scale)).value();
  }
};

/// The delta of a norm at a site, or none at other layers.
template <class T>
std::unique_ptr<NormDelta<T>> norm_delta(const SiteRef<T>& site) {
  if (auto* const* norm = std::get_if<LayerNorm<T>*>(&site.layer)) return std::make_unique<NormDelta<T>>(site.weight->size(), (*norm)->eps, 0);
  if (auto* const* norm = std::get_if<GroupNorm<T>*>(&site.layer)) return std::make_unique<NormDelta<T>>(site.weight->size(), (*norm)->eps, (*norm)->groups);
  return nullptr;
}

}  // namespace tenon::inline TENON_ABI
