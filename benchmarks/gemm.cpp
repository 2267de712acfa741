// Matrix products: tenon, Eigen and OpenBLAS interleaved, beside the FMA peak measured in the same run.
//   benchmarks/run gemm [--json FILE] [--threads N]
#include <tenon/kernels/gemm.hpp>

#include "options.hpp"
#include "rows.hpp"
#if defined(TENON_WITH_OPENBLAS)
#include <cblas.h>
#endif
#if defined(TENON_WITH_EIGEN)
void eigen_gemm(const float* x, const float* w, float* y, long m, long n, long k);
void eigen_threads(int threads);
#endif

namespace {

using namespace tenon;
using namespace tenon_benchmark;

struct Problem {
  Index m, n, k;
};
const Problem problems[] = {{2048, 2048, 2048}, {4096, 320, 320}, {4096, 2560, 320}, {1024, 5120, 640}, {256, 1280, 1280},
                            {77, 3072, 768},    {50, 768, 768},   {50, 3072, 768},   {1, 768, 768},     {4096, 8, 320},
                            {4096, 320, 8}};

double operations(const Problem& s) { return 2.0 * static_cast<double>(s.m * s.n * s.k); }

// The error of y [m, n] = x [m, k] op(w), w [n, k] when transposed, else [k, n].
double error(const float* y, const Problem& s, const Floats& x, const Floats& w, bool transposed) {
  const auto [m, n, k] = s;
  return relative_error(y, m * n, [&, n = n, k = k](Index at) {
    double sum = 0;
    for (Index l = 0; l < k; ++l)
      sum += static_cast<double>(x[at / n * k + l]) * static_cast<double>(w[transposed ? at % n * k + l : l * n + at % n]);
    return sum;
  });
}

void forward(const Problem& s, double budget, Report& report) {
  const auto [m, n, k] = s;
  const auto x = random_values(m * k, 1), w = random_values(n * k, 2);
  const kernels::PackedMatrix<float> packed(w.data(), n, k, k);
  std::vector<Rival> rivals;
  Floats y[3] = {Floats(m * n), Floats(m * n), Floats(m * n)};
  rivals.push_back({"gemm", "f32", "tenon", [&, m = m, n = n, k = k] { kernels::gemm(x.data(), k, m, packed, y[0].data(), n); }, y[0].data()});
#if defined(TENON_WITH_EIGEN)
  rivals.push_back({"gemm", "f32", "eigen", [&, m = m, n = n, k = k] { eigen_gemm(x.data(), w.data(), y[1].data(), m, n, k); }, y[1].data()});
#endif
#if defined(TENON_WITH_OPENBLAS)
  rivals.push_back({"gemm", "f32", "openblas", [&, m = static_cast<int>(m), n = static_cast<int>(n), k = static_cast<int>(k)] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x.data(), k, w.data(), k, 0, y[2].data(), n);
  }, y[2].data()});
#endif
  interleave(rivals, budget);
  for (const Rival& rival : rivals) report.row(rival, {m, n, k}, operations(s), error(rival.result, s, x, w, true));
}

// What dX costs from the panels of the forward product, beside that product.
void input_gradient(const Problem& s, double budget, Report& report) {
  const auto [m, n, k] = s;
  const auto x = random_values(m * k, 1), w = random_values(n * k, 2), dy = random_values(m * n, 3);
  Floats y(m * n), dx(m * k);
  const kernels::PackedMatrix<float> packed(w.data(), n, k, k);
  std::vector<Rival> rivals;
  rivals.push_back({"gemm", "f32", "tenon", [&, m = m, n = n, k = k] { kernels::gemm(x.data(), k, m, packed, y.data(), n); }, y.data()});
  rivals.push_back({"gemm_dx", "f32", "tenon", [&, m = m, n = n, k = k] { kernels::gemm_dx(dy.data(), n, m, packed, dx.data(), k, false); }, dx.data()});
  interleave(rivals, budget);
  report.row(rivals[0], {m, n, k}, operations(s), error(y.data(), s, x, w, true));
  report.row(rivals[1], {m, n, k}, operations(s), error(dx.data(), {m, k, n}, dy, w, false));
  std::printf("          dX at M = %ld takes %.2f times the forward product\n", static_cast<long>(m),
              rivals[1].seconds.front() / rivals[0].seconds.front());
}

}  // namespace

int main(int count, char** arguments) {
  const Options options = parse(count, arguments);
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
  const Peaks peaks(threads);
  Report report(peaks);
  std::printf("isa %s, %d threads, float32 FMA peak %.0f GFLOP/s\n", std::string(name_of(current_isa())).c_str(), threads, peaks.f32);
  std::printf("tenon reads a weight packed once, as a model holds it; Eigen and OpenBLAS pack on every call.\n");
  for (const Problem& problem : problems) forward(problem, budget, report);
  for (Index m : {Index{64}, Index{1024}}) input_gradient({m, 1280, 1280}, budget, report);
  return report.finish(options.json);
}
