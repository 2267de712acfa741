// Kernels against the peaks of this machine, in float32, bfloat16 and int8, with Eigen, OpenBLAS and oneDNN in turn where
// they are installed (Debian: libopenblas-dev, libdnnl-dev), and torch and OpenVINO where a Python has them.
//   benchmarks/run kernels [--json FILE] [--threads N] [--python PYTHON]
// Rows of float32 come once more on AVX2, against the peak of AVX2. The environment variable TENON_ISA=avx2 holds all of tenon,
// the peaks, oneDNN, torch and OpenVINO to it. "x1.9" is the time of one thread over that of all. Rows of Winograd's convolution
// (nn/winograd.hpp) count the operations of the direct one that they save: their rates are no fraction of the peak.
#include <sys/resource.h>

#include <optional>

#include <tenon/kernels/attention.hpp>
#include <tenon/kernels/winograd.hpp>

#include "kernels/memory.hpp"
#include "kernels/peers.hpp"
#include "options.hpp"
#if defined(TENON_WITH_OPENBLAS)
#include <cblas.h>
#endif
#if defined(TENON_WITH_ONEDNN)
#include "onednn.hpp"
#if defined(_OPENMP)
#include <omp.h>
#endif
#endif
#if defined(TENON_WITH_EIGEN)
void eigen_gemm(const float* x, const float* w, float* y, long m, long n, long k);
void eigen_threads(int threads);
#endif

namespace {

using namespace tenon;
using namespace tenon_benchmark;

constexpr double budget = 1.5;  // seconds for each shape
const std::pair<DType, const char*> storages[] = {{DType::f32, "f32"}, {DType::bf16, "bf16"}, {DType::i8, "int8"}};

// What a run has besides its problems.
struct Run {
  Report report;
  Peers peers;
  std::optional<Peaks> avx2;  // where the run itself is not on AVX2

  Run(const Peaks& peaks, const std::string& python, int threads) : report(peaks), peers(python, TENON_PEERS, threads) {
    if (current_isa() != Isa::avx512 || !is_available(Isa::avx2)) return;
    const IsaScope scope(Isa::avx2);
    avx2.emplace(threads);
  }
};

// Times the rivals in turn, and with them those of `scaled` on one thread, and the first on AVX2: that one comes last.
void time_all(Run& run, std::vector<Rival>& rivals, const std::vector<std::size_t>& scaled) {
  std::vector<Rival> all = rivals;
  if (run.avx2) {
    all.push_back(all[0]);
    all.back().isa = "avx2";
    all.back().run = [first = all[0].run] {
      const IsaScope scope(Isa::avx2);
      first();
    };
  }
  const std::size_t kept = all.size();
  for (std::size_t i = 0; i < scaled.size() && thread_count() > 1; ++i) {
    all.push_back(rivals[scaled[i]]);
    all.back().run = [many = rivals[scaled[i]].run] {
      const ThreadScope scope(1);
      many();
    };
  }
  interleave(all, budget);
  for (std::size_t i = kept; i < all.size(); ++i) {
    Rival& rival = all[scaled[i - kept]];
    rival.scaling = all[i].seconds.front() / rival.seconds.front();
  }
  all.resize(kept);
  rivals = std::move(all);
}
const Peaks* peaks_of(const Run& run, const Rival& rival) { return rival.isa.empty() ? nullptr : &*run.avx2; }

struct Problem {
  Index m, n, k;
};
const Problem problems[] = {{2048, 2048, 2048}, {4096, 320, 320}, {4096, 2560, 320}, {1024, 5120, 640}, {256, 1280, 1280},
                            {257, 4096, 1024},  {77, 768, 768},   {77, 3072, 768},   {50, 768, 768},    {50, 3072, 768},
                            {1, 768, 768}};

// Forward in each storage type, dX in float32 and bfloat16, dW in float32.
void gemm_rows(const Problem& s, Run& run) {
  const auto [m, n, k] = s;
  const double operations = 2.0 * static_cast<double>(m * n * k);
  const auto x = random_values(m * k, 1), w = random_values(n * k, 2), dy = random_values(m * n, 3);
  std::vector<kernels::PackedMatrix<float>> packed;
  std::vector<Floats> y;
  for (const auto& [storage, name] : storages) packed.emplace_back(w.data(), n, k, k, storage);
  for (int i = 0; i < 7; ++i) y.emplace_back(m * n);
  Floats dx[2] = {Floats(m * k), Floats(m * k)}, dw(n * k);
  std::vector<Rival> rivals;
  for (std::size_t i = 0; i < 3; ++i)
    rivals.push_back({"gemm", storages[i].second, "tenon", [&, i, m = m, n = n, k = k] { kernels::gemm(x.data(), k, m, packed[i], y[i].data(), n); }, y[i].data()});
  for (std::size_t i = 0; i < 2; ++i)
    rivals.push_back({"gemm_dx", storages[i].second, "tenon", [&, i, m = m, n = n, k = k] { kernels::gemm_dx(dy.data(), n, m, packed[i], dx[i].data(), k, false); }, dx[i].data()});
  rivals.push_back({"gemm_dw", "f32", "tenon", [&, m = m, n = n, k = k] { kernels::gemm_dw(dy.data(), n, x.data(), k, m, n, k, dw.data(), k, false); }, dw.data()});
#if defined(TENON_WITH_EIGEN)
  rivals.push_back({"gemm", "f32", "eigen", [&, m = m, n = n, k = k] { eigen_gemm(x.data(), w.data(), y[3].data(), m, n, k); }, y[3].data()});
#endif
#if defined(TENON_WITH_OPENBLAS)
  rivals.push_back({"gemm", "f32", "openblas", [&, m = static_cast<int>(m), n = static_cast<int>(n), k = static_cast<int>(k)] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x.data(), k, w.data(), k, 0, y[4].data(), n);
  }, y[4].data()});
