#pragma once
// The down-projection of a low-rank delta: t = s x A^T for the few rows of A, as they lie.
//
// A product in panels of 16 columns would spend most of its lanes on padding. Here the lanes run along the inner dimension:
// 16 partial sums of a row of x times a row of A, in order, folded 8, 4, 2, 1. Every element depends on its two rows alone.
#include <tenon/core/parallel.hpp>
#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// t [m, rank] = scale * x A^T, x [m, k] with rows ldx apart, A [rank, k].
template <Real T>
void down_project(Index m, Index k, Index rank, const T* x, Index ldx, const T* a, T scale, T* t) {
  parallel_chunks(m, grain_of(k * rank), [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      for (Index r = 0; r < rank; ++r) {
        T sum = 0;
        for (Index l = 0; l < k; ++l) sum += x[i * ldx + l] * a[r * k + l];
        t[i * rank + r] = scale * sum;
      }
  });
}
TENON_KERNEL void down_project(Index m, Index k, Index rank, const float* x, Index ldx, const float* a, float scale, float* t);

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/down_float.inl>
#endif
