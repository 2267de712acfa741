#pragma once
// Scheduler: what all samplers have in common. A run reads
//
//   auto scheduler = make_scheduler("euler_a", config);
//   scheduler->set_timesteps(20);
//   auto x = initial noise times scheduler->init_noise_sigma();
//   for (float t : scheduler->timesteps())
//     x = scheduler->step(model(scheduler->scale_model_input(x, t), t), t, x, generator);
//
// Samples are [N, ...] in diffusers' order, [N, C, H, W]: noise is drawn element after element.
#include <memory>

#include <tenon/core/random.hpp>
#include <tenon/models/diffusion/schedulers/config.hpp>

namespace tenon::inline TENON_ABI {

/// Normal numbers as torch.randn draws them for float32, whatever T is.
template <class T>
Tensor<T> draw_noise(const Shape& shape, Generator& generator) {
  auto noise = Tensor<float>::uninitialized(shape);
  fill_normal(noise.span(), 0, 1, generator);
  if constexpr (std::same_as<T, float>) {
    return noise;
  } else {
    auto out = Tensor<T>::uninitialized(shape);
    std::copy(noise.begin(), noise.end(), out.begin());
    return out;
  }
}

/// A sampler with its state. Copies (`clone`) go on independently.
template <class T>
class Scheduler {
 public:
  virtual ~Scheduler() = default;
  Scheduler& operator=(const Scheduler&) = delete;
  virtual std::unique_ptr<Scheduler> clone() const = 0;

  /// All options, absent ones filled in.
  const SchedulerConfig& config() const { return config_; }
  const NoiseSchedule& schedule() const { return schedule_; }
  /// Chooses the timesteps of a run of `steps` steps and forgets every step taken. LCM and TCD take them from the lower share
  /// `strength` of the distillation's; others take no notice of it. Throws Error when it cannot be done in so few or many.
  void set_timesteps(Index steps, double strength = 1) {
    check(steps >= 1 && steps <= schedule_.steps(), "scheduler", "expected 1 to ", schedule_.steps(), " steps, got ", steps);
    check(strength >= 0 && strength <= 1, "scheduler", "expected a strength in [0, 1], got ", strength);
    steps_ = steps;
    strength_ = strength;
    step_index_.reset();
    begin_index_.reset();
    timesteps_.clear();
    sigmas_.clear();
    plan(steps);
  }
  /// One for each call of the model, in order. Whole numbers for some, fractions for others.
  std::span<const float> timesteps() const { return timesteps_; }
  /// The deviation at each timestep, and after the last; empty for schedulers that do not work with it.
  std::span<const float> sigmas() const { return sigmas_; }
  /// What unit noise is multiplied with to begin a run. Depends on the timesteps.
  virtual float init_noise_sigma() const { return 1; }
  /// Calls of the model for each step: 2 for Heun.
  virtual Index order() const { return 1; }
  /// The run begins at timesteps()[index]: image to image.
  void set_begin_index(Index index) {
    check(0 <= index && index < static_cast<Index>(timesteps_.size()), "scheduler", "begin index ", index, " is outside 0 .. ",
          static_cast<Index>(timesteps_.size()) - 1);
    begin_index_ = index;
  }
  /// The share of fresh noise in DDIM's and TCD's steps; others take no notice.
  void set_eta(double eta) {
    check(eta >= 0 && eta <= 1, "scheduler", "expected an eta in [0, 1], got ", eta);
    config_.eta = eta;
  }

  /// What the model sees at timestep t.
  virtual Tensor<T> scale_model_input(const Tensor<T>& sample, float) { return sample; }
  /// The sample at the next timestep, from the model's output for `sample` at t. Throws Error when t is none of timesteps(),
  /// ShapeError when the shapes differ.
  Tensor<T> step(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator& generator) {
    check(!timesteps_.empty(), "scheduler", "set_timesteps comes before step");
    check<ShapeError>(model_output.shape() == sample.shape(), "scheduler", "expected a model output of shape ", sample.shape(),
                      ", got ", model_output.shape());
    Tensor<T> out = advance(model_output, t, sample, generator);
    if (step_index_) ++*step_index_;
    return out;
  }
  /// The sample with the noise of a timestep: one timestep for each of the batch, or one for all.
  virtual Tensor<T> add_noise(const Tensor<T>& sample, const Tensor<T>& noise, std::span<const float> timesteps) const {
    return schedule_.add_noise(sample, noise, timesteps);
  }
  /// The target of v prediction.
  Tensor<T> get_velocity(const Tensor<T>& sample, const Tensor<T>& noise, std::span<const float> timesteps) const {
    return schedule_.get_velocity(sample, noise, timesteps);
  }

