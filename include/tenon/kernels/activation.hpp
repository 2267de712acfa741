#pragma once
// Gated activations.
#include <tenon/kernels/scalar.hpp>
#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// y [rows, n] = value gelu(gate), x [rows, 2n] being value and gate side by side (GEGLU, arXiv 2002.05202, erf form).
template <Real T>
void geglu_forward(Index rows, Index n, const T* x, T* y) {
  parallel_chunks(rows, grain_of(n), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r)
      for (Index j = 0; j < n; ++j) y[r * n + j] = x[2 * r * n + j] * detail::unary(Unary::gelu, x[(2 * r + 1) * n + j]);
  });
}
/// dx [rows, 2n], which may be x, from x and dy [rows, n].
template <Real T>
void geglu_backward(Index rows, Index n, const T* x, const T* dy, T* dx) {
  parallel_chunks(rows, grain_of(n), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r)
      for (Index j = 0; j < n; ++j) {
        const Index value = 2 * r * n + j, gate = value + n;
        const T d = dy[r * n + j], v = x[value], g = x[gate], act = detail::unary(Unary::gelu, g);
        dx[value] = d * act;
        dx[gate] = d * v * detail::unary_slope(Unary::gelu, g, act);
      }
  });
}

TENON_KERNEL void geglu_forward(Index rows, Index n, const float* x, float* y);
TENON_KERNEL void geglu_backward(Index rows, Index n, const float* x, const float* dy, float* dx);

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/activation_float.inl>
#endif
