// The float entry points of embedding.hpp.
#include <tenon/kernels/isa/arrays.hpp>
#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

namespace detail {
template <class Id>
void add_rows_at(Index outer, Index axis, Index inner, Index count, const Id* ids, const float* dy, float* dx) {
  const auto add = TENON_SELECT(add_run);
  add_selected(outer, axis, inner, count, ids, dy, dx, [=](Index n, const float* from, float* to) { add(n, from, to); });
}
}  // namespace detail

TENON_KERNEL void index_select_backward(Index outer, Index axis, Index inner, Index count, const std::int32_t* ids, const float* dy, float* dx) {
  detail::add_rows_at(outer, axis, inner, count, ids, dy, dx);
}
TENON_KERNEL void index_select_backward(Index outer, Index axis, Index inner, Index count, const std::int64_t* ids, const float* dy, float* dx) {
  detail::add_rows_at(outer, axis, inner, count, ids, dy, dx);
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
