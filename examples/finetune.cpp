// finetune: teaches the CLIP that ships to read line drawings, through a small LoRA; on pictures with captions see
// common/tune_clip_pairs.hpp, on a diffusion model common/tune_diffusion.hpp.
//
// The model was trained on colour pictures only, so it fails on drawings of the same things. This program measures that on
// characters never trained on, tunes the vision tower on drawings of the training characters, and measures again, beside a
// classifier trained from labels alone and the nearest neighbour in pixels.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <tenon/clip.hpp>

#include "common/baselines.hpp"
#include "common/contact_sheet.hpp"
#include "common/evaluate.hpp"
#include "common/program.hpp"
#include "common/progress.hpp"
#include "common/table.hpp"
#include "common/tune_clip.hpp"
#include "common/tune_clip_pairs.hpp"
#include "common/tune_diffusion.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options : ClipTuneOptions {
  std::string model, data = default_data(), out, json;
  Index seeds = 3;
  bool baselines = true, development = false, resume = false;
  int threads = 0;
  std::uint64_t seed = 0;
};

/// What is measured of a model.
struct Measured {
  Accuracy colour, line_art;
};

/// What the trainings have shown, kept in the state of an interrupted run.
struct Results {
  std::vector<Accuracy> colour, line_art, classifier;  // one of each a seed
  Index trained = 0, total = 0;                        // parameters
  double seconds = 0;                                  // of tuning with the first seed
  std::string agreement;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Results, colour, line_art, classifier, trained, total, seconds, agreement)

