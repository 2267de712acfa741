// benchmarks/run peft: what a LoRA on q, k, v and out costs in a CLIP ViT-B/32 (random weights), unmerged and merged, and in
// Stable Diffusion 1.5's U-Net; a different adapter for each row of a batch; swapping one for another from disk; and a training
// step of models loaded from files.
//
// What is compared runs interleaved in one process; a ratio is the median over the rounds of the ratio within a round, which a
// clock that moves leaves alone. A second tower like the first says how far such a ratio is from 1 by itself. Correctness in the
// same run: the merged and the unmerged features differ by rounding only.
// Takes 4 GB of disk.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

#include <nlohmann/json.hpp>

#include <tenon/autograd/saved.hpp>
#include <tenon/io/json.hpp>
#include <tenon/models/clip/checkpoint.hpp>
#include <tenon/models/diffusion/unet.hpp>
#include <tenon/ops/loss.hpp>
#include <tenon/optim/adamw.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/row_adapters.hpp>

#include "options.hpp"
#include "peak.hpp"
#include "resident.hpp"
#include "temporary_folder.hpp"

namespace {

using namespace tenon;

struct Timed {
  std::string name;
  std::vector<double> seconds;
  double median() const { return middle(seconds); }
  /// The median of the rounds' ratios to `base`.
  double ratio_to(const Timed& base) const {
    std::vector<double> ratios(seconds);
    for (std::size_t i = 0; i < ratios.size(); ++i) ratios[i] /= base.seconds[i];
    return middle(std::move(ratios));
  }

 private:
  static double middle(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }
};

double difference(const Tensor<float>& a, const Tensor<float>& b) {
  double most = 0, scale = 0;
  for (Index i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i])));
    scale = std::max(scale, std::abs(static_cast<double>(b.data()[i])));
  }
  return most / scale;
}

/// 32 adapters in one batch of 32 beside one adapter for all of it.
void by_row(ClipVision<float>& tower, Generator& generator, nlohmann::json& rows) {
  constexpr Index batch = 32;
  std::vector<std::string> names;
  for (Index i = 0; i < batch; ++i) {
    names.push_back("adapter " + std::to_string(i));
    attach(tower, LoraConfig{.rank = 8, .alpha = 16, .targets = {"q_proj", "k_proj", "v_proj", "out_proj"}}, generator, {.name = names.back()});
  }
  for (const auto& ref : patch_params(tower))
    ref.weight->update([&](Tensor<float>& value) { fill_normal(value.span(), 0.0f, 0.02f, generator); });
  Tensor<float> pictures({batch, 224, 224, 3});
  fill_normal(pictures.span(), 0.0f, 1.0f, generator);
  const Var<float> x(std::move(pictures));
  Timed one{"one_for_all", {}}, apart{"one_for_each_row", {}};
  const auto run = [&](Timed& timed) {
    const double start = tenon_benchmark::seconds_now();
    Tensor<float> out = tower(x).pooled.value();
    timed.seconds.push_back(tenon_benchmark::seconds_now() - start);
    return out;
  };
  for (int round = 0; round < 8; ++round) {
    activate(tower, {names.front()});
    run(one);
    activate(tower, {"*"});
    const RowAdapters scope(tower, names);
    run(apart);
    if (round == 0) one.seconds.clear(), apart.seconds.clear();
  }
  std::printf("batch of 32, r = 8: one adapter %.1f ms, 32 adapters %.1f ms, ratio %.3f\n", 1e3 * one.median(), 1e3 * apart.median(), apart.ratio_to(one));
  for (Timed* timed : {&one, &apart})
    rows.push_back({{"name", "clip_b32_image_b32_adapters_" + timed->name}, {"shape", {batch, 224, 224, 3}}, {"dtype", "f32"}, {"impl", "tenon"},
                    {"seconds", timed->median()}, {"ratio_to_base", timed->ratio_to(one)}});
  detach(tower);
}

