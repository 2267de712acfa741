#pragma once
// What Euler, Heun and LMS share: they work on x_0 + sigma noise (Karras et al., Elucidating the Design Space of
// Diffusion-Based Generative Models, 2022), where the model sees x / sqrt(sigma^2 + 1).
#include <tenon/models/diffusion/schedulers/scheduler.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
class SigmaScheduler : public Scheduler<T> {
 public:
  float init_noise_sigma() const override {
    const Single largest = *std::max_element(this->sigmas_.begin(), this->sigmas_.end());
    return *this->config_.timestep_spacing == TimestepSpacing::leading ? sqrt(largest * largest + 1).value : largest.value;
  }
  Tensor<T> scale_model_input(const Tensor<T>& sample, float t) override {
    const Single sigma = this->sigma(this->step_index(t));
    return combine<T>({{1 / static_cast<double>(sqrt(sigma * sigma + 1)), sample}});
  }
  Tensor<T> add_noise(const Tensor<T>& sample, const Tensor<T>& noise, std::span<const float> timesteps) const override {
    return this->mix(sample, noise, timesteps, [](Single sigma) { return std::pair(Single(1), sigma); });
  }

 protected:
  explicit SigmaScheduler(const SchedulerConfig& config) : Scheduler<T>(config) {
    if (*this->config_.rescale_betas_zero_snr) this->schedule_.alphas_cumprod.back() = 0x1p-24f;  // sigma stays finite
  }

  void plan(Index steps) override {
    const auto table = this->schedule_.sigmas();
    std::vector<double> timesteps, sigmas;
    for (const double t : this->spaced(steps)) timesteps.push_back(static_cast<float>(t));
    for (const double t : timesteps) sigmas.push_back(interpolate(table, t));
    this->respace(timesteps, sigmas, sigmas.front(), sigmas.back(), steps);
    sigmas.push_back(*this->config_.final_sigmas_type == FinalSigmas::zero ? 0.0f : table.front());
    this->keep_timesteps(timesteps);
    this->sigmas_.assign(sigmas.begin(), sigmas.end());
  }
  /// x_0 from the model's output at sigma.
  Tensor<T> original(const Tensor<T>& model_output, const Tensor<T>& sample, Single sigma) const {
    switch (*this->config_.prediction_type) {
      case PredictionType::epsilon: return combine<T>({{1.0, sample}, {-sigma, model_output}});
      case PredictionType::v_prediction: {
        const Single power = sigma * sigma + 1;
        return combine<T>({{1 / static_cast<double>(power), sample}, {-sigma / sqrt(power), model_output}});
      }
      case PredictionType::sample: break;
    }
    return model_output;
  }
  /// dx / dsigma.
  Tensor<T> derivative(const Tensor<T>& x0, const Tensor<T>& sample, Single sigma) const {
    const double scale = 1 / static_cast<double>(sigma);
    return combine<T>({{scale, sample}, {-scale, x0}});
  }
};

}  // namespace tenon::inline TENON_ABI
