// The float entry points of update.hpp.
#include <tenon/kernels/isa/arrays.hpp>
#define TENON_BODY <tenon/kernels/isa/update_body.inl>
#include <tenon/kernels/isa/foreach.inl>
#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

TENON_KERNEL void adamw_update(Index n, const AdamwStep& step, const float* g, float* p, float* m, float* v) {
  const auto run = TENON_SELECT(adamw_run);
  const AdamwNumbers<float> s(step);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(end - begin, s, g + begin, p + begin, m + begin, v + begin); });
}
TENON_KERNEL void sgd_update(Index n, const SgdStep& step, const float* g, float* p, float* velocity) {
  const auto run = TENON_SELECT(sgd_run);
  const SgdNumbers<float> s(step);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    run(end - begin, s, g + begin, p + begin, velocity == nullptr ? nullptr : velocity + begin);
  });
}
TENON_KERNEL void ema_update(Index n, double decay, const float* p, float* average) {
  const auto run = TENON_SELECT(ema_run);
  const float keep = static_cast<float>(1 - decay);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { run(end - begin, keep, p + begin, average + begin); });
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
