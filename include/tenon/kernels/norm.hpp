#pragma once
// LayerNorm, GroupNorm (channels-last, optionally with SiLU) and row normalisation, forward and backward.
// Statistics are two-pass: the mean first, then the squared distance from it. gamma and beta may be null (1 and 0);
// any output of a backward may be null.
#include <algorithm>

#include <tenon/core/memory.hpp>
#include <tenon/kernels/scalar.hpp>
#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// y = (x - mean) rstd gamma + beta for each row of x [rows, width]; saves mean and rstd [rows]. Variance is biased.
template <Real T>
void layer_norm_forward(Index rows, Index width, double eps, const T* x, Nullable<const T> gamma, Nullable<const T> beta, T* y, T* mean_out, T* rstd) {
  const T n = static_cast<T>(width);
  parallel_chunks(rows, grain_of(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const T* in = x + r * width;
      T total = 0, squares = 0;
      for (Index j = 0; j < width; ++j) total += in[j];
      const T m = total / n;
      for (Index j = 0; j < width; ++j) squares += (in[j] - m) * (in[j] - m);
      const T s = T(1) / std::sqrt(squares / n + static_cast<T>(eps));
      for (Index j = 0; j < width; ++j)
        y[r * width + j] = (in[j] - m) * s * (gamma != nullptr ? gamma[j] : T(1)) + (beta != nullptr ? beta[j] : T(0));
      mean_out[r] = m;
      rstd[r] = s;
    }
  });
}

/// dx [rows, width], dgamma and dbeta [width] from the saved mean and rstd [rows].
template <Real T>
void layer_norm_backward(Index rows, Index width, const T* x, Nullable<const T> gamma, const T* mean_in, const T* rstd, const T* dy, Nullable<T> dx, Nullable<T> dgamma, Nullable<T> dbeta) {
  const T n = static_cast<T>(width);
  if (dx != nullptr)
    parallel_chunks(rows, grain_of(width), [=](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) {
        T sum_g = 0, sum_gx = 0;  // of g = dy gamma, and of g xhat
        for (Index j = 0; j < width; ++j) {
          const T g = dy[r * width + j] * (gamma != nullptr ? gamma[j] : T(1));
          sum_g += g;
          sum_gx += g * (x[r * width + j] - mean_in[r]) * rstd[r];
        }
        for (Index j = 0; j < width; ++j) {
          const T g = dy[r * width + j] * (gamma != nullptr ? gamma[j] : T(1));
          const T xhat = (x[r * width + j] - mean_in[r]) * rstd[r];
          dx[r * width + j] = rstd[r] * (g - sum_g / n - xhat * sum_gx / n);
        }
      }
    });
  if (dgamma == nullptr && dbeta == nullptr) return;
  for (Index j = 0; j < width; ++j) {
    T gamma_sum = 0, beta_sum = 0;
    for (Index r = 0; r < rows; ++r) {
      gamma_sum += dy[r * width + j] * (x[r * width + j] - mean_in[r]) * rstd[r];
      beta_sum += dy[r * width + j];
    }
    if (dgamma != nullptr) dgamma[j] = gamma_sum;
    if (dbeta != nullptr) dbeta[j] = beta_sum;
  }
}

/// y = (x - mean) rstd gamma + beta over the pixels and the channels / groups channels of each group of each sample;
/// x [n, pixels, channels], gamma and beta [channels], mean and rstd [n, groups]; `silu` applies x sigmoid(x) to y.
/// `groups` divides `channels`.
template <Real T>
void group_norm_forward(Index n, Index pixels, Index channels, Index groups, double eps, bool silu, const T* x, Nullable<const T> gamma, Nullable<const T> beta, T* y, T* mean_out, T* rstd) {
  const Index width = channels / groups;
  const T count = static_cast<T>(pixels * width);
  parallel_for(n * groups, [=](Index task) {
    const Index base = task / groups * pixels * channels, first = task % groups * width;
    T total = 0, squares = 0;
    for (Index p = 0; p < pixels; ++p)
      for (Index c = first; c < first + width; ++c) total += x[base + p * channels + c];
    const T m = total / count;
    for (Index p = 0; p < pixels; ++p)
      for (Index c = first; c < first + width; ++c) {
        const T d = x[base + p * channels + c] - m;
        squares += d * d;
      }
    const T s = T(1) / std::sqrt(squares / count + static_cast<T>(eps));
    for (Index p = 0; p < pixels; ++p)
      for (Index c = first; c < first + width; ++c) {
        const Index at = base + p * channels + c;
        const T z = (x[at] - m) * s * (gamma != nullptr ? gamma[c] : T(1)) + (beta != nullptr ? beta[c] : T(0));
        y[at] = silu ? detail::unary(Unary::silu, z) : z;
      }
    mean_out[task] = m;
    rstd[task] = s;
  });
}

