#pragma once
// What the bias of a layer has become that has no other patch of an adapter: peft's bias "all", which trains every bias of the model
// beside LoRA. Here it is a delta, so that disabling gives the base back, where peft writes the base's bias.
#include <tenon/peft/merge.hpp>

namespace tenon::inline TENON_ABI {

/// y += e (bias - the layer's own).
template <class T>
struct BiasDelta final : OutputPatch<T>, BiasPatch<T> {
  Param<T> bias;  ///< [out], begins as the layer's own, without what is merged into that

  explicit BiasDelta(std::shared_ptr<const Tensor<T>> first) : bias(Tensor<T>(*first)), first_(std::move(first)) {}
  std::string_view kind() const override { return "bias"; }
  std::vector<NamedParam<T>> params() override { return {{"bias", &bias}}; }
  bool has_after() const override { return true; }
  Var<T> after(const Var<T>&, const Var<T>& y, T scale) const override { return y + delta(scale); }
  bool can_merge() const override { return true; }
  std::optional<Tensor<T>> merged(const Tensor<T>& weight, T) const override { return weight; }
  Tensor<T> merged_bias(const Tensor<T>& before, T scale) const override {
    const NoGrad none;
    return (Var<T>(before) + delta(scale)).value();
  }

 private:
  Var<T> delta(T scale) const { return (bias->var() - Var<T>(first_, nullptr)) * static_cast<double>(scale); }

  std::shared_ptr<const Tensor<T>> first_;
};

/// The one of a site, or none where the layer has no bias. Throws Error for a bias that has no elements yet.
template <class T>
std::unique_ptr<BiasDelta<T>> bias_delta(const SiteRef<T>& site) {
  if (detail::bias_of(site) == nullptr) return nullptr;
  auto first = detail::unmerged_bias(site);
  check(first != nullptr, "bias_delta", "the bias of ", site.path, " has no elements yet: load a checkpoint or initialise before");
  return std::make_unique<BiasDelta<T>>(std::move(first));
}

}  // namespace tenon::inline TENON_ABI
