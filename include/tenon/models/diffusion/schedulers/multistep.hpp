#pragma once
// What DPM-Solver++ and UniPC share: they step in lambda = log(alpha / sigma), half the logarithm of the signal-to-noise ratio,
// with x = alpha x_0 + sigma noise and alpha^2 + sigma^2 = 1, and extrapolate the predicted x_0 from earlier steps.
#include <tenon/models/diffusion/schedulers/scheduler.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
class MultistepScheduler : public Scheduler<T> {
 public:
  Tensor<T> add_noise(const Tensor<T>& sample, const Tensor<T>& noise, std::span<const float> timesteps) const override {
    return this->mix(sample, noise, timesteps, [](Single sigma) {
      const Level level(sigma);
      return std::pair(level.alpha, level.sigma);
    });
  }

 protected:
  /// One place on the way from noise to sample.
  struct Level {
    Single alpha, sigma, lambda;
    explicit Level(Single ratio) : alpha(1 / sqrt(ratio * ratio + 1)), sigma(ratio * alpha), lambda(log(alpha) - log(sigma)) {}
  };

  explicit MultistepScheduler(const SchedulerConfig& config) : Scheduler<T>(config) {
    const Index order = *this->config_.solver_order;
    check(1 <= order && order <= 3, "scheduler", "expected a solver_order of 1 to 3, got ", order);
    if (*this->config_.rescale_betas_zero_snr) this->schedule_.alphas_cumprod.back() = 0x1p-24f;  // sigma stays finite
  }
  Level level(Index index) const { return Level(this->sigma(index)); }

  /// `round` where Karras' timesteps are rounded; all others are cut off to whole numbers.
  void plan_levels(Index steps, bool round, bool own_sigma_min) {
    const auto table = this->schedule_.sigmas();
    const Index total = this->schedule_.steps();
    Index range = total;
    if (const auto clipped = this->config_.lambda_min_clipped)
      range -= std::count_if(this->schedule_.alphas_cumprod.begin(), this->schedule_.alphas_cumprod.end(), [&](Single bar) {
        return static_cast<double>(log(sqrt(bar)) - log(sqrt(1 - bar))) < *clipped;
      });
    const TimestepSpacing spacing = *this->config_.timestep_spacing;
    const bool trailing = spacing == TimestepSpacing::trailing;
    auto timesteps = rounded(spaced_timesteps(spacing, range, total, trailing ? steps : steps + 1, *this->config_.steps_offset));
    if (!trailing) timesteps.pop_back();
    std::vector<double> sigmas;
    for (const double t : timesteps) sigmas.push_back(interpolate(table, t));
    const bool respaced = this->respace(timesteps, sigmas, table.back(), table.front(), steps);
    if (round) timesteps = rounded(timesteps);
    for (double& t : timesteps) t = std::trunc(t);
    const double smallest = own_sigma_min && respaced ? sigmas.back() : static_cast<double>(table.front());
    sigmas.push_back(*this->config_.final_sigmas_type == FinalSigmas::zero ? 0 : smallest);
    this->keep_timesteps(timesteps);
    this->sigmas_.assign(sigmas.begin(), sigmas.end());
    history_.clear();
    taken_ = 0;
  }
  /// A timestep that is none of the run's counts as the last.
  Index index_for_timestep(float t) const override {
    const auto& ts = this->timesteps_;
    return std::find(ts.begin(), ts.end(), t) == ts.end() ? static_cast<Index>(ts.size()) - 1 : Scheduler<T>::index_for_timestep(t);
  }
  Tensor<T> original(const Tensor<T>& model_output, const Tensor<T>& sample, const Level& at) const {
    return this->bounded(this->predict_original(model_output, sample, at.alpha, at.sigma));
  }
  void remember(const Tensor<T>& x0) {
    history_.insert(history_.begin(), x0);
    if (static_cast<Index>(history_.size()) > *this->config_.solver_order) history_.pop_back();
  }

  std::vector<Tensor<T>> history_;  ///< predictions of x_0, newest first
  Index taken_ = 0;                 ///< steps taken, counted up to the solver's order
};

}  // namespace tenon::inline TENON_ABI
