// The float entry points of activation.hpp.
#include <tenon/kernels/isa/arrays.hpp>
#define TENON_BODY <tenon/kernels/isa/activation_body.inl>
#include <tenon/kernels/isa/foreach.inl>
#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

TENON_KERNEL void geglu_forward(Index rows, Index n, const float* x, float* y) {
  const auto row = TENON_SELECT(geglu_row);
  parallel_chunks(rows, grain_of(2 * n), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) row(n, x + 2 * r * n, y + r * n);
  });
}
TENON_KERNEL void geglu_backward(Index rows, Index n, const float* x, const float* dy, float* dx) {
  const auto row = TENON_SELECT(geglu_row_backward);
  parallel_chunks(rows, grain_of(2 * n), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) row(n, x + 2 * r * n, dy + r * n, dx + 2 * r * n);
  });
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
