#pragma once
// AdamW: Adam with decoupled weight decay (Loshchilov, Hutter 2017, 1711.05101), by torch's formulas.
#include <map>

#include <tenon/kernels/update.hpp>
#include <tenon/optim/optimizer.hpp>

namespace tenon::inline TENON_ABI {

struct AdamWConfig {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;
  /// Whether parameters of rank 0 and 1 (biases, norms, scales) decay too; torch decays all, CLIP does not.
  bool decay_vectors = true;
  /// Largest L2 norm of the whole gradient; 0 does not clip.
  double clip_norm = 0;
};

/// An optimizer over a list of parameters, which must outlive it. `step` consumes the gradients.
template <class T>
class AdamW {
 public:
  AdamWConfig config;
  StepGuard<T> guard;

  explicit AdamW(std::vector<ParamRef<T>> list, AdamWConfig options = {}) : config(options), list_(std::move(list)) {
    check(!list_.empty(), "AdamW", "expected at least one trainable parameter, got none");
    for (const auto& ref : list_) {
      check(ref.weight->trainable(), "AdamW", "expected trainable parameters, got the frozen ", ref.path);
      first_.emplace_back(ref.weight->shape());
      second_.emplace_back(ref.weight->shape());
    }
  }

  /// One step at `rate_factor` times the learning rate (see Schedule). Parameters without a gradient stay as they are.
  /// Throws NumericError after ten non-finite steps in a row.
  StepResult step(double rate_factor = 1.0) {
    StepResult result;
    if (!guard.admit(list_, result)) return result;
    ++steps_;
    kernels::AdamwStep update{.learning_rate = config.learning_rate * rate_factor,
                              .beta1 = config.beta1,
                              .beta2 = config.beta2,
                              .eps = config.eps,
                              .weight_decay = 0,
                              .gradient_scale = clip_factor(result.grad_norm, config.clip_norm),
                              .step = steps_};
    for (std::size_t i = 0; i < list_.size(); ++i) {
      Weight<T>& weight = *list_[i].weight;
      const Var<T> leaf = weight.var();  // the first write may give the weight a new one
      if (!leaf.has_grad()) continue;
      update.weight_decay = config.decay_vectors || weight.shape().rank() > 1 ? config.weight_decay : 0;
      const T* gradient = leaf.grad().data();
      weight.update([&](Tensor<T>& value) {
        kernels::adamw_update(value.size(), update, gradient, value.data(), first_[i].data(), second_[i].data());
      });
      leaf.clear_grad();
    }
    return result;
  }

  Index steps() const { return steps_; }
  const std::vector<ParamRef<T>>& params() const { return list_; }

  /// Everything a resumed run needs besides the parameters: moments by `path.first` and `path.second`, and counters.
  std::map<std::string, Tensor<T>> state() const {
    std::map<std::string, Tensor<T>> out;
    for (std::size_t i = 0; i < list_.size(); ++i) {
      out.emplace(list_[i].path + ".first", first_[i]);
      out.emplace(list_[i].path + ".second", second_[i]);
    }
    return out;
  }
  /// Puts back what `state` gave, at `steps` steps. Throws NameError on a missing moment, ShapeError on another shape.
  void restore(const std::map<std::string, Tensor<T>>& state, Index steps) {
    const auto find = [&](const std::string& name, const Shape& shape) -> const Tensor<T>& {
      const auto at = state.find(name);
      check<NameError>(at != state.end(), "AdamW", "expected the moment ", name, " in the saved state");
      check<ShapeError>(at->second.shape() == shape, "AdamW", "expected ", name, " of shape ", shape, ", got ", at->second.shape());
      return at->second;
    };
    std::vector<Tensor<T>> first, second;
    for (const auto& ref : list_) {
      first.push_back(find(ref.path + ".first", ref.weight->shape()));
      second.push_back(find(ref.path + ".second", ref.weight->shape()));
    }
    first_ = std::move(first);
    second_ = std::move(second);
    steps_ = steps;
  }

 private:
  std::vector<ParamRef<T>> list_;
  std::vector<Tensor<T>> first_, second_;
  Index steps_ = 0;
};

}  // namespace tenon::inline TENON_ABI