 protected:
  /// What is absent from `config` is as most of diffusers' schedulers have it.
  explicit Scheduler(const SchedulerConfig& config) : config_(with_defaults(config, common_defaults())) {
    const bool zero_terminal_snr = *config_.rescale_betas_zero_snr;
    check(!*config_.use_karras_sigmas || !*config_.use_exponential_sigmas, "scheduler",
          "expected use_karras_sigmas or use_exponential_sigmas, got both");
    if (config_.trained_betas) {
      const std::vector<float> betas(config_.trained_betas->begin(), config_.trained_betas->end());
      schedule_ = NoiseSchedule(betas, zero_terminal_snr);
    } else {
      schedule_ = NoiseSchedule(*config_.num_train_timesteps, *config_.beta_schedule, *config_.beta_start, *config_.beta_end,
                                zero_terminal_snr);
    }
  }
  Scheduler(const Scheduler&) = default;

  /// Fills timesteps_ and sigmas_ and clears the history.
  virtual void plan(Index steps) = 0;
  /// One step; step_index_ is moved afterwards.
  virtual Tensor<T> advance(const Tensor<T>& model_output, float t, const Tensor<T>& sample, Generator& generator) = 0;

  void keep_timesteps(std::span<const double> timesteps) {
    for (const double t : timesteps) timesteps_.push_back(static_cast<float>(t));
  }
  std::vector<double> spaced(Index count) const {
    return spaced_timesteps(*config_.timestep_spacing, schedule_.steps(), schedule_.steps(), count, *config_.steps_offset);
  }
  /// The place of t in timesteps(): the second where it occurs twice.
  virtual Index index_for_timestep(float t) const {
    const auto first = std::find(timesteps_.begin(), timesteps_.end(), t);
    check(first != timesteps_.end(), "scheduler", "timestep ", t, " is none of this run's");
    const auto second = std::find(first + 1, timesteps_.end(), t);
    return (second == timesteps_.end() ? first : second) - timesteps_.begin();
  }
  /// The number of the step that is being made.
  Index step_index(float t) {
    if (!step_index_) step_index_ = begin_index_ ? *begin_index_ : index_for_timestep(t);
    check(*step_index_ < static_cast<Index>(timesteps_.size()), "scheduler", "no step is left after ", timesteps_.size());
    return *step_index_;
  }
  /// Below the first timestep lies the clean sample, or the first timestep's again.
  Single alpha_bar_or_final(double t) const {
    if (t >= 0) return schedule_.alpha_bar(t);
    return *config_.set_alpha_to_one ? Single(1) : schedule_.alpha_bar(0);
  }
  /// Replaces sigmas by as many Karras or exponential ones between the option's ends or the given ones, and timesteps by
  /// those that belong to them, fractions and all. Returns whether an option asked for it.
  bool respace(std::vector<double>& timesteps, std::vector<double>& sigmas, double largest, double smallest, Index count) const {
    if (!*config_.use_karras_sigmas && !*config_.use_exponential_sigmas) return false;
    const auto make = *config_.use_karras_sigmas ? karras_sigmas : exponential_sigmas;
    sigmas = make(config_.sigma_max.value_or(largest), config_.sigma_min.value_or(smallest), count);
    const auto table = schedule_.sigmas();
    timesteps.clear();
    for (const double sigma : sigmas) timesteps.push_back(sigma_to_t(sigma, table));
    return true;
  }
  /// A sample with noise where both are scaled by functions of sigma. Where the run has begun, its place counts, not the
  /// timesteps'.
  template <class F>
  Tensor<T> mix(const Tensor<T>& sample, const Tensor<T>& noise, std::span<const float> timesteps, F&& scales) const {
    const auto count = static_cast<Index>(timesteps.size());
    check<ShapeError>(sample.shape() == noise.shape() && sample.rank() > 0, "scheduler", "expected noise of shape ",
                      sample.shape(), ", got ", noise.shape());
    check<ShapeError>(count == 1 || count == sample.extent(0), "scheduler", "expected one timestep or ", sample.extent(0), ", got ", count);
    auto out = Tensor<T>::uninitialized(sample.shape());
    const Index each = sample.size() / count;
    for (Index n = 0; n < count; ++n) {
      const auto [a, b] = scales(sigma(noise_index(timesteps[static_cast<std::size_t>(n)])));
      const auto x = static_cast<T>(a.value), y = static_cast<T>(b.value);
      for (Index i = n * each; i < (n + 1) * each; ++i) out.data()[i] = std::fma(x, sample.data()[i], y * noise.data()[i]);
    }
    return out;
  }
  Single sigma(Index index) const { return sigmas_.at(static_cast<std::size_t>(index)); }
  /// Where add_noise stands: at the step being made, where the run begins, or at t.
  Index noise_index(float t) const { return !begin_index_ ? index_for_timestep(t) : step_index_ ? *step_index_ : *begin_index_; }