/// dx [n, pixels, channels], dgamma and dbeta [channels] from the saved mean and rstd [n, groups].
template <Real T>
void group_norm_backward(Index n, Index pixels, Index channels, Index groups, bool silu, const T* x, Nullable<const T> gamma, Nullable<const T> beta, const T* mean_in, const T* rstd, const T* dy, Nullable<T> dx, Nullable<T> dgamma, Nullable<T> dbeta) {
  const Index width = channels / groups;
  const T count = static_cast<T>(pixels * width);
  // Sums over pixels of dz and of dz xhat per sample and channel, dz being the gradient in front of the SiLU.
  Buffer<T> sums(2 * n * channels);
  T *dz_sum = sums.data(), *dzx_sum = dz_sum + n * channels;
  const auto gradient = [=](Index at, Index c, T xhat) {
    if (!silu) return dy[at];
    const T z = xhat * (gamma != nullptr ? gamma[c] : T(1)) + (beta != nullptr ? beta[c] : T(0));
    return dy[at] * detail::unary_slope(Unary::silu, z, T(0));
  };
  parallel_for(n * groups, [=](Index task) {
    const Index base = task / groups * pixels * channels, first = task % groups * width;
    const T m = mean_in[task], s = rstd[task];
    T sum_g = 0, sum_gx = 0;
    for (Index c = first; c < first + width; ++c) {
      T a = 0, b = 0;
      for (Index p = 0; p < pixels; ++p) {
        const Index at = base + p * channels + c;
        const T xhat = (x[at] - m) * s, dz = gradient(at, c, xhat);
        a += dz;
        b += dz * xhat;
      }
      dz_sum[task / groups * channels + c] = a;
      dzx_sum[task / groups * channels + c] = b;
      sum_g += a * (gamma != nullptr ? gamma[c] : T(1));
      sum_gx += b * (gamma != nullptr ? gamma[c] : T(1));
    }
    if (dx == nullptr) return;
    for (Index p = 0; p < pixels; ++p)
      for (Index c = first; c < first + width; ++c) {
        const Index at = base + p * channels + c;
        const T xhat = (x[at] - m) * s, g = gradient(at, c, xhat) * (gamma != nullptr ? gamma[c] : T(1));
        dx[at] = s * (g - sum_g / count - xhat * sum_gx / count);
      }
  });
  for (Index c = 0; c < channels; ++c) {
    T a = 0, b = 0;
    for (Index i = 0; i < n; ++i) {
      a += dz_sum[i * channels + c];
      b += dzx_sum[i * channels + c];
    }
    if (dgamma != nullptr) dgamma[c] = b;
    if (dbeta != nullptr) dbeta[c] = a;
  }
}

/// y = x / max(|x|, eps) for each row of x [rows, width]; saves the divisor as norm [rows] (torch normalize).
template <Real T>
void normalize_rows_forward(Index rows, Index width, double eps, const T* x, T* y, T* norm) {
  parallel_chunks(rows, grain_of(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      T squares = 0;
      for (Index j = 0; j < width; ++j) squares += x[r * width + j] * x[r * width + j];
      norm[r] = std::max(std::sqrt(squares), static_cast<T>(eps));
      for (Index j = 0; j < width; ++j) y[r * width + j] = x[r * width + j] / norm[r];
    }
  });
}
/// dx = (dy - y <y, dy>) / norm; dy / norm where the norm was clamped to eps.
template <Real T>
void normalize_rows_backward(Index rows, Index width, double eps, const T* y, const T* norm, const T* dy, T* dx) {
  parallel_chunks(rows, grain_of(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      T dot = 0;
      if (norm[r] > static_cast<T>(eps))
        for (Index j = 0; j < width; ++j) dot += y[r * width + j] * dy[r * width + j];
      for (Index j = 0; j < width; ++j) dx[r * width + j] = (dy[r * width + j] - y[r * width + j] * dot) / norm[r];
    }
  });
}

TENON_KERNEL void layer_norm_forward(Index rows, Index width, double eps, const float* x, const float* gamma, const float* beta, float* y, float* mean_out, float* rstd);
TENON_KERNEL void layer_norm_backward(Index rows, Index width, const float* x, const float* gamma, const float* mean_in, const float* rstd, const float* dy, float* dx, float* dgamma, float* dbeta);
TENON_KERNEL void group_norm_forward(Index n, Index pixels, Index channels, Index groups, double eps, bool silu, const float* x, const float* gamma, const float* beta, float* y, float* mean_out, float* rstd);
TENON_KERNEL void group_norm_backward(Index n, Index pixels, Index channels, Index groups, bool silu, const float* x, const float* gamma, const float* beta, const float* mean_in, const float* rstd, const float* dy, float* dx, float* dgamma, float* dbeta);
TENON_KERNEL void normalize_rows_forward(Index rows, Index width, double eps, const float* x, float* y, float* norm);
TENON_KERNEL void normalize_rows_backward(Index rows, Index width, double eps, const float* y, const float* norm, const float* dy, float* dx);

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/norm_float.inl>
#endif