/// From a file on disk to a forward pass with it, less a forward pass.
void swap(ClipVision<float>& tower, Generator& generator, nlohmann::json& rows) {
  const std::string path = "/tmp/tenon_benchmark_swap.safetensors";
  attach(tower, LoraConfig{.rank = 8, .alpha = 16, .targets = {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}}, generator);
  save_kohya(tower, path, {.dtype = DType::f16});
  Tensor<float> pictures({1, 224, 224, 3});
  const Var<float> x(std::move(pictures));
  Timed swapped{"swap", {}}, steady{"steady", {}};
  for (int round = 0; round < 12; ++round) {
    double start = tenon_benchmark::seconds_now();
    detach(tower, "default");
    attach(tower, load_adapter(path));
    tower(x);
    swapped.seconds.push_back(tenon_benchmark::seconds_now() - start);
    start = tenon_benchmark::seconds_now();
    tower(x);
    steady.seconds.push_back(tenon_benchmark::seconds_now() - start);
  }
  const double seconds = swapped.median() - steady.median();
  std::printf("hot swap from a file of %lld numbers: %.1f ms\n", static_cast<long long>(count(patch_params(tower))), 1e3 * seconds);
  rows.push_back({{"name", "lora_hot_swap"}, {"shape", {count(patch_params(tower))}}, {"dtype", "f32"}, {"impl", "tenon"}, {"seconds", seconds}});
  std::remove(path.c_str());
  detach(tower);
}

/// The tower four times, with the same numbers: as it is, with a LoRA beside its layers, with that LoRA merged, and as it is again.
/// Each round runs them one after another, another one first each time.
void overhead(nlohmann::json& rows) {
  struct Way {
    Timed timed;
    ClipVision<float> tower{ClipVisionConfig{}};
    Tensor<float> out;
  };
  Way ways[4];
  const char* const names[] = {"base", "unmerged", "merged", "base_again"};
  for (int i = 0; i < 4; ++i) {
    ways[i].timed.name = names[i];
    auto& tower = ways[i].tower;
    Generator generator(0);
    tower.initialize(generator);
    freeze(tower);
    if (i == 0 || i == 3) continue;
    attach(tower, LoraConfig{.rank = 8, .alpha = 16, .targets = {"q_proj", "k_proj", "v_proj", "out_proj"}}, generator);
    for (const auto& ref : patch_params(tower))
      ref.weight->update([&](Tensor<float>& value) { fill_normal(value.span(), 0.0f, 0.02f, generator); });
    if (i == 2) merge(tower);
  }
  std::printf("CLIP ViT-B/32 vision tower, LoRA r = 8 on q, k, v, out of all layers; %d threads, %s\n", thread_count(),
              std::string(name_of(current_isa())).c_str());
  std::printf("%-6s %12s %12s %9s %12s %9s %12s %9s %12s\n", "batch", "base ms", "unmerged ms", "ratio", "merged ms", "ratio", "base again", "ratio", "difference");
  Generator generator(1);
  for (const Index batch : {Index{1}, Index{8}, Index{32}}) {
    Tensor<float> pictures({batch, 224, 224, 3});
    fill_normal(pictures.span(), 0.0f, 1.0f, generator);
    const Var<float> x(std::move(pictures));
    const int rounds = batch == 1 ? 200 : batch == 8 ? 40 : 15;
    for (int round = -2; round < rounds; ++round)  // two to warm up
      for (int i = 0; i < 4; ++i) {
        Way& way = ways[(round + 4 + i) % 4];
        const double start = tenon_benchmark::seconds_now();
        way.out = way.tower(x).pooled.value();
        if (round >= 0) way.timed.seconds.push_back(tenon_benchmark::seconds_now() - start);
      }
    const double error = difference(ways[2].out, ways[1].out);
    std::printf("%-6lld %12.2f", static_cast<long long>(batch), 1e3 * ways[0].timed.median());
    for (int i = 1; i < 4; ++i) std::printf(" %12.2f %9.3f", 1e3 * ways[i].timed.median(), ways[i].timed.ratio_to(ways[0].timed));
    std::printf(" %12.1e\n", error);
    for (Way& way : ways) {
      rows.push_back({{"name", "clip_b32_image_b" + std::to_string(batch) + "_lora_" + way.timed.name}, {"shape", {batch, 224, 224, 3}}, {"dtype", "f32"},
                      {"impl", "tenon"}, {"seconds", way.timed.median()}, {"ratio_to_base", way.timed.ratio_to(ways[0].timed)}, {"max_rel_err", error}});
    }
    for (Way& way : ways) way.timed.seconds.clear();
  }
}

