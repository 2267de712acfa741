// Matrix products: tenon, Eigen and OpenBLAS interleaved, beside the FMA peak measured in the same run.
//   benchmarks/run gemm [--json FILE] [--threads N]
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <tenon/kernels/gemm.hpp>

#include "options.hpp"
#include "peak.hpp"
#if defined(TENON_WITH_OPENBLAS)
#include <cblas.h>
#endif
#if defined(TENON_WITH_EIGEN)
void eigen_gemm(const float* x, const float* w, float* y, long m, long n, long k);
void eigen_threads(int threads);
#endif

namespace {

using namespace tenon;
using tenon_benchmark::seconds_now;

struct Problem {
  Index m, n, k;
};
const Problem problems[] = {{2048, 2048, 2048}, {4096, 320, 320}, {4096, 2560, 320}, {1024, 5120, 640}, {256, 1280, 1280},
                        {77, 3072, 768},    {50, 768, 768},   {50, 3072, 768},   {1, 768, 768},     {4096, 8, 320},
                        {4096, 320, 8}};

struct Rival {
  std::string name, impl;
  std::function<void()> run;
  const float* result;
  std::vector<double> seconds;
};

std::vector<float> random_values(Index count, std::uint32_t seed) {
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& x : out) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
  }
  return out;
}

// max |a - b| / max |b| over some rows, b the product x op(w) in double.
double relative_error(const float* y, Index m, Index n, Index k, const std::vector<float>& x, const std::vector<float>& w, bool transposed) {
  double worst = 0, largest = 0;
  for (Index i = 0; i < m; i += m > 8 ? m / 7 : 1)
    for (Index j = 0; j < n; ++j) {
      double sum = 0;
      for (Index l = 0; l < k; ++l)
        sum += static_cast<double>(x[static_cast<std::size_t>(i * k + l)]) *
               static_cast<double>(w[static_cast<std::size_t>(transposed ? j * k + l : l * n + j)]);
      worst = std::max(worst, std::abs(sum - static_cast<double>(y[i * n + j])));
      largest = std::max(largest, std::abs(sum));
    }
  return worst / largest;
}

// Runs all in turn until `budget` seconds are over, each at least five times after one to warm up.
void interleave(std::vector<Rival>& rivals, double budget) {
  for (Rival& rival : rivals) rival.run();
  const double begin = seconds_now();
  for (int round = 0; round < 5 || (round < 2000 && seconds_now() - begin < budget); ++round)
    for (Rival& rival : rivals) {
      const double start = seconds_now();
      rival.run();
      rival.seconds.push_back(seconds_now() - start);
    }
  for (Rival& rival : rivals) std::sort(rival.seconds.begin(), rival.seconds.end());
}

struct Report {
  double peak;
  std::string json = "[";
  void row(const Rival& rival, const Problem& s, double error) {
    const double operations = 2e-9 * static_cast<double>(s.m * s.n * s.k), best = rival.seconds.front();
    const double median = rival.seconds[rival.seconds.size() / 2];
    std::printf("%-8s %5ld x %5ld x %5ld  %-9s best %7.1f  median %7.1f GFLOP/s  %5.1f %% of peak  error %.1e\n", rival.name.c_str(),
                static_cast<long>(s.m), static_cast<long>(s.n), static_cast<long>(s.k), rival.impl.c_str(), operations / best,
                operations / median, peak > 0 ? 100 * operations / best / peak : 0.0, error);
    char text[512];
    std::snprintf(text, sizeof text,
                  "%s\n  {\"name\": \"%s\", \"shape\": [%ld, %ld, %ld], \"dtype\": \"f32\", \"impl\": \"%s\", \"seconds\": %.9g, "
                  "\"seconds_median\": %.9g, \"gflops\": %.6g, \"peak_fraction\": %.4g, \"max_rel_err\": %.3g}",
                  json.size() > 1 ? "," : "", rival.name.c_str(), static_cast<long>(s.m), static_cast<long>(s.n),
                  static_cast<long>(s.k), rival.impl.c_str(), best, median, operations / best,
                  peak > 0 ? operations / best / peak : 0.0, error);
    json += text;
  }
};

