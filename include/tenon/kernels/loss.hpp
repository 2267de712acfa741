#pragma once
// Losses with their gradients: cross-entropy over class ids, and mean squared error.
#include <algorithm>
#include <cmath>

#include <tenon/core/memory.hpp>
#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// Options of cross-entropy, as torch's.
struct CrossEntropy {
  double label_smoothing = 0;  // in [0, 1): this share of each target is spread over all classes
  Index ignore_index = -100;   // rows with this target count for nothing
};

/// Rows whose target is not ignored.
inline Index counted_rows(Index rows, const CrossEntropy& options, const std::int32_t* targets) {
  return rows - std::count(targets, targets + rows, options.ignore_index);
}

/// The mean over counted rows of -log softmax(logits)[target], logits [rows, classes]; saves log_sum_exp [rows].
/// NaN when no row counts. Targets lie in [0, classes) or equal ignore_index.
template <Real T>
T cross_entropy_forward(Index rows, Index classes, const CrossEntropy& options, const T* logits, const std::int32_t* targets, T* log_sum_exp) {
  const T smooth = static_cast<T>(options.label_smoothing);
  double total = 0;
  for (Index r = 0; r < rows; ++r) {
    const T* z = logits + r * classes;
    const T top = *std::max_element(z, z + classes);
    T mass = 0, sum_z = 0;
    for (Index c = 0; c < classes; ++c) {
      mass += std::exp(z[c] - top);
      sum_z += z[c] - top;
    }
    const T log_mass = std::log(mass);
    log_sum_exp[r] = top + log_mass;
    if (targets[r] == options.ignore_index) continue;
    total += static_cast<double>((T(1) - smooth) * (log_mass - (z[targets[r]] - top)) + smooth * (log_mass - sum_z / static_cast<T>(classes)));
  }
  return static_cast<T>(total / static_cast<double>(counted_rows(rows, options, targets)));
}
/// dlogits = dloss (softmax(logits) - (1 - s) onehot(target) - s / classes) / counted rows; 0 on ignored rows.
template <Real T>
void cross_entropy_backward(Index rows, Index classes, const CrossEntropy& options, const T* logits, const std::int32_t* targets, const T* log_sum_exp, double dloss, T* dlogits) {
  const T factor = static_cast<T>(dloss / static_cast<double>(counted_rows(rows, options, targets)));
  const T spread = static_cast<T>(options.label_smoothing / static_cast<double>(classes));
  const T hit = static_cast<T>(1 - options.label_smoothing);
  parallel_chunks(rows, grain_of(4 * classes), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      T* d = dlogits + r * classes;
      if (targets[r] == options.ignore_index) {
        std::fill_n(d, classes, T(0));
        continue;
      }
      for (Index c = 0; c < classes; ++c)
        d[c] = factor * (std::exp(logits[r * classes + c] - log_sum_exp[r]) - (c == targets[r] ? spread + hit : spread));
    }
  });
}

/// The mean of (a - b)^2.
template <Real T>
T mse_forward(Index n, const T* a, const T* b) {
  double total = 0;
  for (Index i = 0; i < n; ++i) total += static_cast<double>((a[i] - b[i]) * (a[i] - b[i]));
  return static_cast<T>(total / static_cast<double>(n));
}
/// da = dloss 2 (a - b) / n, and db = -da; either may be null.
template <Real T>
void mse_backward(Index n, const T* a, const T* b, double dloss, Nullable<T> da, Nullable<T> db) {
  const T factor = static_cast<T>(2 * dloss / static_cast<double>(n));
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const T d = factor * (a[i] - b[i]);
      if (da != nullptr) da[i] = d;
      if (db != nullptr) db[i] = -d;
    }
  });
}

TENON_KERNEL float cross_entropy_forward(Index rows, Index classes, const CrossEntropy& options, const float* logits, const std::int32_t* targets, float* log_sum_exp);
TENON_KERNEL void cross_entropy_backward(Index rows, Index classes, const CrossEntropy& options, const float* logits, const std::int32_t* targets, const float* log_sum_exp, double dloss, float* dlogits);
TENON_KERNEL float mse_forward(Index n, const float* a, const float* b);
TENON_KERNEL void mse_backward(Index n, const float* a, const float* b, double dloss, float* da, float* db);

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/loss_float.inl>
#endif
