// methods: what each way of tuning costs and brings, by every method at several sizes, over several seeds, against the numbers trained
// (2106.09685, table 1 and figure 2; 2012.13255 for the intrinsic dimension: the smallest d that brings 90 % of what full tuning brings).
// A CLIP is tuned to line drawings and measured by accuracy on characters never trained on; a diffusion model to a style, and measured
// by the loss on pictures held out.
#include <cmath>
#include <filesystem>
#include <iostream>

#include <nlohmann/json.hpp>

#include "common/plot.hpp"
#include "common/progress.hpp"
#include "common/table.hpp"
#include "common/tune_diffusion.hpp"
#include "common/tuning_results.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options {
  std::string model, data = default_data(), style = "line-art", out = "methods";
  std::vector<std::string> only;
  Index steps = 300, batch = 0, seeds = 3;
  double learning_rate = 0;
  std::uint64_t seed = 0;
  int threads = 0;
  bool development = false, resume = false;
};

/// One line of the table: a method at a size.
template <class TuneOptions>
struct Way {
  std::string method, label;
  TuneOptions options;
};

template <class TuneOptions>
std::vector<Way<TuneOptions>> ways(const Options& o, TuneOptions base) {
  base.steps = o.steps;
  base.learning_rate = o.learning_rate;
  if (o.batch > 0) base.batch = o.batch;
  std::vector<Way<TuneOptions>> out;
  const auto add = [&](const std::string& method, const std::string& label, auto&& change) {
    if (!o.only.empty() && std::find(o.only.begin(), o.only.end(), method) == o.only.end()) return;
    TuneOptions options = base;
    options.method = method;
    change(options);
    out.push_back({method, label, options});
  };
  const auto nothing = [](TuneOptions&) {};
  const auto of_rank = [](Index r) { return [r](TuneOptions& t) { t.rank = r, t.alpha = 2 * static_cast<double>(r); }; };
  add("full", "full", nothing);
  add("bitfit", "BitFit", nothing);
  for (const Index r : {1, 2, 4, 8, 16, 32, 64}) add("lora", join_text("LoRA, r = ", r), of_rank(r));
  for (const Index r : {1, 8}) add("dora", join_text("DoRA, r = ", r), of_rank(r));
  for (const Index width : {1, 4, 16, 64}) add("adapter", join_text("adapter, ", width, " wide"), [&](TuneOptions& t) { t.bottleneck = width; });
  for (const Index length : {1, 4, 16}) add("prefix", join_text("prefix, ", length, " long"), [&](TuneOptions& t) { t.length = length; });
  add("ia3", "IA3", nothing);
  for (const Index d : {10, 30, 100, 300, 1000, 3000, 10000})
    add("intrinsic", join_text("intrinsic, d = ", d), [&](TuneOptions& t) { t.dimension = d; });
  check(!out.empty(), "methods", "--only: expected methods of full, bitfit, lora, dora, adapter, prefix, ia3, intrinsic");
  return out;
}

/// Every way with every seed, each kept in OUT.json as it is done. `tune(way, seed, trained, progress, done)` is one training.
template <class Result, class TuneOptions, class Tune>
TuningResults<Result> tune_all(const Options& o, const std::vector<Way<TuneOptions>>& list, const std::string& options, Tune&& tune) {
  const std::string file = o.out + ".json";
  using Results = TuningResults<Result>;
  Results results = o.resume ? Results::resumed(file, options) : Results{options, {}, {}};
  Index done = 0;
  for (const auto& way : list) done += results.steps_done(way.label, o.seeds, o.steps);
  Progress progress("methods", static_cast<Index>(list.size()) * o.seeds * o.steps, done);
  for (Index s = 0; s < o.seeds; ++s)
    for (const auto& way : list) {
      auto& runs = results.runs[way.label];
      if (static_cast<Index>(runs.size()) > s) continue;
      runs.push_back(tune(way, o.seed + static_cast<std::uint64_t>(s), results.trained[way.label], progress, done));
      done += o.steps;
      save_json(file, results);
    }
  progress.finish();
  return results;
}

