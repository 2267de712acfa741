#pragma once
// What diffusion models are trained on: noisy samples with their targets and weights, and the loss (Ho et al. 2020,
// 2006.11239; Salimans, Ho 2022, 2202.00512 for v; Hang et al. 2023, 2303.09556 for min-SNR; rules and draws as diffusers'
// train_text_to_image.py), and the loss of an autoencoder.
//
//   auto batch = noisy_batch(scheduler->schedule(), latents, generator, {.prediction = PredictionType::v_prediction, .snr_gamma = 5});
//   auto loss = diffusion_loss(unet(Var<float>(batch.noisy), batch.timesteps, conditions), batch);
#include <tenon/models/diffusion/vae_blocks.hpp>
#include <tenon/ops/loss.hpp>
#include <tenon/ops/reduce.hpp>

namespace tenon::inline TENON_ABI {

struct DiffusionObjective {
  PredictionType prediction = PredictionType::epsilon;
  std::optional<double> snr_gamma = {};  ///< weights min(SNR, gamma) / SNR, / (SNR + 1) for v, / 1 for samples; absent: 1
  double noise_offset = 0;               ///< deviation of a shift of the noise, one for each sample and channel
  double input_perturbation = 0;         ///< deviation of further noise in what the model sees, not in its target (2301.11706)
};

/// What a model sees and should answer.
template <class T>
struct NoisyBatch {
  Tensor<T> noisy, target;   ///< [N, H, W, C]
  Tensor<float> timesteps;   ///< [N], whole numbers
  Tensor<T> weights;         ///< [N], of the squared errors
};

/// alpha_bar / (1 - alpha_bar), the ratio of signal and noise, at each timestep.
inline std::vector<double> signal_to_noise(const NoiseSchedule& schedule, std::span<const float> timesteps) {
  std::vector<double> out;
  for (const float t : timesteps) {
    const Single bar = schedule.alpha_bar(static_cast<double>(t)), ratio = sqrt(bar) / sqrt(1 - bar);
    out.push_back(static_cast<double>(ratio * ratio));
  }
  return out;
}

/// The weight of each sample's squared error. Throws Error for epsilon where the SNR is zero: there is no noise to tell apart.
inline std::vector<double> min_snr_weights(const NoiseSchedule& schedule, std::span<const float> timesteps, const DiffusionObjective& objective) {
  std::vector<double> out(timesteps.size(), 1.0);
  if (!objective.snr_gamma) return out;
  const auto snr = signal_to_noise(schedule, timesteps);
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = std::min(snr[i], *objective.snr_gamma);
    if (objective.prediction == PredictionType::sample) continue;
    const double over = objective.prediction == PredictionType::epsilon ? snr[i] : snr[i] + 1;
    check(over > 0, "min_snr_weights", "a zero terminal SNR needs v prediction or sample prediction");
    out[i] /= over;
  }
  return out;
}

/// The batch of these samples, noises [N, H, W, C] and timesteps [N]; `seen` (noise by default) is what the samples are mixed with.
template <class T>
NoisyBatch<T> noisy_batch(const NoiseSchedule& schedule, const Tensor<T>& samples, const Tensor<T>& noise, std::span<const float> timesteps,
                          const DiffusionObjective& objective = {}, const Tensor<T>* seen = nullptr) {
  const Index n = samples.extent(0);
  check<ShapeError>(static_cast<Index>(timesteps.size()) == n, "noisy_batch", "expected ", n, " timesteps, got ", timesteps.size());
  NoisyBatch<T> out;
  out.noisy = schedule.add_noise(samples, seen != nullptr ? *seen : noise, timesteps);
  switch (objective.prediction) {
    case PredictionType::epsilon: out.target = noise; break;
    case PredictionType::sample: out.target = samples; break;
    case PredictionType::v_prediction: out.target = schedule.get_velocity(samples, noise, timesteps); break;
  }
  out.timesteps = Tensor<float>(Shape{n}, timesteps);
  out.weights = Tensor<T>::uninitialized({n});
  const auto weights = min_snr_weights(schedule, timesteps, objective);
  std::transform(weights.begin(), weights.end(), out.weights.begin(), [](double w) { return static_cast<T>(w); });
  return out;
}

