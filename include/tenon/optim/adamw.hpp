#pragma once
// AdamW: Adam with decoupled weight decay (Loshchilov, Hutter 2017, 1711.05101), by torch's formulas.
#include <algorithm>
#include <optional>

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
  /// Learning rates of the parameters whose paths begin with these texts; the first that fits decides, and decay follows the rate,
  /// as with torch's parameter groups.
  std::vector<std::pair<std::string, double>> learning_rate_pattern{};
};

/// An optimizer over a list of parameters, which must outlive it. `step` consumes the gradients.
template <class T>
class AdamW {
 public:
  AdamWConfig config;
  StepGuard<T> guard;

  /// Throws Error on an empty list or a frozen parameter, NameError when a pattern of learning rates fits none.
  explicit AdamW(std::vector<ParamRef<T>> list, AdamWConfig options = {}) : config(std::move(options)), list_(std::move(list)) {
    check_trainable("AdamW", list_);
    const auto& patterns = config.learning_rate_pattern;
    for (const auto& [start, rate] : patterns)
      check<NameError>(std::any_of(list_.begin(), list_.end(), [&, &text = start](const auto& ref) { return ref.path.starts_with(text); }), "AdamW",
                       "learning_rate_pattern: no parameter's path begins with '", start, "'; the first is ", list_.front().path);
    for (const auto& ref : list_) {
      first_.emplace_back(ref.weight->shape());
      second_.emplace_back(ref.weight->shape());
      const auto at = std::find_if(patterns.begin(), patterns.end(), [&](const auto& pattern) { return ref.path.starts_with(pattern.first); });
      rates_.push_back(at == patterns.end() ? std::nullopt : std::optional(at->second));
    }
  }

  /// One step at `rate_factor` times the learning rate (see Schedule). Parameters without a gradient stay as they are.
  /// Throws NumericError after ten non-finite steps in a row.
  StepResult step(double rate_factor = 1.0) {
    StepResult result;
    if (!guard.admit(list_, result)) return result;
    ++steps_;
    kernels::AdamwStep update{.learning_rate = 0,
                              .beta1 = config.beta1,
                              .beta2 = config.beta2,
                              .eps = config.eps,
                              .weight_decay = 0,
                              .gradient_scale = clip_factor(result.grad_norm, config.clip_norm),
                              .step = steps_};
    consume_gradients(list_, [&](std::size_t i, const T* gradient, Tensor<T>& value) {
      update.learning_rate = rates_[i].value_or(config.learning_rate) * rate_factor;
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
  std::vector<std::optional<double>> rates_;  // of each parameter; nothing where the common one holds
  Index steps_ = 0;
};

}  // namespace tenon::inline TENON_ABI
