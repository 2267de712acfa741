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

/// The patch of one site, or none where the layer is no Linear. Throws Error for a layer without elements or a rank above its own.
template <class T>
NewPatch<T> make_patch(const PissaConfig& config, const SiteRef<T>& site, Generator&) {
  auto* const* layer = std::get_if<Linear<T>*>(&site.layer);
  if (layer == nullptr) return {};
  const Index in = (*layer)->in(), out = (*layer)->out();
  check(config.rank >= 1 && config.rank <= std::min(in, out), "PissaConfig", "expected a rank from 1 to ", std::min(in, out), ", got ", config.rank, " for ",
        site.path);
  check(site.weight->filled(), "PissaConfig", site.path, " has no elements yet: load a checkpoint or initialise before PiSSA");
  auto lora = std::make_unique<Lora<T>>(Shape{config.rank, in}, Shape{out, config.rank}, Lora<T>::Layer::linear, config.alpha, config.rslora);
  auto factors = low_rank_of(*site.weight->values(), config.rank);
  const T root = static_cast<T>(1 / std::sqrt(static_cast<double>(lora->scale())));  // s B A is the top of W
  factors.a = detail::scaled(factors.a, root);
  factors.b = detail::scaled(factors.b, root);
  lora->a0 = Param<T>(Tensor<T>(factors.a), false);
  lora->b0 = Param<T>(Tensor<T>(factors.b), false);
  lora->a = Param<T>(std::move(factors.a));
  lora->b = Param<T>(std::move(factors.b));
  return {std::move(lora), nullptr};
}

}  // namespace tenon::inline TENON_ABI
