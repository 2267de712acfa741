#pragma once
// DDPM: ancestral sampling (Ho et al., Denoising Diffusion Probabilistic Models, 2020). diffusers: DDPMScheduler.
#include <tenon/models/diffusion/schedulers/scheduler.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
class DdpmScheduler final : public Scheduler<T> {
 public:
  explicit DdpmScheduler(const SchedulerConfig& config)
      : Scheduler<T>(with_defaults(config, {.timestep_spacing = TimestepSpacing::leading, .clip_sample = true})) {}
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<DdpmScheduler>(*this); }

 private:
  void plan(Index steps) override { this->keep_timesteps(rounded(this->spaced(steps))); }

  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator& generator) override {
    const auto at = std::find(this->timesteps_.begin(), this->timesteps_.end(), t);
    check(at != this->timesteps_.end(), "scheduler", "timestep ", t, " is none of this run's");
    const Single bar = this->schedule_.alpha_bar(t);
    const Single bar_before = at + 1 == this->timesteps_.end() ? 1 : this->schedule_.alpha_bar(at[1]);
    const Single rest = 1 - bar, rest_before = 1 - bar_before, alpha = bar / bar_before, beta = 1 - alpha;
    const Tensor<T> x0 = this->bounded(this->predict_original(model_output, sample, sqrt(bar), sqrt(rest)));
    // equation 7 of the paper
    const Single to_x0 = sqrt(bar_before) * beta / rest, to_sample = sqrt(alpha) * rest_before / rest;
    if (t == 0) return combine<T>({{to_x0, x0}, {to_sample, sample}});
    const Tensor<T> noise = draw_noise<T>(sample.shape(), generator);
    return combine<T>({{to_x0, x0}, {to_sample, sample}, {deviation(rest_before / rest * beta, beta), noise}});
  }
  Single deviation(Single posterior, Single beta) const {
    if (posterior.value < 1e-20f) posterior = 1e-20;
    switch (*this->config_.variance_type) {
      case VarianceType::fixed_small_log: return exp(0.5 * log(posterior));
      case VarianceType::fixed_large: return sqrt(beta);
      case VarianceType::fixed_small: break;
    }
    return sqrt(posterior);
  }
};

}  // namespace tenon::inline TENON_ABI
