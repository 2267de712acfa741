// How the kernels gain from threads: float32 and bfloat16 rates on 1, 2, 4 ... threads, beside the peak of as many.
//   benchmarks/run threads [--json FILE] [--threads MOST]
// The counts of a task run interleaved. Every one must give the bits of one thread, or the run fails.
#include <cstring>

#include <tenon/kernels/attention.hpp>
#include <tenon/kernels/conv.hpp>
#include <tenon/kernels/norm.hpp>
#include <tenon/models/clip/vision.hpp>

#include "options.hpp"
#include "rows.hpp"

namespace {

using namespace tenon;
using namespace tenon_benchmark;

class Scaling {
 public:
  Scaling(std::vector<int> counts, std::string dtype_note) : counts_(std::move(counts)) {
    std::printf("%s\n%-46s", dtype_note.c_str(), "speed-up over one thread (share of the peak)");
    for (int count : counts_) {
      peaks_.emplace_back(count);
      std::printf("%14d", count);
    }
    std::printf("\n%-46s", "peak, float32");
    for (const Peaks& peaks : peaks_) std::printf("%14.1f", peaks.f32 / peaks_[0].f32);
    std::printf("\n");
  }

  /// Times `run`, which fills `result`, for every count. `operations` 0: memory feeds it, and no peak is named.
  void task(const std::string& name, const std::string& dtype, double operations, std::span<const float> result, const std::function<void()>& run) {
    std::vector<double> best(counts_.size(), 1e30);
    std::vector<float> right;
    const double begin = seconds_now();
    for (int round = 0; round < 4 || seconds_now() - begin < 1.5; ++round)
      for (std::size_t i = 0; i < counts_.size(); ++i) {
        const ThreadScope scope(counts_[i]);
        run();  // not timed: it pays for the team of another size
        const double start = seconds_now();
        run();
        best[i] = std::min(best[i], seconds_now() - start);
        if (round > 0) continue;
        if (i == 0) right.assign(result.begin(), result.end());
        if (std::memcmp(right.data(), result.data(), result.size_bytes()) == 0) continue;
        std::fprintf(stderr, "%s: other bits on %d threads\n", name.c_str(), counts_[i]);
        wrong_ = true;
      }
    std::printf("%-38s%8s", name.c_str(), dtype.c_str());
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      char cell[40];
      const double share = operations / best[i] / 1e9 / peaks_[i].of(dtype);
      if (operations > 0) std::snprintf(cell, sizeof cell, "%.2f (%.0f %%)", best[0] / best[i], 100 * share);
      else std::snprintf(cell, sizeof cell, "%.2f       ", best[0] / best[i]);
      std::printf("%14s", cell);
      json_ += join_text(json_.empty() ? "" : ",", "\n  {\"name\": \"", name, "\", \"dtype\": \"", dtype, "\", \"threads\": ", counts_[i], ", \"seconds\": ", best[i],
                         ", \"speed_up\": ", best[0] / best[i], ", \"peak_fraction\": ", operations > 0 ? share : 0.0, "}");
    }
    std::printf("\n");
    std::fflush(stdout);
  }

  int finish(const std::string& path) const {
    if (!path.empty() && !(std::ofstream(path) << '[' << json_ << "\n]\n").flush()) {
      std::fprintf(stderr, "cannot write %s\n", path.c_str());
      return 1;
    }
    return wrong_ ? 1 : 0;
  }

 private:
  std::vector<int> counts_;
  std::vector<Peaks> peaks_;
  std::string json_;
  bool wrong_ = false;
};

void gemm_tasks(Scaling& scaling, Index m, Index n, Index k) {
  const double operations = 2.0 * static_cast<double>(m * n * k);
  const std::string shape = join_text(' ', m, 'x', n, 'x', k);
  const auto x = random_values(m * k, 1), w = random_values(n * k, 2), dy = random_values(m * n, 3);
  Floats y(m * n), dx(m * k), dw(n * k);
  const kernels::PackedMatrix<float> packed(w.data(), n, k, k), narrow(w.data(), n, k, k, DType::bf16);
  scaling.task("gemm" + shape, "f32", operations, {y.data(), static_cast<std::size_t>(y.size())}, [&] { kernels::gemm(x.data(), k, m, packed, y.data(), n); });
  scaling.task("gemm" + shape, "bf16", operations, {y.data(), static_cast<std::size_t>(y.size())}, [&] { kernels::gemm(x.data(), k, m, narrow, y.data(), n); });
  scaling.task("gemm_dx" + shape, "f32", operations, {dx.data(), static_cast<std::size_t>(dx.size())}, [&] { kernels::gemm_dx(dy.data(), n, m, packed, dx.data(), k, false); });
  scaling.task("gemm_dw" + shape, "f32", operations, {dw.data(), static_cast<std::size_t>(dw.size())},
               [&] { kernels::gemm_dw(dy.data(), n, x.data(), k, m, n, k, dw.data(), k, false); });
}