Index file_bytes(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<Index>(info.st_size) : 0;
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

nlohmann::json as_json(const Measured& m) { return {{"colour", m.colour}, {"line_art", m.line_art}}; }

std::vector<std::string> row(const std::string& name, const Accuracy& mean, const Accuracy* half_range = nullptr) {
  std::vector<std::string> out{name};
  for (auto field : Accuracy::fields())
    out.push_back(fixed(100 * (mean.*field), 1) + (half_range != nullptr ? " ± " + fixed(100 * (half_range->*field), 1) : ""));
  return out;
}

void save_sheet(const std::string& path, const EmojiSet& set, const std::vector<Index>& before, const std::vector<Index>& after) {
  std::vector<Tile> tiles;
  const auto ids = set.split(true, true);
  for (std::size_t i = 0; i < ids.size() && tiles.size() < 48; i += std::max<std::size_t>(1, ids.size() / 48)) {
    const Emoji& emoji = set.rows[static_cast<std::size_t>(ids[i])];
    const auto label = [&](Index choice) {
      const bool right = choice == emoji.subgroup_label;
      return Label{join_text(right ? "+ " : "- ", set.subgroups[static_cast<std::size_t>(choice)]), right ? Colour{0, 130, 60} : Colour{190, 40, 30}};
    };
    const std::vector<Index> one{ids[i]};
    tiles.push_back({as_image(pick(set.line_art, one).reshape({EmojiSet::side, EmojiSet::side, 3})),
                     {{in_words(emoji.name)}, label(before[i]), label(after[i])}});
  }
  save_png(contact_sheet(tiles, {.title = "held-out drawings: name, subgroup chosen before, after", .columns = 8, .letters = 20}), path);
}

/// The trainings of a run, one after another: for each seed CLIP is tuned, and then the classifier trained from labels.
class Study {
 public:
  Study(const Options& options, const EmojiSet& set, const Tokenizer& tokenizer) : o_(options), set_(set), tokenizer_(tokenizer), generator_(0) {
    std::filesystem::create_directories(o_.out);
    if (!o_.resume) return;
    state_ = resumed(folder(), name());
    if (!state_) return;
    training_ = state_->get<Index>("training");
    results_ = nlohmann::json::parse(state_->values.at("results")).get<Results>();
  }

  const Results& run() {
    const Index before = training_ * o_.steps + (state_ ? state_->get<Index>("step") : 0);
    const Index each = o_.baselines ? 2 : 1, all = each * o_.seeds;
    Progress progress(o_.method, all * o_.steps, before);
    for (; training_ < all; ++training_) {
      if (training_ % each == 0) tune(training_ / each, progress);
      else classify(progress);
    }
    return results_;
  }

 private:
  void tune(Index s, Progress& progress) {
    generator_ = Generator(o_.seed + static_cast<std::uint64_t>(s));
    Clip<float> clip = load_clip<float>(o_.model);
    const auto before = s == 0 ? choices(clip, tokenizer_, set_) : std::vector<Index>{};
    const auto list = prepare(clip, o_, generator_);
    results_.trained = count(list);
    results_.total = count(params(clip));
    train(clip.vision_model, list, learning_rate(o_), o_.weight_decay, progress, CaptionLoss(clip, tokenizer_, set_), s == 0 ? &results_.seconds : nullptr);
    const Measured after = measure(clip, tokenizer_, set_);
    results_.colour.push_back(after.colour);
    results_.line_art.push_back(after.line_art);
    progress.note(join_text("seed ", o_.seed + static_cast<std::uint64_t>(s), ": line art ", after.line_art.text(), "; colour ", after.colour.text()));
    if (s == 0) {
      keep(clip, before);
      progress.note(join_text("wrote ", o_.out, " and ", o_.out, "/drawings.png"));
    }
  }

  /// A classifier with the same vision tower, from scratch: labels only, same drawings, same steps.
  void classify(Progress& progress) {
    const ClipConfig config = load_clip<float>(o_.model).config;
    Classifier<float> classifier(config.vision_config, set_, generator_);
    train(classifier.tower, trainable(classifier), 1e-3, 0.1, progress,
          [&](const Var<float>& pooled, const std::vector<Index>& ids) { return classifier.loss(pooled, Targets(set_, ids)); }, nullptr);
    results_.classifier.push_back(classifier.accuracy_on(set_, set_.line_art, set_.split(true, true)));
    progress.note("classifier from labels: line art " + results_.classifier.back().text());
  }

  /// Trains a tower on drawings of the training characters, `loss_of(pooled, ids)` of each batch, through a cosine schedule; the
  /// average of the weights is what stays. An interrupted training goes on where its state was saved.
  template <class Loss>
  void train(const ClipVision<float>& tower, std::vector<ParamRef<float>> list, double rate, double weight_decay, Progress& progress,
             Loss&& loss_of, double* seconds) {
    Trainer trainer = trainer_on_drawings(std::move(list), set_, o_, rate, weight_decay);
    trainer.optimizer.guard.report = [&](const std::string& text) { progress.note(text); };
    if (state_) trainer.restore(*state_, generator_);
    state_.reset();
    const Index every = std::max<Index>(1, o_.steps / 10);
    auto start = std::chrono::steady_clock::now();
    while (trainer.steps() < o_.steps) {
      const double value = drawing_step(trainer, tower, set_, o_, generator_, loss_of);
      progress.update(training_ * o_.steps + trainer.steps(), "loss " + fixed(value, 3));
      if (trainer.steps() % every != 0 && trainer.steps() != o_.steps) continue;
      const auto now = std::chrono::steady_clock::now();
      if (seconds != nullptr) *seconds += std::chrono::duration<double>(now - start).count();
      start = now;
      save(trainer);
    }
    trainer.average.swap();
  }

  /// Of the first seed: the adapter or model, whether merging it changes a choice, and the sheet of drawings.
  void keep(Clip<float>& clip, const std::vector<Index>& before) {
    Tensor<float> apart, together;
    const auto after = choices(clip, tokenizer_, set_, &apart);
    if (o_.method == "full" || o_.method == "bitfit") {
      save_clip(clip, o_.out, DType::f16);
      save_tokenizer(o_.out, tokenizer_);
    } else if (o_.method == "intrinsic") {
      save_intrinsic(clip, o_.out + "/intrinsic.safetensors");
    } else {
      save_adapter(clip, o_.out, "default", DType::f16);
    }
    if (o_.method == "lora") {
      merge(clip);
      const auto merged = choices(clip, tokenizer_, set_, &together);
      double difference = 0;
      for (Index i = 0; i < apart.size(); ++i)
        difference = std::max(difference, static_cast<double>(std::abs(apart.data()[i] - together.data()[i])));
      check(merged == after, "finetune", "merged and unmerged predictions differ, by up to ", difference);
      char text[96];
      std::snprintf(text, sizeof text, "Merged and unmerged choose the same for all %zu drawings (probabilities within %.1e).\n", after.size(), difference);
      results_.agreement = text;
    }
    save_sheet(o_.out + "/drawings.png", set_, before, after);
  }

  void save(Trainer& trainer) {
    State state;
    trainer.save(state, generator_);
    state.set("training", training_);
    state.values["results"] = nlohmann::json(results_).dump();
    state.values["run"] = name();
    save_state(folder(), state);
  }

  std::string folder() const { return o_.out + "/state"; }
  /// All options that change what a run computes.
  std::string name() const {
    std::string targets;
    for (const auto& target : o_.targets) targets += " target " + target;
    return join_text("model ", o_.model, " data ", o_.data, " method ", o_.method, targets, " rank ", o_.rank, " alpha ", o_.alpha, " bottleneck ",
                     o_.bottleneck, " length ", o_.length, " dimension ", o_.dimension, " steps ", o_.steps, " batch ", o_.batch, " keep ", o_.keep, " lr ", learning_rate(o_),
                     " seed ", o_.seed, " seeds ", o_.seeds, o_.baselines ? "" : " no-baselines", o_.development ? " development" : "");
  }

  Options o_;
  const EmojiSet& set_;
  const Tokenizer& tokenizer_;
  Generator generator_;
  Index training_ = 0;  // how many are behind us
  Results results_;
  std::optional<State> state_;  // of the training that was interrupted
};

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

  Study study(o, set, tokenizer);
  const Results& results = study.run();
  const Spread colour_after(results.colour), line_art_after(results.line_art);
  Table second(heading);
  second.add(row("colour", colour_after.mean, &colour_after.half_range));
  second.add(row("line art", line_art_after.mean, &line_art_after.half_range));
  const Accuracy nearest = nearest_neighbour(set);
  if (o.baselines) {
    const Spread classifier(results.classifier);
    second.add(row("line art, classifier from labels", classifier.mean, &classifier.half_range));
  }
  second.add(row("line art, nearest pixels", nearest));
  second.add(row("chance", chance(set)));
  std::cout << "After " << o.steps << " steps of " << o.method << " on the drawings of " << set.split(false, true).size() << " training characters ("
            << fixed(results.seconds, 0) << " s; mean of " << o.seeds << " seeds ± half the range):\n\n"
            << second.text() << '\n';
  const Index bytes = file_bytes(o.out + (o.method == "full" || o.method == "bitfit" ? "/model.safetensors" : o.method == "intrinsic" ? "/intrinsic.safetensors" : "/adapter_model.safetensors"));
  const Index model_bytes = file_bytes(o.model + "/model.safetensors");
  std::cout << "Trained " << results.trained << " parameters beside the model's " << results.total << " (" << fixed(100.0 * static_cast<double>(results.trained) / static_cast<double>(results.total), 1)
            << " %); the file has " << bytes << " bytes beside the model's " << model_bytes << ".\n"
            << results.agreement << "Wrote " << o.out << " and " << o.out << "/drawings.png: held-out drawings with the subgroup chosen before and after.\n";
  if (!o.json.empty()) {
    nlohmann::json out = {{"before", as_json(before)},
                          {"after", {{"colour", colour_after.mean}, {"line_art", line_art_after.mean}}},
                          {"nearest_pixels", nearest},
                          {"adapter_parameters", results.trained},
                          {"adapter_bytes", bytes},
                          {"model_parameters", results.total},
                          {"model_bytes", model_bytes},
                          {"seconds", results.seconds},
                          {"method", o.method},
                          {"seeds", o.seeds}};
    if (o.baselines) out["supervised"] = Spread(results.classifier).mean;
    save_json(o.json, out);
  }
}