#endif
#if defined(TENON_WITH_ONEDNN)
  Onednn one[2] = {Onednn::gemm(m, n, k, x.data(), w.data(), false), Onednn::gemm(m, n, k, x.data(), w.data(), true)};
  for (std::size_t i = 0; i < 2; ++i)
    rivals.push_back({"gemm", storages[i].second, "onednn", [&one, i] { one[i].run(); }, y[5 + i].data()});
#endif
  run.peers.add(rivals, join_text("gemm ", m, ' ', n, ' ', k), {&x, &w});
  run.peers.results(rivals, m * n);
  time_all(run, rivals, {0, 1, 2, 3, 4, 5});
#if defined(TENON_WITH_ONEDNN)
  for (std::size_t i = 0; i < 2; ++i) one[i].copy_result(y[5 + i].data(), m * n);
#endif
  const auto chain = [](Index terms, const float* a, Index step_a, const float* b, Index step_b) {
    double sum = 0;
    for (Index l = 0; l < terms; ++l) sum += static_cast<double>(a[l * step_a]) * static_cast<double>(b[l * step_b]);
    return sum;
  };
  for (const Rival& rival : rivals) {
    double error;
    if (rival.name == "gemm_dx")
      error = relative_error(rival.result, m * k, [&, n = n, k = k](Index at) { return chain(n, dy.data() + at / k * n, 1, w.data() + at % k, k); });
    else if (rival.name == "gemm_dw")
      error = relative_error(rival.result, n * k, [&, m = m, n = n, k = k](Index at) { return chain(m, dy.data() + at / k, n, x.data() + at % k, k); });
    else
      error = relative_error(rival.result, m * n, [&, n = n, k = k](Index at) { return chain(k, x.data() + at / n * k, 1, w.data() + at % n * k, 1); });
    run.report.row(rival, {m, n, k}, operations, error, peaks_of(run, rival));
  }
}

