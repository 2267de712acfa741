// The float entry points of reduce.hpp.
#include <tenon/kernels/isa/arrays.hpp>
#define TENON_BODY <tenon/kernels/isa/reduce_body.inl>
#include <tenon/kernels/isa/foreach.inl>
#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

namespace detail {

/// Sums (center null) or squared distances from center [outer, inner] over the axis of x [outer, axis, inner]:
/// blocks of 4096 contiguous floats or of 96 rows, joined by a tree of neighbours.
inline void sum_blocks(Index outer, Index axis, Index inner, const float* x, const float* center, float* y) {
  const auto contiguous = TENON_SELECT(sum_block);
  const auto squares = TENON_SELECT(squares_block);
  const auto rows = TENON_SELECT(sum_rows);
  const auto add = TENON_SELECT(add_run);
  const Index block = inner == 1 ? block_floats : block_rows, blocks = std::max<Index>(1, (axis + block - 1) / block);
  const Index strip = 4096, strips = (inner + strip - 1) / strip;
  Buffer<float> partial(blocks > 1 ? outer * blocks * inner : 0);
  float* const sums = blocks > 1 ? partial.data() : y;
  parallel_chunks(outer * blocks * strips, grain_of(std::min(axis, block) * std::min(inner, strip)), [=](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      const Index column = task % strips * strip, unit = task / strips, o = unit / blocks, first = unit % blocks * block;
      const Index count = std::min(block, axis - first);
      const float* from = x + (o * axis + first) * inner + column;
      if (inner == 1)
        sums[unit] = center == nullptr ? contiguous(count, from) : squares(count, center[o], from);
      else
        rows(count, std::min(strip, inner - column), inner, from, center == nullptr ? nullptr : center + o * inner + column,
             sums + unit * inner + column);
    }
  });
  if (blocks == 1) return;
  parallel_chunks(outer, grain_of(blocks * inner), [=](Index begin, Index end) {
    for (Index o = begin; o < end; ++o) {
      float* first = sums + o * blocks * inner;
      for (Index apart = 1; apart < blocks; apart *= 2)
        for (Index b = 0; b + apart < blocks; b += 2 * apart) add(inner, first + (b + apart) * inner, first + b * inner);
      std::copy_n(first, inner, y + o * inner);
    }
  });
}

}  // namespace detail

TENON_KERNEL void sum(Index outer, Index axis, Index inner, const float* x, float* y) {
  detail::sum_blocks(outer, axis, inner, x, nullptr, y);
}
TENON_KERNEL void mean(Index outer, Index axis, Index inner, const float* x, float* y) {
  detail::sum_blocks(outer, axis, inner, x, nullptr, y);
  TENON_SELECT(divide_run)(outer * inner, static_cast<float>(axis), y);
}
TENON_KERNEL void variance_forward(Index outer, Index axis, Index inner, double correction, const float* x, float* mean_out, float* variance) {
  mean(outer, axis, inner, x, mean_out);
  detail::sum_blocks(outer, axis, inner, x, mean_out, variance);
  TENON_SELECT(divide_run)(outer * inner, static_cast<float>(static_cast<double>(axis) - correction), variance);
}
TENON_KERNEL void variance_backward(Index outer, Index axis, Index inner, double correction, const float* x, const float* mean, const float* dvariance, float* dx) {
  const auto slope = TENON_SELECT(variance_slope);
  const float factor = static_cast<float>(2.0 / (static_cast<double>(axis) - correction));
  if (inner == 1)
    return parallel_chunks(outer, grain_of(axis), [=](Index begin, Index end) {
      for (Index o = begin; o < end; ++o) slope(axis, 0, factor, x + o * axis, mean + o, dvariance + o, dx + o * axis);
    });
  parallel_chunks(outer * axis, grain_of(inner), [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const Index at = row / axis * inner;
      slope(inner, 1, factor, x + row * inner, mean + at, dvariance + at, dx + row * inner);
    }
  });
}
TENON_KERNEL double sum_of_squares(Index n, const float* x) {
  const auto squares = TENON_SELECT(squares_block);
  const Index blocks = (n + block_floats - 1) / block_floats;
  Buffer<float> partial(blocks);
  float* const sums = partial.data();
  parallel_chunks(blocks, grain_of(block_floats), [=](Index begin, Index end) {
    for (Index b = begin; b < end; ++b)
      sums[b] = squares(std::min(block_floats, n - b * block_floats), 0.0f, x + b * block_floats);
  });
  double total = 0;
  for (Index b = 0; b < blocks; ++b) total += static_cast<double>(sums[b]);
  return total;
}
TENON_KERNEL bool all_finite(Index n, const float* x) {
  const auto finite = TENON_SELECT(finite_run);
  const Index tasks = (n + serial_grain - 1) / serial_grain;
  Buffer<bool> parts(tasks);
  bool* const good = parts.data();
  parallel_for(tasks, [=](Index t) { good[t] = finite(std::min(serial_grain, n - t * serial_grain), x + t * serial_grain); });
  return std::all_of(good, good + tasks, [](bool g) { return g; });
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
