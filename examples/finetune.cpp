// finetune: teaches the CLIP that ships to read line drawings, through a LoRA of a few tens of kilobytes.
//
// The model was trained on colour pictures only, so it fails on drawings of the same things. This program measures that on
// characters never trained on, tunes the vision tower on drawings of the training characters, and measures again, beside a
// classifier trained from labels alone and the nearest neighbour in pixels.
#include <cmath>
#include <cstdio>
#include <iostream>

#include <sys/stat.h>

#include <CLI/CLI.hpp>

#include <tenon/clip.hpp>

#include "common/contact_sheet.hpp"
#include "common/evaluate.hpp"
#include "common/pairs.hpp"
#include "common/program.hpp"
#include "common/progress.hpp"
#include "common/table.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options {
  std::string model, data = default_data(), method = "lora", out, json;
  std::vector<std::string> targets;
  Index rank = 4, bottleneck = 8, length = 8, steps = 500, batch = 64, seeds = 3;
  double alpha = 8, learning_rate = 0, weight_decay = 0.01, keep = 1.0;
  bool baselines = true, development = false;
  int threads = 0;
  std::uint64_t seed = 0;
};

/// What is measured of a model.
struct Measured {
  Accuracy colour, line_art;
};

Index file_bytes(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<Index>(info.st_size) : 0;
}

double learning_rate(const Options& o) {
  if (o.learning_rate > 0) return o.learning_rate;
  return o.method == "full" ? 3e-4 : o.method == "prefix" ? 1e-2 : 3e-3;
}

/// Attaches the method (or, for `full`, unfreezes the tower) and returns the parameters to train.
std::vector<ParamRef<float>> prepare(Clip<float>& clip, const Options& o, Generator& generator) {
  std::vector<std::string> targets = o.targets;
  const auto in_tower = [&](std::initializer_list<const char*> names) {
    if (!targets.empty()) return;
    for (const char* name : names) targets.push_back(std::string("vision_model.*.") + name);
  };
  if (o.method == "full") {
    unfreeze(clip.vision_model);
  } else if (o.method == "lora") {
    in_tower({"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "patch_embedding"});
    attach(clip, LoraConfig{.rank = o.rank, .alpha = o.alpha, .targets = targets}, generator);
  } else if (o.method == "adapter") {
    in_tower({"mlp", "self_attn"});
    attach(clip, BottleneckConfig{.bottleneck = o.bottleneck, .targets = targets}, generator);
  } else {
    in_tower({"self_attn"});
    attach(clip, PrefixConfig{.length = o.length, .targets = targets}, generator);
  }
  return trainable(clip);
}

/// The labels of some rows, as the targets of a cross-entropy.
struct Targets {
  Tensor<std::int32_t> groups, subgroups;
  Targets(const EmojiSet& set, const std::vector<Index>& ids)
      : groups(Shape{static_cast<Index>(ids.size())}), subgroups(Shape{static_cast<Index>(ids.size())}) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      groups(i) = static_cast<std::int32_t>(set.rows[static_cast<std::size_t>(ids[i])].group_label);
      subgroups(i) = static_cast<std::int32_t>(set.rows[static_cast<std::size_t>(ids[i])].subgroup_label);
    }
  }
};

/// Trains a tower on drawings of the training characters: `loss(pooled, ids)` of each batch, stepped through a cosine schedule.
template <class Loss>
void train(const ClipVision<float>& tower, const EmojiSet& set, const Options& o, std::vector<ParamRef<float>> list, double rate,
           double weight_decay, Generator& generator, Progress& progress, Index before, Loss&& loss_of) {
  AdamW<float> optimizer(std::move(list), {.learning_rate = rate, .beta2 = 0.98, .eps = 1e-6, .weight_decay = weight_decay,
                                           .decay_vectors = false, .clip_norm = 1.0});
  optimizer.guard.report = [&](const std::string& text) { progress.note(text); };
  PairSampler sampler(set, set.split(false, true));
  const Schedule schedule{Schedule::Kind::cosine, o.steps / 10, o.steps, 0.0};
  for (Index step = 0; step < o.steps; ++step) {
    const Pairs pairs = sampler.draw(o.batch, generator);
    Tensor<float> pictures = augment(pick(set.line_art, pairs.ids), {.ink = 0, .hue = 0}, generator);
    normalise(pictures);
    const double keep = 10 * step < 9 * o.steps ? o.keep : 1.0;
    const Var<float> loss = loss_of(training_features(tower, Var<float>(std::move(pictures)), keep, generator), pairs.ids);
    const double value = static_cast<double>(loss.item());
    backward(loss);
    optimizer.step(schedule(step));
    progress.update(before + step + 1, "loss " + fixed(value, 3));
  }
}

