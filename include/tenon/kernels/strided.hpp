#pragma once
// What the element kernels share: strides, the broadcast walk, and the grain of parallel loops.
#include <algorithm>
#include <array>
#include <type_traits>

#include <tenon/core/dtype.hpp>
#include <tenon/core/parallel.hpp>
#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// Elements from one index to the next along each axis; 0 along a broadcast axis.
using Strides = std::array<Index, static_cast<std::size_t>(max_rank)>;

/// A pointer that may be null; it takes no part in template deduction.
template <class T>
using Nullable = std::type_identity_t<T>*;

/// Elements of cheap work below which waking threads costs more than it saves; a multiple of every block size here.
inline constexpr Index serial_grain = 32768;

/// Rows that a sum over rows takes in order before blocks join in a tree.
inline constexpr Index block_rows = 96;
/// Contiguous floats that a sum takes in one chain of 16 lanes before blocks join.
inline constexpr Index block_floats = 4096;

/// Units of work per task, when one unit costs `cost` elements.
inline Index grain_of(Index cost) { return std::max<Index>(1, serial_grain / std::max<Index>(1, cost)); }

/// Strides of a contiguous row-major array.
inline Strides contiguous_strides(const Shape& shape) {
  Strides out{};
  Index step = 1;
  for (Index i = shape.rank() - 1; i >= 0; --i) {
    out[static_cast<std::size_t>(i)] = step;
    step *= shape[i];
  }
  return out;
}

/// Strides that read a contiguous `shape` as if it had the extents `out` (NumPy broadcasting).
inline Strides broadcast_strides(const Shape& shape, const Shape& out) {
  const Strides own = contiguous_strides(shape);
  Strides strides{};
  const Index lead = out.rank() - shape.rank();
  for (Index i = 0; i < shape.rank(); ++i)
    strides[static_cast<std::size_t>(i + lead)] = shape[i] == 1 ? 0 : own[static_cast<std::size_t>(i)];
  return strides;
}

/// A block of rows met by a walk: `rows` x `columns` elements of K operands.
template <std::size_t K>
struct Rows {
  Index rows, columns;
  std::array<Index, K> offset;      // of the first element
  std::array<Index, K> row_stride;  // from row to row
  std::array<Index, K> step;        // from column to column
};

/// Calls `body(Rows<K>)` until every element of `shape` is covered once, in parallel. Axes that all operands cross
/// in one step are joined first, so equal shapes are one long row. The split depends on the shapes alone.
template <std::size_t K, class Body>
void walk(const Shape& shape, const std::array<Strides, K>& strides, Body&& body) {
  if (shape.size() == 0) return;
  std::array<Index, static_cast<std::size_t>(max_rank) + 1> extent{};
  std::array<std::array<Index, K>, static_cast<std::size_t>(max_rank) + 1> stride{};
  std::size_t axes = 0;  // innermost first
  for (Index i = shape.rank() - 1; i >= 0; --i) {
    const Index e = shape[i];
    if (e == 1) continue;
    bool joins = axes > 0;
    for (std::size_t k = 0; joins && k < K; ++k)
      joins = strides[k][static_cast<std::size_t>(i)] == stride[axes - 1][k] * extent[axes - 1];
    if (joins) {
      extent[axes - 1] *= e;
      continue;
    }
    extent[axes] = e;
    for (std::size_t k = 0; k < K; ++k) stride[axes][k] = strides[k][static_cast<std::size_t>(i)];
    ++axes;
  }
  for (; axes < 2; ++axes) extent[axes] = 1;

  const Index columns = extent[0], rows = shape.size() / columns;
  const Index column_grain = std::min(columns, serial_grain), row_grain = grain_of(columns);
  const Index column_tasks = (columns + column_grain - 1) / column_grain;
  const Index row_tasks = (rows + row_grain - 1) / row_grain;
  parallel_for(row_tasks * column_tasks, [&](Index task) {
    const Index column = task % column_tasks * column_grain;
    const Index last = std::min(rows, (task / column_tasks + 1) * row_grain);
    for (Index row = task / column_tasks * row_grain; row < last;) {
      Rows<K> r{};
      const Index in_plane = row % extent[1];
      r.rows = std::min(last - row, extent[1] - in_plane);
      r.columns = std::min(column_grain, columns - column);
      for (std::size_t k = 0; k < K; ++k) {
        r.offset[k] = column * stride[0][k] + in_plane * stride[1][k];
        r.row_stride[k] = stride[1][k];
        r.step[k] = stride[0][k];
      }
      Index rest = row / extent[1];
      for (std::size_t axis = 2; axis < axes; ++axis) {
        for (std::size_t k = 0; k < K; ++k) r.offset[k] += rest % extent[axis] * stride[axis][k];
        rest /= extent[axis];
      }
      body(r);
      row += r.rows;
    }
  });
}

}  // namespace tenon::inline TENON_ABI::kernels
