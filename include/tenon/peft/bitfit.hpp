#pragma once
// BitFit (Ben Zaken et al. 2021, 2106.10199): the biases are trained, of norms too, and nothing else.
#include <tenon/nn/fields.hpp>

namespace tenon::inline TENON_ABI {

/// Freezes a model but for its biases, and returns those: what to optimise, and what to write (save_params) for a file that
/// holds the task. The biases are the model's own; copy_params keeps a base beside it. Throws Error when there is none.
template <class M>
std::vector<ParamRef<scalar_of<M>>> train_biases(M& model) {
  freeze(model);
  std::vector<ParamRef<scalar_of<M>>> out;
  for (const auto& ref : params(model))
    if (ref.path == "bias" || ref.path.ends_with(".bias") || ref.path.ends_with("_bias")) out.push_back(ref);
  check(!out.empty(), "train_biases", "the model has no biases");
  for (const auto& ref : out) ref.weight->set_trainable(true);
  return out;
}

}  // namespace tenon::inline TENON_ABI