/// Tunes CLIP with its own captions as the classifier (as 2109.01903 tunes its zero-shot head): each drawing is drawn to the
/// directions of its group, its subgroup and its name among those of all groups, all subgroups and all training characters.
void tune(Clip<float>& clip, const Tokenizer& tokenizer, const EmojiSet& set, const Options& o, Generator& generator,
          std::vector<ParamRef<float>> list, Progress& progress, Index before) {
  const Labels labels(clip, tokenizer, set);
  std::vector<std::string> names;
  std::vector<std::int32_t> name_of_row(set.rows.size(), 0);
  for (Index id : set.split(false, true)) {
    name_of_row[static_cast<std::size_t>(id)] = static_cast<std::int32_t>(names.size());
    names.push_back(in_words(set.rows[static_cast<std::size_t>(id)].name));
  }
  const Var<float> groups(labels.groups), subgroups(labels.subgroups),
      characters(zero_shot_directions(clip, tokenizer, names, set.label_templates("name")));
  train(clip.vision_model, set, o, std::move(list), learning_rate(o), o.weight_decay, generator, progress, before,
        [&](const Var<float>& pooled, const std::vector<Index>& ids) {
          const Targets targets(set, ids);
          auto own = Tensor<std::int32_t>::uninitialized({static_cast<Index>(ids.size())});
          for (std::size_t i = 0; i < ids.size(); ++i) own(i) = name_of_row[static_cast<std::size_t>(ids[i])];
          const Var<float> images = l2_normalize(clip.visual_projection(pooled)) * exp(clip.logit_scale->var());
          return cross_entropy(matmul(images, groups, {.transpose_b = true}), targets.groups) +
                 cross_entropy(matmul(images, subgroups, {.transpose_b = true}), targets.subgroups) +
                 cross_entropy(matmul(images, characters, {.transpose_b = true}), own);
        });
}

/// A classifier with the same vision tower, from scratch: labels only, same drawings, same steps.
Accuracy supervised(const Clip<float>& clip, const EmojiSet& set, const Options& o, Generator& generator, Progress& progress, Index before) {
  ClipVision<float> tower(clip.config.vision_config);
  tower.initialize(generator);
  const Index width = clip.config.vision_config.hidden_size;
  Linear<float> group_head(width, static_cast<Index>(set.groups.size()), generator),
      subgroup_head(width, static_cast<Index>(set.subgroups.size()), generator);
  std::vector<ParamRef<float>> list = trainable(tower);
  for (auto* head : {&group_head, &subgroup_head})
    for (const auto& ref : trainable(*head)) list.push_back(ref);
  train(tower, set, o, list, 1e-3, 0.1, generator, progress, before, [&](const Var<float>& pooled, const std::vector<Index>& ids) {
    const Targets targets(set, ids);
    return cross_entropy(group_head(pooled), targets.groups) + cross_entropy(subgroup_head(pooled), targets.subgroups);
  });
  const NoGrad no_grad;
  const auto ids = set.split(true, true);
  Tensor<float> pictures = pick(set.line_art, ids);
  normalise(pictures);
  const Var<float> pooled = tower(Var<float>(std::move(pictures))).pooled;
  return accuracy(set, ids, group_head(pooled).value(), subgroup_head(pooled).value());
}