/// The table, d90 where there are intrinsic dimensions and full tuning to compare them with, and the plot of `height(mean)` against the
/// numbers trained. `score(label)` is the mean over the seeds of what `gain` names.
template <class TuneOptions, class Score, class Height>
void show(const Options& o, const std::vector<Way<TuneOptions>>& list, const std::map<std::string, Index>& trained, const Table& table, double before, const std::string& gain,
          const PlotConfig& how, Score&& score, Height&& height) {
  std::map<std::string, Curve> curves;
  std::optional<double> full;
  Index d90 = 0;
  for (const auto& way : list) {
    const double mean = score(way.label);
    Curve& curve = curves[way.method];
    curve.label = way.method;
    curve.x.push_back(std::log10(static_cast<double>(trained.at(way.label))));
    curve.y.push_back(height(mean));
    if (way.method == "full") full = mean;
    if (way.method == "intrinsic" && full && d90 == 0 && (mean - before) / (*full - before) >= 0.9) d90 = way.options.dimension;
  }
  std::cout << table.text() << '\n';
  if (curves.contains("intrinsic") && full)
    std::cout << (d90 > 0 ? join_text("d90, the smallest of these d that brings 90 % of what full tuning brings to ", gain, ": ", d90)
                          : join_text("none of these d brings 90 % of what full tuning brings to ", gain)) << '\n';
  std::vector<Curve> lines;
  for (auto& [method, curve] : curves) lines.push_back(curve.x.size() > 1 ? curve : Curve{curve.label, {curve.y[0], curve.y[0]}, {curve.x[0] - 0.05, curve.x[0] + 0.05}});
  save_png(plot(how, lines), o.out + ".png");
  std::cout << "wrote " << o.out << ".png and " << o.out << ".json\n";
}

void run_clip(const Options& o) {
  EmojiSet set(o.data);
  if (o.development) set.use_development_split();
  const Tokenizer tokenizer = load_tokenizer(o.model);
  const auto list = ways(o, ClipTuneOptions{});
  const Index batch = list.front().options.batch;
  const auto results = tune_all<Accuracy>(
      o, list, join_text("model ", o.model, " data ", o.data, " steps ", o.steps, " batch ", batch, " lr ", o.learning_rate, " seed ", o.seed, o.development ? " development" : ""),
      [&](const auto& way, std::uint64_t seed, Index& trained, Progress& progress, Index done) {
        return tuned_accuracy(o.model, way.options, set, tokenizer, seed, trained, [&](Index step) { progress.update(done + step, way.label); });
      });
  const Accuracy before = evaluate(load_clip<float>(o.model), tokenizer, set, set.line_art, set.split(true, true));

  Table table({"line art, characters never trained on", "numbers trained", "groups top-1 %", "subgroups top-1 %", "subgroups top-5 %"});
  const auto percent = [](double mean, double half) { return fixed(100 * mean, 1) + " ± " + fixed(100 * half, 1); };
  table.add({"before", "0", fixed(100 * before.group_top1, 1), fixed(100 * before.subgroup_top1, 1), fixed(100 * before.subgroup_top5, 1)});
  for (const auto& way : list) {
    const auto spread = results.spread(way.label, o.seeds);
    table.add({way.label, std::to_string(results.trained.at(way.label)), percent(spread.mean.group_top1, spread.half_range.group_top1),
               percent(spread.mean.subgroup_top1, spread.half_range.subgroup_top1), percent(spread.mean.subgroup_top5, spread.half_range.subgroup_top5)});
  }
  std::cout << o.steps << " steps of " << batch << " drawings each; mean of " << o.seeds << " seeds ± half the range; " << set.split(true, true).size() << " drawings.\n\n";
  show(o, list, results.trained, table, before.group_top1, "the groups",
       {.title = "line art: accuracy among the groups against numbers trained", .x = "numbers trained, logarithm to base 10", .y = "groups top-1, %"},
       [&](const std::string& label) { return results.spread(label, o.seeds).mean.group_top1; }, [](double share) { return 100 * share; });
}