  /// x_0 from the model's output, where x_t = alpha x_0 + sigma noise.
  Tensor<T> predict_original(const Tensor<T>& model_output, const Tensor<T>& sample, Single alpha, Single sigma) const {
    switch (*config_.prediction_type) {
      case PredictionType::epsilon: {
        Tensor<T> out = combine<T>({{1.0, sample}, {-sigma, model_output}});
        for (T& x : out) x /= static_cast<T>(alpha.value);  // infinite where alpha is 0, and then clipped
        return out;
      }
      case PredictionType::v_prediction: return combine<T>({{alpha, sample}, {-sigma, model_output}});
      case PredictionType::sample: break;
    }
    return model_output;
  }
  /// The noise in the sample, from the model's output.
  Tensor<T> predict_noise(const Tensor<T>& model_output, const Tensor<T>& sample, Single alpha, Single sigma) const {
    switch (*config_.prediction_type) {
      case PredictionType::v_prediction: return combine<T>({{alpha, model_output}, {sigma, sample}});
      case PredictionType::sample: {
        const double scale = 1 / static_cast<double>(sigma);
        return combine<T>({{scale, sample}, {-static_cast<double>(alpha) * scale, model_output}});
      }
      case PredictionType::epsilon: break;
    }
    return model_output;
  }
  /// x_0 under thresholding, else clipping, as the options say.
  Tensor<T> bounded(Tensor<T> x0) const {
    if (config_.thresholding.value_or(false)) return thresholded(std::move(x0));
    if (!config_.clip_sample.value_or(false)) return x0;
    const auto bound = static_cast<T>(*config_.clip_sample_range);
    for (T& x : x0) x = std::clamp(x, -bound, bound);
    return x0;
  }
  /// Each sample is clipped at a quantile s of its absolute values, 1 <= s <= sample_max_value, and divided by s (Saharia et
  /// al., Photorealistic Text-to-Image Diffusion Models, 2022, section 2.3).
  Tensor<T> thresholded(Tensor<T> x0) const {
    const Index each = x0.size() / x0.extent(0);
    for (Index n = 0; n < x0.extent(0); ++n) {
      const auto sample = x0.span().subspan(static_cast<std::size_t>(n * each), static_cast<std::size_t>(each));
      std::vector<T> sorted;
      for (const T x : sample) sorted.push_back(std::abs(x));
      std::sort(sorted.begin(), sorted.end());
      const T rank = static_cast<T>(*config_.dynamic_thresholding_ratio) * static_cast<T>(each - 1), low = std::floor(rank);
      const auto i = static_cast<std::size_t>(low), j = std::min(i + 1, sorted.size() - 1);
      const T quantile = std::fma(rank - low, sorted[j] - sorted[i], sorted[i]);
      const T s = std::clamp(quantile, T(1), std::max(T(1), static_cast<T>(*config_.sample_max_value)));
      for (T& x : sample) x = std::clamp(x, -s, s) / s;
    }
    return x0;
  }

  SchedulerConfig config_;
  NoiseSchedule schedule_;
  std::vector<float> timesteps_, sigmas_;
  Index steps_ = 0;
  double strength_ = 1;
  std::optional<Index> step_index_, begin_index_;
};

}  // namespace tenon::inline TENON_ABI
