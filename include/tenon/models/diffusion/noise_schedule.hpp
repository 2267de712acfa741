#pragma once
// The forward process: betas, the cumulative products of 1 - beta, and the tables of timesteps and sigmas that schedulers
// pick from it. Every number is rounded as torch and NumPy round it in diffusers.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include <tenon/tensor/tensor.hpp>

namespace tenon::inline TENON_ABI {

/// A float32 scalar as torch computes with tensors of one element: every operation is rounded to float32, whatever the
/// compiler contracts. Double holds products of floats exactly, and rounding twice gives the same float for + - * / and sqrt.
struct Single {
  float value = 0;

  Single() = default;
  Single(double v) : value(static_cast<float>(v)) {}  // NOLINT: numbers mix with it, as in torch
  explicit operator double() const { return static_cast<double>(value); }

  friend Single operator-(Single a) { return -static_cast<double>(a); }
  friend Single operator+(Single a, Single b) { return static_cast<double>(a) + static_cast<double>(b); }
  friend Single operator-(Single a, Single b) { return static_cast<double>(a) - static_cast<double>(b); }
  friend Single operator*(Single a, Single b) { return static_cast<double>(a) * static_cast<double>(b); }
  friend Single operator/(Single a, Single b) { return static_cast<double>(a) / static_cast<double>(b); }
  friend Single sqrt(Single a) { return std::sqrt(static_cast<double>(a)); }
  friend Single log(Single a) { return std::log(static_cast<double>(a)); }
  friend Single exp(Single a) { return std::exp(static_cast<double>(a)); }
  friend Single expm1(Single a) { return std::expm1(static_cast<double>(a)); }
};

/// One term of a linear combination of tensors.
template <class T>
struct Term {
  double coefficient;
  const Tensor<T>* tensor;

  Term(double c, const Tensor<T>& x) : coefficient(c), tensor(&x) {}
  Term(Single c, const Tensor<T>& x) : coefficient(static_cast<double>(c)), tensor(&x) {}
};

/// The sum of coefficient * tensor, added in order with fused multiply-adds. Throws ShapeError on shapes that differ.
template <class T>
Tensor<T> combine(std::initializer_list<Term<T>> terms) {
  const Shape& shape = terms.begin()->tensor->shape();
  for (const auto& term : terms)
    check<ShapeError>(term.tensor->shape() == shape, "combine", "expected tensors of shape ", shape, ", got ", term.tensor->shape());
  auto out = Tensor<T>::uninitialized(shape);
  for (Index i = 0; i < out.size(); ++i) {
    T sum = 0;
    for (const auto& term : terms) sum = std::fma(static_cast<T>(term.coefficient), term.tensor->data()[i], sum);
    out.data()[i] = sum;
  }
  return out;
}

/// How the betas grow: linear; the square of linear (`scaled_linear`, Stable Diffusion); or from alpha_bar(t) =
/// cos^2((t + 0.008) / 1.008 pi / 2) (`squaredcos_cap_v2`; Nichol and Dhariwal, Improved Denoising Diffusion, 2021).
enum class BetaSchedule { linear, scaled_linear, squaredcos_cap_v2 };

/// q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, 1 - alpha_bar_t) for t = 0 .. steps - 1.
struct NoiseSchedule {
  std::vector<float> alphas_cumprod;  ///< alpha_bar

  NoiseSchedule() = default;
  /// From betas. `zero_terminal_snr` shifts and scales sqrt(alpha_bar) so that the last is zero and the first stays (Lin et
  /// al., Common Diffusion Noise Schedules and Sample Steps are Flawed, 2023). Throws Error unless each beta is in [0, 1].
  explicit NoiseSchedule(std::span<const float> betas, bool zero_terminal_snr = false) {
    check(!betas.empty(), "NoiseSchedule", "expected at least one beta");
    std::vector<Single> alphas;
    for (const float beta : betas) {
      check(beta >= 0 && beta <= 1, "NoiseSchedule", "expected betas in [0, 1], got ", beta);
      alphas.push_back(1 - Single(beta));
    }
    alphas_cumprod = products(alphas);
    if (!zero_terminal_snr) return;
    const Single first = sqrt(Single(alphas_cumprod.front())), last = sqrt(Single(alphas_cumprod.back()));
    Single before = 1;
    for (std::size_t i = 0; i < alphas.size(); ++i) {
      const Single root = (sqrt(Single(alphas_cumprod[i])) - last) * (first / (first - last)), bar = root * root;
      alphas[i] = 1 - (1 - (i == 0 ? bar : bar / before));
      before = bar;
    }
    alphas_cumprod = products(alphas);
  }
  NoiseSchedule(Index steps, BetaSchedule kind, double start, double end, bool zero_terminal_snr = false)
      : NoiseSchedule(betas(steps, kind, start, end), zero_terminal_snr) {}

