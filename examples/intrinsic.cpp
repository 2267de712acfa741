// intrinsic: how many numbers a task needs (Aghajanyan et al. 2020, 2012.13255, figures 1 and 3). A CLIP is tuned to two tasks, line
// drawings and colour pictures upside down, in random subspaces of d dimensions: accuracy against d, with d90, the smallest d that
// brings 90 % of what full tuning brings. Several --model set sizes side by side: the paper finds that larger models need smaller d.
#include <cmath>
#include <filesystem>
#include <iostream>

#include "common/plot.hpp"
#include "common/progress.hpp"
#include "common/shifts.hpp"
#include "common/table.hpp"
#include "common/tuning_results.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options : ClipTuneOptions {
  std::vector<std::string> models;
  std::vector<Index> dimensions{10, 30, 100, 300, 1000, 3000, 10000};
  std::string data = default_data(), out = "intrinsic";
  Index seeds = 3;
  std::uint64_t seed = 0;
  int threads = 0;
  bool resume = false;
};

/// A model and a task: what full tuning brings, and each d.
struct Case {
  std::string model, name, task;
  EmojiSet* set;
  std::string label(Index d) const { return join_text(name, ", ", task, ", ", d == 0 ? "full" : join_text("d = ", d)); }
};

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  print_first_line("intrinsic", "float32");
  EmojiSet drawings(o.data), upside_down(o.data);
  upside_down.line_art = rotated(upside_down.colour, 180);  // of the characters that have drawings
  std::vector<Case> cases;
  for (const auto& model : o.models) {
    auto folder = std::filesystem::path(model);
    if (folder.filename().empty()) folder = folder.parent_path();
    Clip<float> clip = load_clip<float>(model);
    const Index numbers = count(params(clip.vision_model));
    const std::string name = join_text(folder.filename().string(), " (", numbers, ")");
    cases.push_back({model, name, "line art", &drawings});
    cases.push_back({model, name, "upside down", &upside_down});
  }

  const std::string file = o.out + ".json", options = join_text("data ", o.data, " steps ", o.steps, " batch ", o.batch, " seed ", o.seed);
  using Results = TuningResults<Accuracy>;
  Results results = o.resume ? Results::resumed(file, options) : Results{options, {}, {}};
  std::vector<Index> sizes{0};  // 0: full
  sizes.insert(sizes.end(), o.dimensions.begin(), o.dimensions.end());
  Index done = 0;
  for (const auto& c : cases)
    for (const Index d : sizes) done += results.steps_done(c.label(d), o.seeds, o.steps);
  Progress progress("intrinsic", static_cast<Index>(cases.size() * sizes.size()) * o.seeds * o.steps, done);
  for (const auto& c : cases) {
    const Tokenizer tokenizer = load_tokenizer(c.model);
    for (Index s = 0; s < o.seeds; ++s)
      for (const Index d : sizes) {
        auto& runs = results.runs[c.label(d)];
        if (static_cast<Index>(runs.size()) > s) continue;
        ClipTuneOptions way = o;
        way.method = d == 0 ? "full" : "intrinsic";
        way.dimension = d;
        runs.push_back(tuned_accuracy(c.model, way, *c.set, tokenizer, o.seed + static_cast<std::uint64_t>(s), results.trained[c.label(d)],
                                      [&](Index step) { progress.update(done + step, c.label(d)); }));
        done += o.steps;
        save_json(file, results);
      }
  }
  progress.finish();

  Table table({"model (numbers of its vision tower)", "task", "before", "full", "by d", "d90"});
  std::vector<Curve> curves;
  for (const auto& c : cases) {
    const Clip<float> clip = load_clip<float>(c.model);
    const double before = evaluate(clip, load_tokenizer(c.model), *c.set, c.set->line_art, c.set->split(true, true)).group_top1;
    const double full = results.spread(c.label(0), o.seeds).mean.group_top1, wanted = before + 0.9 * (full - before);
    std::string by_d, d90 = "above " + std::to_string(o.dimensions.back());
    Curve curve{c.name + ", " + c.task, {}, {}};
    for (const Index d : o.dimensions) {
      const auto spread = results.spread(c.label(d), o.seeds);
      by_d += join_text(by_d.empty() ? "" : ", ", fixed(100 * spread.mean.group_top1, 1), " ± ", fixed(100 * spread.half_range.group_top1, 1));
      if (d90.starts_with("above") && spread.mean.group_top1 >= wanted) d90 = std::to_string(d);
      curve.x.push_back(std::log10(static_cast<double>(d)));
      curve.y.push_back((spread.mean.group_top1 - before) / (full - before));
    }
    table.add({c.name, c.task, fixed(100 * before, 1), fixed(100 * full, 1), by_d, d90});
    curves.push_back(std::move(curve));
  }
  const double left = std::log10(static_cast<double>(o.dimensions.front())), right = std::log10(static_cast<double>(o.dimensions.back()));
  curves.push_back({"90 %", {0.9, 0.9}, {left, right}});
  std::string list;
  for (const Index d : o.dimensions) list += join_text(list.empty() ? "" : ", ", d);
  std::cout << "groups top-1 in %, characters never trained on; " << o.steps << " steps of " << o.batch << " pictures; mean of " << o.seeds << " seeds ± half the range; d: " << list
            << ".\n\n" << table.text() << '\n';
  save_png(plot({.title = "share of full tuning's gain against d", .x = "d, logarithm to base 10", .y = "share of the gain"}, curves), o.out + ".png");
  std::cout << "wrote " << o.out << ".png and " << file << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Accuracy of a tuned CLIP against the dimension of the random subspace that it is tuned in, for two tasks and several models; a table and a plot.");
  Options o;
  o.steps = 300;
  app.add_option("--model", o.models, "Folder of a CLIP (repeatable; default: the one that ships)");
  app.add_option("--dimension", o.dimensions, "Dimensions, rising")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--data", o.data, "Folder of the emoji set")->capture_default_str();
  app.add_option("--steps", o.steps, "Steps of each training")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--batch", o.batch, "Pictures a step")->capture_default_str()->check(CLI::Range(2, 4096));
  app.add_option("--seed", o.seed, "First seed")->capture_default_str();
  app.add_option("--seeds", o.seeds, "Trainings of each, with seeds s, s + 1, ...")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--threads", o.threads, "Threads (0: all available)")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_flag("--resume", o.resume, "Go on with an interrupted run, from OUT.json");
  app.add_option("--out", o.out, "Beginning of the names of the plot and the file of numbers")->capture_default_str();
  return run_program(app, argc, argv, [&] {
    if (o.models.empty()) o.models = {o.data + "/clip"};
    run(o);
  });
}
