#pragma once
// Fill and strided copy (slice, permute, concat, pad).
#include <cstring>

#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// y[i] = value.
template <Element T>
void fill(Index n, std::type_identity_t<T> value, T* y) {
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) { std::fill(y + begin, y + end, value); });
}

/// y = x over `shape`, each side with its own strides (in elements; may be negative or, for x, 0). No overlap.
template <Element T>
void copy_strided(const Shape& shape, const Strides& x_strides, const T* x, const Strides& y_strides, T* y) {
  walk<2>(shape, {x_strides, y_strides}, [=](const Rows<2>& r) {
    for (Index i = 0; i < r.rows; ++i) {
      const T* from = x + r.offset[0] + i * r.row_stride[0];
      T* to = y + r.offset[1] + i * r.row_stride[1];
      const Index from_step = r.step[0], to_step = r.step[1];
      if (from_step == 1 && to_step == 1)
        std::memcpy(to, from, static_cast<std::size_t>(r.columns) * sizeof(T));
      else
        for (Index j = 0; j < r.columns; ++j) to[j * to_step] = from[j * from_step];
    }
  });
}

}  // namespace tenon::inline TENON_ABI::kernels