void run_diffusion(const Options& o) {
  check(!o.development, "methods", "--development is of no use to ", o.model, ", a diffusion model: its pictures held out are training characters");
  DiffusionTuneOptions base;
  base.model = o.model, base.data = o.data, base.style = o.style, base.cache = o.out + ".latents", base.validation = 0.2;
  const auto list = ways(o, base);
  const auto results = tune_all<double>(
      o, list, join_text("model ", o.model, " data ", o.data, " style ", o.style, " steps ", o.steps, " batch ", o.batch, " lr ", o.learning_rate, " seed ", o.seed),
      [&](const auto& way, std::uint64_t seed, Index& trained, Progress& progress, Index done) {
        DiffusionTuneOptions options = way.options;
        options.seed = seed;
        DiffusionTuning tuning(options);
        trained = tuning.trained();
        tuning.train(progress, done, way.label);
        tuning.finish();
        return tuning.validation_loss();
      });
  DiffusionTuning untuned(base);
  const double before = untuned.validation_loss();
  std::filesystem::remove(base.cache);

  Table table({o.style + ", pictures held out", "numbers trained", "loss", "% of before"});
  table.add({"before", "0", fixed(before, 4), "100.0"});
  for (const auto& way : list) {
    const auto spread = results.spread(way.label, o.seeds);
    table.add({way.label, std::to_string(results.trained.at(way.label)), fixed(spread.mean, 4) + " ± " + fixed(spread.half_range, 4), fixed(100 * spread.mean / before, 1)});
  }
  std::cout << o.steps << " steps each; mean of " << o.seeds << " seeds ± half the range; " << untuned.held_out() << " pictures held out, at four timesteps each.\n\n";
  show(o, list, results.trained, table, before, "the loss",
       {.title = o.style + ": loss on pictures held out against numbers trained", .x = "numbers trained, logarithm to base 10", .y = "loss, % of before"},
       [&](const std::string& label) { return results.spread(label, o.seeds).mean; }, [&](double loss) { return 100 * loss / before; });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Tunes a CLIP to line drawings, or a diffusion model to a style, by every method at several sizes; accuracy, or loss, against the numbers trained, as a table and a plot.");
  Options o;
  app.add_option("--model", o.model, "Folder of a CLIP (default: the one that ships), or a Stable Diffusion, folder or single file");
  app.add_option("--data", o.data, "Folder of the emoji set")->capture_default_str();
  app.add_option("--style", o.style, "What a diffusion model learns: plain, line-art or neon")->capture_default_str()->check(CLI::IsMember(style_names));
  app.add_option("--only", o.only, "Methods: full, bitfit, lora, dora, adapter, prefix, ia3, intrinsic (repeatable; default: all)");
  app.add_option("--steps", o.steps, "Steps of each training")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--batch", o.batch, "Pictures a step (default: 64; a diffusion model 24 where its pictures are small, else 1)")->check(CLI::Range(2, 4096));
  app.add_option("--lr", o.learning_rate, "Highest learning rate (default: by method)");
  app.add_option("--seed", o.seed, "First seed")->capture_default_str();
  app.add_option("--seeds", o.seeds, "Trainings of each, with seeds s, s + 1, ...")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--threads", o.threads, "Threads (0: all available)")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_flag("--development", o.development, "CLIP: hold out training characters instead: for choosing settings without looking at the test");
  app.add_flag("--resume", o.resume, "Go on with an interrupted run, from OUT.json");
  app.add_option("--out", o.out, "Beginning of the names of the plot and the file of numbers")->capture_default_str();
  return run_program(app, argc, argv, [&] {
    if (o.model.empty()) o.model = o.data + "/clip";
    const ThreadScope threads(o.threads);
    print_first_line("methods", "float32");
    is_diffusion(o.model) ? run_diffusion(o) : run_clip(o);
  });
}
