#pragma once
// Heun's method: an Euler step, then the mean of the derivatives at both ends (Karras et al. 2022, algorithm 1). Two calls of
// the model for each step but the last. diffusers: HeunDiscreteScheduler.
#include <tenon/models/diffusion/schedulers/sigma_scheduler.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
class HeunScheduler final : public SigmaScheduler<T> {
 public:
  explicit HeunScheduler(const SchedulerConfig& config) : SigmaScheduler<T>(options(config)) {}
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<HeunScheduler>(*this); }
  Index order() const override { return 2; }

 private:
  static SchedulerConfig options(SchedulerConfig config) {
    config.rescale_betas_zero_snr = false, config.thresholding = false, config.final_sigmas_type = FinalSigmas::zero;
    return with_defaults(config, {.beta_start = 0.00085, .beta_end = 0.012});
  }

  void plan(Index steps) override {
    SigmaScheduler<T>::plan(steps);
    const auto twice = [](const std::vector<float>& list, std::size_t end) {  // all but the first, up to `end`
      std::vector<float> out{list.front()};
      for (std::size_t i = 1; i < list.size(); ++i) out.insert(out.end(), i < end ? 2 : 1, list[i]);
      return out;
    };
    this->timesteps_ = twice(this->timesteps_, this->timesteps_.size());
    this->sigmas_ = twice(this->sigmas_, this->sigmas_.size() - 1);
    start_.reset();
  }
  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator&) override {
    const Index i = this->step_index(t);
    const Single sigma = this->sigma(i);
    const Tensor<T> d = this->derivative(this->bounded(this->original(model_output, sample, sigma)), sample, sigma);
    if (!start_) {
      start_ = Start{sample, d, this->sigma(i + 1) - sigma};
      return combine<T>({{1.0, sample}, {start_->change, d}});
    }
    const Start start = *std::exchange(start_, std::nullopt);
    const double half = static_cast<double>(start.change) / 2;
    return combine<T>({{1.0, start.sample}, {half, start.derivative}, {half, d}});
  }

  /// Where the step that is half done began.
  struct Start {
    Tensor<T> sample, derivative;
    Single change;  ///< of sigma
  };
  std::optional<Start> start_;
};

}  // namespace tenon::inline TENON_ABI