  Index steps() const { return static_cast<Index>(alphas_cumprod.size()); }
  /// alpha_bar at a timestep. Throws Error unless it is one of 0 .. steps - 1.
  Single alpha_bar(double timestep) const {
    check(timestep >= 0 && timestep < static_cast<double>(steps()) && timestep == std::floor(timestep), "NoiseSchedule",
          "expected a timestep of 0 .. ", steps() - 1, ", got ", timestep);
    return alphas_cumprod[static_cast<std::size_t>(timestep)];
  }
  /// sqrt((1 - alpha_bar) / alpha_bar): the noise's deviation beside a signal of scale 1.
  std::vector<float> sigmas() const {
    std::vector<float> out;
    for (const float a : alphas_cumprod) out.push_back(sqrt((1 - Single(a)) / a).value);
    return out;
  }

  /// sqrt(alpha_bar) sample + sqrt(1 - alpha_bar) noise: one timestep for each sample of the batch, or one for all.
  template <class T>
  Tensor<T> add_noise(const Tensor<T>& sample, const Tensor<T>& noise, std::span<const float> timesteps) const {
    return mix(sample, noise, timesteps, [](Single root, Single rest) { return std::pair(root, rest); });
  }
  /// sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) sample: the target of v prediction.
  template <class T>
  Tensor<T> get_velocity(const Tensor<T>& sample, const Tensor<T>& noise, std::span<const float> timesteps) const {
    return mix(sample, noise, timesteps, [](Single root, Single rest) { return std::pair(-rest, root); });
  }

