// The float entry points of cast.hpp.
#include <tenon/kernels/isa/simd.hpp>
#define TENON_BODY <tenon/kernels/isa/cast_body.inl>
#include <tenon/kernels/isa/foreach.inl>
#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

TENON_KERNEL void cast(Index n, const float* x, bfloat16* y) {
  const auto run = TENON_SELECT(narrow);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(end - begin, x + begin, y + begin); });
}
TENON_KERNEL void cast(Index n, const bfloat16* x, float* y) {
  const auto run = TENON_SELECT(widen);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(end - begin, x + begin, y + begin); });
}
TENON_KERNEL void cast(Index n, const float* x, half* y) {
  const auto run = TENON_SELECT(narrow_to_half);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(end - begin, x + begin, y + begin); });
}
TENON_KERNEL void cast(Index n, const half* x, float* y) {
  const auto run = TENON_SELECT(widen_from_half);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(end - begin, x + begin, y + begin); });
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
