#pragma once
// Weight interpolation: a model before and after fine-tuning, mixed, keeps more of the robustness of the first than the
// second does (WiSE-FT, Wortsman et al. 2021, 2109.01903).
#include <tenon/nn/fields.hpp>

namespace tenon::inline TENON_ABI {

/// Every parameter of `into` becomes (1 - alpha) a + alpha b: 0 gives a, 1 gives b. `into` may be a or b, or a model of the
/// same configuration; it keeps which parameters are trainable. Throws NameError or ShapeError when the models differ, and
/// Error while patches are attached to a or b and not merged; then nothing has changed.
template <class M>
void interpolate(M& a, M& b, double alpha, M& into) {
  using T = scalar_of<M>;
  for (M* model : {&a, &b})
    for (const auto& site : sites(*model))
      for_each_patch(site, [&](auto& entry) {
        check(!entry.active(), "interpolate", site.path, " has an active patch, which is not a parameter: merge or detach it first");
      });
  const auto first = params(a), second = params(b), target = params(into);
  check<NameError>(first.size() == target.size() && second.size() == target.size(), "interpolate", "expected models of one kind, got ",
                   first.size(), ", ", second.size(), " and ", target.size(), " parameters");
  for (std::size_t i = 0; i < target.size(); ++i)
    for (const auto* other : {&first[i], &second[i]}) {
      check<NameError>(other->path == target[i].path, "interpolate", "expected ", target[i].path, ", got ", other->path);
      check<ShapeError>(other->weight->shape() == target[i].weight->shape(), "interpolate", other->path, ": expected shape ",
                        target[i].weight->shape(), ", got ", other->weight->shape());
      check(other->weight->filled(), "interpolate", other->path, " has no elements: load a checkpoint or initialise first");
    }
  for (std::size_t i = 0; i < target.size(); ++i) {
    const auto x = first[i].weight->values(), y = second[i].weight->values();
    auto mixed = Tensor<T>::uninitialized(x->shape());
    parallel_chunks(mixed.size(), 32768, [&, to = mixed.data()](Index begin, Index end) {
      for (Index k = begin; k < end; ++k)
        to[k] = static_cast<T>((1 - alpha) * static_cast<double>(x->data()[k]) + alpha * static_cast<double>(y->data()[k]));
    });
    target[i].weight->set(std::move(mixed));
  }
}

}  // namespace tenon::inline TENON_ABI
