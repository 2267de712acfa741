#pragma once
// LowRank: a delta s B A beside a weight, as a product takes it along (LoRA, Hu et al. 2021, 2106.09685).
#include <optional>

#include <tenon/ops/weight.hpp>

namespace tenon::inline TENON_ABI {

/// y += scale * B (A x'). Linear: A [R, in], B [out, R]. Conv2d: A [R, in, kh, kw], B [out, R / groups, 1, 1].
/// Embedding: A [R, vocabulary], B [D, R]. x' is the layer's own input unless `x` is given (dropout before A).
template <class T>
struct LowRank {
  const Weight<T>* a = nullptr;
  const Weight<T>* b = nullptr;
  T scale = T(1);
  std::optional<Var<T>> x;
};

}  // namespace tenon::inline TENON_ABI