// A projection of CLIP B/32 beside the same with a LoRA of rank 8, unmerged: t = x A^T, and the product goes on along B.
void lora_rows(Index m, Run& run) {
  constexpr Index n = 768, k = 768, rank = 8;
  const auto x = random_values(m * k, 1), w = random_values(n * k, 2), a = random_values(rank * k, 3), b = random_values(n * rank, 4);
  const kernels::PackedMatrix<float> down(a.data(), rank, k, k), up(b.data(), n, rank, rank);
  std::vector<kernels::PackedMatrix<float>> packed;
  std::vector<Floats> y;
  for (const auto& [storage, name] : storages) packed.emplace_back(w.data(), n, k, k, storage);
  for (int i = 0; i < 6; ++i) y.emplace_back(m * n);
  Floats t(m * rank);
  const kernels::LowRankTerm<float> term{t.data(), rank, rank, &up};
  std::vector<Rival> rivals;
  for (std::size_t i = 0; i < 3; ++i) {
    rivals.push_back({"gemm", storages[i].second, "tenon", [&, i] { kernels::gemm(x.data(), k, m, packed[i], y[2 * i].data(), n); }, y[2 * i].data()});
    rivals.push_back({"gemm_lora", storages[i].second, "tenon", [&, i] {
      kernels::gemm(x.data(), k, m, down, t.data(), rank);
      kernels::scale(m * rank, 0.5, t.data(), t.data());
      kernels::gemm(x.data(), k, m, packed[i], y[2 * i + 1].data(), n, {}, {&term, 1});
    }, y[2 * i + 1].data()});
  }
  interleave(rivals, budget);
  for (const Rival& rival : rivals) {
    const bool lora = rival.name == "gemm_lora";
    const double error = relative_error(rival.result, m * n, [&](Index at) {
      double sum = 0;
      for (Index l = 0; l < k; ++l) {
        double weight = static_cast<double>(w[at % n * k + l]);
        for (Index r = 0; r < rank && lora; ++r) weight += 0.5 * static_cast<double>(b[at % n * rank + r]) * static_cast<double>(a[r * k + l]);
        sum += static_cast<double>(x[at / n * k + l]) * weight;
      }
      return sum;
    });
    run.report.row(rival, {m, n, k, rank}, 2.0 * static_cast<double>(m * (n * k + (lora ? rank * (n + k) : 0))), error);
  }
  for (std::size_t i = 0; i < 3; ++i)
    run.report.figure(join_text("lora_cost_", storages[i].second, "_m", m), rivals[2 * i + 1].seconds.front() / rivals[2 * i].seconds.front() - 1);
}

const kernels::ConvShape convolutions[] = {
    {.n = 2, .h = 64, .w = 64, .c = 320, .out = 320, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1},
    {.n = 2, .h = 32, .w = 32, .c = 640, .out = 640, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1},
    {.n = 2, .h = 16, .w = 16, .c = 1280, .out = 1280, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1},
    {.n = 2, .h = 8, .w = 8, .c = 1280, .out = 1280, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1},
    {.n = 2, .h = 64, .w = 64, .c = 4, .out = 320, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1},
    {.n = 2, .h = 64, .w = 64, .c = 320, .out = 320},
    {.n = 1, .h = 128, .w = 128, .c = 512, .out = 512, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1},
};

