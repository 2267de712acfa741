// The float entry points of loss.hpp.
#include <tenon/kernels/isa/arrays.hpp>
#define TENON_BODY <tenon/kernels/isa/loss_body.inl>
#include <tenon/kernels/isa/foreach.inl>
#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

TENON_KERNEL float cross_entropy_forward(Index rows, Index classes, const CrossEntropy& options, const float* logits, const std::int32_t* targets, float* log_sum_exp) {
  const auto row = TENON_SELECT(cross_entropy_row);
  const float smooth = static_cast<float>(options.label_smoothing);
  const Index ignore = options.ignore_index;
  Buffer<float> losses(rows);
  float* const loss = losses.data();
  parallel_chunks(rows, grain_of(4 * classes), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const bool counts = targets[r] != ignore;
      const float value = row(classes, smooth, counts ? targets[r] : 0, logits + r * classes, log_sum_exp + r);
      loss[r] = counts ? value : 0.0f;
    }
  });
  double total = 0;
  for (Index r = 0; r < rows; ++r) total += static_cast<double>(loss[r]);
  return static_cast<float>(total / static_cast<double>(counted_rows(rows, options, targets)));
}
TENON_KERNEL void cross_entropy_backward(Index rows, Index classes, const CrossEntropy& options, const float* logits, const std::int32_t* targets, const float* log_sum_exp, double dloss, float* dlogits) {
  const auto row = TENON_SELECT(cross_entropy_row_backward);
  const float factor = static_cast<float>(dloss / static_cast<double>(counted_rows(rows, options, targets)));
  const float spread = static_cast<float>(options.label_smoothing / static_cast<double>(classes));
  const float hit = static_cast<float>(1 - options.label_smoothing);
  const Index ignore = options.ignore_index;
  parallel_chunks(rows, grain_of(4 * classes), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      if (targets[r] == ignore)
        std::fill_n(dlogits + r * classes, classes, 0.0f);
      else
        row(classes, factor, spread, hit, targets[r], logits + r * classes, log_sum_exp[r], dlogits + r * classes);
    }
  });
}
TENON_KERNEL float mse_forward(Index n, const float* a, const float* b) {
  const auto distance = TENON_SELECT(squared_distance);
  constexpr Index block = block_floats;
  const Index blocks = (n + block - 1) / block;
  Buffer<float> partial(blocks);
  float* const sums = partial.data();
  parallel_chunks(blocks, grain_of(block), [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) sums[i] = distance(std::min(block, n - i * block), a + i * block, b + i * block);
  });
  double total = 0;
  for (Index i = 0; i < blocks; ++i) total += static_cast<double>(sums[i]);
  return static_cast<float>(total / static_cast<double>(n));
}
TENON_KERNEL void mse_backward(Index n, const float* a, const float* b, double dloss, float* da, float* db) {
  const auto run = TENON_SELECT(difference_run);
  const float factor = static_cast<float>(2 * dloss / static_cast<double>(n));
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    run(end - begin, factor, a + begin, b + begin, da == nullptr ? nullptr : da + begin, db == nullptr ? nullptr : db + begin);
  });
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
