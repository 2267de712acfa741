// The float entry points of resample.hpp.
#include <tenon/kernels/isa/arrays.hpp>
#define TENON_BODY <tenon/kernels/isa/resample_body.inl>
#include <tenon/kernels/isa/foreach.inl>
#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

TENON_KERNEL void apply_taps(Index outer, Index inner, const Taps& taps, const float* x, float* y) {
  const auto row = TENON_SELECT(tap_row);
  parallel_chunks(outer * taps.out, grain_of(4 * inner), [=, &taps](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const auto i = static_cast<std::size_t>(r % taps.out);
      const Index first = taps.begin[i];
      row(taps.begin[i + 1] - first, taps.source.data() + first, taps.weight.data() + first, inner,
          x + r / taps.out * taps.in * inner, y + r * inner);
    }
  });
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
