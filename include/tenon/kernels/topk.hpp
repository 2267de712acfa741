#pragma once
// The k largest of each row.
#include <algorithm>
#include <numeric>
#include <vector>

#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// values and indices [rows, k]: the k largest of x [rows, width], largest first, equals by ascending index; NaN counts
/// as largest. k is at most width.
template <Real T>
void topk(Index rows, Index width, Index k, const T* x, T* values, std::int32_t* indices) {
  parallel_chunks(rows, grain_of(8 * width), [=](Index begin, Index end) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(width));
    for (Index r = begin; r < end; ++r) {
      const T* row = x + r * width;
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + k, order.end(), [row](std::int32_t a, std::int32_t b) {
        const bool a_nan = row[a] != row[a], b_nan = row[b] != row[b];
        if (a_nan != b_nan) return a_nan;
        return row[a] > row[b] || (!(row[b] > row[a]) && a < b);
      });
      for (Index i = 0; i < k; ++i) {
        indices[r * k + i] = order[static_cast<std::size_t>(i)];
        values[r * k + i] = row[order[static_cast<std::size_t>(i)]];
      }
    }
  });
}

}  // namespace tenon::inline TENON_ABI::kernels
