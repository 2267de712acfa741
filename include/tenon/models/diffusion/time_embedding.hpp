#pragma once
// Times as features: sinusoids of a timestep and the two linear layers over them (diffusers models/embeddings.py).
#include <cmath>
#include <numbers>

#include <tenon/nn/linear.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// [sin, cos] of t f for each frequency f, or [cos, sin]; float32 steps as torch makes them, since a rounding of f counts t times.
template <class T>
Tensor<T> sinusoids(std::span<const float> times, std::span<const float> frequencies, Index width, bool cosine_first) {
  Tensor<T> out({static_cast<Index>(times.size()), width});  // an odd width ends in a zero
  const Index half = width / 2;
  for (Index n = 0; n < out.extent(0); ++n)
    for (Index i = 0; i < half; ++i) {
      const double angle = static_cast<double>(times[static_cast<std::size_t>(n)] * frequencies[static_cast<std::size_t>(i)]);
      out(n, cosine_first ? half + i : i) = static_cast<T>(static_cast<float>(std::sin(angle)));
      out(n, cosine_first ? i : half + i) = static_cast<T>(static_cast<float>(std::cos(angle)));
    }
  return out;
}
inline float exp_of(float x) { return static_cast<float>(std::exp(static_cast<double>(x))); }

}  // namespace detail

/// Sinusoids of times [N], fractional ones too -> [N, width]: frequencies 10000^(-i / (width / 2 - shift)); [cos, sin] as Stable
/// Diffusion has it, or [sin, cos] as the DDPM of Ho et al. (2006.11239), whose shift is 1. Throws Error when width < 2.
template <class T>
Tensor<T> timestep_embedding(const Tensor<float>& times, Index width, bool cosine_first = true, double shift = 0) {
  check(width >= 2 && static_cast<double>(width / 2) > shift, "timestep_embedding", "expected a width over ", 2 * shift, ", got ", width);
  const float scale = static_cast<float>(-std::log(10000.0)), places = static_cast<float>(static_cast<double>(width / 2) - shift);
  std::vector<float> frequencies;
  for (Index i = 0; i < width / 2; ++i) frequencies.push_back(detail::exp_of(scale * static_cast<float>(i) / places));
  return detail::sinusoids<T>(times.span(), frequencies, width, cosine_first);
}

/// The embedding of a guidance scale that latent consistency models take in place of guidance (Luo et al. 2023, 2310.04378;
/// diffusers' get_guidance_scale_embedding): scales [N] -> [N, width]. Pipelines give it scale - 1.
template <class T>
Tensor<T> guidance_embedding(const Tensor<float>& scales, Index width = 256) {
  check(width >= 4, "guidance_embedding", "expected a width of at least 4, got ", width);
  Tensor<float> times(scales);
  for (float& t : times) t *= 1000.0f;
  const float step = static_cast<float>(std::log(10000.0)) / static_cast<float>(width / 2 - 1);
  std::vector<float> frequencies;
  for (Index i = 0; i < width / 2; ++i) frequencies.push_back(detail::exp_of(static_cast<float>(i) * -step));
  return detail::sinusoids<T>(times.span(), frequencies, width, false);
}

/// linear_2(silu(linear_1(x + cond_proj(condition)))).
template <class T>
struct TimestepEmbedding {
  Linear<T> linear_1, linear_2;
  std::optional<Linear<T>> cond_proj;  ///< of latent consistency models

  TimestepEmbedding() = default;
  /// Declared: to be loaded or initialised. `condition` 0: none.
  TimestepEmbedding(Index in, Index width, Index condition = 0) : linear_1(in, width), linear_2(width, width) {
    if (condition > 0) cond_proj.emplace(condition, in, false);
  }
  void initialize(Generator& generator) {
    linear_1.initialize(generator);
    if (cond_proj) cond_proj->initialize(generator);
    linear_2.initialize(generator);
  }

  /// x [N, in] and, where given, condition [N, condition] -> [N, width]. Throws ShapeError on a condition that has no place.
  Var<T> operator()(const Var<T>& x, const std::optional<Var<T>>& condition = {}) const {
    check<ShapeError>(!condition || cond_proj, "TimestepEmbedding", "this model takes no guidance embedding");
    return linear_2(linear_1(condition ? x + (*cond_proj)(*condition) : x, Activation::silu));
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("linear_1", s.linear_1);
    f("cond_proj", s.cond_proj);
    f("linear_2", s.linear_2);
  }
};

}  // namespace tenon::inline TENON_ABI
