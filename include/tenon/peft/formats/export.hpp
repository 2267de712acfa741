#pragma once
// One layer of an attached adapter as files hold it, by peft's names.
#include <cmath>

#include <tenon/peft/formats/patches.hpp>

namespace tenon::inline TENON_ABI::detail {

struct LayerExport {
  std::string path, kind;
  std::vector<std::pair<std::string, RawTensor>> parts;  ///< by peft's names
  double alpha = 0;
  Index rank = 0;
  bool rslora = false;
  double dropout = 0;
};

/// A value as files hold it. Throws Error when a number of it is too large for the type.
template <class T>
RawTensor raw_as(const Tensor<T>& value, DType dtype, std::string_view what) {
  return visit_dtype(dtype, [&]<class To>() {
    Tensor<To> out = cast<To>(value);
    if constexpr (sizeof(To) < sizeof(T))
      for (Index i = 0; i < out.size(); ++i)
        check(std::isfinite(static_cast<float>(out.data()[i])) || !std::isfinite(value.data()[i]), "save", what, ": ", value.data()[i],
              " is too large for ", name_of(dtype));
    return raw_copy(std::move(out));
  });
}

/// A layer's patch for a file. PiSSA becomes the LoRA of twice the rank that it is: [A; A0] and [B, -B0] over the untouched base.
template <class T>
LayerExport export_layer(const SiteRef<T>& site, Patch<T>& patch, DType dtype) {
  LayerExport out;
  out.path = site.path;
  out.kind = patch.kind();
  const Index groups = groups_of(site);
  const Patch<T>* core = &patch;
  if (const auto* decomposed = dynamic_cast<const Decomposed<T>*>(core)) core = decomposed->inner.get();
  const auto* lora = dynamic_cast<const Lora<T>*>(core);
  if (const auto* dora = dynamic_cast<const Dora<T>*>(core)) lora = &dora->lora;
  for (const auto& [part, param] : patch.params()) {
    Tensor<T> value = (*param)->value();
    if (lora != nullptr && lora->a0 && (part == "lora_A.weight" || part == "lora_B.weight")) {
      const NoGrad none;
      if (part == "lora_A.weight") {  // the ranks of a group stand together
        const Index each = lora->rank() / groups;
        const auto by_group = [&](const Tensor<T>& a) { return Var<T>(a.share(Shape{groups, each, a.size() / lora->rank()})); };
        const Shape shape = value.shape().with(0, 2 * lora->rank());
        value = concat<T>({by_group(value), by_group(lora->a0->value())}, 1).value().share(shape);
      } else {
        value = concat<T>({Var<T>(std::move(value)), -Var<T>(lora->b0->value())}, 1).value();
      }
    }
    const bool own_group = groups > 1 && part == "lora_A.weight" && (*param)->shape()[1] == site.weight->shape()[1];
    if (own_group) value = reading_every_input(value, groups);
    out.parts.emplace_back(part, raw_as(value, dtype, join_text(site.path, ".", part)));
  }
  if (lora != nullptr) {
    out.rank = lora->rank(), out.alpha = lora->alpha, out.rslora = lora->rslora, out.dropout = lora->dropout;
    if (lora->a0) out.rank *= 2, out.alpha *= lora->rslora ? std::sqrt(2.0) : 2.0;
  } else if (const auto* loha = dynamic_cast<const Loha<T>*>(core)) {
    out.rank = loha->rank(), out.alpha = loha->alpha;
  } else if (const auto* lokr = dynamic_cast<const Lokr<T>*>(core)) {
    out.rank = lokr->rank, out.alpha = lokr->alpha;
  } else if (const auto* tucker = dynamic_cast<const Tucker<T>*>(core)) {
    out.rank = tucker->rank(), out.alpha = tucker->alpha;
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI::detail
