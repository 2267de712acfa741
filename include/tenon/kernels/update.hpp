#pragma once
// Optimizer updates, in place, by torch's formulas. `gradient_scale` multiplies the gradient (norm clipping) on the way.
#include <cmath>

#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// One step of AdamW (arXiv 1711.05101); `step` counts from 1.
struct AdamwStep {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 1e-2;
  double gradient_scale = 1;
  Index step = 1;
};
/// One step of SGD; with momentum, v = momentum v + (1 - dampening) g, and v = g on the first step.
struct SgdStep {
  double learning_rate = 1e-3, momentum = 0, dampening = 0, weight_decay = 0;
  double gradient_scale = 1;
  bool nesterov = false, first = false;
};

/// The constants of a step, rounded to T once.
template <class T>
struct AdamwNumbers {
  T decay, eps, rate, root, scale, keep1, beta2, keep2;
  explicit AdamwNumbers(const AdamwStep& s)
      : decay(static_cast<T>(1 - s.learning_rate * s.weight_decay)),
        eps(static_cast<T>(s.eps)),
        rate(static_cast<T>(s.learning_rate / (1 - std::pow(s.beta1, static_cast<double>(s.step))))),
        root(static_cast<T>(std::sqrt(1 - std::pow(s.beta2, static_cast<double>(s.step))))),
        scale(static_cast<T>(s.gradient_scale)),
        keep1(static_cast<T>(1 - s.beta1)),
        beta2(static_cast<T>(s.beta2)),
        keep2(static_cast<T>(1 - s.beta2)) {}
};
template <class T>
struct SgdNumbers {
  T rate, momentum, keep, decay, scale;
  bool nesterov, first;
  explicit SgdNumbers(const SgdStep& s)
      : rate(static_cast<T>(s.learning_rate)),
        momentum(static_cast<T>(s.momentum)),
        keep(static_cast<T>(1 - s.dampening)),
        decay(static_cast<T>(s.weight_decay)),
        scale(static_cast<T>(s.gradient_scale)),
        nesterov(s.nesterov),
        first(s.first) {}
};

/// p *= 1 - lr wd; m and v follow g and g^2; p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps).
template <Real T>
void adamw_update(Index n, const AdamwStep& step, const T* g, T* p, T* m, T* v) {
  const AdamwNumbers<T> s(step);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const T grad = s.scale * g[i];
      m[i] += s.keep1 * (grad - m[i]);
      v[i] = s.beta2 * v[i] + s.keep2 * grad * grad;
      p[i] = s.decay * p[i] - s.rate * (m[i] / (std::sqrt(v[i]) / s.root + s.eps));
    }
  });
}

/// g += wd p; velocity as SgdStep says (null when momentum is 0); p -= lr times velocity, g, or g + momentum velocity (Nesterov).
template <Real T>
void sgd_update(Index n, const SgdStep& step, const T* g, T* p, Nullable<T> velocity) {
  const SgdNumbers<T> s(step);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      T d = s.scale * g[i] + s.decay * p[i];
      if (velocity != nullptr) {
        velocity[i] = s.first ? d : s.momentum * velocity[i] + s.keep * d;
        d = s.nesterov ? d + s.momentum * velocity[i] : velocity[i];
      }
      p[i] -= s.rate * d;
    }
  });
}

/// average += (1 - decay) (p - average).
template <Real T>
void ema_update(Index n, double decay, const T* p, T* average) {
  const T keep = static_cast<T>(1 - decay);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) average[i] += keep * (p[i] - average[i]);
  });
}

TENON_KERNEL void adamw_update(Index n, const AdamwStep& step, const float* g, float* p, float* m, float* v);
TENON_KERNEL void sgd_update(Index n, const SgdStep& step, const float* g, float* p, float* velocity);
TENON_KERNEL void ema_update(Index n, double decay, const float* p, float* average);

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/update_float.inl>
#endif
