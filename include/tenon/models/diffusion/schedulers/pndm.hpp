#pragma once
// PNDM (Liu et al., Pseudo Numerical Methods for Diffusion Models on Manifolds, 2022): Runge-Kutta steps to begin with, unless
// skip_prk_steps, then linear multistep ones. diffusers: PNDMScheduler.
#include <tenon/models/diffusion/schedulers/scheduler.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
class PndmScheduler final : public Scheduler<T> {
 public:
  explicit PndmScheduler(const SchedulerConfig& config) : Scheduler<T>(options(config)) {
    check(*this->config_.prediction_type != PredictionType::sample, "scheduler", "pndm: expected prediction_type epsilon or v_prediction");
  }
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<PndmScheduler>(*this); }

 private:
  static SchedulerConfig options(SchedulerConfig config) {
    config.rescale_betas_zero_snr = false;
    return with_defaults(config, {.timestep_spacing = TimestepSpacing::leading, .set_alpha_to_one = false});
  }

  void plan(Index steps) override {
    const std::vector<double> ts = rounded(this->spaced(steps));
    std::vector<double> out;
    counter_ = 0;
    if (*this->config_.skip_prk_steps) {
      runge_kutta_ = 0;
      out = ts;
      if (steps > 1) out.insert(out.begin() + 1, ts[1]);  // the second is evaluated twice
    } else {
      check(steps >= 4, "scheduler", "pndm: expected at least 4 steps unless skip_prk_steps, got ", steps);
      const double half = static_cast<double>(this->schedule_.steps() / steps / 2);
      for (std::size_t i = 0; i < 3; ++i) out.insert(out.end(), {ts[i], ts[i + 1] + half, ts[i + 1] + half, ts[i + 1]});
      runge_kutta_ = static_cast<Index>(out.size());
      out.insert(out.end(), ts.begin() + 3, ts.end());
    }
    this->keep_timesteps(out);
    history_.clear();
    sum_ = {};
    held_.reset();
  }

  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator&) override {
    Tensor<T> out = counter_ < runge_kutta_ ? runge_kutta(model_output, t, sample) : multistep(model_output, t, sample);
    ++counter_;
    return out;
  }
  Tensor<T> runge_kutta(const Tensor<T>& e, double t, const Tensor<T>& sample) {
    const double before = t - (counter_ % 2 == 1 ? 0.0 : static_cast<double>(this->schedule_.steps() / this->steps_ / 2));
    const double from = this->timesteps_[static_cast<std::size_t>(counter_ / 4 * 4)];
    const Index stage = counter_ % 4;
    if (stage == 0) {
      history_.push_back(e);
      held_ = sample;
      sum_ = combine<T>({{1 / 6.0, e}});
    } else {
      sum_ = combine<T>({{1.0, sum_}, {stage == 3 ? 1 / 6.0 : 1 / 3.0, e}});
    }
    return transfer(*held_, from, before, stage == 3 ? sum_ : e);
  }
  Tensor<T> multistep(const Tensor<T>& e, double t, const Tensor<T>& sample) {
    const auto stride = static_cast<double>(this->schedule_.steps() / this->steps_);
    if (counter_ == 1) {  // the first step again, with the mean of both ends
      const Tensor<T> mean = combine<T>({{0.5, e}, {0.5, history_.back()}}), start = *std::exchange(held_, std::nullopt);
      return transfer(start, t + stride, t, mean);
    }
    if (history_.size() > 3) history_.erase(history_.begin(), history_.end() - 3);
    history_.push_back(e);
    if (counter_ == 0) held_ = sample;
    const auto back = [&](std::size_t i) -> const Tensor<T>& { return history_[history_.size() - i]; };
    switch (history_.size()) {  // Adams-Bashforth
      case 1: return transfer(sample, t, t - stride, e);
      case 2: return transfer(sample, t, t - stride, combine<T>({{3 / 2.0, e}, {-1 / 2.0, back(2)}}));
      case 3: return transfer(sample, t, t - stride, combine<T>({{23 / 12.0, e}, {-16 / 12.0, back(2)}, {5 / 12.0, back(3)}}));
      default:
        return transfer(sample, t, t - stride,
                        combine<T>({{55 / 24.0, e}, {-59 / 24.0, back(2)}, {37 / 24.0, back(3)}, {-9 / 24.0, back(4)}}));
    }
  }
  /// Equation 11 of the paper.
  Tensor<T> transfer(const Tensor<T>& sample, double t, double before, const Tensor<T>& model_output) const {
    const Single bar = this->schedule_.alpha_bar(t), bar_before = this->alpha_bar_or_final(before), rest = 1 - bar;
    const Tensor<T> e = this->predict_noise(model_output, sample, sqrt(bar), sqrt(rest));
    const Single denominator = bar * sqrt(1 - bar_before) + sqrt(bar * rest * bar_before);
    return combine<T>({{sqrt(bar_before / bar), sample}, {-(bar_before - bar) / denominator, e}});
  }

  Index counter_ = 0, runge_kutta_ = 0;  ///< calls so far; how many of them belong to Runge-Kutta steps
  std::vector<Tensor<T>> history_;       ///< the model's outputs, newest last
  Tensor<T> sum_;                        ///< of one Runge-Kutta step
  std::optional<Tensor<T>> held_;        ///< the sample at which a step began
};

}  // namespace tenon::inline TENON_ABI
