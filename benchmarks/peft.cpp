// benchmarks/run peft: what a LoRA on q, k, v and out costs in a CLIP ViT-B/32 (random weights), unmerged and merged; a
// different adapter for each row of a batch; and swapping one for another from disk.
//
// Base, unmerged and merged run interleaved in one process; the ratio is that of medians. Correctness in the same run: the
// merged and the unmerged features differ by rounding only.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

#include <nlohmann/json.hpp>

#include <tenon/io/json.hpp>
#include <tenon/models/clip/clip.hpp>
#include <tenon/peft/formats/peft.hpp>

#include "options.hpp"
#include "peak.hpp"

namespace {

using namespace tenon;

struct Timed {
  std::string name;
  std::vector<double> seconds;
  double median() {
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
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
    const RowAdapters scope(names);
    run(apart);
    if (round == 0) one.seconds.clear(), apart.seconds.clear();
  }
  std::printf("batch of 32, r = 8: one adapter %.1f ms, 32 adapters %.1f ms, ratio %.3f\n", 1e3 * one.median(), 1e3 * apart.median(), apart.median() / one.median());
  for (Timed* timed : {&one, &apart})
    rows.push_back({{"name", "clip_b32_image_b32_adapters_" + timed->name}, {"shape", {batch, 224, 224, 3}}, {"dtype", "f32"}, {"impl", "tenon"},
                    {"seconds", timed->median()}, {"ratio_to_base", timed->median() / one.median()}});
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

}  // namespace

int main(int argc, char** argv) {
  const tenon_benchmark::Options options = tenon_benchmark::parse(argc, argv);
  const ThreadScope threads(options.threads);
  const NoGrad no_grad;
  Generator generator(0);
  ClipVision<float> tower{ClipVisionConfig{}};
  tower.initialize(generator);
  freeze(tower);
  attach(tower, LoraConfig{.rank = 8, .alpha = 16, .targets = {"q_proj", "k_proj", "v_proj", "out_proj"}}, generator);
  for (const auto& ref : patch_params(tower))
    ref.weight->update([&](Tensor<float>& value) { fill_normal(value.span(), 0.0f, 0.02f, generator); });

  std::printf("CLIP ViT-B/32 vision tower, LoRA r = 8 on q, k, v, out of all layers; %d threads, %s\n", thread_count(),
              std::string(name_of(current_isa())).c_str());
  std::printf("%-6s %12s %12s %9s %12s %9s %12s\n", "batch", "base ms", "unmerged ms", "ratio", "merged ms", "ratio", "difference");
  nlohmann::json rows = nlohmann::json::array();
  for (const Index batch : {Index{1}, Index{8}, Index{32}}) {
    Tensor<float> pictures({batch, 224, 224, 3});
    fill_normal(pictures.span(), 0.0f, 1.0f, generator);
    const Var<float> x(std::move(pictures));
    Timed base{"base", {}}, unmerged{"unmerged", {}}, merged{"merged", {}};
    const auto run = [&](Timed& timed) {
      const double start = tenon_benchmark::seconds_now();
      Tensor<float> out = tower(x).pooled.value();
      timed.seconds.push_back(tenon_benchmark::seconds_now() - start);
      return out;
    };
    double error = 0;
    const int rounds = batch == 1 ? 41 : batch == 8 ? 15 : 9;
    for (int round = 0; round < rounds + 2; ++round) {
      disable(tower, "*");
      run(base);
      enable(tower, "*");
      const Tensor<float> apart = run(unmerged);
      merge(tower);
      tower(x);  // packs the merged weights
      error = std::max(error, difference(run(merged), apart));
      unmerge(tower);
      tower(x);
      if (round < 2)
        for (Timed* timed : {&base, &unmerged, &merged}) timed->seconds.clear();
    }
    const double b = base.median(), u = unmerged.median(), m = merged.median();
    std::printf("%-6lld %12.2f %12.2f %9.3f %12.2f %9.3f %12.1e\n", static_cast<long long>(batch), 1e3 * b, 1e3 * u, u / b, 1e3 * m, m / b, error);
    for (Timed* timed : {&base, &unmerged, &merged})
      rows.push_back({{"name", "clip_b32_image_b" + std::to_string(batch) + "_lora_" + timed->name}, {"shape", {batch, 224, 224, 3}}, {"dtype", "f32"},
                      {"impl", "tenon"}, {"seconds", timed->median()}, {"ratio_to_base", timed->median() / b}, {"max_rel_err", error}});
  }
  detach(tower);
  by_row(tower, generator, rows);
  swap(tower, generator, rows);
  if (!options.json.empty()) save_json(options.json, rows);
}