/// The label of the training drawing that differs least, pixel by pixel.
Accuracy nearest_neighbour(const EmojiSet& set) {
  const auto train = set.split(false, true), held_out = set.split(true, true);
  constexpr float far = -1e9f;
  auto groups = Tensor<float>::full({static_cast<Index>(held_out.size()), static_cast<Index>(set.groups.size())}, far);
  auto subgroups = Tensor<float>::full({static_cast<Index>(held_out.size()), static_cast<Index>(set.subgroups.size())}, far);
  const Index each = set.line_art.size() / set.line_art.extent(0);
  parallel_for(static_cast<Index>(held_out.size()), [&](Index n) {
    const float* a = set.line_art.data() + held_out[static_cast<std::size_t>(n)] * each;
    for (Index id : train) {
      const float* b = set.line_art.data() + id * each;
      float distance = 0;
      for (Index i = 0; i < each; ++i) distance += (a[i] - b[i]) * (a[i] - b[i]);
      const Emoji& row = set.rows[static_cast<std::size_t>(id)];
      groups(n, row.group_label) = std::max(groups(n, row.group_label), -distance);
      subgroups(n, row.subgroup_label) = std::max(subgroups(n, row.subgroup_label), -distance);
    }
  });
  return accuracy(set, held_out, groups, subgroups);
}

Measured measure(const Clip<float>& clip, const Tokenizer& tokenizer, const EmojiSet& set) {
  const Labels labels(clip, tokenizer, set);
  return {evaluate(clip, labels, set, set.colour, set.split(true)), evaluate(clip, labels, set, set.line_art, set.split(true, true))};
}

/// The best subgroup of each held-out drawing.
std::vector<Index> choices(const Clip<float>& clip, const Tokenizer& tokenizer, const EmojiSet& set, Tensor<float>* probabilities = nullptr) {
  const Labels labels(clip, tokenizer, set);
  const auto p = zero_shot_probabilities(clip, Var<float>(features(clip, set.line_art, set.split(true, true))), labels.subgroups);
  const Tensor<std::int32_t> best = argmax(p);
  if (probabilities != nullptr) *probabilities = p;
  return {best.begin(), best.end()};
}

nlohmann::json as_json(const Accuracy& a) {
  return {{"group_top1", a.group_top1}, {"group_top5", a.group_top5}, {"subgroup_top1", a.subgroup_top1}, {"subgroup_top5", a.subgroup_top5}};
}
nlohmann::json as_json(const Measured& m) { return {{"colour", as_json(m.colour)}, {"line_art", as_json(m.line_art)}}; }

/// The mean of several runs, and half the distance of the extremes.
struct Spread {
  Accuracy mean, half_range;
  explicit Spread(const std::vector<Accuracy>& runs) {
    for (auto field : {&Accuracy::group_top1, &Accuracy::group_top5, &Accuracy::subgroup_top1, &Accuracy::subgroup_top5}) {
      double low = 1, high = 0, sum = 0;
      for (const auto& run : runs) low = std::min(low, run.*field), high = std::max(high, run.*field), sum += run.*field;
      mean.*field = sum / static_cast<double>(runs.size());
      half_range.*field = (high - low) / 2;
    }
  }
};

std::vector<std::string> row(const std::string& name, const Accuracy& mean, const Accuracy* half_range = nullptr) {
  std::vector<std::string> out{name};
  for (auto field : {&Accuracy::group_top1, &Accuracy::group_top5, &Accuracy::subgroup_top1, &Accuracy::subgroup_top5})
    out.push_back(fixed(100 * (mean.*field), 1) + (half_range != nullptr ? " ± " + fixed(100 * (half_range->*field), 1) : ""));
  return out;
}

/// Chance: for top k among n labels, k / n.
Accuracy chance(const EmojiSet& set) {
  const double groups = static_cast<double>(set.groups.size()), subgroups = static_cast<double>(set.subgroups.size());
  return {1 / groups, std::min(1.0, 5 / groups), 1 / subgroups, 5 / subgroups, 0};
}