/// Stable Diffusion 1.5's U-Net, a sample and its unconditional twin of 64 x 64 latents: one model, its LoRA of r = 16 on q, k, v and
/// out of every attention enabled and disabled in turn.
void unet_overhead(const std::string& folder, nlohmann::json& rows) {
  Generator generator(0);
  Unet2d<float> unet = load_unet<float>(folder + "/unet");
  freeze(unet);
  attach(unet, LoraConfig{.rank = 16, .alpha = 16, .targets = {"to_q", "to_k", "to_v", "to_out.0"}}, generator);
  for (const auto& ref : patch_params(unet))
    ref.weight->update([&](Tensor<float>& value) { fill_normal(value.span(), 0.0f, 0.02f, generator); });
  const auto random = [&](const Shape& shape) {
    Tensor<float> out(shape);
    fill_normal(out.span(), 0.0f, 1.0f, generator);
    return Var<float>(std::move(out));
  };
  const Var<float> latents = random({2, 64, 64, 4}), states = random({2, 77, 768});
  const auto time = Tensor<float>::full({2}, 500.0f);
  Timed ways[] = {{"base", {}}, {"unmerged", {}}, {"base_again", {}}};
  for (int round = -1; round < 7; ++round)  // one to warm up
    for (int i = 0; i < 3; ++i) {
      const int way = (round + 1 + i) % 3;
      if (way == 1)
        enable(unet, "*");
      else
        disable(unet, "*");
      const double start = tenon_benchmark::seconds_now();
      unet(latents, time, {.states = states});
      if (round >= 0) ways[way].seconds.push_back(tenon_benchmark::seconds_now() - start);
    }
  std::printf("SD 1.5 U-Net, batch 2, 64 x 64, LoRA r = 16 on q, k, v, out: base %.2f s, unmerged %.2f s, ratio %.3f, base again %.3f\n",
              ways[0].median(), ways[1].median(), ways[1].ratio_to(ways[0]), ways[2].ratio_to(ways[0]));
  for (const Timed& way : ways)
    rows.push_back({{"name", "sd15_unet_lora_" + way.name}, {"shape", {2, 64, 64, 4}}, {"dtype", "f32"}, {"impl", "tenon"},
                    {"seconds", way.median()}, {"ratio_to_base", way.ratio_to(ways[0])}});
}

/// How a training step holds the frozen weights, and what backward needs.
struct Precision {
  const char* dtype;
  std::optional<DType> weights;
  bool narrow_saved;
};
constexpr Precision precisions[] = {{"f32", std::nullopt, false}, {"bf16", DType::bf16, false}, {"bf16, saved bf16", DType::bf16, true}};

/// Seconds (median) and peak memory of training steps with AdamW, after one to warm up; `loss()` builds the graph.
template <class M, class Loss>
void training_step(const char* name, M& model, const Precision& precision, const std::vector<Index>& shape, int steps, Loss&& loss,
                   nlohmann::json& rows) {
  AdamW<float> optimizer(trainable(model), {.learning_rate = 1e-4});
  Timed step{name, {}};
  trim_memory();
  tenon_benchmark::reset_peak();
  for (int round = -1; round < steps; ++round) {
    const double start = tenon_benchmark::seconds_now();
    Var<float> value;
    {
      const NarrowSaved narrow(precision.narrow_saved);
      value = loss();
    }
    backward(std::exchange(value, Var<float>()));
    optimizer.step();
    if (round >= 0) step.seconds.push_back(tenon_benchmark::seconds_now() - start);
  }
  const double peak = tenon_benchmark::peak_gb();
  std::printf("%s, %s: %.2f s, peak %.2f GB\n", name, precision.dtype, step.median(), peak);
  rows.push_back({{"name", name}, {"shape", shape}, {"dtype", precision.dtype}, {"impl", "tenon"}, {"seconds", step.median()}, {"peak_gb", peak}});
}

