#pragma once
// Lookups by integer ids (int32 or int64): rows of a table, index_select, gather, one-hot; backward adds in id order.
// Ids must lie in [0, extent): callers ask `first_out_of_range` first. One body serves all element types: it copies.
#include <concepts>
#include <cstring>

#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

template <class Id>
concept IdType = std::same_as<Id, std::int32_t> || std::same_as<Id, std::int64_t>;

/// The position of the first id outside [0, bound), or -1.
template <IdType Id>
Index first_out_of_range(Index n, const Id* ids, Index bound) {
  for (Index i = 0; i < n; ++i)
    if (ids[i] < 0 || ids[i] >= bound) return i;
  return -1;
}

/// y [outer, count, inner] = x [outer, axis, inner] at ids [count] of the axis. A table lookup has outer 1.
template <Element T, IdType Id>
void index_select_forward(Index outer, Index axis, Index inner, Index count, const Id* ids, const T* x, T* y) {
  parallel_chunks(outer * count, grain_of(inner), [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      std::memcpy(y + row * inner, x + (row / count * axis + ids[row % count]) * inner, static_cast<std::size_t>(inner) * sizeof(T));
  });
}
namespace detail {
/// dx [outer, axis, inner] += dy [outer, count, inner] at ids, by `add(n, from, to)`.
template <class T, class Id, class Add>
void add_selected(Index outer, Index axis, Index inner, Index count, const Id* ids, const T* dy, T* dx, Add add) {
  if (inner == 0) return;
  // A task owns a strip of columns, so no two tasks meet in dx, and equal ids add in their order.
  const Index strip = std::min(inner, std::max<Index>(16, grain_of(count) / 16 * 16)), strips = (inner + strip - 1) / strip;
  parallel_for(outer * strips, [=](Index task) {
    const Index o = task / strips, column = task % strips * strip, width = std::min(strip, inner - column);
    for (Index i = 0; i < count; ++i)
      add(width, dy + (o * count + i) * inner + column, dx + (o * axis + ids[i]) * inner + column);
  });
}
}  // namespace detail

/// dx [outer, axis, inner] += dy [outer, count, inner] at ids; equal ids add in their order.
template <Real T, IdType Id>
void index_select_backward(Index outer, Index axis, Index inner, Index count, const Id* ids, const T* dy, T* dx) {
  detail::add_selected(outer, axis, inner, count, ids, dy, dx, [](Index n, const T* from, T* to) {
    for (Index j = 0; j < n; ++j) to[j] += from[j];
  });
}
TENON_KERNEL void index_select_backward(Index outer, Index axis, Index inner, Index count, const std::int32_t* ids, const float* dy, float* dx);
TENON_KERNEL void index_select_backward(Index outer, Index axis, Index inner, Index count, const std::int64_t* ids, const float* dy, float* dx);

/// y [rows, width] = rows of table [table_rows, width] by ids [rows].
template <Element T, IdType Id>
void embedding_forward(Index rows, Index width, Index table_rows, const Id* ids, const T* table, T* y) {
  index_select_forward(1, table_rows, width, rows, ids, table, y);
}
/// dtable [table_rows, width] += dy [rows, width] by ids.
template <Real T, IdType Id>
void embedding_backward(Index rows, Index width, Index table_rows, const Id* ids, const T* dy, T* dtable) {
  index_select_backward(1, table_rows, width, rows, ids, dy, dtable);
}

/// y[o, i, k] = x[o, ids[o, i, k], k]; x [outer, axis, inner], ids and y [outer, count, inner] (torch.gather).
template <Element T, IdType Id>
void gather_forward(Index outer, Index axis, Index inner, Index count, const Id* ids, const T* x, T* y) {
  parallel_chunks(outer * count, grain_of(inner), [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      for (Index k = 0; k < inner; ++k) y[row * inner + k] = x[(row / count * axis + ids[row * inner + k]) * inner + k];
  });
}
/// dx[o, ids[o, i, k], k] += dy[o, i, k], in the order of i.
template <Real T, IdType Id>
void gather_backward(Index outer, Index axis, Index inner, Index count, const Id* ids, const T* dy, T* dx) {
  parallel_chunks(outer, grain_of(count * inner), [=](Index begin, Index end) {
    for (Index row = begin * count; row < end * count; ++row)
      for (Index k = 0; k < inner; ++k) dx[(row / count * axis + ids[row * inner + k]) * inner + k] += dy[row * inner + k];
  });
}

/// y [n, classes]: 1 at ids, 0 elsewhere.
template <Element T, IdType Id>
void one_hot(Index n, Index classes, const Id* ids, T* y) {
  parallel_chunks(n, grain_of(classes), [=](Index begin, Index end) {
    std::fill(y + begin * classes, y + end * classes, T{});
    for (Index i = begin; i < end; ++i) y[i * classes + ids[i]] = T(1);
  });
}

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/embedding_float.inl>
#endif
