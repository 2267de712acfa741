// methods: what each way of tuning costs and brings. The CLIP that ships is tuned to line drawings by every method at several sizes,
// over several seeds, and accuracy on characters never trained on is set against the numbers trained (2106.09685, table 1 and figure 2;
// 2012.13255 for the intrinsic dimension: the smallest d that brings 90 % of what full tuning brings).
#include <cmath>
#include <iostream>

#include <nlohmann/json.hpp>

#include "common/plot.hpp"
#include "common/progress.hpp"
#include "common/table.hpp"
#include "common/tuning_results.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options : ClipTuneOptions {
  std::string model, data = default_data(), out = "methods";
  std::vector<std::string> only;
  Index seeds = 3;
  std::uint64_t seed = 0;
  int threads = 0;
  bool development = false, resume = false;
};

/// One line of the table: a method at a size.
struct Way {
  std::string method, label;
  ClipTuneOptions options;
};

std::vector<Way> ways(const Options& o) {
  std::vector<Way> out;
  const auto add = [&](const std::string& method, const std::string& label, auto&& change) {
    if (!o.only.empty() && std::find(o.only.begin(), o.only.end(), method) == o.only.end()) return;
    ClipTuneOptions options = o;
    options.method = method;
    change(options);
    out.push_back({method, label, options});
  };
  const auto nothing = [](ClipTuneOptions&) {};
  add("full", "full", nothing);
  add("bitfit", "BitFit", nothing);
  for (const Index r : {1, 2, 4, 8, 16, 32, 64})
    add("lora", join_text("LoRA, r = ", r), [&](ClipTuneOptions& c) { c.rank = r, c.alpha = 2 * static_cast<double>(r); });
  for (const Index r : {1, 8}) add("dora", join_text("DoRA, r = ", r), [&](ClipTuneOptions& c) { c.rank = r, c.alpha = 2 * static_cast<double>(r); });
  for (const Index width : {1, 4, 16, 64}) add("adapter", join_text("adapter, ", width, " wide"), [&](ClipTuneOptions& c) { c.bottleneck = width; });
  for (const Index length : {1, 4, 16}) add("prefix", join_text("prefix, ", length, " long"), [&](ClipTuneOptions& c) { c.length = length; });
  add("ia3", "IA3", nothing);
  for (const Index d : {10, 30, 100, 300, 1000, 3000, 10000})
    add("intrinsic", join_text("intrinsic, d = ", d), [&](ClipTuneOptions& c) { c.dimension = d; });
  return out;
}

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  print_first_line("methods", "float32");
  EmojiSet set(o.data);
  if (o.development) set.use_development_split();
  const Tokenizer tokenizer = load_tokenizer(o.model);
  const auto list = ways(o);
  check(!list.empty(), "methods", "--only: expected methods of ", join_text("full, bitfit, lora, dora, adapter, prefix, ia3, intrinsic"));
  const std::string file = o.out + ".json";
  const std::string options = join_text("model ", o.model, " data ", o.data, " steps ", o.steps, " batch ", o.batch, " seed ", o.seed, o.development ? " development" : "");
  TuningResults results = o.resume ? TuningResults::resumed(file, options) : TuningResults{options, {}, {}};
  const Clip<float> base = load_clip<float>(o.model);
  const Accuracy before = evaluate(base, tokenizer, set, set.line_art, set.split(true, true));

  Index done = 0;
  for (const auto& way : list) done += std::min<Index>(o.seeds, static_cast<Index>(results.accuracies[way.label].size())) * o.steps;
  Progress progress("methods", static_cast<Index>(list.size()) * o.seeds * o.steps, done);
  for (Index s = 0; s < o.seeds; ++s)
    for (const auto& way : list) {
      auto& runs = results.accuracies[way.label];
      if (static_cast<Index>(runs.size()) > s) continue;
      runs.push_back(tuned_accuracy(o.model, way.options, set, tokenizer, o.seed + static_cast<std::uint64_t>(s), results.trained[way.label],
                                    [&](Index step) { progress.update(done + step, way.label); }));
      done += o.steps;
      save_json(file, results);
    }
  progress.finish();

  Table table({"line art, characters never trained on", "numbers trained", "groups top-1 %", "subgroups top-1 %", "subgroups top-5 %"});
  const auto percent = [](double mean, double half) { return fixed(100 * mean, 1) + " ± " + fixed(100 * half, 1); };
  table.add({"before", "0", fixed(100 * before.group_top1, 1), fixed(100 * before.subgroup_top1, 1), fixed(100 * before.subgroup_top5, 1)});
  std::map<std::string, Curve> curves;
  std::optional<double> full;
  Index d90 = 0;
  for (const auto& way : list) {
    const Spread spread = results.spread(way.label, o.seeds);
    const Index trained = results.trained.at(way.label);
    table.add({way.label, std::to_string(trained), percent(spread.mean.group_top1, spread.half_range.group_top1), percent(spread.mean.subgroup_top1, spread.half_range.subgroup_top1),
               percent(spread.mean.subgroup_top5, spread.half_range.subgroup_top5)});
    Curve& curve = curves[way.method];
    curve.label = way.method;
    curve.x.push_back(std::log10(static_cast<double>(trained)));
    curve.y.push_back(100 * spread.mean.group_top1);
    if (way.method == "full") full = spread.mean.group_top1;
    const double wanted = full ? before.group_top1 + 0.9 * (*full - before.group_top1) : 2;
    if (way.method == "intrinsic" && d90 == 0 && spread.mean.group_top1 >= wanted) d90 = way.options.dimension;
  }
  std::cout << o.steps << " steps of " << o.batch << " drawings each; mean of " << o.seeds << " seeds ± half the range; " << set.split(true, true).size()
            << " drawings.\n\n" << table.text() << '\n';
  if (curves.contains("intrinsic") && full)
    std::cout << (d90 > 0 ? join_text("d90, the smallest of these d that brings 90 % of what full tuning brings to the groups: ", d90) : "none of these d brings 90 % of what full tuning brings to the groups") << '\n';
  std::vector<Curve> lines;
  for (auto& [method, curve] : curves) lines.push_back(curve.x.size() > 1 ? curve : Curve{curve.label, {curve.y[0], curve.y[0]}, {curve.x[0] - 0.05, curve.x[0] + 0.05}});
  save_png(plot({.title = "line art: accuracy among the groups against numbers trained", .x = "numbers trained, logarithm to base 10", .y = "groups top-1, %"}, lines), o.out + ".png");
  std::cout << "wrote " << o.out << ".png and " << file << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Tunes the CLIP that ships to line drawings by every method at several sizes; accuracy against the numbers trained, as a table and a plot.");
  Options o;
  o.steps = 300;
  app.add_option("--model", o.model, "Folder of a CLIP (default: the one that ships)");
  app.add_option("--data", o.data, "Folder of the emoji set")->capture_default_str();
  app.add_option("--only", o.only, "Methods: full, bitfit, lora, dora, adapter, prefix, ia3, intrinsic (repeatable; default: all)");
  app.add_option("--steps", o.steps, "Steps of each training")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--batch", o.batch, "Drawings a step")->capture_default_str()->check(CLI::Range(2, 4096));
  app.add_option("--lr", o.learning_rate, "Highest learning rate (default: by method)");
  app.add_option("--seed", o.seed, "First seed")->capture_default_str();
  app.add_option("--seeds", o.seeds, "Trainings of each, with seeds s, s + 1, ...")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--threads", o.threads, "Threads (0: all available)")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_flag("--development", o.development, "Hold out training characters instead: for choosing settings without looking at the test");
  app.add_flag("--resume", o.resume, "Go on with an interrupted run, from OUT.json");
  app.add_option("--out", o.out, "Beginning of the names of the plot and the file of numbers")->capture_default_str();
  return run_program(app, argc, argv, [&] {
    if (o.model.empty()) o.model = o.data + "/clip";
    run(o);
  });
}