/// Random models of full size in files, as a user has them.
void make_models(const std::string& folder) {
  Generator generator(0);
  Clip<float> clip(ClipConfig{}, generator);
  save_clip(clip, folder + "/clip");
  Unet2d<float> unet(UnetConfig{}, generator);
  save_unet(unet, folder + "/unet");
}

/// CLIP ViT-B/32, LoRA r = 8 on q and v of both towers, 32 pairs, texts of 77 tokens.
void clip_step(const std::string& folder, const Precision& precision, nlohmann::json& rows) {
  constexpr Index batch = 32, tokens = 77;
  Generator generator(0);
  Clip<float> clip = load_clip<float>(folder + "/clip", {.weights = precision.weights});
  attach(clip, LoraConfig{.rank = 8, .alpha = 16, .targets = {"q_proj", "v_proj"}}, generator);
  Tensor<float> pictures({batch, 224, 224, 3});
  fill_normal(pictures.span(), 0.0f, 1.0f, generator);
  const Var<float> x(std::move(pictures));
  Tensor<std::int32_t> ids({batch, tokens});
  for (Index i = 0; i < ids.size(); ++i) ids.data()[i] = static_cast<std::int32_t>(i % tokens == tokens - 1 ? 49407 : generator.integer(0, 49000));
  training_step("clip_b32_lora_step", clip, precision, {batch, tokens}, 5, [&] { return contrastive_loss(clip(x, ids)); }, rows);
}

/// Stable Diffusion 1.5's U-Net, LoRA r = 4 on q, k, v and out, one sample of 64 x 64 latents.
void unet_step(const std::string& folder, const Precision& precision, nlohmann::json& rows) {
  Generator generator(0);
  Unet2d<float> unet = load_unet<float>(folder + "/unet", {.weights = precision.weights});
  attach(unet, LoraConfig{.rank = 4, .alpha = 4, .targets = {"to_q", "to_k", "to_v", "to_out.0"}}, generator);
  const auto random = [&](const Shape& shape) {
    Tensor<float> out(shape);
    fill_normal(out.span(), 0.0f, 1.0f, generator);
    return Var<float>(std::move(out));
  };
  const Var<float> latents = random({1, 64, 64, 4}), states = random({1, 77, 768}), noise = random({1, 64, 64, 4});
  const auto time = Tensor<float>::full({1}, 500.0f);
  training_step("sd15_unet_lora_step", unet, precision, {1, 64, 64, 4}, 3, [&] { return mse_loss(unet(latents, time, {.states = states}), noise); }, rows);
}

}  // namespace

int main(int argc, char** argv) {
  const tenon_benchmark::Options options = tenon_benchmark::parse(argc, argv);
  const ThreadScope threads(options.threads);
  nlohmann::json rows = nlohmann::json::array();
  {
    const tenon_benchmark::TemporaryFolder folder;
    make_models(folder.path);
    for (const Precision& precision : precisions) {
      clip_step(folder.path, precision, rows);
      unet_step(folder.path, precision, rows);
    }
    const NoGrad no_grad;
    unet_overhead(folder.path, rows);
  }
  const NoGrad no_grad;
  overhead(rows);
  Generator generator(0);
  ClipVision<float> tower{ClipVisionConfig{}};
  tower.initialize(generator);
  freeze(tower);
  by_row(tower, generator, rows);
  swap(tower, generator, rows);
  if (!options.json.empty()) save_json(options.json, rows);
}
