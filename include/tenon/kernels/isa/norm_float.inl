// The float entry points of norm.hpp.
#include <tenon/kernels/isa/arrays.hpp>
#define TENON_BODY <tenon/kernels/isa/norm_body.inl>
#include <tenon/kernels/isa/foreach.inl>
#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

TENON_KERNEL void layer_norm_forward(Index rows, Index width, double eps, const float* x, const float* gamma, const float* beta, float* y, float* mean_out, float* rstd) {
  const auto row = TENON_SELECT(layer_norm_row);
  parallel_chunks(rows, grain_of(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r)
      row(width, static_cast<float>(eps), x + r * width, gamma, beta, y + r * width, mean_out + r, rstd + r);
  });
}

TENON_KERNEL void layer_norm_backward(Index rows, Index width, const float* x, const float* gamma, const float* mean_in, const float* rstd, const float* dy, float* dx, float* dgamma, float* dbeta) {
  const auto row = TENON_SELECT(layer_norm_row_backward);
  const auto add = TENON_SELECT(add_run);
  const Index blocks = (rows + block_rows - 1) / block_rows;
  const bool sums = dgamma != nullptr || dbeta != nullptr;
  Buffer<float> partial(sums ? 2 * blocks * width : 0);  // [blocks, 2, width]
  float* const parts = partial.data();
  parallel_chunks(blocks, grain_of(block_rows * width), [=](Index begin, Index end) {
    for (Index b = begin; b < end; ++b) {
      float* const part = sums ? parts + 2 * b * width : nullptr;
      if (sums) std::fill_n(part, 2 * width, 0.0f);
      for (Index r = b * block_rows; r < std::min(rows, (b + 1) * block_rows); ++r)
        row(width, x + r * width, gamma, mean_in[r], rstd[r], dy + r * width, dx == nullptr ? nullptr : dx + r * width, part,
            sums ? part + width : nullptr);
    }
  });
  if (!sums) return;
  for (Index apart = 1; apart < blocks; apart *= 2)
    for (Index b = 0; b + apart < blocks; b += 2 * apart) add(2 * width, parts + 2 * (b + apart) * width, parts + 2 * b * width);
  for (Index i = 0; i < width; ++i) {
    if (dgamma != nullptr) dgamma[i] = blocks > 0 ? parts[i] : 0.0f;
    if (dbeta != nullptr) dbeta[i] = blocks > 0 ? parts[width + i] : 0.0f;
  }
}

TENON_KERNEL void group_norm_forward(Index n, Index pixels, Index channels, Index groups, double eps, bool silu, const float* x, const float* gamma, const float* beta, float* y, float* mean_out, float* rstd) {
  const auto moments = TENON_SELECT(channel_moments);
  const auto merge = TENON_SELECT(merge_moments);
  const auto rows = TENON_SELECT(group_norm_rows);
  const Index width = channels / groups, blocks = (pixels + block_rows - 1) / block_rows;
  const Index grain = grain_of(block_rows * channels);
  Buffer<float> partial(n * blocks * 2 * channels), per_channel(n * 2 * channels);
  float *const parts = partial.data(), *const means = per_channel.data(), *const scales = means + n * channels;
  const auto each_block = [=](auto&& body) {
    parallel_chunks(n * blocks, grain, [=](Index begin, Index end) {
      for (Index task = begin; task < end; ++task) {
        const Index sample = task / blocks, first = task % blocks * block_rows;
        body(task, sample, (sample * pixels + first) * channels, std::min(block_rows, pixels - first));
      }
    });
  };
  each_block([=](Index task, Index, Index at, Index count) {
    moments(count, channels, x + at, parts + 2 * task * channels, parts + (2 * task + 1) * channels);
  });
  parallel_chunks(n * groups, grain_of(8 * blocks * width), [=](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      const Index sample = task / groups, first = task % groups * width;
      merge(pixels, block_rows, channels, width, static_cast<float>(eps), parts + sample * blocks * 2 * channels + first, mean_out + task, rstd + task);
      for (Index c = first; c < first + width; ++c) {
        means[sample * channels + c] = mean_out[task];
        scales[sample * channels + c] = gamma == nullptr ? rstd[task] : rstd[task] * gamma[c];
      }
    }
  });
  each_block([=](Index, Index sample, Index at, Index count) {
    rows(count, channels, silu, x + at, means + sample * channels, scales + sample * channels, beta, y + at);
  });
}

