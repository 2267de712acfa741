#pragma once
// UniPC (Zhao et al., UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models, 2023), orders 1 to
// 3, on predictions of x_0. diffusers: UniPCMultistepScheduler.
#include <tenon/models/diffusion/schedulers/multistep.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
class UniPcScheduler final : public MultistepScheduler<T> {
 public:
  explicit UniPcScheduler(const SchedulerConfig& config) : MultistepScheduler<T>(options(config)) {}
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<UniPcScheduler>(*this); }

 private:
  using Level = typename MultistepScheduler<T>::Level;

  static SchedulerConfig options(SchedulerConfig config) {
    config.clip_sample = false, config.lambda_min_clipped.reset();
    if (config.solver_type != SolverType::bh1) config.solver_type = SolverType::bh2;
    return config;
  }
  void plan(Index steps) override {
    this->plan_levels(steps, *this->config_.use_karras_sigmas, true);
    start_.reset();
  }

  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator&) override {
    const Index i = this->step_index(t), order = *this->config_.solver_order;
    const Tensor<T> x0 = this->original(model_output, sample, this->level(i));
    const auto disabled = this->config_.disable_corrector.value_or(std::vector<Index>{});
    const bool correct = i > 0 && start_ && std::find(disabled.begin(), disabled.end(), i - 1) == disabled.end();
    start_ = correct ? move(i - 1, order_, *start_, &x0) : sample;
    this->remember(x0);
    const Index left = static_cast<Index>(this->timesteps_.size()) - i;
    order_ = std::min({*this->config_.lower_order_final ? std::min(order, left) : order, this->taken_ + 1});
    this->taken_ = std::min(this->taken_ + 1, order);
    return move(i, order_, *start_, nullptr);
  }

  /// From step i to step i + 1, beginning at `sample`: the predictor, or with `reached`, the x_0 predicted there, the corrector
  /// (equations 8 and 9 of the paper).
  Tensor<T> move(Index i, Index order, const Tensor<T>& sample, const Tensor<T>* reached) const {
    const Level to = this->level(i + 1), from = this->level(i);
    const Single h = to.lambda - from.lambda, phi = expm1(-h);
    const Single scale = *this->config_.solver_type == SolverType::bh1 ? -h : phi;  // B(h)
    std::vector<Single> r;
    for (Index k = 1; k < order; ++k) r.push_back((this->level(i - k).lambda - from.lambda) / h);
    const std::vector<double> rho = coefficients(r, order, h, scale, reached != nullptr);
    const double alpha = static_cast<double>(to.alpha), factor = -alpha * static_cast<double>(scale);
    double newest = -alpha * static_cast<double>(phi);
    Tensor<T> out = combine<T>({{to.sigma / from.sigma, sample}});
    for (Index k = 1; k < order; ++k) {
      const double w = factor * rho[static_cast<std::size_t>(k - 1)] / static_cast<double>(r[static_cast<std::size_t>(k - 1)]);
      out = combine<T>({{1.0, out}, {w, this->history_[static_cast<std::size_t>(k)]}});
      newest -= w;
    }
    if (reached != nullptr) {
      out = combine<T>({{1.0, out}, {factor * rho.back(), *reached}});
      newest -= factor * rho.back();
    }
    return combine<T>({{1.0, out}, {newest, this->history_[0]}});
  }
  /// Weights of the differences to earlier predictions and, for the corrector, to the one reached.
  std::vector<double> coefficients(std::vector<Single> r, Index order, Single h, Single scale, bool corrector) const {
    if (order == 1) return std::vector<double>(corrector ? 1 : 0, 0.5);
    if (order == 2 && !corrector) return {0.5};
    r.push_back(1);
    const auto n = static_cast<std::size_t>(corrector ? order : order - 1);
    std::vector<std::vector<double>> rows(n, std::vector<double>(n + 1));  // Vandermonde's matrix and the right side
    Single phi = expm1(-h) / -h - 1;
    double factorial = 1;
    std::vector<Single> powers(r.size(), 1.0);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        rows[i][j] = static_cast<double>(powers[j]);
        powers[j] = powers[j] * r[j];
      }
      rows[i][n] = static_cast<double>(phi * factorial / scale);
      factorial *= static_cast<double>(i + 2);
      phi = phi / -h - 1 / factorial;
    }
    return solve(std::move(rows));
  }
  /// Gauss with pivots; each row ends with its right side.
  static std::vector<double> solve(std::vector<std::vector<double>> rows) {
    const std::size_t n = rows.size();
    for (std::size_t i = 0; i < n; ++i) {
      std::size_t pivot = i;
      for (std::size_t k = i + 1; k < n; ++k)
        if (std::abs(rows[k][i]) > std::abs(rows[pivot][i])) pivot = k;
      std::swap(rows[i], rows[pivot]);
      for (std::size_t k = 0; k < n; ++k) {
        if (k == i) continue;
        const double f = rows[k][i] / rows[i][i];
        for (std::size_t j = i; j <= n; ++j) rows[k][j] -= f * rows[i][j];
      }
    }
    std::vector<double> out;
    for (std::size_t i = 0; i < n; ++i) out.push_back(rows[i][n] / rows[i][i]);
    return out;
  }

  std::optional<Tensor<T>> start_;  ///< the corrected sample at which the last step began
  Index order_ = 1;                 ///< of the last step
};

}  // namespace tenon::inline TENON_ABI