 private:
  static std::vector<float> betas(Index steps, BetaSchedule kind, double start, double end) {
    check(steps >= 2, "NoiseSchedule", "expected at least two training timesteps, got ", steps);
    std::vector<float> out;
    if (kind == BetaSchedule::squaredcos_cap_v2) {
      const auto bar = [&](Index i) {
        const double cosine = std::cos((static_cast<double>(i) / static_cast<double>(steps) + 0.008) / 1.008 * std::numbers::pi / 2);
        return cosine * cosine;
      };
      for (Index i = 0; i < steps; ++i) out.push_back(static_cast<float>(std::min(1 - bar(i + 1) / bar(i), 0.999)));
      return out;
    }
    const bool squared = kind == BetaSchedule::scaled_linear;
    const auto low = static_cast<float>(squared ? std::sqrt(start) : start), high = static_cast<float>(squared ? std::sqrt(end) : end);
    const Single step = (Single(high) - low) / static_cast<double>(steps - 1);
    for (Index i = 0; i < steps; ++i) {  // from both ends, as torch.linspace
      const double d = static_cast<double>(step);
      const Single x = i < steps / 2 ? std::fma(d, static_cast<double>(i), static_cast<double>(low))
                                     : std::fma(-d, static_cast<double>(steps - 1 - i), static_cast<double>(high));
      out.push_back(squared ? (x * x).value : x.value);
    }
    return out;
  }
  /// torch.cumprod keeps the product in double.
  static std::vector<float> products(std::span<const Single> alphas) {
    std::vector<float> out;
    double product = 1;
    for (const Single alpha : alphas) out.push_back(static_cast<float>(product *= static_cast<double>(alpha)));
    return out;
  }
  template <class T, class F>
  Tensor<T> mix(const Tensor<T>& sample, const Tensor<T>& noise, std::span<const float> timesteps, F&& coefficients) const {
    const Index count = static_cast<Index>(timesteps.size());
    check<ShapeError>(sample.shape() == noise.shape() && sample.rank() > 0, "NoiseSchedule", "expected noise of shape ",
                      sample.shape(), ", got ", noise.shape());
    check<ShapeError>(count == 1 || count == sample.extent(0), "NoiseSchedule", "expected one timestep or ", sample.extent(0),
                      ", got ", count);
    auto out = Tensor<T>::uninitialized(sample.shape());
    const Index each = sample.size() / count;
    for (Index n = 0; n < count; ++n) {
      const Single bar = alpha_bar(timesteps[static_cast<std::size_t>(n)]);
      const auto [a, b] = coefficients(sqrt(bar), sqrt(1 - bar));
      const auto x = static_cast<T>(a.value), y = static_cast<T>(b.value);
      for (Index i = n * each; i < (n + 1) * each; ++i) out.data()[i] = std::fma(x, sample.data()[i], y * noise.data()[i]);
    }
    return out;
  }
};

/// Where the timesteps of a run lie in training's (Lin et al. 2023, table 2).
enum class TimestepSpacing { linspace, leading, trailing };

/// Whole or fractional timesteps, largest first, before any rounding: `count` of them out of `range`, which for `trailing`
/// counts down by total / count.
inline std::vector<double> spaced_timesteps(TimestepSpacing spacing, Index range, Index total, Index count, Index offset) {
  std::vector<double> out;
  const auto n = static_cast<double>(count);
  if (spacing == TimestepSpacing::linspace) {
    const double step = count > 1 ? static_cast<double>(range - 1) / (n - 1) : 0;
    for (Index i = count; i-- > 0;) out.push_back(i + 1 == count && count > 1 ? static_cast<double>(range - 1) : static_cast<double>(i) * step);
  } else if (spacing == TimestepSpacing::leading) {
    for (Index i = count; i-- > 0;) out.push_back(static_cast<double>(i * (range / count) + offset));
  } else {  // numpy.arange(range, 0, -total / count), which may hold one more than count
    const double start = static_cast<double>(range), delta = (start - static_cast<double>(total) / n) - start;
    const auto length = static_cast<Index>(std::ceil(-start / -(static_cast<double>(total) / n)));
    for (Index i = 0; i < length; ++i) out.push_back(std::nearbyint(start + static_cast<double>(i) * delta) - 1);
  }
  return out;
}

/// Half to even, as numpy.round.
inline std::vector<double> rounded(std::vector<double> values) {
  for (double& x : values) x = std::nearbyint(x);
  return values;
}

/// The table's value between whole timesteps: numpy.interp.
inline double interpolate(std::span<const float> table, double t) {
  const auto last = table.size() - 1;
  if (t >= static_cast<double>(last)) return table[last];
  const double low = std::floor(std::max(t, 0.0));
  const auto i = static_cast<std::size_t>(low);
  const double slope = static_cast<double>(table[i + 1]) - static_cast<double>(table[i]), product = slope * (std::max(t, 0.0) - low);
  return product + static_cast<double>(table[i]);
}

/// The timestep whose sigma this is, between whole ones by the logarithm.
inline double sigma_to_t(double sigma, std::span<const float> sigmas) {
  const auto table = [&](std::size_t i) { return log(Single(sigmas[i])); };
  const double wanted = std::log(std::max(sigma, 1e-10));
  std::size_t low = 0, high = sigmas.size() - 1;  // the last whose logarithm is not above, at most the last but one
  while (low + 1 < high) {
    const auto middle = (low + high) / 2;
    (static_cast<double>(table(middle)) <= wanted ? low : high) = middle;
  }
  const double from = static_cast<double>(table(low));
  const double w = std::clamp((from - wanted) / static_cast<double>(table(low) - table(low + 1)), 0.0, 1.0);
  return (1 - w) * static_cast<double>(low) + w * static_cast<double>(low + 1);
}

/// Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models (2022), equation 5, rho = 7.
inline std::vector<double> karras_sigmas(double largest, double smallest, Index count) {
  const double from = std::pow(largest, 1 / 7.0), to = std::pow(smallest, 1 / 7.0);
  std::vector<double> out;
  for (Index i = 0; i < count; ++i) {
    const double ramp = count > 1 ? (i + 1 == count ? 1 : static_cast<double>(i) * (1 / static_cast<double>(count - 1))) : 0;
    out.push_back(std::pow(from + ramp * (to - from), 7.0));
  }
  return out;
}

/// Evenly spaced logarithms.
inline std::vector<double> exponential_sigmas(double largest, double smallest, Index count) {
  const double from = std::log(largest), to = std::log(smallest);
  std::vector<double> out;
  for (Index i = 0; i < count; ++i) {
    const double at = count > 1 && i + 1 == count ? to : from + static_cast<double>(i) * (count > 1 ? (to - from) / static_cast<double>(count - 1) : 0);
    out.push_back(std::exp(at));
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI
