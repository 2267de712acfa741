#pragma once
// IA3 (Liu et al. 2022, 2205.05638): a learned factor for each feature that a layer puts out, or, in feed-forward layers,
// for each that it takes in. Shapes and names are those of peft's files.
//
// peft's IA3 knows no scale. Here an entry's scale e goes from the base (0) to the adapter (1) in a straight line: the
// factor is 1 + e (l - 1). Unmerging puts the elements of before back, where peft divides by l + 1e-8.
#include <tenon/peft/layer.hpp>
#include <tenon/peft/merge.hpp>

namespace tenon::inline TENON_ABI {

struct Ia3Config {
  std::vector<std::string> targets{};
  /// Those of the targets whose inputs are scaled, not their outputs.
  std::vector<std::string> feedforward{};
};

namespace detail {
/// 1 + e (l - 1), [C].
template <class T>
Var<T> ia3_factor(const Weight<T>& l, T scale) {
  const Var<T> flat = reshape(l.var(), Shape{l.size()});
  return scale == T(1) ? flat : (flat - 1.0) * static_cast<double>(scale) + 1.0;
}
/// weight [out, in / groups, pixels] with row o times f[o], or with column c of group g times f[g in / groups + c].
template <class T>
Tensor<T> ia3_merged(const Tensor<T>& weight, const Tensor<T>& f, bool rows, Index groups) {
  Tensor<T> out(weight);
  const Index outs = weight.extent(0), ins = weight.extent(1), pixels = outs * ins == 0 ? 0 : weight.size() / (outs * ins);
  for (Index o = 0; o < outs; ++o)
    for (Index c = 0; c < ins; ++c)
      for (Index p = 0; p < pixels; ++p) out.data()[(o * ins + c) * pixels + p] *= f.data()[rows ? o : o / (outs / groups) * ins + c];
  return out;
}
}  // namespace detail

/// y = l * (W x + b).
template <class T>
struct Ia3Output final : OutputPatch<T>, BiasPatch<T>, ReadsOutput {
  Param<T> l;  ///< Linear [out, 1], Conv2d [1, out, 1, 1]

  explicit Ia3Output(const TunedLayer<T>& layer) : l(layer.is_conv() ? Shape{1, layer.out(), 1, 1} : Shape{layer.out(), 1}) {}
  std::string_view kind() const override { return "ia3"; }
  std::vector<NamedParam<T>> params() override { return {{"ia3_l", &l}}; }
  bool has_after() const override { return true; }
  Var<T> after(const Var<T>&, const Var<T>& y, T scale) const override { return y * detail::ia3_factor(*l, scale); }
  bool can_merge() const override { return true; }
  std::optional<Tensor<T>> merged(const Tensor<T>& weight, T scale) const override {
    return detail::ia3_merged(weight, detail::ia3_factor(*l, scale).value(), true, 1);
  }
  Tensor<T> merged_bias(const Tensor<T>& bias, T scale) const override {
    const NoGrad none;
    return (Var<T>(bias) * detail::ia3_factor(*l, scale)).value();
  }
};

/// y = W (l * x) + b.
template <class T>
struct Ia3Input final : OutputPatch<T>, InputPatch<T> {
  Param<T> l;  ///< Linear [1, in], Conv2d [1, in, 1, 1]
  Index groups;

  explicit Ia3Input(const TunedLayer<T>& layer)
      : l(layer.is_conv() ? Shape{1, layer.shape()[1] * layer.conv.groups, 1, 1} : Shape{1, layer.shape()[1]}), groups(layer.conv.groups) {}
  std::string_view kind() const override { return "ia3"; }
  std::vector<NamedParam<T>> params() override { return {{"ia3_l", &l}}; }
  Var<T> before(const Var<T>& x) const override { return x * detail::ia3_factor(*l, this->entry_scale); }
  bool can_merge() const override { return true; }
  std::optional<Tensor<T>> merged(const Tensor<T>& weight, T scale) const override {
    return detail::ia3_merged(weight, detail::ia3_factor(*l, scale).value(), false, groups);
  }
};

template <class T>
bool fits_by_default(const Ia3Config&, const SiteRef<T>&) {
  return false;
}

/// The patch of one site, all ones, or none where the layer is neither Linear nor Conv2d.
template <class T>
NewPatch<T> make_patch(const Ia3Config& config, const SiteRef<T>& site, Generator&) {
  const auto layer = tuned_layer(site);
  if (!layer) return {};
  const auto made = [](auto patch) {
    init::constant(patch->l, T(1));
    return NewPatch<T>{std::move(patch), nullptr};
  };
  return any_target_matches(config.feedforward, site.path) ? made(std::make_unique<Ia3Input<T>>(*layer))
                                                            : made(std::make_unique<Ia3Output<T>>(*layer));
}

}  // namespace tenon::inline TENON_ABI