const char* name_of_dtype(const std::string& dtype) { return dtype == "bf16" ? "bfloat16" : dtype == "int8" ? "int8" : "float32"; }

void run(DiffusionTuneOptions o, int threads) {
  const ThreadScope scope(threads);
  print_first_line("finetune", name_of_dtype(o.dtype));
  check(std::find(style_names.begin(), style_names.end(), o.style) != style_names.end(), "finetune", "--style: expected one of plain, line-art, neon, got ", o.style);
  if (o.method == "ia3" || o.method == "adapter" || o.method == "prefix") o.format = "peft";  // the others have no place for it
  const bool folder = o.whole() ? std::filesystem::is_directory(o.model) : o.method != "intrinsic" && o.format == "peft";
  if (o.out.empty()) o.out = (detail::exists(o.data + "/emoji.tsv") ? o.style : "tuned") + (folder ? "" : ".safetensors");
  check(folder || std::filesystem::path(o.out).extension() == ".safetensors", "finetune", "--out: expected a name that ends with .safetensors, got ", o.out);
  DiffusionTuning(std::move(o)).run();
}

void run(const PairTuneOptions& o, int threads) {
  const ThreadScope scope(threads);
  o.check_together();
  print_first_line("finetune", name_of_dtype(o.dtype));
  PairTuning(o).run();
}

