#pragma once
// One layer of an attached adapter as files hold it, by peft's names.
#include <tenon/peft/formats/adapter_file.hpp>

namespace tenon::inline TENON_ABI::detail {

struct LayerExport {
  std::string path, kind;
  std::vector<std::pair<std::string, RawTensor>> parts;  ///< by peft's names
  double alpha = 0;
  Index rank = 0;
  bool rslora = false;
  double dropout = 0;
};

/// A layer's patch for a file. PiSSA becomes the LoRA of twice the rank that it is: [A; A0] and [B, -B0] over the untouched base.
template <class T>
LayerExport export_layer(const SiteRef<T>& site, Patch<T>& patch, DType dtype) {
  LayerExport out;
  out.path = site.path;
  out.kind = patch.kind();
  const auto raw = [&](const Tensor<T>& value) {
    return visit_dtype(dtype, [&]<class To>() { return raw_copy(cast<To>(value)); });
  };
  const Index groups = groups_of(site);
  const auto* lora = dynamic_cast<const Lora<T>*>(&patch);
  if (const auto* dora = dynamic_cast<const Dora<T>*>(&patch)) lora = &dora->lora;
  if (const auto* dora = dynamic_cast<const DoraByInput<T>*>(&patch)) lora = &dora->lora;
  patch.params([&](std::string_view part, Param<T>& param) {
    const bool own_group = groups > 1 && part == "lora_A.weight" && param->shape()[1] == site.weight->shape()[1];
    Tensor<T> value = own_group ? reading_every_input(param->value(), groups) : param->value();
    if (lora != nullptr && lora->a0 && (part == "lora_A.weight" || part == "lora_B.weight")) {
      const NoGrad none;
      const bool down = part == "lora_A.weight";
      value = concat<T>({Var<T>(std::move(value)), down ? Var<T>(lora->a0->value()) : -Var<T>(lora->b0->value())}, down ? 0 : 1).value();
    }
    out.parts.emplace_back(part, raw(value));
  });
  if (lora != nullptr) {
    out.rank = lora->rank(), out.alpha = lora->alpha, out.rslora = lora->rslora, out.dropout = lora->dropout;
    if (lora->a0) out.rank *= 2, out.alpha *= lora->rslora ? std::sqrt(2.0) : 2.0;
  } else if (const auto* loha = dynamic_cast<const Loha<T>*>(&patch)) {
    out.rank = loha->rank(), out.alpha = loha->alpha;
  } else if (const auto* lokr = dynamic_cast<const Lokr<T>*>(&patch)) {
    out.rank = lokr->rank, out.alpha = lokr->alpha;
  } else if (const auto* tucker = dynamic_cast<const Tucker<T>*>(&patch)) {
    out.rank = tucker->rank(), out.alpha = tucker->alpha;
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI::detail