void conv_tasks(Scaling& scaling, Index side, Index channels) {
  const kernels::ConvShape s{.n = 2, .h = side, .w = side, .c = channels, .out = channels, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1};
  const double operations = 2.0 * static_cast<double>(s.pixels() * channels * channels * 9);
  const std::string shape = join_text(' ', side, 'x', side, 'x', channels);
  const Index size = s.pixels() * channels;
  const auto x = random_values(size, 1), w = random_values(channels * channels * 9, 2);
  Floats y(size), dw(w.size());
  const auto packed = kernels::pack_conv<float>(s, w.data(), DType::f32, DType::f32);
  scaling.task("conv 3x3" + shape, "f32", operations, {y.data(), static_cast<std::size_t>(size)}, [&] { kernels::conv2d_forward(s, x.data(), packed, y.data()); });
  scaling.task("conv_dw 3x3" + shape, "f32", operations, {dw.data(), static_cast<std::size_t>(dw.size())}, [&] { kernels::conv2d_dw(s, x.data(), y.data(), dw.data(), false); });
}

void attention_tasks(Scaling& scaling, Index n, Index heads, Index length, Index d) {
  const kernels::AttentionShape s{.n = n, .heads = heads, .lq = length, .lk = length, .d = d, .scale = 1 / std::sqrt(static_cast<double>(d))};
  const Index size = n * length * heads * d;
  const double operations = 4.0 * static_cast<double>(size * length);
  const auto q = random_values(size, 1), k = random_values(size, 2), v = random_values(size, 3), dy = random_values(size, 4);
  Floats y(size), lse(n * heads * length), dq(size), dk(size), dv(size);
  const kernels::AttentionInputs<float> inputs{q.data(), k.data(), v.data()};
  const std::string shape = join_text(' ', n * heads, 'x', length, 'x', d);
  scaling.task("attention" + shape, "f32", operations, {y.data(), static_cast<std::size_t>(size)}, [&] { kernels::attention_forward(s, inputs, y.data(), lse.data()); });
  scaling.task("attention_backward" + shape, "f32", 2.5 * operations, {dv.data(), static_cast<std::size_t>(size)},
               [&] { kernels::attention_backward(s, inputs, y.data(), lse.data(), dy.data(), {.dq = dq.data(), .dk = dk.data(), .dv = dv.data()}); });
}

void norm_task(Scaling& scaling) {
  constexpr Index rows = 8192, width = 320;
  const auto x = random_values(rows * width, 1), gamma = random_values(width, 2), beta = random_values(width, 3);
  Floats y(rows * width), mean(rows), rstd(rows);
  scaling.task("layer_norm 8192x320", "f32", 0, {y.data(), static_cast<std::size_t>(y.size())},
               [&] { kernels::layer_norm_forward(rows, width, 1e-5, x.data(), gamma.data(), beta.data(), y.data(), mean.data(), rstd.data()); });
}

// A whole model, small operations between the large ones included: CLIP's B/32 vision tower.
void tower_task(Scaling& scaling, Index batch) {
  Generator generator(0);
  ClipVision<float> tower(ClipVisionConfig{});
  tower.initialize(generator);
  freeze(tower);
  Tensor<float> pictures({batch, 224, 224, 3}), pooled({batch, 768});
  fill_normal(pictures.span(), 0.0f, 1.0f, generator);
  const Var<float> x(std::move(pictures));
  const double tokens = 50, width = 768, projections = 12 * 12 * width * width * tokens, attention = 12 * 2 * tokens * tokens * width, patches = 49 * 3072 * width;
  scaling.task(join_text("CLIP B/32 vision tower, ", batch, batch == 1 ? " picture" : " pictures"), "f32", 2 * static_cast<double>(batch) * (projections + attention + patches),
               pooled.span(), [&] {
                 const NoGrad no_grad;
                 const Tensor<float> out = tower(x).pooled.value();
                 std::copy(out.begin(), out.end(), pooled.data());
               });
}

}  // namespace

int main(int count, char** arguments) {
  const Options options = parse(count, arguments);
  const int most = options.threads > 0 ? options.threads : thread_count();
  std::vector<int> counts{1};
  while (2 * counts.back() <= most) counts.push_back(2 * counts.back());
  if (counts.back() != most) counts.push_back(most);
  Scaling scaling(counts, join_text("isa ", name_of(current_isa()), ", up to ", most, " threads"));
  for (const auto& [m, n, k] : {std::array<Index, 3>{2048, 2048, 2048}, {4096, 2560, 320}, {256, 1280, 1280}, {50, 768, 768}}) gemm_tasks(scaling, m, n, k);
  for (const auto& [side, channels] : {std::array<Index, 2>{64, 320}, {16, 1280}, {8, 1280}}) conv_tasks(scaling, side, channels);
  attention_tasks(scaling, 2, 8, 4096, 40), attention_tasks(scaling, 8, 12, 50, 64);
  norm_task(scaling);
  for (const Index batch : {1, 16}) tower_task(scaling, batch);
  return scaling.finish(options.json);
}