/// The batch of samples [N, H, W, C] with noise and timesteps drawn as diffusers' script does: noise in the order [N, C, H, W],
/// its offset, the perturbation, then uniform timesteps.
template <class T>
NoisyBatch<T> noisy_batch(const NoiseSchedule& schedule, const Tensor<T>& samples, Generator& generator, const DiffusionObjective& objective = {}) {
  check<ShapeError>(samples.rank() == 4, "noisy_batch", "expected samples [N, H, W, C], got ", samples.shape());
  const Index n = samples.extent(0), channels = samples.extent(3), pixels = samples.extent(1) * samples.extent(2);
  const Shape drawn{n, channels, samples.extent(1), samples.extent(2)};
  Tensor<T> noise = channels_last(draw_noise<T>(drawn, generator));
  if (objective.noise_offset != 0) {
    const Tensor<T> offset = draw_noise<T>({n, channels, 1, 1}, generator);
    for (Index i = 0; i < noise.size(); ++i) {
      const T by = offset.data()[i / (pixels * channels) * channels + i % channels];
      noise.data()[i] = std::fma(static_cast<T>(objective.noise_offset), by, noise.data()[i]);
    }
  }
  std::optional<Tensor<T>> seen;
  if (objective.input_perturbation != 0)
    seen = combine<T>({{1.0, noise}, {objective.input_perturbation, channels_last(draw_noise<T>(drawn, generator))}});
  std::vector<std::int64_t> steps(static_cast<std::size_t>(n));
  fill_integers(std::span(steps), 0, schedule.steps(), generator);
  const std::vector<float> timesteps(steps.begin(), steps.end());
  return noisy_batch<T>(schedule, samples, noise, timesteps, objective, seen ? &*seen : nullptr);
}

/// The mean over samples of weight times mean squared error. Throws ShapeError when the output has another shape than the target.
template <class T>
Var<T> diffusion_loss(const Var<T>& output, const NoisyBatch<T>& batch) {
  check<ShapeError>(output.shape() == batch.target.shape(), "diffusion_loss", "expected a model output of shape ", batch.target.shape(),
                    ", got ", output.shape());
  if (std::all_of(batch.weights.begin(), batch.weights.end(), [](T w) { return w == T(1); })) return mse_loss(output, Var<T>(batch.target));
  const Var<T> errors = mean(square(output - Var<T>(batch.target)), {1, 2, 3});
  return mean(errors * Var<T>(batch.weights));
}

struct AutoencoderObjective {
  double kl_weight = 1e-6;     ///< of the divergence, summed over a picture's latents, beside means over its values
  double squared_weight = 0;   ///< of the squared error; the absolute error has the weight 1
  double sharpness_weight = 1; ///< of the absolute error of differences between neighbours, which blur makes large
};

/// mean |y - x| + squared mean (y - x)^2 + sharpness (mean |d(y - x) / dv| + mean |d(y - x) / dh|) + kl mean of the divergences;
/// y the reconstruction, x the pictures, both [N, H, W, C]. Throws ShapeError when they differ.
template <class T>
Var<T> autoencoder_loss(const Var<T>& reconstruction, const Tensor<T>& pictures, const DiagonalGaussian<T>& posterior, const AutoencoderObjective& o = {}) {
  check<ShapeError>(reconstruction.shape() == pictures.shape() && pictures.rank() == 4, "autoencoder_loss", "expected a reconstruction of shape ",
                    pictures.shape(), ", got ", reconstruction.shape());
  const Var<T> error = reconstruction - Var<T>(pictures);
  Var<T> loss = mean(abs(error));
  if (o.squared_weight != 0) loss = loss + mean(square(error)) * static_cast<T>(o.squared_weight);
  if (o.sharpness_weight != 0)
    for (const Index axis : {1, 2}) {
      const Index size = pictures.extent(axis);
      if (size > 1) loss = loss + mean(abs(slice(error, axis, 1, size) - slice(error, axis, 0, size - 1))) * static_cast<T>(o.sharpness_weight);
    }
  if (o.kl_weight != 0) loss = loss + mean(posterior.kl()) * static_cast<T>(o.kl_weight);
  return loss;
}

}  // namespace tenon::inline TENON_ABI
