#pragma once
// Resampling of [N, H, W, C]: nearest, bicubic and average pooling are one thing here, a sparse matrix per axis (Taps);
// the backward is the same loop over the transposed matrices, so it needs no scatter.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <tenon/core/memory.hpp>
#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// A sparse [out, in] matrix along one axis: output i is the sum of weight[t] input[source[t]], t in [begin[i], begin[i + 1]).
struct Taps {
  Index in = 0, out = 0;
  std::vector<Index> begin{};
  std::vector<Index> source{};
  std::vector<double> weight{};
  bool copies = false;  // one tap of weight 1 per output: a gather
};

/// The rule of torch's `nearest`: source = floor(i * float(in) / out), exact for out = in and out = 2 in.
inline Taps nearest_taps(Index in, Index out) {
  check<ShapeError>(in > 0 && out > 0, "nearest_taps", "expected extents of at least 1, got ", in, " and ", out);
  Taps taps{.in = in, .out = out, .copies = true};
  const float ratio = static_cast<float>(in) / static_cast<float>(out);
  for (Index i = 0; i < out; ++i) {
    const auto at = static_cast<Index>(static_cast<float>(i) * ratio);
    taps.begin.push_back(i);
    taps.source.push_back(out == in ? i : out == 2 * in ? i / 2 : std::min(at, in - 1));
    taps.weight.push_back(1.0);
  }
  taps.begin.push_back(out);
  return taps;
}

/// The rule of torch's `bicubic` (a = -0.75, align_corners = false, no antialias): taps past the border repeat it.
inline Taps bicubic_taps(Index in, Index out) {
  check<ShapeError>(in > 0 && out > 0, "bicubic_taps", "expected extents of at least 1, got ", in, " and ", out);
  Taps taps{.in = in, .out = out};
  constexpr double a = -0.75;
  const auto near = [](double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };          // d <= 1
  const auto far = [](double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };     // 1 < d < 2
  for (Index i = 0; i < out; ++i) {
    const double at = static_cast<double>(in) / static_cast<double>(out) * (static_cast<double>(i) + 0.5) - 0.5;
    const double base = std::floor(at), t = at - base;
    const double weights[] = {far(t + 1), near(t), near(1 - t), far(2 - t)};
    taps.begin.push_back(4 * i);
    for (Index k = 0; k < 4; ++k) {
      taps.source.push_back(std::clamp<Index>(static_cast<Index>(base) - 1 + k, 0, in - 1));
      taps.weight.push_back(weights[k]);
    }
  }
  taps.begin.push_back(4 * out);
  return taps;
}

/// Means of windows of `kernel`, `kernel` apart; a rest that fills no window is dropped (torch avg_pool).
inline Taps average_taps(Index in, Index kernel) {
  check<ShapeError>(kernel > 0 && in >= kernel, "average_taps", "expected a kernel in 1 .. ", in, ", got ", kernel);
  Taps taps{.in = in, .out = in / kernel, .copies = kernel == 1};
  for (Index i = 0; i < taps.out; ++i) {
    taps.begin.push_back(i * kernel);
    for (Index k = 0; k < kernel; ++k) {
      taps.source.push_back(i * kernel + k);
      taps.weight.push_back(1.0 / static_cast<double>(kernel));
    }
  }
  taps.begin.push_back(taps.out * kernel);
  return taps;
}

/// The transposed matrix, each row in ascending order of source.
inline Taps transpose(const Taps& taps) {
  Taps out{.in = taps.out, .out = taps.in};
  out.begin.assign(static_cast<std::size_t>(taps.in) + 1, 0);
  for (Index s : taps.source) ++out.begin[static_cast<std::size_t>(s) + 1];
  for (std::size_t i = 1; i < out.begin.size(); ++i) out.begin[i] += out.begin[i - 1];
  out.source.resize(taps.source.size());
  out.weight.resize(taps.weight.size());
  std::vector<Index> next(out.begin.begin(), out.begin.end() - 1);
  for (Index i = 0; i < taps.out; ++i)
    for (Index t = taps.begin[static_cast<std::size_t>(i)]; t < taps.begin[static_cast<std::size_t>(i) + 1]; ++t) {
      const auto from = static_cast<std::size_t>(t);
      const auto to = static_cast<std::size_t>(next[static_cast<std::size_t>(taps.source[from])]++);
      out.source[to] = i;
      out.weight[to] = taps.weight[from];
    }
  return out;
}

/// y [outer, taps.out, inner] = taps applied along the middle axis of x [outer, taps.in, inner].
template <Real T>
void apply_taps(Index outer, Index inner, const Taps& taps, const T* x, T* y) {
  parallel_chunks(outer * taps.out, grain_of(4 * inner), [=, &taps](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const auto i = static_cast<std::size_t>(row % taps.out);
      T* to = y + row * inner;
      if (taps.begin[i] == taps.begin[i + 1]) std::fill_n(to, inner, T(0));
      for (Index t = taps.begin[i]; t < taps.begin[i + 1]; ++t) {
        const auto tap = static_cast<std::size_t>(t);
        const T* from = x + (row / taps.out * taps.in + taps.source[tap]) * inner;
        const T weight = static_cast<T>(taps.weight[tap]);
        if (t == taps.begin[i])
          for (Index k = 0; k < inner; ++k) to[k] = weight * from[k];
        else
          for (Index k = 0; k < inner; ++k) to[k] += weight * from[k];
      }
    }
  });
}

TENON_KERNEL void apply_taps(Index outer, Index inner, const Taps& taps, const float* x, float* y);

/// y [n, rows.out, columns.out, c] = both matrices applied to x [n, rows.in, columns.in, c].
template <Real T>
void resample_forward(Index n, Index c, const Taps& rows, const Taps& columns, const T* x, T* y) {
  if (rows.copies && columns.copies) {
    parallel_chunks(n * rows.out, grain_of(columns.out * c), [=, &rows, &columns](Index begin, Index end) {
      for (Index row = begin; row < end; ++row) {
        const T* from = x + (row / rows.out * rows.in + rows.source[static_cast<std::size_t>(row % rows.out)]) * columns.in * c;
        for (Index j = 0; j < columns.out; ++j)
          std::memcpy(y + (row * columns.out + j) * c, from + columns.source[static_cast<std::size_t>(j)] * c, static_cast<std::size_t>(c) * sizeof(T));
      }
    });
    return;
  }
  // The axis that shrinks more goes first.
  const bool rows_first = rows.out * columns.in <= rows.in * columns.out;
  Buffer<T> between(n * c * (rows_first ? rows.out * columns.in : rows.in * columns.out));
  if (rows_first) {
    apply_taps(n, columns.in * c, rows, x, between.data());
    apply_taps(n * rows.out, c, columns, static_cast<const T*>(between.data()), y);
  } else {
    apply_taps(n * rows.in, c, columns, x, between.data());
    apply_taps(n, columns.out * c, rows, static_cast<const T*>(between.data()), y);
  }
}
/// dx [n, rows.in, columns.in, c] from dy [n, rows.out, columns.out, c].
template <Real T>
void resample_backward(Index n, Index c, const Taps& rows, const Taps& columns, const T* dy, T* dx) {
  resample_forward(n, c, transpose(rows), transpose(columns), dy, dx);
}

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/resample_float.inl>
#endif