void forward(const Problem& s, double budget, Report& report) {
  const auto [m, n, k] = s;
  const auto x = random_values(m * k, 1), w = random_values(n * k, 2);
  std::vector<std::vector<float>> y(3, std::vector<float>(static_cast<std::size_t>(m * n)));
  const kernels::PackedMatrix<float> packed(w.data(), n, k, k);
  std::vector<Rival> rivals;
  rivals.push_back({"gemm", "tenon", [&, m = m, n = n, k = k] { kernels::gemm(x.data(), k, m, packed, y[0].data(), n); }, y[0].data(), {}});
#if defined(TENON_WITH_EIGEN)
  rivals.push_back({"gemm", "eigen", [&, m = m, n = n, k = k] { eigen_gemm(x.data(), w.data(), y[1].data(), m, n, k); }, y[1].data(), {}});
#endif
#if defined(TENON_WITH_OPENBLAS)
  rivals.push_back({"gemm", "openblas", [&, m = static_cast<int>(m), n = static_cast<int>(n), k = static_cast<int>(k)] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x.data(), k, w.data(), k, 0, y[2].data(), n);
  }, y[2].data(), {}});
#endif
  interleave(rivals, budget);
  for (const Rival& rival : rivals) report.row(rival, s, relative_error(rival.result, m, n, k, x, w, true));
}

// What dX costs from the panels of the forward product, beside that product.
void input_gradient(const Problem& s, double budget, Report& report) {
  const auto [m, n, k] = s;
  const auto x = random_values(m * k, 1), w = random_values(n * k, 2), dy = random_values(m * n, 3);
  std::vector<float> y(static_cast<std::size_t>(m * n)), dx(static_cast<std::size_t>(m * k));
  const kernels::PackedMatrix<float> packed(w.data(), n, k, k);
  std::vector<Rival> rivals;
  rivals.push_back({"gemm", "tenon", [&, m = m, n = n, k = k] { kernels::gemm(x.data(), k, m, packed, y.data(), n); }, y.data(), {}});
  rivals.push_back({"gemm_dx", "tenon", [&, m = m, n = n, k = k] { kernels::gemm_dx(dy.data(), n, m, packed, dx.data(), k, false); }, dx.data(), {}});
  interleave(rivals, budget);
  report.row(rivals[0], s, relative_error(y.data(), m, n, k, x, w, true));
  report.row(rivals[1], s, relative_error(dx.data(), m, k, n, dy, w, false));
  std::printf("         dX at M = %ld takes %.2f times the forward product\n", static_cast<long>(m),
              rivals[1].seconds.front() / rivals[0].seconds.front());
}

}  // namespace

int main(int count, char** arguments) {
  const tenon_benchmark::Options options = tenon_benchmark::parse(count, arguments);
  const int threads = options.threads > 0 ? options.threads : thread_count();
  constexpr double budget = 1;  // seconds for each shape
  const ThreadScope scope(threads);
#if defined(TENON_WITH_EIGEN)
  eigen_threads(threads);
#endif
#if defined(TENON_WITH_OPENBLAS)
  openblas_set_num_threads(threads);
  std::printf("OpenBLAS: %s\n", openblas_get_config());
#endif
  Report report{tenon_benchmark::fma_peak(threads)};
  std::printf("isa %s, %d threads, float32 FMA peak %.0f GFLOP/s\n", std::string(name_of(current_isa())).c_str(), threads, report.peak);
  std::printf("tenon reads a weight packed once, as a model holds it; Eigen and OpenBLAS pack on every call.\n");
  for (const Problem& problem : problems) forward(problem, budget, report);
  for (Index m : {Index{64}, Index{1024}}) input_gradient({m, 1280, 1280}, budget, report);
  if (!options.json.empty()) {
    std::ofstream file(options.json);
    file << report.json << "\n]\n";
    if (!file.flush()) {
      std::fprintf(stderr, "gemm: cannot write %s\n", options.json.c_str());
      return 1;
    }
  }
}
