#pragma once
// PiSSA (Meng et al. 2024, 2404.02948): a LoRA that begins at the weight's largest singular values.
//
// peft takes s B A off the base weight. Here the base stays: the first A and B are kept, frozen, and what they put out is
// taken off at run time, which is the same sum. Files hold the LoRA of rank 2 R that this is, [A; A0] and [B, -B0] with the
// same scale, as peft's own conversion writes it: they load anywhere, over the base as it was.
#include <tenon/peft/svd.hpp>

namespace tenon::inline TENON_ABI {

struct PissaConfig {
  Index rank = 8;
  double alpha = 8;
  std::vector<std::string> targets{};
  bool rslora = false;
};

template <class T>
bool fits_by_default(const PissaConfig&, const SiteRef<T>&) {
  return false;
}

/// The patch of one site, or none where the layer is neither Linear nor Conv2d. Throws Error for a layer without elements or a
/// rank above its own.
template <class T>
NewPatch<T> make_patch(const PissaConfig& config, const SiteRef<T>& site, Generator&) {
  const auto layer = tuned_layer(site);
  if (!layer) return {};
  const Index groups = layer->conv.groups, most = groups * std::min(layer->fan_in(), layer->out() / groups);
  check(config.rank >= 1 && config.rank <= most, "PissaConfig", "expected a rank from 1 to ", most, ", got ", config.rank, " for ", site.path);
  check(layer->weight->filled(), "PissaConfig", site.path, " has no elements yet: load a checkpoint or initialise before PiSSA");
  Generator unused;
  auto made = make_patch(LoraConfig{.rank = config.rank, .alpha = config.alpha, .rslora = config.rslora}, site, unused);
  auto* lora = static_cast<Lora<T>*>(made.output.get());
  auto factors = detail::grouped_low_rank(*layer->weight->values(), config.rank, groups);
  const T root = static_cast<T>(1 / std::sqrt(static_cast<double>(lora->scale())));  // s B A is the top of W
  factors.a = detail::scaled(factors.a, root).reshape(lora->a->shape());
  factors.b = detail::scaled(factors.b, root).reshape(lora->b->shape());
  lora->a0 = Param<T>(Tensor<T>(factors.a), false);
  lora->b0 = Param<T>(Tensor<T>(factors.b), false);
  lora->a = Param<T>(std::move(factors.a));
  lora->b = Param<T>(std::move(factors.b));
  return made;
}

}  // namespace tenon::inline TENON_ABI
