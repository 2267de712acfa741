#pragma once
// DDIM (Song et al., Denoising Diffusion Implicit Models, 2021): eta = 0 adds no noise, eta = 1 as much as DDPM.
// diffusers: DDIMScheduler.
#include <tenon/models/diffusion/schedulers/scheduler.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
class DdimScheduler final : public Scheduler<T> {
 public:
  explicit DdimScheduler(const SchedulerConfig& config)
      : Scheduler<T>(with_defaults(config, {.timestep_spacing = TimestepSpacing::leading, .clip_sample = true})) {}
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<DdimScheduler>(*this); }

 private:
  void plan(Index steps) override { this->keep_timesteps(rounded(this->spaced(steps))); }

  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator& generator) override {
    const double before = static_cast<double>(t) - static_cast<double>(this->schedule_.steps() / this->steps_);
    const Single bar = this->schedule_.alpha_bar(t), bar_before = this->alpha_bar_or_final(before), rest = 1 - bar;
    const Tensor<T> x0 = this->bounded(this->predict_original(model_output, sample, sqrt(bar), sqrt(rest)));
    const Tensor<T> e = this->predict_noise(model_output, sample, sqrt(bar), sqrt(rest));
    // equations 12 and 16 of the paper
    const Single deviation = *this->config_.eta * sqrt((1 - bar_before) / rest * (1 - bar / bar_before));
    const Single direction = sqrt(1 - bar_before - deviation * deviation);
    if (*this->config_.eta == 0) return combine<T>({{sqrt(bar_before), x0}, {direction, e}});
    return combine<T>({{sqrt(bar_before), x0}, {direction, e}, {deviation, draw_noise<T>(sample.shape(), generator)}});
  }
};

}  // namespace tenon::inline TENON_ABI