/// A file of options by their long names, each of which must exist.
class OptionsFile : public CLI::ConfigBase {
 public:
  explicit OptionsFile(const CLI::App& app) : app_(app) {}
  std::vector<CLI::ConfigItem> from_config(std::istream& in) const override {
    auto out = ConfigBase::from_config(in);
    for (const auto& item : out) {
      if (!item.parents.empty()) throw CLI::ConfigError("--config: expected options without sections, found [" + item.parents.front() + ']');
      if (app_.get_option_no_throw("--" + item.name) != nullptr) continue;
      std::vector<std::string> names;
      for (const CLI::Option* option : app_.get_options())
        if (option->get_configurable()) names.push_back(option->get_single_name());
      throw CLI::ConfigError(join_text("--config: there is no option '", item.name, "'; nearest: ", nearest_names(item.name, names)));
    }
    return out;
  }

 private:
  const CLI::App& app_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Tunes the CLIP that ships to line drawings and measures it before and after; or a CLIP or a diffusion model to pictures with captions.");
  Options o;
  PairTuneOptions p;
  DiffusionTuneOptions d;
  std::string parts;
  app.add_option("--model", o.model, "Folder of a CLIP (default: the one that ships), or a Stable Diffusion, folder or single file");
  app.add_option("--data", o.data, "Folder of the emoji set, or of pictures, captions in .txt files beside them or in metadata.jsonl")->capture_default_str();
  app.add_option("--method", o.method, "lora, dora, loha, lokr, ia3, adapter, prefix, intrinsic, bitfit or full")->capture_default_str()
      ->check(CLI::IsMember(clip_methods));
  app.add_option("--train", parts, "What of the model: diffusion unet, text or both (default: unet), CLIP on pictures with captions vision, text or both (default: both)")
      ->check(CLI::IsMember({"unet", "text", "vision", "both"}));
  app.add_option("--target", o.targets, "Layers to tune: a path, a suffix such as q_proj, or a glob (repeatable)");
  app.add_option("--rank", o.rank, "Rank of the LoRA (default: 3, diffusion 8)")->check(CLI::PositiveNumber);
  app.add_option("--alpha", o.alpha, "Alpha of the LoRA; the delta is scaled by alpha / rank (default: 6, diffusion 8)");
  app.add_option("--bottleneck", o.bottleneck, "Width of the adapter (default: 8, diffusion 16)")->check(CLI::PositiveNumber);
  app.add_option("--length", o.length, "Length of the prefix")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--dimension", o.dimension, "Numbers that intrinsic trains")->capture_default_str()->check(CLI::PositiveNumber);
  CLI::Option* steps = app.add_option("--steps", o.steps, "Training steps (default: 1500; CLIP on pictures with captions 300)")->check(CLI::PositiveNumber);
  app.add_option("--epochs", d.epochs, "Rounds over the pictures, in the place of --steps")->check(CLI::PositiveNumber)->excludes(steps);
  app.add_option("--repeats", d.repeats, "How often each picture comes in a round")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--trigger", d.trigger, "Words put before every caption");
  app.add_option("--batch", o.batch, "Pictures a step (default: 64; CLIP on pictures with captions 32; diffusion 24 for small pictures, else 1)")->check(CLI::Range(1, 4096));
  app.add_option("--lr", o.learning_rate, "Highest learning rate (default: by method and model)");
  app.add_option("--lr-schedule", d.schedule, "constant, linear or cosine, after the warm-up")->capture_default_str()->check(CLI::IsMember({"constant", "linear", "cosine"}));
  app.add_option("--warmup", d.warmup, "Steps in which the learning rate rises")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--dtype", d.dtype, "How the frozen weights are multiplied: f32, bf16 or int8")->capture_default_str()->check(CLI::IsMember({"f32", "bf16", "int8"}));
  app.add_option("--validation", d.validation, "Share of the pictures with captions that is held out, to measure on (default: CLIP 0.1, diffusion 0)")->check(CLI::Range(0.0, 0.5));
  app.add_option("--seed", o.seed, "First seed")->capture_default_str();
  app.add_option("--threads", o.threads, "Threads (0: all available)")->capture_default_str();
  app.add_flag("--resume", o.resume, "Go on with an interrupted run");
  app.add_option("--json", o.json, "File for the numbers");
  app.set_config("--config", "", "File of options, a line `name = value` for each; those of the command line come first");
  app.config_formatter(std::make_shared<OptionsFile>(app));
  app.add_option("--out", o.out, "CLIP: folder for the adapter, the sheet and the state of the run (default: line-art-METHOD, of pictures with captions tuned); diffusion: the adapter's file (default: STYLE.safetensors), or what bitfit and full make of the model, in its form");
  constexpr const char *clip = "CLIP", *diffusion = "Diffusion";
  app.add_option("--keep", o.keep, "Share of patches that patch dropout keeps")->capture_default_str()->check(CLI::Range(0.05, 1.0))->group(clip);
  app.add_flag("!--no-baselines", o.baselines, "Leave out the classifier trained from labels")->group(clip);
  app.add_flag("--development", o.development, "Hold out training characters instead: for choosing settings without looking at the test")->group(clip);
  app.add_option("--seeds", o.seeds, "Runs, with seeds s, s + 1, ...")->capture_default_str()->check(CLI::PositiveNumber)->group(clip);
  app.add_option("--micro-batch", p.micro_batch, "Less memory for a third more time: pictures with captions that go through the towers at a time, the gradient that of all of --batch (default: all)")
      ->check(CLI::PositiveNumber)->group(clip);
  app.add_flag("--from-scratch", p.from_scratch, "Pictures with captions: random weights in the shape of --model, for --method full")->group(clip);
  add_image_size(app, p.image_size)->group(clip);
  app.add_option("--shifted", p.shifted, "Measure there too: the held-out pictures with captions in grey, blur, noise or rotation, or a folder of others (repeatable)")->group(clip);
  app.add_option("--interpolate", p.interpolate, "Pictures with captions: also measure and write the weights between before (0) and after (1), such as 0.5 (repeatable)")
      ->check(CLI::Range(0.0, 1.0))->group(clip);
  app.add_option("--style", d.style, "Of the emoji: plain, line-art (Symbola's drawings) or neon")->capture_default_str()->check(CLI::IsMember(style_names))->group(diffusion);
  app.add_flag("--buckets", d.buckets, "Pictures keep their aspect ratio, within the area of --resolution; a batch has pictures of one size")->group(diffusion);
  app.add_flag("--shuffle-captions", d.shuffle_captions, "The parts of a caption between commas come in random order, the trigger first")->group(diffusion);
  app.add_option("--cache", d.cache, "File that keeps the pictures' latents from one run to the next")->group(diffusion);
  app.add_option("--class-data", d.class_data, "Folder of pictures with captions that the model should keep making (DreamBooth)")->group(diffusion);
  app.add_option("--prior-weight", d.prior_weight, "Weight of their loss")->capture_default_str()->check(CLI::NonNegativeNumber)->group(diffusion);
  app.add_option("--resolution", d.resolution, "Side of the pictures in pixels (default: what the model was trained on)")->check(CLI::PositiveNumber)->group(diffusion);
  app.add_option("--conv-rank", d.conv_rank, "Rank of a LoRA on the convolutions too (0: none)")->capture_default_str()->check(CLI::NonNegativeNumber)->group(diffusion);
  app.add_option("--conv-alpha", d.conv_alpha, "Its alpha (default: its rank)")->group(diffusion);
  app.add_option("--grad-accum", d.accumulate, "Batches to a step")->capture_default_str()->check(CLI::PositiveNumber)->group(diffusion);
  app.add_flag("--checkpointing", d.checkpointing, "Less memory for a third more time: backward computes the U-Net's layers again")->group(diffusion);
  app.add_flag("--narrow-saved", d.narrow_saved, "Less memory for less exact gradients: what backward needs is kept in bfloat16")->group(diffusion);
  app.add_option("--text-lr", d.text_learning_rate, "Highest learning rate of the text towers (default: as --lr)")->check(CLI::PositiveNumber)->group(diffusion);
  app.add_option("--min-snr", d.snr_gamma, "Gamma of the weights by signal and noise (0: none)")->capture_default_str()->check(CLI::NonNegativeNumber)->group(diffusion);
  app.add_option("--noise-offset", d.noise_offset, "Deviation of a shift of the noise")->capture_default_str()->check(CLI::NonNegativeNumber)->group(diffusion);
  app.add_option("--caption-dropout", d.caption_dropout, "Share of captions left out")->capture_default_str()->check(CLI::Range(0.0, 1.0))->group(diffusion);
  app.add_option("--prediction", d.prediction, "epsilon, v_prediction or sample (default: as the model's scheduler says)")->check(CLI::IsMember({"epsilon", "v_prediction", "sample"}))->group(diffusion);
  app.add_option("--format", d.format, "kohya, diffusers or peft")->capture_default_str()->check(CLI::IsMember({"kohya", "diffusers", "peft"}))->group(diffusion);
  app.add_option("--save-every", d.save_every, "Steps from one adapter to the next beside the last (0: none)")->capture_default_str()->check(CLI::NonNegativeNumber)->group(diffusion);
  app.add_option("--sample-every", d.sample_every, "Steps from one sheet of pictures to the next (0: at the end)")->capture_default_str()->check(CLI::NonNegativeNumber)->group(diffusion);
  app.add_option("--sample-prompts", d.prompts, "File of their prompts, one a line")->group(diffusion);
  app.add_option("--guidance", d.guidance, "Guidance of these pictures (default: 3 for the small model, else 7.5)")->group(diffusion);
  return run_program(app, argc, argv, [&] {
    const bool emoji = detail::exists(o.data + "/emoji.tsv");
    if (o.model.empty()) o.model = (emoji ? o.data : default_data()) + "/clip";
    const bool tunes_diffusion = is_diffusion(o.model);
    for (const CLI::Option* option : app.get_options())
      check(option->count() == 0 || option->get_group() != (tunes_diffusion ? clip : diffusion), "finetune", option->get_name(), " is of no use to ", o.model,
            tunes_diffusion ? ", a diffusion model" : ", a CLIP");
    const auto refuse = [&](std::initializer_list<const char*> names, const char* who) {
      for (const char* name : names) check(app.count(name) == 0, "finetune", name, " is of no use to ", o.model, who);
    };
    const char* known = tunes_diffusion ? "unet, text or both for a diffusion model" : emoji ? "vision for a CLIP on the emoji" : "vision, text or both for a CLIP";
    const bool fits = tunes_diffusion ? parts != "vision" : parts != "unet" && (!emoji || parts == "vision");
    check(parts.empty() || fits, "finetune", "--train: expected ", known, ", got ", parts);
    if (!tunes_diffusion && emoji) {
      refuse({"--trigger", "--epochs", "--repeats", "--lr-schedule", "--warmup", "--dtype", "--validation", "--micro-batch", "--from-scratch", "--image-size", "--shifted", "--interpolate"}, ", a CLIP on the emoji");
      if (o.out.empty()) o.out = "line-art-" + o.method;
      run(o);
      return;
    }
    if (!tunes_diffusion) {
      refuse({"--keep", "--no-baselines", "--development", "--seeds"}, ", a CLIP on pictures with captions");
      static_cast<ClipTuneOptions&>(p) = o;
      p.train = parts.empty() ? "both" : parts;
      if (app.count("--steps") == 0) p.steps = 300;
      if (app.count("--batch") == 0) p.batch = 32;
      if (app.count("--validation") > 0) p.validation = d.validation;
      p.model = o.model, p.data = o.data, p.out = o.out.empty() ? "tuned" : o.out, p.json = o.json, p.seed = o.seed, p.resume = o.resume;
      p.trigger = d.trigger, p.dtype = d.dtype, p.schedule = d.schedule, p.epochs = d.epochs, p.repeats = d.repeats, p.warmup = d.warmup;
      run(p, o.threads);
      return;
    }
    if (!parts.empty()) d.train = parts;
    const auto take = [&](const char* name, auto& to, const auto& from) {
      if (app.count(name) > 0) to = from;
    };
    take("--rank", d.rank, o.rank), take("--alpha", d.alpha, o.alpha), take("--bottleneck", d.bottleneck, o.bottleneck), take("--batch", d.batch, o.batch);
    d.model = o.model, d.data = o.data, d.method = o.method, d.targets = o.targets, d.length = o.length, d.dimension = o.dimension, d.steps = o.steps, d.learning_rate = o.learning_rate;
    d.seed = o.seed, d.resume = o.resume, d.json = o.json, d.out = o.out;
    run(d, o.threads);
  });
}
