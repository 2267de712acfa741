#pragma once
// AdamW: Adam with decoupled weight decay (Loshchilov, Hutter 2017, 1711.05101), by torch's formulas.
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
    check_trainable("AdamW", list_);
    for (const auto& ref : list_) {
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
    consume_gradients(list_, [&](std::size_t i, const T* gradient, Tensor<T>& value) {
      update.weight_decay = config.decay_vectors || value.rank() > 1 ? config.weight_decay : 0;
      kernels::adamw_update(value.size(), update, gradient, value.data(), first_[i].data(), second_[i].data());
    });
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
    auto first = saved_moments("AdamW", list_, ".first", state), second = saved_moments("AdamW", list_, ".second", state);
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