void save_sheet(const std::string& path, const EmojiSet& set, const std::vector<Index>& before, const std::vector<Index>& after) {
  std::vector<Tile> tiles;
  const auto ids = set.split(true, true);
  for (std::size_t i = 0; i < ids.size() && tiles.size() < 48; i += std::max<std::size_t>(1, ids.size() / 48)) {
    const Emoji& emoji = set.rows[static_cast<std::size_t>(ids[i])];
    const auto label = [&](Index choice) {
      const bool right = choice == emoji.subgroup_label;
      return Label{(right ? "+ " : "- ") + set.subgroups[static_cast<std::size_t>(choice)], right ? Colour{0, 130, 60} : Colour{190, 40, 30}};
    };
    const std::vector<Index> one{ids[i]};
    tiles.push_back({as_image(pick(set.line_art, one).reshape({EmojiSet::side, EmojiSet::side, 3})),
                     {{in_words(emoji.name)}, label(before[i]), label(after[i])}});
  }
  save_png(contact_sheet(tiles, {.title = "held-out drawings: name, subgroup chosen before, after", .columns = 8, .letters = 20}), path);
}

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  print_first_line("finetune", "float32");
  EmojiSet set(o.data);
  if (o.development) set.use_development_split();
  const Tokenizer tokenizer = load_tokenizer(o.model);
  const Measured before = [&] {
    const Clip<float> clip = load_clip<float>(o.model);
    return measure(clip, tokenizer, set);
  }();
  const auto held_out = set.split(true), drawn = set.split(true, true);
  std::cout << "Zero-shot accuracy on characters never trained on, in %: " << held_out.size() << " in colour, " << drawn.size()
            << " as line art; " << set.groups.size() << " groups, " << set.subgroups.size() << " subgroups.\n\n";
  const std::vector<std::string> heading{"", "group top-1", "top-5", "subgroup top-1", "top-5"};
  Table first(heading);
  first.add(row("colour", before.colour));
  first.add(row("line art", before.line_art));
  first.add(row("chance", chance(set)));
  std::cout << first.text() << '\n' << std::flush;

  std::vector<Accuracy> colour, line_art, baseline;
  Index trained = 0, total = 0, bytes = 0;
  double seconds = 0, merged_difference = 0;
  std::string agreement;
  Progress progress(o.method, (o.baselines ? 2 : 1) * o.seeds * o.steps);
  for (Index s = 0; s < o.seeds; ++s) {
    Generator generator(o.seed + static_cast<std::uint64_t>(s));
    Clip<float> clip = load_clip<float>(o.model);
    const std::vector<Index> chosen_before = s == 0 ? choices(clip, tokenizer, set) : std::vector<Index>{};
    const auto list = prepare(clip, o, generator);
    trained = count(list);
    total = count(params(clip));
    const auto start = std::chrono::steady_clock::now();
    tune(clip, tokenizer, set, o, generator, list, progress, (o.baselines ? 2 : 1) * s * o.steps);
    if (s == 0) seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const Measured after = measure(clip, tokenizer, set);
    colour.push_back(after.colour);
    line_art.push_back(after.line_art);
    if (o.baselines) baseline.push_back(supervised(clip, set, o, generator, progress, (2 * s + 1) * o.steps));
    if (s != 0) continue;

    Tensor<float> apart, together;
    const auto chosen_after = choices(clip, tokenizer, set, &apart);
    if (o.method == "full") {
      save_clip(clip, o.out, DType::f16);
      save_tokenizer(o.out, tokenizer);
      bytes = file_bytes(o.out + "/model.safetensors");
    } else {
      save_adapter(clip, o.out, "default", DType::f16);
      bytes = file_bytes(o.out + "/adapter_model.safetensors");
    }
    if (o.method == "lora") {
      merge(clip);
      const auto chosen_merged = choices(clip, tokenizer, set, &together);
      for (Index i = 0; i < apart.size(); ++i)
        merged_difference = std::max(merged_difference, static_cast<double>(std::abs(apart.data()[i] - together.data()[i])));
      check(chosen_merged == chosen_after, "finetune", "merged and unmerged predictions differ, by up to ", merged_difference);
      char text[96];
      std::snprintf(text, sizeof text, "Merged and unmerged choose the same for all %zu drawings (probabilities within %.1e).\n", drawn.size(),
                    merged_difference);
      agreement = text;
    }
    save_sheet(o.out + "/drawings.png", set, chosen_before, chosen_after);
  }
  progress.finish();

  const Spread colour_after(colour), line_art_after(line_art);
  Table second(heading);
  second.add(row("colour", colour_after.mean, &colour_after.half_range));
  second.add(row("line art", line_art_after.mean, &line_art_after.half_range));
  const Accuracy nearest = nearest_neighbour(set);
  if (o.baselines) {
    const Spread classifier(baseline);
    second.add(row("line art, classifier from labels", classifier.mean, &classifier.half_range));
  }
  second.add(row("line art, nearest pixels", nearest));
  second.add(row("chance", chance(set)));
  std::cout << "After " << o.steps << " steps of " << o.method << " on the drawings of " << set.split(false, true).size() << " training characters ("
            << fixed(seconds, 0) << " s; mean of " << o.seeds << " seeds ± half the range):\n\n"
            << second.text() << '\n';
  const Index model_bytes = file_bytes(o.model + "/model.safetensors");
  std::cout << "Trained " << trained << " parameters beside the model's " << total << " (" << fixed(100.0 * static_cast<double>(trained) / static_cast<double>(total), 1)
            << " %); the file has " << bytes << " bytes beside the model's " << model_bytes << ".\n"
            << agreement << "Wrote " << o.out << " and " << o.out << "/drawings.png: held-out drawings with the subgroup chosen before and after.\n";
  if (!o.json.empty()) {
    nlohmann::json out = {{"before", as_json(before)},
                          {"after", {{"colour", as_json(colour_after.mean)}, {"line_art", as_json(line_art_after.mean)}}},
                          {"nearest_pixels", as_json(nearest)},
                          {"adapter_parameters", trained},
                          {"adapter_bytes", bytes},
                          {"model_parameters", total},
                          {"model_bytes", model_bytes},
                          {"seconds", seconds},
                          {"method", o.method},
                          {"seeds", o.seeds}};
    if (o.baselines) out["supervised"] = as_json(Spread(baseline).mean);
    save_json(o.json, out);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Tunes the CLIP that ships to line drawings and measures it before and after.");
  Options o;
  app.add_option("--model", o.model, "Folder of a CLIP (default: the one that ships)");
  app.add_option("--data", o.data, "Folder of the emoji set")->capture_default_str();
  app.add_option("--method", o.method, "lora, adapter, prefix or full")->capture_default_str()->check(CLI::IsMember({"lora", "adapter", "prefix", "full"}));
  app.add_option("--target", o.targets, "Layers to tune: a path, a suffix such as q_proj, or a glob (repeatable)");
  app.add_option("--rank", o.rank, "Rank of the LoRA")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--alpha", o.alpha, "Alpha of the LoRA; the delta is scaled by alpha / rank")->capture_default_str();
  app.add_option("--bottleneck", o.bottleneck, "Width of the adapter")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--length", o.length, "Length of the prefix")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--steps", o.steps, "Training steps")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--batch", o.batch, "Pictures a step")->capture_default_str()->check(CLI::Range(2, 4096));
  app.add_option("--keep", o.keep, "Share of patches that patch dropout keeps")->capture_default_str()->check(CLI::Range(0.05, 1.0));
  app.add_flag("!--no-baselines", o.baselines, "Leave out the classifier trained from labels");
  app.add_flag("--development", o.development, "Hold out training characters instead: for choosing settings without looking at the test");
  app.add_option("--lr", o.learning_rate, "Highest learning rate (default: by method)");
  app.add_option("--seed", o.seed, "First seed")->capture_default_str();
  app.add_option("--seeds", o.seeds, "Runs, with seeds s, s + 1, ...")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--threads", o.threads, "Threads (0: all available)")->capture_default_str();
  app.add_option("--out", o.out, "Folder for the adapter (default: line-art-METHOD)");
  app.add_option("--json", o.json, "File for the numbers");
  return run_program(app, argc, argv, [&] {
    if (o.model.empty()) o.model = o.data + "/clip";
    if (o.out.empty()) o.out = "line-art-" + o.method;
    run(o);
  });
}
