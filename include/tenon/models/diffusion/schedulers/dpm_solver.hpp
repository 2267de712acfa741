#pragma once
// DPM-Solver++ (Lu et al., DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, 2022), multistep,
// orders 1 to 3, as ordinary and as stochastic differential equation. diffusers: DPMSolverMultistepScheduler.
#include <tenon/models/diffusion/schedulers/multistep.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
class DpmSolverScheduler final : public MultistepScheduler<T> {
 public:
  explicit DpmSolverScheduler(const SchedulerConfig& config) : MultistepScheduler<T>(options(config)) {}
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<DpmSolverScheduler>(*this); }

 private:
  static SchedulerConfig options(SchedulerConfig config) {
    config.clip_sample = false;
    if (config.solver_type == SolverType::bh1 || config.solver_type == SolverType::bh2) config.solver_type = SolverType::midpoint;
    return config;
  }
  void plan(Index steps) override {
    const bool karras = *this->config_.use_karras_sigmas && *this->config_.beta_schedule != BetaSchedule::squaredcos_cap_v2;
    this->plan_levels(steps, karras, false);
  }

  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator& generator) override {
    const SchedulerConfig& config = this->config_;
    const Index i = this->step_index(t), left = static_cast<Index>(this->timesteps_.size()) - i;
    const bool few = *config.lower_order_final && this->timesteps_.size() < 15;
    const bool sde = *config.algorithm_type == DpmSolver::sde;
    Index order = std::min(*config.solver_order, this->taken_ + 1);
    if (left == 1 && (*config.euler_at_final || few || *config.final_sigmas_type == FinalSigmas::zero)) order = 1;
    if (left == 2 && few) order = std::min<Index>(order, 2);

    const auto to = this->level(i + 1), from = this->level(i);
    this->remember(this->original(model_output, sample, from));
    this->taken_ = std::min(this->taken_ + 1, *config.solver_order);
    // the exponential integrals of the noise-free part: over h, or 2 h with the noise of the stochastic equation
    const Single h = to.lambda - from.lambda, span = sde ? 2 * h : h, gain = 1 - exp(-span);
    const Single keep = sde ? to.sigma / from.sigma * exp(-h) : to.sigma / from.sigma;
    const double alpha = static_cast<double>(to.alpha);
    std::array<double, 3> weights{alpha * static_cast<double>(gain), 0, 0};  // of the last predictions of x_0
    if (order >= 2) {
      const Single r0 = (from.lambda - this->level(i - 1).lambda) / h;
      const bool midpoint = order == 2 && *config.solver_type == SolverType::midpoint;
      const double first = alpha * static_cast<double>(midpoint ? 0.5 * gain : 1 - gain / span);  // of the first difference
      if (order == 2) {
        const double w = first / static_cast<double>(r0);
        weights[0] += w, weights[1] -= w;
      } else {
        const Single r1 = (this->level(i - 1).lambda - this->level(i - 2).lambda) / h;
        const double second = alpha * static_cast<double>((gain - span) / (span * span) + (sde ? -0.5 : 0.5));
        const double a = static_cast<double>(r0), b = static_cast<double>(r1);
        const double p = first * (1 + a / (a + b)) + second / (a + b), q = first * a / (a + b) + second / (a + b);
        weights[0] += p / a, weights[1] -= p / a + q / b, weights[2] += q / b;
      }
    }
    Tensor<T> out = combine<T>({{keep, sample}, {weights[0], this->history_[0]}});
    for (std::size_t k = 1; k < static_cast<std::size_t>(order); ++k) out = combine<T>({{1.0, out}, {weights[k], this->history_[k]}});
    if (!sde) return out;
    return combine<T>({{1.0, out}, {to.sigma * sqrt(gain), draw_noise<T>(sample.shape(), generator)}});
  }
};

}  // namespace tenon::inline TENON_ABI
