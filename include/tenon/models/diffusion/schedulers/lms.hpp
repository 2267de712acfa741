#pragma once
// Linear multistep method of order 4: the derivative is extrapolated by the polynomial through the last four
// (k-diffusion's sample_lms). diffusers: LMSDiscreteScheduler.
#include <tenon/models/diffusion/schedulers/sigma_scheduler.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
class LmsScheduler final : public SigmaScheduler<T> {
 public:
  explicit LmsScheduler(const SchedulerConfig& config) : SigmaScheduler<T>(options(config)) {}
  std::unique_ptr<Scheduler<T>> clone() const override { return std::make_unique<LmsScheduler>(*this); }

 private:
  static SchedulerConfig options(SchedulerConfig config) {
    config.rescale_betas_zero_snr = false, config.final_sigmas_type = FinalSigmas::zero;
    if (config.use_karras_sigmas.value_or(false)) config.sigma_min.reset(), config.sigma_max.reset();  // as diffusers
    return config;
  }

  void plan(Index steps) override {
    SigmaScheduler<T>::plan(steps);
    history_.clear();
  }
  Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator&) override {
    const Index i = this->step_index(t);
    const Single sigma = this->sigma(i);
    history_.insert(history_.begin(), this->derivative(this->original(model_output, sample, sigma), sample, sigma));
    if (history_.size() > 4) history_.pop_back();
    const Index order = std::min<Index>(i + 1, 4);
    Tensor<T> out = sample;
    for (Index j = 0; j < std::min<Index>(order, static_cast<Index>(history_.size())); ++j)
      out = combine<T>({{1.0, out}, {weight(i, j, order), history_[static_cast<std::size_t>(j)]}});
    return out;
  }
  /// The integral of Lagrange's j-th polynomial over the last `order` sigmas, from this sigma to the next: at most cubic, so
  /// that Gauss's rule of two points is exact.
  double weight(Index i, Index j, Index order) const {
    const auto s = [&](Index k) { return static_cast<double>(this->sigma(k)); };
    const double middle = (s(i) + s(i + 1)) / 2, half = (s(i + 1) - s(i)) / 2;
    double sum = 0;
    for (const double x : {middle - half / std::sqrt(3.0), middle + half / std::sqrt(3.0)}) {
      double product = 1;
      for (Index k = 0; k < order; ++k)
        if (k != j) product *= (x - s(i - k)) / (s(i - j) - s(i - k));
      sum += product;
    }
    return half * sum;
  }

  std::vector<Tensor<T>> history_;  ///< derivatives, newest first
};

}  // namespace tenon::inline TENON_ABI
