#pragma once
// Classifier-free guidance (Ho and Salimans, Classifier-Free Diffusion Guidance, 2022).
#include <tenon/models/diffusion/noise_schedule.hpp>

namespace tenon::inline TENON_ABI {

/// The batch twice over: the first half is for the negative prompt, the second for the prompt.
template <class T>
Tensor<T> doubled(const Tensor<T>& x) {
  auto out = Tensor<T>::uninitialized(x.shape().with(0, 2 * x.extent(0)));
  std::copy(x.begin(), x.end(), std::copy(x.begin(), x.end(), out.begin()));
  return out;
}

/// From the model's outputs for [negative, positive], [2 N, ...]: negative + scale (positive - negative), [N, ...].
/// `rescale` > 0 mixes in, by that share, the result with its deviation set to the positive output's, sample by sample (Lin et
/// al., Common Diffusion Noise Schedules and Sample Steps are Flawed, 2023, section 3.4).
/// Throws ShapeError unless the batch is even.
template <class T>
Tensor<T> guided(const Tensor<T>& outputs, double scale, double rescale = 0) {
  check<ShapeError>(outputs.rank() > 0 && outputs.extent(0) % 2 == 0, "guided", "expected a batch of pairs, got shape ", outputs.shape());
  const Index count = outputs.extent(0) / 2, size = outputs.size() / 2, each = count > 0 ? size / count : 0;
  auto out = Tensor<T>::uninitialized(outputs.shape().with(0, count));
  const T *negative = outputs.data(), *positive = outputs.data() + size;
  for (Index i = 0; i < size; ++i) out.data()[i] = std::fma(static_cast<T>(scale), positive[i] - negative[i], negative[i]);
  if (rescale == 0) return out;
  const auto deviation = [&](const T* x) {
    double mean = 0, squares = 0;
    for (Index i = 0; i < each; ++i) mean += static_cast<double>(x[i]) / static_cast<double>(each);
    for (Index i = 0; i < each; ++i) squares += (static_cast<double>(x[i]) - mean) * (static_cast<double>(x[i]) - mean);
    return std::sqrt(squares / static_cast<double>(each - 1));
  };
  for (Index n = 0; n < count; ++n) {
    const double ratio = deviation(positive + n * each) / deviation(out.data() + n * each);
    const auto factor = static_cast<T>(rescale * ratio + (1 - rescale));
    for (Index i = n * each; i < (n + 1) * each; ++i) out.data()[i] *= factor;
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI
