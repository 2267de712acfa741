// The float entry point of down.hpp.
#include <tenon/kernels/isa/simd.hpp>
#define TENON_BODY <tenon/kernels/isa/down_body.inl>
#include <tenon/kernels/isa/foreach.inl>
#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

TENON_KERNEL void down_project(Index m, Index k, Index rank, const float* x, Index ldx, const float* a, float scale, float* t) {
  const auto rows = TENON_SELECT(down_project_rows);
  const Index tiles = (m + 3) / 4, threads = m * k * rank < 32768 ? 1 : thread_count(), grain = (tiles + threads - 1) / threads;
  parallel_chunks(tiles, grain < 1 ? 1 : grain, [=](Index begin, Index end) {
    const Index first = 4 * begin, count = (4 * end < m ? 4 * end : m) - first;
    rows(count, k, rank, x + first * ldx, ldx, a, scale, t + first * rank);
  });
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