void conv_rows(const kernels::ConvShape& s, Run& run) {
  const Index pixels = s.pixels(), taps = s.kh * s.kw, in = s.n * s.h * s.w * s.c;
  const double operations = 2.0 * static_cast<double>(pixels * s.out * s.c * taps);
  const auto x = random_values(in, 1), w = random_values(s.out * s.c * taps, 2), dy = random_values(pixels * s.out, 3);
  std::vector<kernels::PackedMatrix<float>> packed;
  std::vector<Floats> y;
  for (const auto& [storage, name] : storages) packed.push_back(kernels::pack_conv<float>(s, w.data(), DType::f32, storage));
  for (int i = 0; i < 5; ++i) y.emplace_back(pixels * s.out);
  Floats dx[2] = {Floats(in), Floats(in)}, dw(w.size());
  std::vector<Rival> rivals;
  for (std::size_t i = 0; i < 3; ++i)
    rivals.push_back({"conv", storages[i].second, "tenon", [&, i] { kernels::conv2d_forward(s, x.data(), packed[i], y[i].data()); }, y[i].data()});
  for (std::size_t i = 0; i < 2; ++i)
    rivals.push_back({"conv_dx", storages[i].second, "tenon", [&, i] { kernels::conv2d_dx(s, dy.data(), packed[i], dx[i].data(), false); }, dx[i].data()});
  rivals.push_back({"conv_dw", "f32", "tenon", [&] { kernels::conv2d_dw(s, x.data(), dy.data(), dw.data(), false); }, dw.data()});
  std::vector<kernels::WinogradWeight> transformed;
  for (const Index tile : {2, 4})
    if (kernels::winograd_pays(s, tile)) transformed.emplace_back(tile, s.out, s.c, w.data(), DType::f32), y.emplace_back(pixels * s.out);
  for (std::size_t i = 0; i < transformed.size(); ++i)
    rivals.push_back({"conv", "f32", join_text("winograd", transformed[i].tile), [&, i] { kernels::winograd_forward(s, x.data(), transformed[i], y[5 + i].data()); }, y[5 + i].data()});
#if defined(TENON_WITH_ONEDNN)
  Onednn one[2] = {Onednn::conv(s.n, s.h, s.w, s.c, s.out, s.kh, s.pad_h, x.data(), w.data(), false),
                   Onednn::conv(s.n, s.h, s.w, s.c, s.out, s.kh, s.pad_h, x.data(), w.data(), true)};
  for (std::size_t i = 0; i < 2; ++i)
    rivals.push_back({"conv", storages[i].second, "onednn", [&one, i] { one[i].run(); }, y[3 + i].data()});
#endif
  run.peers.add(rivals, join_text("conv ", s.n, ' ', s.h, ' ', s.w, ' ', s.c, ' ', s.out, ' ', s.kh, ' ', s.pad_h), {&x, &w});
  run.peers.results(rivals, pixels * s.out);
  time_all(run, rivals, {0, 1, 2, 3, 4, 5});
#if defined(TENON_WITH_ONEDNN)
  for (std::size_t i = 0; i < 2; ++i) one[i].copy_result(y[3 + i].data(), pixels * s.out);
#endif
  // With stride 1 and same-sized output, output pixel p under tap (i, j) reads input pixel (y + i - pad, x + j - pad).
  const auto pixel = [&](Index at, Index i, Index j) {
    const Index row = at / s.w % s.h + i, column = at % s.w + j;
    return row < 0 || row >= s.h || column < 0 || column >= s.w ? Index{-1} : at + i * s.w + j;
  };
  const auto value = [](const Floats& v, Index at) { return static_cast<double>(v[at]); };
  for (const Rival& rival : rivals) {
    double error;
    if (rival.name == "conv_dw")
      error = relative_error(rival.result, dw.size(), [&](Index at) {
        const Index tap = at % taps, c = at / taps % s.c, o = at / taps / s.c;
        double sum = 0;
        for (Index p = 0; p < pixels; ++p) {
          const Index from = pixel(p, tap / s.kw - s.pad_h, tap % s.kw - s.pad_w);
          if (from >= 0) sum += value(dy, p * s.out + o) * value(x, from * s.c + c);
        }
        return sum;
      }, 300);
    else {
      const bool backward = rival.name == "conv_dx";
      const Index width = backward ? s.c : s.out, inner = backward ? s.out : s.c;
      error = relative_error(rival.result, (backward ? in : pixels * s.out), [&](Index at) {
        double sum = 0;
        for (Index tap = 0; tap < taps; ++tap) {
          const Index i = tap / s.kw - s.pad_h, j = tap % s.kw - s.pad_w;
          const Index from = backward ? pixel(at / width, -i, -j) : pixel(at / width, i, j);
          for (Index l = 0; l < inner && from >= 0; ++l)
            sum += backward ? value(dy, from * s.out + l) * value(w, (l * s.c + at % width) * taps + tap)
                            : value(x, from * s.c + l) * value(w, (at % width * s.c + l) * taps + tap);
        }
        return sum;
      });
    }
    run.report.row(rival, {s.n, s.h, s.w, s.c, s.out, s.kh}, operations, error, peaks_of(run, rival));
  }
}

