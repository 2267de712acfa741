#pragma once
// Sgd: stochastic gradient descent with momentum (Sutskever et al. 2013), by torch's formulas.
#include <tenon/kernels/update.hpp>
#include <tenon/optim/optimizer.hpp>

namespace tenon::inline TENON_ABI {

struct SgdConfig {
  double learning_rate = 1e-2;
  /// v = momentum v + g; the step goes along v, or along g + momentum v (Nesterov).
  double momentum = 0;
  bool nesterov = false;
  /// L2: added to the gradient, g + weight_decay p.
  double weight_decay = 0;
  /// Whether parameters of rank 0 and 1 (biases, norms, scales) decay too, as in torch.
  bool decay_vectors = true;
  /// Largest L2 norm of the whole gradient; 0 does not clip.
  double clip_norm = 0;
};

/// An optimizer over a list of parameters, which must outlive it. `step` consumes the gradients.
template <class T>
class Sgd {
 public:
  SgdConfig config;
  StepGuard<T> guard;

  /// Throws Error on an empty list, a frozen parameter, or Nesterov without momentum.
  explicit Sgd(std::vector<ParamRef<T>> list, SgdConfig options = {}) : config(options), list_(std::move(list)) {
    check_trainable("Sgd", list_);
    check(!config.nesterov || config.momentum > 0, "Sgd", "expected a momentum above 0 for Nesterov, got ", config.momentum);
    if (config.momentum != 0)
      for (const auto& ref : list_) velocities_.emplace_back(ref.weight->shape());
  }

  /// One step at `rate_factor` times the learning rate (see Schedule). Parameters without a gradient stay as they are.
  /// Throws NumericError after ten non-finite steps in a row.
  StepResult step(double rate_factor = 1.0) {
    StepResult result;
    if (!guard.admit(list_, result)) return result;
    ++steps_;
    kernels::SgdStep update{.learning_rate = config.learning_rate * rate_factor,
                            .momentum = config.momentum,
                            .gradient_scale = clip_factor(result.grad_norm, config.clip_norm),
                            .nesterov = config.nesterov};
    consume_gradients(list_, [&](std::size_t i, const T* gradient, Tensor<T>& value) {
      update.weight_decay = config.decay_vectors || value.rank() > 1 ? config.weight_decay : 0;
      kernels::sgd_update(value.size(), update, gradient, value.data(), velocities_.empty() ? nullptr : velocities_[i].data());
    });
    return result;
  }

  Index steps() const { return steps_; }
  const std::vector<ParamRef<T>>& params() const { return list_; }

  /// Everything a resumed run needs besides the parameters: velocities by `path.velocity`, none without momentum; and `steps`.
  std::map<std::string, Tensor<T>> state() const {
    std::map<std::string, Tensor<T>> out;
    for (std::size_t i = 0; i < velocities_.size(); ++i) out.emplace(list_[i].path + ".velocity", velocities_[i]);
    return out;
  }
  /// Puts back what `state` gave, at `steps` steps. Throws NameError on a missing velocity, ShapeError on another shape.
  void restore(const std::map<std::string, Tensor<T>>& state, Index steps) {
    if (!velocities_.empty()) velocities_ = saved_moments("Sgd", list_, ".velocity", state);
    steps_ = steps;
  }

 private:
  std::vector<ParamRef<T>> list_;
  std::vector<Tensor<T>> velocities_;  // zero before the first gradient, which makes torch's v = g
  Index steps_ = 0;
};

}  // namespace tenon::inline TENON_ABI
