#pragma once
// Reductions over the middle axis of [outer, axis, inner]. Every order of summation depends on the shape alone:
// contiguous elements run in 16 lanes folded 8, 4, 2, 1 per block; rows run in order in blocks of 96; blocks join in a
// fixed tree.
#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <vector>

#include <tenon/core/memory.hpp>
#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// A tensor seen as [outer, axis, inner], `axis` being what is reduced.
struct Collapsed {
  Index outer = 1, axis = 1, inner = 1;
};
/// `shape` with the adjacent axes first .. last (inclusive) joined.
inline Collapsed collapse(const Shape& shape, Index first, Index last) {
  Collapsed out;
  first = shape.normalize(first);
  last = shape.normalize(last);
  for (Index i = 0; i < shape.rank(); ++i) (i < first ? out.outer : i <= last ? out.axis : out.inner) *= shape[i];
  return out;
}

/// y [outer, inner] = the sum of x [outer, axis, inner] over axis.
template <Real T>
void sum(Index outer, Index axis, Index inner, const T* x, T* y) {
  parallel_chunks(outer, grain_of(axis * inner), [=](Index begin, Index end) {
    for (Index o = begin; o < end; ++o)
      for (Index i = 0; i < inner; ++i) {
        T total = 0;
        for (Index a = 0; a < axis; ++a) total += x[(o * axis + a) * inner + i];
        y[o * inner + i] = total;
      }
  });
}

/// y [outer, inner] = the mean of x [outer, axis, inner] over axis.
template <Real T>
void mean(Index outer, Index axis, Index inner, const T* x, T* y) {
  sum(outer, axis, inner, x, y);
  for (Index i = 0; i < outer * inner; ++i) y[i] /= static_cast<T>(axis);
}

/// y = the largest of x over axis and argmax [outer, inner] = its first index; NaN counts as largest. `argmax` may be
/// null. `axis` must not be 0.
template <Real T>
void max_forward(Index outer, Index axis, Index inner, const T* x, T* y, Nullable<std::int64_t> argmax) {
  parallel_chunks(outer, grain_of(axis * inner), [=](Index begin, Index end) {
    for (Index o = begin; o < end; ++o) {
      T* best = y + o * inner;
      std::int64_t* at = argmax == nullptr ? nullptr : argmax + o * inner;
      std::copy_n(x + o * axis * inner, inner, best);
      if (at != nullptr) std::fill_n(at, inner, 0);
      for (Index a = 1; a < axis; ++a) {
        const T* row = x + (o * axis + a) * inner;
        for (Index i = 0; i < inner; ++i)
          if (row[i] > best[i] || (row[i] != row[i] && best[i] == best[i])) {
            best[i] = row[i];
            if (at != nullptr) at[i] = a;
          }
      }
    }
  });
}
/// dx [outer, axis, inner] = dy at argmax, 0 elsewhere.
template <Real T>
void max_backward(Index outer, Index axis, Index inner, const std::int64_t* argmax, const T* dy, T* dx) {
  parallel_chunks(outer, grain_of(axis * inner), [=](Index begin, Index end) {
    std::fill(dx + begin * axis * inner, dx + end * axis * inner, T(0));
    for (Index o = begin; o < end; ++o)
      for (Index i = 0; i < inner; ++i) dx[(o * axis + argmax[o * inner + i]) * inner + i] = dy[o * inner + i];
  });
}

/// mean and variance [outer, inner] of x over axis, in two passes; the sum of squares is divided by axis - correction.
template <Real T>
void variance_forward(Index outer, Index axis, Index inner, double correction, const T* x, T* mean_out, T* variance) {
  mean(outer, axis, inner, x, mean_out);
  const T divisor = static_cast<T>(static_cast<double>(axis) - correction);
  parallel_chunks(outer, grain_of(axis * inner), [=](Index begin, Index end) {
    for (Index o = begin; o < end; ++o)
      for (Index i = 0; i < inner; ++i) {
        T total = 0;
        for (Index a = 0; a < axis; ++a) {
          const T d = x[(o * axis + a) * inner + i] - mean_out[o * inner + i];
          total += d * d;
        }
        variance[o * inner + i] = total / divisor;
      }
  });
}
/// dx = dvariance 2 (x - mean) / (axis - correction).
template <Real T>
void variance_backward(Index outer, Index axis, Index inner, double correction, const T* x, const T* mean, const T* dvariance, T* dx) {
  const T factor = static_cast<T>(2.0 / (static_cast<double>(axis) - correction));
  parallel_chunks(outer * axis, grain_of(inner), [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const Index o = row / axis;
      for (Index i = 0; i < inner; ++i)
        dx[row * inner + i] = dvariance[o * inner + i] * factor * (x[row * inner + i] - mean[o * inner + i]);
    }
  });
}

