#pragma once
// Euler's method, and its ancestral form, which goes down further and adds noise (k-diffusion's sample_euler and
// sample_euler_ancestral). diffusers: EulerDiscreteScheduler, EulerAncestralDiscreteScheduler.
#include <tenon/models/diffusion/schedulers/sigma_scheduler.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
class EulerScheduler final : public SigmaScheduler<T> {
 public:
  explicit EulerScheduler(const SchedulerConfig& config) : SigmaScheduler<T>(config) {}
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<EulerScheduler>(*this); }

 private:
  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator&) override {
    const Index i = this->step_index(t);
    const Single sigma = this->sigma(i);
    const Tensor<T> d = this->derivative(this->original(model_output, sample, sigma), sample, sigma);
    return combine<T>({{1.0, sample}, {this->sigma(i + 1) - sigma, d}});
  }
};

template <class T>
class EulerAncestralScheduler final : public SigmaScheduler<T> {
 public:
  explicit EulerAncestralScheduler(const SchedulerConfig& config) : SigmaScheduler<T>(options(config)) {
    check(*this->config_.prediction_type != PredictionType::sample, "scheduler", "euler_a: expected prediction_type epsilon or v_prediction");
  }
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<EulerAncestralScheduler>(*this); }

 private:
  static SchedulerConfig options(SchedulerConfig config) {
    config.use_karras_sigmas = false, config.use_exponential_sigmas = false, config.final_sigmas_type = FinalSigmas::zero;
    return config;
  }
  /// Noise is drawn at every step, the last one included, where its share is zero.
  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator& generator) override {
    const Index i = this->step_index(t);
    const Single sigma = this->sigma(i), next = this->sigma(i + 1);
    const Tensor<T> d = this->derivative(this->original(model_output, sample, sigma), sample, sigma);
    const Single up = sqrt(next * next * (sigma * sigma - next * next) / (sigma * sigma)), down = sqrt(next * next - up * up);
    return combine<T>({{1.0, sample}, {down - sigma, d}, {up, draw_noise<T>(sample.shape(), generator)}});
  }
};

}  // namespace tenon::inline TENON_ABI
