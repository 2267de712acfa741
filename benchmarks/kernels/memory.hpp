#pragma once
// Rows of the kernels that memory feeds: norms, softmax, activations, AdamW, each beside a plain copy timed in the same run.
#include <cstring>

#include <tenon/kernels/activation.hpp>
#include <tenon/kernels/elementwise.hpp>
#include <tenon/kernels/norm.hpp>
#include <tenon/kernels/softmax.hpp>
#include <tenon/kernels/update.hpp>

#include "../rows.hpp"

namespace tenon_benchmark {

/// Bytes count once for each array read and once for each written. Errors are against the formulas in double.
inline void memory_rows(Report& report, double budget) {
  namespace kernels = tenon::kernels;
  constexpr Index samples = 16, pixels = 4096, channels = 320, groups = 32, width = 1280;
  const Index count = samples * pixels * channels, rows = count / width;  // 84 MB, more than caches hold
  const double array = 4.0 * static_cast<double>(count);
  const Floats x = random_values(count, 1), gamma = random_values(width, 2), beta = random_values(width, 3), gradient = random_values(count, 4);
  std::vector<Floats> y;
  for (int i = 0; i < 7; ++i) y.emplace_back(count);
  Floats mean(rows), rstd(rows), p(count), m(count), v(count);
  std::memcpy(p.data(), x.data(), static_cast<std::size_t>(count) * sizeof(float));
  std::memset(m.data(), 0, static_cast<std::size_t>(count) * sizeof(float));
  std::memset(v.data(), 0, static_cast<std::size_t>(count) * sizeof(float));
  const kernels::AdamwStep step{.learning_rate = 0};  // p stays as it is, however often it runs
  std::vector<Rival> rivals;
  const auto add = [&](const char* name, const Floats& result, std::function<void()> run) { rivals.push_back({name, "f32", "tenon", std::move(run), result.data()}); };
  add("memory_copy", y[0], [&] {
    tenon::parallel_chunks(count, 65536, [&](Index begin, Index end) {
      std::memcpy(y[0].data() + begin, x.data() + begin, static_cast<std::size_t>(end - begin) * sizeof(float));
    });
  });
  add("layer_norm", y[1], [&] { kernels::layer_norm_forward(rows, width, 1e-5, x.data(), gamma.data(), beta.data(), y[1].data(), mean.data(), rstd.data()); });
  add("group_norm_silu", y[2], [&] {
    kernels::group_norm_forward(samples, pixels, channels, groups, 1e-5, true, x.data(), gamma.data(), beta.data(), y[2].data(), mean.data(), rstd.data());
  });
  add("softmax", y[3], [&] { kernels::softmax_forward(rows, width, x.data(), y[3].data()); });
  add("silu", y[4], [&] { kernels::unary_forward(kernels::Unary::silu, count, x.data(), y[4].data()); });
  add("gelu", y[5], [&] { kernels::unary_forward(kernels::Unary::gelu, count, x.data(), y[5].data()); });
  add("geglu", y[6], [&] { kernels::geglu_forward(rows / 2, width, x.data(), y[6].data()); });
  add("adamw", p, [&] { kernels::adamw_update(count, step, gradient.data(), p.data(), m.data(), v.data()); });
  interleave(rivals, budget);

  const auto at = [](const Floats& values, Index i) { return static_cast<double>(values[i]); };
  // (x - mean) / sqrt(variance + eps) over `run` elements from each of `runs` beginnings `step` apart
  const auto normalised = [&](Index i, Index begin, Index runs, Index step_of_runs, Index run) {
    double sum = 0, squares = 0;
    const double n = static_cast<double>(runs * run);
    for (Index r = 0; r < runs; ++r)
      for (Index j = 0; j < run; ++j) sum += at(x, begin + r * step_of_runs + j);
    for (Index r = 0; r < runs; ++r)
      for (Index j = 0; j < run; ++j) squares += std::pow(at(x, begin + r * step_of_runs + j) - sum / n, 2);
    return (at(x, i) - sum / n) / std::sqrt(squares / n + 1e-5);
  };
  const auto gelu = [](double a) { return a * 0.5 * std::erfc(-a * std::sqrt(0.5)); };
  const auto silu = [](double a) { return a / (1 + std::exp(-a)); };
  const auto exact = [&](const std::string& name, Index i) {
    const Index row = i / width * width;
    if (name == "layer_norm") return normalised(i, row, 1, 0, width) * at(gamma, i % width) + at(beta, i % width);
    if (name == "group_norm_silu") {
      constexpr Index each = channels / groups;
      const Index c = i % channels, begin = i / (pixels * channels) * pixels * channels + c / each * each;
      return silu(normalised(i, begin, pixels, channels, each) * at(gamma, c) + at(beta, c));
    }
    if (name == "softmax") {
      double sum = 0;
      for (Index j = 0; j < width; ++j) sum += std::exp(at(x, row + j) - at(x, i));
      return 1 / sum;
    }
    if (name == "silu") return silu(at(x, i));
    if (name == "gelu") return gelu(at(x, i));
    if (name == "geglu") return at(x, i / width * 2 * width + i % width) * gelu(at(x, i / width * 2 * width + width + i % width));
    return at(x, i);  // copied, or a step of length 0
  };
  const double copied = 2 * array / rivals[0].seconds.front();
  for (const Rival& rival : rivals) {
    const double bytes = rival.name == "adamw" ? 7 * array : rival.name == "geglu" ? 1.5 * array : 2 * array;
    const Index results = rival.name == "geglu" ? count / 2 : count;
    const double error = relative_error(rival.result, results, [&](Index i) { return exact(rival.name, i); }, 100);
    report.bytes_row(rival, rival.name == "adamw" || rival.name == "memory_copy" ? std::vector<Index>{count} : std::vector<Index>{rows, width}, bytes, copied, error);
  }
}

}  // namespace tenon_benchmark