TENON_KERNEL void sum(Index outer, Index axis, Index inner, const float* x, float* y);
TENON_KERNEL void mean(Index outer, Index axis, Index inner, const float* x, float* y);
TENON_KERNEL void variance_forward(Index outer, Index axis, Index inner, double correction, const float* x, float* mean_out, float* variance);
TENON_KERNEL void variance_backward(Index outer, Index axis, Index inner, double correction, const float* x, const float* mean, const float* dvariance, float* dx);
TENON_KERNEL double sum_of_squares(Index n, const float* x);
TENON_KERNEL bool all_finite(Index n, const float* x);

/// y = x summed over `axes` (any set; kept or dropped extents of 1 make no difference to y).
template <Real T>
void sum_axes(const Shape& shape, std::span<const Index> axes, const T* x, T* y) {
  std::array<bool, static_cast<std::size_t>(max_rank)> reduced{};
  for (Index axis : axes) reduced[static_cast<std::size_t>(shape.normalize(axis))] = true;
  // Runs of reduced axes from the last to the first; each pass shrinks the tensor in front of the next.
  std::array<Collapsed, static_cast<std::size_t>(max_rank)> passes{};
  std::size_t count = 0;
  Index inner = 1;
  for (Index i = shape.rank() - 1; i >= 0; --i) {
    if (!reduced[static_cast<std::size_t>(i)]) {
      inner *= shape[i];
      continue;
    }
    Collapsed pass{1, 1, inner};
    for (; i >= 0 && reduced[static_cast<std::size_t>(i)]; --i) pass.axis *= shape[i];
    for (Index j = i; j >= 0; --j) pass.outer *= shape[j];
    passes[count++] = pass;
    ++i;
  }
  if (count == 0) {
    if (shape.size() > 0) std::copy_n(x, shape.size(), y);
    return;
  }
  Buffer<T> held;
  const T* from = x;
  for (std::size_t p = 0; p < count; ++p) {
    const auto [outer, axis, rest] = passes[p];
    if (p + 1 == count) return sum(outer, axis, rest, from, y);
    Buffer<T> next(outer * rest);
    sum(outer, axis, rest, from, next.data());
    held = std::move(next);
    from = held.data();
  }
}

/// y of shape `to` = x of shape `from` summed over the axes along which `to` was broadcast.
/// Throws ShapeError when `to` does not broadcast to `from`.
template <Real T>
void sum_to(const Shape& from, const T* x, const Shape& to, T* y) {
  check<ShapeError>(to.rank() <= from.rank() && broadcast_shape("sum_to", from, to) == from, "sum_to", "shape ", to,
                    " does not broadcast to ", from);
  std::vector<Index> axes;
  const Index lead = from.rank() - to.rank();
  for (Index i = 0; i < from.rank(); ++i)
    if (i < lead || (to[i - lead] == 1 && from[i] != 1)) axes.push_back(i);
  sum_axes(from, std::span<const Index>(axes), x, y);
}

/// The sum of squares of x, in double: exact for float up to the rounding of the additions.
template <Real T>
double sum_of_squares(Index n, const T* x) {
  double total = 0;
  for (Index i = 0; i < n; ++i) total += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return total;
}

/// Whether no element is infinite or NaN.
template <Real T>
bool all_finite(Index n, const T* x) {
  for (Index i = 0; i < n; ++i)
    if (!std::isfinite(x[i])) return false;
  return true;
}

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/reduce_float.inl>
#endif
