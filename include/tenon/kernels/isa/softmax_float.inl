// The float entry points of softmax.hpp.
#pragma once
#include <tenon/kernels/isa/arrays.hpp>

#define TENON_BODY <tenon/kernels/isa/softmax_body.inl>
#include <tenon/kernels/isa/foreach.inl>

#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

namespace detail {
template <class Row>
void softmax_rows(Index rows, Index width, Row row, const float* a, const float* b, float* out) {
  if (width == 0) return;
  parallel_chunks(rows, softmax_grain(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) row(width, a + r * width, b == nullptr ? nullptr : b + r * width, out + r * width);
  });
}
}  // namespace detail

TENON_KERNEL void softmax_forward(Index rows, Index width, const float* x, float* y) {
  detail::softmax_rows(rows, width, TENON_SELECT(softmax::forward<false>), x, nullptr, y);
}
TENON_KERNEL void softmax_backward(Index rows, Index width, const float* y, const float* dy, float* dx) {
  detail::softmax_rows(rows, width, TENON_SELECT(softmax::backward<false>), y, dy, dx);
}
TENON_KERNEL void log_softmax_forward(Index rows, Index width, const float* x, float* y) {
  detail::softmax_rows(rows, width, TENON_SELECT(softmax::forward<true>), x, nullptr, y);
}
TENON_KERNEL void log_softmax_backward(Index rows, Index width, const float* y, const float* dy, float* dx) {
  detail::softmax_rows(rows, width, TENON_SELECT(softmax::backward<true>), y, dy, dx);
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
