// benchmarks/run step_cost [--json FILE] [--threads N]: what a guided step of Stable Diffusion 1.5's U-Net (random weights, batch 2, 77
// tokens) costs by the size of its latents, 32 to 128, and by threads, 1, 2, 4, ... to N (default: all); float32 and bfloat16 weights.
// Writes step_cost.png beside the table. Each time is the least of up to three runs after one that does not count.
#include <cstdio>

#include <nlohmann/json.hpp>

#include <tenon/diffusion.hpp>

#include "../examples/common/plot.hpp"
#include "options.hpp"
#include "peak.hpp"

namespace {

using namespace tenon;
using tenon_benchmark::seconds_now;

/// The least seconds of up to three runs, as many as fit in four seconds.
double seconds_of(const Unet2d<float>& unet, Index side, Generator& generator) {
  UnetConditions<float> conditions;
  conditions.states = Var<float>(randn<float>({2, 77, 768}, generator));
  const Var<float> latents(randn<float>({2, side, side, 4}, generator));
  const auto step = [&] {
    const double begin = seconds_now();
    unet(latents, Tensor<float>::of({981}), conditions);
    return seconds_now() - begin;
  };
  step();
  double least = step();
  const double begin = seconds_now();
  for (int more = 0; more < 2 && seconds_now() - begin + least < 4; ++more) least = std::min(least, step());
  return least;
}

}  // namespace

int main(int argc, char** argv) {
  const tenon_benchmark::Options options = tenon_benchmark::parse(argc, argv);
  const ThreadScope all(options.threads);
  const NoGrad no_grad;
  Generator generator(0);
  Unet2d<float> unet(UnetConfig{}, generator);
  freeze(unet);

  const int most = thread_count();
  std::vector<int> counts{1};
  while (2 * counts.back() <= most) counts.push_back(2 * counts.back());
  if (counts.back() != most) counts.push_back(most);
  constexpr Index sides[] = {32, 48, 64, 96, 128};

  auto rows = nlohmann::json::array();
  std::vector<examples::Curve> curves;
  std::printf("a guided step of Stable Diffusion 1.5, seconds by latents of S x S; %s\n%-20s", std::string(name_of(current_isa())).c_str(), "");
  for (const Index side : sides) std::printf("%10d", static_cast<int>(side));
  for (const char* dtype : {"f32", "bf16"}) {
    if (dtype[0] == 'b')
      for (const auto& ref : params(unet))
        if (ref.weight->shape().rank() > 1) ref.weight->set_panels(DType::bf16);
    for (const int threads : counts) {
      const ThreadScope scope(threads);
      examples::Curve curve{std::string(dtype) + ", " + std::to_string(threads) + (threads == 1 ? " thread" : " threads"), {}, {}};
      std::printf("\n%-20s", curve.label.c_str());
      for (const Index side : sides) {
        const double seconds = seconds_of(unet, side, generator);
        std::printf("%10.2f", seconds);
        std::fflush(stdout);
        curve.x.push_back(static_cast<double>(side));
        curve.y.push_back(seconds);
        rows.push_back({{"name", "sd15_guided_step"}, {"shape", {2, side, side, 4}}, {"dtype", dtype}, {"impl", "tenon"}, {"threads", threads}, {"seconds", seconds}});
      }
      curves.push_back(std::move(curve));
    }
  }
  std::printf("\n");
  save_png(examples::plot({.title = "a guided step of Stable Diffusion 1.5", .x = "side of the latents", .y = "seconds"}, curves), "step_cost.png");
  if (!options.json.empty()) save_json(options.json, rows);
}