const kernels::AttentionShape attentions[] = {{.n = 2, .heads = 8, .lq = 4096, .lk = 4096, .d = 40}, {.n = 2, .heads = 8, .lq = 1024, .lk = 1024, .d = 80},
                                              {.n = 2, .heads = 8, .lq = 256, .lk = 256, .d = 160},  {.n = 2, .heads = 8, .lq = 4096, .lk = 77, .d = 40},
                                              {.n = 8, .heads = 12, .lq = 50, .lk = 50, .d = 64}};

void attention_rows(kernels::AttentionShape s, Run& run) {
  s.scale = 1 / std::sqrt(static_cast<double>(s.d));
  const Index width = s.heads * s.d, queries = s.n * s.lq * width, keys = s.n * s.lk * width;
  const double operations = 4.0 * static_cast<double>(s.n * s.heads * s.lq * s.lk * s.d);
  const auto q = random_values(queries, 1), k = random_values(keys, 2), v = random_values(keys, 3), dy = random_values(queries, 4);
  Floats y(queries), lse(s.n * s.heads * s.lq), y_bf16(queries), lse_bf16(lse.size()), dq(queries), dk(keys), dv(keys), dv_bf16(keys);
  kernels::AttentionShape narrow = s;
  narrow.products = DType::bf16;
  const kernels::AttentionInputs<float> inputs{q.data(), k.data(), v.data()};
  std::vector<Rival> rivals;
  rivals.push_back({"attention", "f32", "tenon", [&] { kernels::attention_forward(s, inputs, y.data(), lse.data()); }, y.data()});
  rivals.push_back({"attention_backward", "f32", "tenon", [&] {
    kernels::attention_backward(s, inputs, y.data(), lse.data(), dy.data(), {.dq = dq.data(), .dk = dk.data(), .dv = dv.data()});
  }, dv.data()});
  rivals.push_back({"attention", "bf16", "tenon", [&] { kernels::attention_forward(narrow, inputs, y_bf16.data(), lse_bf16.data()); }, y_bf16.data()});
  rivals.push_back({"attention_backward", "bf16", "tenon", [&] {
    kernels::attention_backward(narrow, inputs, y_bf16.data(), lse_bf16.data(), dy.data(), {.dq = dq.data(), .dk = dk.data(), .dv = dv_bf16.data()});
  }, dv_bf16.data()});
  run.peers.add(rivals, join_text("attention ", s.n, ' ', s.heads, ' ', s.lq, ' ', s.lk, ' ', s.d), {&q, &k, &v});
  run.peers.results(rivals, queries);
  time_all(run, rivals, {0, 1, 2, 3});
  // softmax row of query i of (sample, head) in double; then out = p v, and dv = the sum over queries of p dy.
  std::vector<double> p(static_cast<std::size_t>(s.lk));
  const auto softmax = [&](Index sample, Index head, Index i) {
    double largest = -HUGE_VAL, sum = 0;
    for (Index j = 0; j < s.lk; ++j) {
      double score = 0;
      for (Index c = 0; c < s.d; ++c)
        score += static_cast<double>(q[(sample * s.lq + i) * width + head * s.d + c]) * static_cast<double>(k[(sample * s.lk + j) * width + head * s.d + c]);
      p[static_cast<std::size_t>(j)] = score * s.scale;
      largest = std::max(largest, score * s.scale);
    }
    for (double& e : p) sum += e = std::exp(e - largest);
    for (double& e : p) e /= sum;
  };
  const auto forward_error = [&](const float* result) {
    return relative_error(result, queries, [&](Index at) {
      const Index sample = at / width / s.lq, c = at % width;
      softmax(sample, c / s.d, at / width % s.lq);
      double sum = 0;
      for (Index j = 0; j < s.lk; ++j) sum += p[static_cast<std::size_t>(j)] * static_cast<double>(v[(sample * s.lk + j) * width + c]);
      return sum;
    }, 100);
  };
  const auto backward_error = [&](const float* result) {
    return relative_error(result, keys, [&](Index at) {
      const Index sample = at / width / s.lk, c = at % width;
      double sum = 0;
      for (Index i = 0; i < s.lq; ++i) {
        softmax(sample, c / s.d, i);
        sum += p[static_cast<std::size_t>(at / width % s.lk)] * static_cast<double>(dy[(sample * s.lq + i) * width + c]);
      }
      return sum;
    }, s.lq * s.lk > 100000 ? 1 : 20);
  };
  for (const Rival& rival : rivals) {
    const bool backward = rival.name == "attention_backward";
    run.report.row(rival, {s.n, s.heads, s.lq, s.lk, s.d}, backward ? 2.5 * operations : operations,
                   backward ? backward_error(rival.result) : forward_error(rival.result), peaks_of(run, rival));
  }
}

}  // namespace

