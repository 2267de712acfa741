// robustness: zero-shot CLIP against a classifier with the same tower, trained on the same pictures from labels only, and against
// a linear probe on CLIP's features: on held-out colour pictures and under shift (Radford et al. 2021, section 3.3).
#include <fstream>

#include <nlohmann/json.hpp>

#include <tenon/clip.hpp>

#include "common/bars.hpp"
#include "common/baselines.hpp"
#include "common/linear_probe.hpp"
#include "common/program.hpp"
#include "common/progress.hpp"
#include "common/shifts.hpp"
#include "common/table.hpp"
#include "common/trainer.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options {
  std::string model, data = default_data(), out = "robustness.png", json;
  Index steps = 400, batch = 128, seeds = 3;
  double learning_rate = 1e-3, keep = 0.5, average = 0.99;
  int threads = 0;
  std::uint64_t seed = 0;
};

/// Held-out pictures of one kind; rows of `pictures` that are not in `ids` are as they were.
struct Shift {
  std::string name;
  Tensor<float> pictures;
  std::vector<Index> ids;
};

std::vector<Shift> shifts_of(const EmojiSet& set, std::uint64_t seed) {
  const auto all = set.split(true), drawn = set.split(true, true);
  Generator generator(seed);
  std::vector<Shift> out{{"colour", set.colour, all}, {"line art", set.line_art, drawn}};
  for (const auto& name : shift_names) out.push_back({name, shifted(set.colour, name, generator), all});
  return out;
}

/// A tower of CLIP's size with two linear heads, from labels alone: CLIP's own recipe of augmentation, patch dropout and averaging.
Classifier<float> train(const Options& o, const EmojiSet& set, const ClipVisionConfig& config, std::uint64_t seed, Index run, Progress& progress) {
  Generator generator(seed);
  Classifier<float> classifier(config, set, generator);
  Trainer trainer(trainable(classifier), {.learning_rate = o.learning_rate, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.1, .decay_vectors = false, .clip_norm = 1.0},
                  o.average, set.split(false));
  trainer.optimizer.guard.report = [&](const std::string& text) { progress.note(text); };
  const Schedule schedule{Schedule::Kind::cosine, o.steps / 10, o.steps, 0.0};
  while (trainer.steps() < o.steps) {
    std::vector<Index> ids;
    while (static_cast<Index>(ids.size()) < o.batch) ids.push_back(trainer.rounds.next(generator));
    Tensor<float> pictures = augment(pick(set.colour, ids), {}, generator);
    normalise(pictures);
    const double keep = 10 * trainer.steps() < 9 * o.steps ? o.keep : 1.0;
    const Var<float> pooled = training_features(classifier.tower, Var<float>(std::move(pictures)), keep, generator);
    const double loss = trainer.step(classifier.loss(pooled, Targets(set, ids)), schedule(trainer.steps()), [] {});
    progress.update(run * o.steps + trainer.steps(), "loss " + fixed(loss, 3));
  }
  trainer.average.swap();
  return classifier;
}

/// Linear probes for groups and subgroups on all training pictures.
struct Probes {
  LinearProbe groups, subgroups;
  static Probes fit(const Clip<float>& clip, const EmojiSet& set) {
    const auto ids = set.split(false);
    const Tensor<float> x = features(clip, set.colour, ids);
    std::vector<std::int32_t> group, subgroup;
    for (const Index id : ids) {
      group.push_back(static_cast<std::int32_t>(set.rows[static_cast<std::size_t>(id)].group_label));
      subgroup.push_back(static_cast<std::int32_t>(set.rows[static_cast<std::size_t>(id)].subgroup_label));
    }
    return {LinearProbe(x, group, static_cast<Index>(set.groups.size()), 0.316), LinearProbe(x, subgroup, static_cast<Index>(set.subgroups.size()), 0.316)};
  }
};