TENON_KERNEL void group_norm_backward(Index n, Index pixels, Index channels, Index groups, bool silu, const float* x, const float* gamma, const float* beta, const float* mean_in, const float* rstd, const float* dy, float* dx, float* dgamma, float* dbeta) {
  const auto slopes = TENON_SELECT(group_norm_slopes);
  const auto rows = TENON_SELECT(group_norm_rows_backward);
  const auto add = TENON_SELECT(add_run);
  const Index width = channels / groups, blocks = (pixels + block_rows - 1) / block_rows;
  const Index grain = grain_of(block_rows * channels), all = n * channels;
  Buffer<float> partial(2 * blocks * all), per_channel(5 * all);
  float *const parts = partial.data(), *const means = per_channel.data();  // parts [n, blocks, 2, channels]
  float *const rstds = means + all, *const scales = rstds + all, *const a = scales + all, *const b = a + all;
  for (Index i = 0; i < all; ++i) {
    const Index group = i / channels * groups + i % channels / width;
    means[i] = mean_in[group];
    rstds[i] = rstd[group];
    scales[i] = gamma == nullptr ? rstd[group] : rstd[group] * gamma[i % channels];
  }
  const auto each_block = [=](auto&& body) {
    parallel_chunks(n * blocks, grain, [=](Index begin, Index end) {
      for (Index task = begin; task < end; ++task) {
        const Index sample = task / blocks, first = task % blocks * block_rows;
        body(task, sample * channels, (sample * pixels + first) * channels, std::min(block_rows, pixels - first));
      }
    });
  };
  // With SiLU, dz is kept in dx between the passes.
  float* const dz = silu ? dx : nullptr;
  each_block([=](Index task, Index c, Index at, Index count) {
    slopes(count, channels, silu, x + at, gamma, beta, means + c, rstds + c, dy + at, dz == nullptr ? nullptr : dz + at,
           parts + 2 * task * channels, parts + (2 * task + 1) * channels);
  });
  for (Index sample = 0; sample < n; ++sample) {
    float* const first = parts + sample * blocks * 2 * channels;
    if (blocks == 0) continue;
    for (Index apart = 1; apart < blocks; apart *= 2)
      for (Index i = 0; i + apart < blocks; i += 2 * apart) add(2 * channels, first + (i + apart) * 2 * channels, first + i * 2 * channels);
    for (Index group = 0; group < groups; ++group) {
      double sum = 0, sum_x = 0;
      for (Index c = group * width; c < (group + 1) * width; ++c) {
        const double g = gamma == nullptr ? 1.0 : static_cast<double>(gamma[c]);
        sum += g * static_cast<double>(first[c]);
        sum_x += g * static_cast<double>(first[channels + c]);
      }
      const double factor = static_cast<double>(rstd[sample * groups + group]) / static_cast<double>(pixels * width);
      for (Index c = group * width; c < (group + 1) * width; ++c) {
        a[sample * channels + c] = static_cast<float>(sum * factor);
        b[sample * channels + c] = static_cast<float>(sum_x * factor);
      }
    }
  }
  if (dx != nullptr)
    each_block([=](Index, Index c, Index at, Index count) {
      rows(count, channels, x + at, means + c, rstds + c, scales + c, a + c, b + c, (silu ? dx : dy) + at, dx + at);
    });
  for (Index c = 0; c < channels; ++c) {
    float beta_sum = 0, gamma_sum = 0;
    for (Index sample = 0; sample < n && blocks > 0; ++sample) {
      beta_sum += parts[sample * blocks * 2 * channels + c];
      gamma_sum += parts[(sample * blocks * 2 + 1) * channels + c];
    }
    if (dbeta != nullptr) dbeta[c] = beta_sum;
    if (dgamma != nullptr) dgamma[c] = gamma_sum;
  }
}

TENON_KERNEL void normalize_rows_forward(Index rows, Index width, double eps, const float* x, float* y, float* norm) {
  const auto row = TENON_SELECT(normalize_row);
  parallel_chunks(rows, grain_of(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) row(width, static_cast<float>(eps), x + r * width, y + r * width, norm + r);
  });
}
TENON_KERNEL void normalize_rows_backward(Index rows, Index width, double eps, const float* y, const float* norm, const float* dy, float* dx) {
  const auto row = TENON_SELECT(normalize_row_backward);
  parallel_chunks(rows, grain_of(width), [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) row(width, static_cast<float>(eps), y + r * width, norm[r], dy + r * width, dx + r * width);
  });
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