int main(int count, char** arguments) {
  const Options options = parse(count, arguments);
  const int threads = options.threads > 0 ? options.threads : thread_count();
  const ThreadScope scope(threads);
  if (current_isa() == Isa::avx2)
    for (const auto& [name, value] : {std::pair{"ONEDNN_MAX_CPU_ISA", "AVX2"}, std::pair{"ATEN_CPU_CAPABILITY", "avx2"}}) setenv(name, value, 0);
#if defined(TENON_WITH_EIGEN)
  eigen_threads(threads);
#endif
#if defined(TENON_WITH_OPENBLAS)
  openblas_set_num_threads(threads);
  std::printf("OpenBLAS: %s\n", openblas_get_config());
#endif
#if defined(TENON_WITH_ONEDNN)
  std::printf("oneDNN: %d.%d.%d\n", dnnl::version()->major, dnnl::version()->minor, dnnl::version()->patch);
#if defined(_OPENMP)
  omp_set_num_threads(threads);
#endif
#endif
  const Peaks peaks(threads);
  Run run(peaks, options.python, threads);
  std::printf("isa %s, %d threads; peaks: float32 %.0f, bfloat16 %.0f GFLOP/s, int8 %.0f GOP/s\n", std::string(name_of(current_isa())).c_str(),
              threads, peaks.f32, peaks.bf16, peaks.int8);
  if (run.avx2) std::printf("avx2: float32 %.0f GFLOP/s\n", run.avx2->f32);
  std::printf("tenon: weights packed once, float32 in and out. oneDNN: weights reordered once, bf16 in and out where it says bf16. Eigen and\n"
              "OpenBLAS pack on every call. Errors are against sums in double of the float32 inputs.\n");
  memory_rows(run.report, 2 * budget);
  for (const Problem& problem : problems) gemm_rows(problem, run);
  for (const Index m : {50, 1600}) lora_rows(m, run);
  for (const auto& shape : attentions) attention_rows(shape, run);
  for (const auto& shape : convolutions) conv_rows(shape, run);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  run.report.figure("peak_gb", static_cast<double>(usage.ru_maxrss) / 1e6);
  return run.report.finish(options.json);
}