std::string cell(double mean, double half_range) { return fixed(100 * mean, 1) + (half_range > 0 ? " \u00b1 " + fixed(100 * half_range, 1) : ""); }

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  print_first_line("robustness", "float32");
  { std::ofstream probe(o.out, std::ios::app); check<FileError>(probe.good(), "robustness", o.out, ": cannot be written"); }
  const EmojiSet set(o.data);
  const auto clip = load_clip<float>(o.model);
  check<FileError>(clip.config.image_size() == EmojiSet::side && !clip.config.resnet_config, "robustness", o.model, ": expected a vision transformer for pictures of ",
                   EmojiSet::side, " pixels, as the emoji are, found ", clip.config.image_size());
  const auto tokenizer = load_tokenizer(o.model);
  const Labels labels(clip, tokenizer, set);
  const auto shifts = shifts_of(set, o.seed);
  const auto probes = Probes::fit(clip, set);
  std::cerr << set.split(false).size() << " training pictures; " << o.seeds << " classifiers of " << o.steps << " steps\n";

  std::vector<Accuracy> zero_shot, probed;
  for (const auto& shift : shifts) {
    zero_shot.push_back(evaluate(clip, labels, set, shift.pictures, shift.ids));
    const Tensor<float> x = features(clip, shift.pictures, shift.ids);
    probed.push_back(accuracy(set, shift.ids, probes.groups(x), probes.subgroups(x)));
  }
  std::vector<std::vector<Accuracy>> runs(shifts.size());
  Progress progress("training", o.seeds * o.steps);
  for (Index s = 0; s < o.seeds; ++s) {
    const auto classifier = train(o, set, clip.config.vision_config, o.seed + static_cast<std::uint64_t>(s), s, progress);
    for (std::size_t i = 0; i < shifts.size(); ++i) runs[i].push_back(classifier.accuracy_on(set, shifts[i].pictures, shifts[i].ids));
    progress.note(join_text("classifier ", s + 1, ": held-out colour ", runs[0].back().text()));
  }
  progress.finish();

  nlohmann::json rows = nlohmann::json::array();
  for (const auto& [title, field] : {std::pair{"groups", &Accuracy::group_top1}, {"subgroups", &Accuracy::subgroup_top1}}) {
    Table table({join_text(title, ", top-1 %"), "pictures", "zero-shot CLIP", "classifier from labels", "linear probe on CLIP"});
    for (std::size_t i = 0; i < shifts.size(); ++i) {
      const Spread spread(runs[i]);
      table.add({shifts[i].name, std::to_string(shifts[i].ids.size()), cell(zero_shot[i].*field, 0), cell(spread.mean.*field, spread.half_range.*field),
                 cell(probed[i].*field, 0)});
    }
    table.add({"chance", "", cell(chance(set).*field, 0), cell(chance(set).*field, 0), cell(chance(set).*field, 0)});
    std::cout << table.text() << '\n';
  }
  std::vector<std::string> names;
  BarSeries zero{"zero-shot CLIP", {}, {}}, classifier{"classifier from labels", {}, {}}, probe{"linear probe on CLIP", {}, {}};
  for (std::size_t i = 0; i < shifts.size(); ++i) {
    const Spread spread(runs[i]);
    names.push_back(shifts[i].name);
    zero.height.push_back(100 * zero_shot[i].subgroup_top1);
    classifier.height.push_back(100 * spread.mean.subgroup_top1);
    classifier.spread.push_back(100 * spread.half_range.subgroup_top1);
    probe.height.push_back(100 * probed[i].subgroup_top1);
    rows.push_back({{"shift", shifts[i].name}, {"pictures", shifts[i].ids.size()}, {"zero_shot", zero_shot[i]}, {"classifier", spread.mean},
                    {"classifier_half_range", spread.half_range}, {"linear_probe", probed[i]}});
  }
  save_png(bars({.title = join_text(set.subgroups.size(), " subgroups of emoji, held-out characters"), .y = "top-1 %", .width = 720, .height = 380}, names,
                {zero, classifier, probe}), o.out);
  std::cerr << "wrote " << o.out << "; \u00b1 is half the distance of the extremes of " << o.seeds << " classifiers\n";
  if (!o.json.empty()) save_json(o.json, {{"rows", rows}, {"steps", o.steps}, {"seeds", o.seeds}});
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Zero-shot CLIP against a classifier trained from labels, on held-out pictures and under shift: a table and a plot.");
  Options o;
  app.add_option("--model", o.model, "Folder of a CLIP for 64-pixel pictures (default: the one that ships)");
  app.add_option("--data", o.data, "Folder of the emoji set")->capture_default_str();
  app.add_option("--steps", o.steps, "Training steps of each classifier")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--batch", o.batch, "Pictures a step")->capture_default_str()->check(CLI::Range(2, 4096));
  app.add_option("--lr", o.learning_rate, "Highest learning rate")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--keep", o.keep, "Share of patches that patch dropout keeps")->capture_default_str()->check(CLI::Range(0.05, 1.0));
  app.add_option("--seeds", o.seeds, "Classifiers, with seeds s, s + 1, ...")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--seed", o.seed, "First seed")->capture_default_str();
  app.add_option("--threads", o.threads, "Threads (0: all available)")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--out", o.out, "File for the plot")->capture_default_str();
  app.add_option("--json", o.json, "File for the numbers");
  return run_program(app, argc, argv, [&] {
    if (o.model.empty()) o.model = o.data + "/clip";
    run(o);
  });
}
