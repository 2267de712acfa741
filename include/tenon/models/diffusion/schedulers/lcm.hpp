#pragma once
// Few-step sampling of distilled models: LCM (Luo et al., Latent Consistency Models, 2023) and TCD (Zheng et al., Trajectory
// Consistency Distillation, 2024). diffusers: LCMScheduler, TCDScheduler.
#include <tenon/models/diffusion/schedulers/scheduler.hpp>

namespace tenon::inline TENON_ABI {

/// Timesteps out of those that the distillation saw.
template <class T>
class DistilledScheduler : public Scheduler<T> {
 protected:
  explicit DistilledScheduler(const SchedulerConfig& config)
      : Scheduler<T>(with_defaults(config, {.beta_start = 0.00085, .beta_end = 0.012, .beta_schedule = BetaSchedule::scaled_linear,
                                            .timestep_spacing = TimestepSpacing::leading})) {
    const Index original = *this->config_.original_inference_steps;
    check(original >= 1 && original <= this->schedule_.steps(), "scheduler", "expected original_inference_steps of 1 to ",
          this->schedule_.steps(), ", got ", original);
  }

  void plan(Index steps) override {
    const Index stride = this->schedule_.steps() / *this->config_.original_inference_steps;
    const auto original = static_cast<Index>(static_cast<double>(*this->config_.original_inference_steps) * this->strength_);
    check(steps <= original, "scheduler", "expected at most original_inference_steps * strength = ", original, " steps, got ", steps);
    const double skip = static_cast<double>(original) / static_cast<double>(steps);
    for (Index i = 0; i < steps; ++i) {
      const auto skipped = static_cast<Index>(std::floor(static_cast<double>(i) * skip));
      this->timesteps_.push_back(static_cast<float>((original - skipped) * stride - 1));
    }
  }
  /// The timestep after step i, or `last`.
  double next_timestep(Index i, double last) const {
    const auto next = static_cast<std::size_t>(i + 1);
    return next < this->timesteps_.size() ? static_cast<double>(this->timesteps_[next]) : last;
  }
};

template <class T>
class LcmScheduler final : public DistilledScheduler<T> {
 public:
  explicit LcmScheduler(const SchedulerConfig& config) : DistilledScheduler<T>(config) {}
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<LcmScheduler>(*this); }

 private:
  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator& generator) override {
    const Index i = this->step_index(t);
    const Single bar = this->schedule_.alpha_bar(t), bar_next = this->schedule_.alpha_bar(this->next_timestep(i, t));
    const Tensor<T> x0 = this->bounded(this->predict_original(model_output, sample, sqrt(bar), sqrt(1 - bar)));
    // the boundary condition of consistency models, sigma_data = 0.5
    const Single scaled = Single(t) * *this->config_.timestep_scaling, power = scaled * scaled + 0.25;
    const Tensor<T> denoised = combine<T>({{scaled / sqrt(power), x0}, {0.25 / power, sample}});
    if (i == this->steps_ - 1) return denoised;
    return combine<T>({{sqrt(bar_next), denoised}, {sqrt(1 - bar_next), draw_noise<T>(sample.shape(), generator)}});
  }
};

template <class T>
class TcdScheduler final : public DistilledScheduler<T> {
 public:
  explicit TcdScheduler(const SchedulerConfig& config) : DistilledScheduler<T>(with_defaults(config, {.eta = 0.3})) {}
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<TcdScheduler>(*this); }

 private:
  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator& generator) override {
    const Index i = this->step_index(t);
    const double next = this->next_timestep(i, 0), eta = *this->config_.eta;
    const Single within = Single(1 - eta) * next;  // the timestep to which the model's trajectory is followed
    const Single bar = this->schedule_.alpha_bar(t), bar_next = this->schedule_.alpha_bar(next);
    const Single bar_within = this->schedule_.alpha_bar(std::floor(static_cast<double>(within)));
    const Tensor<T> x0 = this->predict_original(model_output, sample, sqrt(bar), sqrt(1 - bar));
    const Tensor<T> e = this->predict_noise(model_output, sample, sqrt(bar), sqrt(1 - bar));
    const Tensor<T> noised = combine<T>({{sqrt(bar_within), x0}, {sqrt(1 - bar_within), e}});
    if (eta == 0 || i == this->steps_ - 1) return noised;
    const Single ratio = bar_next / bar_within;
    return combine<T>({{sqrt(ratio), noised}, {sqrt(1 - ratio), draw_noise<T>(sample.shape(), generator)}});
  }
};

}  // namespace tenon::inline TENON_ABI
