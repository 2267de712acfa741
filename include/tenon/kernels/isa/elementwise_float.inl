// The float entry points of elementwise.hpp.
#include <tenon/kernels/isa/arrays.hpp>
#define TENON_FOR_UNARY(X) \
  X(negate) X(absolute) X(sign) X(exp) X(log) X(sqrt) X(rsqrt) X(reciprocal) X(square) X(sin) X(cos) X(tanh) X(sigmoid) \
  X(erf) X(relu) X(gelu) X(gelu_tanh) X(quick_gelu) X(silu)
#define TENON_FOR_BINARY(X) X(add) X(subtract) X(multiply) X(divide) X(maximum) X(minimum) X(pow)
#define TENON_BODY <tenon/kernels/isa/elementwise_body.inl>
#include <tenon/kernels/isa/foreach.inl>
#undef TENON_FOR_UNARY
#undef TENON_FOR_BINARY
#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

TENON_KERNEL void unary_forward(Unary op, Index n, const float* x, float* y) {
  const auto run = TENON_SELECT(unary_forward<>);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(op, end - begin, x + begin, y + begin); });
}
TENON_KERNEL void unary_backward(Unary op, Index n, const float* x, const float* y, const float* dy, float* dx) {
  const auto run = TENON_SELECT(unary_backward<>);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(op, end - begin, x + begin, y + begin, dy + begin, dx + begin); });
}
TENON_KERNEL void binary_forward(Binary op, const Shape& a_shape, const float* a, const Shape& b_shape, const float* b, float* y) {
  const auto rows = TENON_SELECT(binary_forward<>);
  detail::walk_binary(a_shape, b_shape, [=](const Rows<3>& r) { rows(op, r, a, b, y); });
}
TENON_KERNEL void binary_backward(Binary op, const Shape& a_shape, const float* a, const Shape& b_shape, const float* b, const float* dy, float* da, float* db) {
  const auto rows = TENON_SELECT(binary_backward<>);
  detail::walk_binary(a_shape, b_shape, [=](const Rows<3>& r) { rows(op, r, a, b, dy, da, db); });
}
TENON_KERNEL void clamp_forward(Index n, double low, double high, const float* x, float* y) {
  const auto run = TENON_SELECT(clamp_run);
  const float l = static_cast<float>(low), h = static_cast<float>(high);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(end - begin, l, h, x + begin, y + begin); });
}
TENON_KERNEL void clamp_backward(Index n, double low, double high, const float* x, const float* dy, float* dx) {
  const auto run = TENON_SELECT(clamp_slope_run);
  const float l = static_cast<float>(low), h = static_cast<float>(high);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(end - begin, l, h, x + begin, dy + begin, dx + begin); });
}
TENON_KERNEL void scale(Index n, double a, const float* x, float* y) {
  const auto run = TENON_SELECT(scale_run);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(end - begin, static_cast<float>(a), x + begin, y + begin); });
}
TENON_KERNEL void axpy(Index n, double a, const float* x, float* y) {
  const auto run = TENON_SELECT(axpy_run);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(end - begin, static_cast<float>(a), x + begin, y + begin); });
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
