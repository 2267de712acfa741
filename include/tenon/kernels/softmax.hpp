#pragma once
// Softmax and log-softmax along the last axis. float runs on current_isa(), double on plain loops.
#include <algorithm>
#include <cmath>
#include <limits>

#include <tenon/core/dtype.hpp>
#include <tenon/core/parallel.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// Rows of `width` to one chunk of a parallel loop.
inline Index softmax_grain(Index width) { return std::max<Index>(1, 8192 / std::max<Index>(1, width)); }

/// y [rows, width] = exp(x) / sum exp(x) of each row; y may be x.
TENON_KERNEL void softmax_forward(Index rows, Index width, const float* x, float* y);
inline void softmax_forward(Index rows, Index width, const double* x, double* y) {
  parallel_chunks(rows, softmax_grain(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const double* a = x + r * width;
      const double m = *std::max_element(a, a + width);
      double sum = 0;
      for (Index i = 0; i < width; ++i) sum += y[r * width + i] = std::exp(a[i] - m);
      for (Index i = 0; i < width; ++i) y[r * width + i] /= sum;
    }
  });
}

/// dx = y (dy - sum y dy) of each row; dx may be dy.
TENON_KERNEL void softmax_backward(Index rows, Index width, const float* y, const float* dy, float* dx);
inline void softmax_backward(Index rows, Index width, const double* y, const double* dy, double* dx) {
  parallel_chunks(rows, softmax_grain(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      double sum = 0;
      for (Index i = r * width; i < (r + 1) * width; ++i) sum += y[i] * dy[i];
      for (Index i = r * width; i < (r + 1) * width; ++i) dx[i] = y[i] * (dy[i] - sum);
    }
  });
}

/// y = x - log sum exp(x) of each row; y may be x.
TENON_KERNEL void log_softmax_forward(Index rows, Index width, const float* x, float* y);
inline void log_softmax_forward(Index rows, Index width, const double* x, double* y) {
  parallel_chunks(rows, softmax_grain(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const double* a = x + r * width;
      const double m = *std::max_element(a, a + width);
      double sum = 0;
      for (Index i = 0; i < width; ++i) sum += std::exp(a[i] - m);
      for (Index i = 0; i < width; ++i) y[r * width + i] = a[i] - m - std::log(sum);
    }
  });
}

/// dx = dy - exp(y) sum dy of each row; dx may be dy.
TENON_KERNEL void log_softmax_backward(Index rows, Index width, const float* y, const float* dy, float* dx);
inline void log_softmax_backward(Index rows, Index width, const double* y, const double* dy, double* dx) {
  parallel_chunks(rows, softmax_grain(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      double sum = 0;
      for (Index i = r * width; i < (r + 1) * width; ++i) sum += dy[i];
      for (Index i = r * width; i < (r + 1) * width; ++i) dx[i] = dy[i] - std::exp(y[i]) * sum;
    }
  });
}

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/softmax_float.inl>
#endif
