#pragma once
// finetune on a CLIP and pictures with captions: its towers learn by CLIP's own loss which caption belongs to which picture, measured
// by retrieval on pictures that are held out, as they are and shifted.
#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>
#include <numeric>
#include <utility>

#include <nlohmann/json.hpp>

#include <tenon/models/clip/gradient_cache.hpp>
#include <tenon/models/clip/interpolate.hpp>
#include <tenon/models/clip/pipeline.hpp>

#include "captioned_files.hpp"
#include "plot.hpp"
#include "program.hpp"
#include "clip_options.hpp"
#include "progress.hpp"
#include "retrieval.hpp"
#include "shifts.hpp"
#include "table.hpp"
#include "tune_clip.hpp"

namespace tenon::examples {

struct PairTuneOptions : ClipTuneOptions {
  std::string model, data, trigger, schedule = "cosine", dtype = "f32", image_size, out, json;
  std::vector<std::string> shifted;  // names of shifts and folders
  std::vector<double> interpolate;
  Index epochs = 0, repeats = 1, warmup = 50, micro_batch = 0;  // micro_batch 0: the whole batch
  double validation = 0.1;
  std::uint64_t seed = 0;
  bool from_scratch = false, resume = false;

  bool whole() const { return method == "full" || method == "bitfit"; }
  /// Throws Error on options that do not fit together.
  void check_together() const {
    check(!whole() || targets.empty(), "finetune", "--target is of no use to ", method);
    check(!whole() || dtype == "f32", "finetune", "--dtype: ", method, " trains the weights themselves, in float32; got ", dtype);
    check(!from_scratch || (method == "full" && train == "both"), "finetune", "--from-scratch: expected --method full of both towers, got --method ", method, " --train ", train);
    if (interpolate.empty()) return;
    const bool merges = whole() || method == "lora" || method == "dora" || method == "loha" || method == "lokr" || method == "ia3";
    check(merges && dtype == "f32", "finetune", "--interpolate: expected a method whose outcome are weights, in float32, got ", method, " on ", dtype);
    check(!from_scratch, "finetune", "--interpolate: with --from-scratch there is no model before");
  }
};

class PairTuning {
 public:
  explicit PairTuning(const PairTuneOptions& options)
      : o_(options), pipe_(load_model(o_)), data_(o_.data, o_.trigger, pipe_.processor), generator_(o_.seed) {
    check(!pipe_.model.visual || (o_.train == "text" && !o_.whole() && o_.interpolate.empty()), "finetune", o_.model,
          " has a ResNet, which is for inference only: expected --train text and an adapter, without --interpolate");
    std::error_code ignored;
    check(!std::filesystem::equivalent(o_.out, o_.model, ignored), "finetune", "--out: expected another folder than the model's, got ", o_.out);
    split();
    o_.batch = std::min(o_.batch, static_cast<Index>(learnt_.size()));
    check(o_.batch >= 2, "finetune", "--batch: expected at least 2 pictures to tell apart, got ", o_.batch);
    const auto in_round = static_cast<Index>(learnt_.size()) * o_.repeats;
    if (o_.epochs > 0) o_.steps = o_.epochs * ((in_round + o_.batch - 1) / o_.batch);
    if (o_.learning_rate == 0) {
      const bool ships = std::filesystem::equivalent(o_.model, default_data() + "/clip", ignored);
      o_.learning_rate = o_.from_scratch ? 5e-4 : learning_rate(o_) * (ships ? 1 : 0.1);
    }
    tests_.push_back({"", &data_, held_out_});
    for (const auto& name : o_.shifted) {
      if (std::find(shift_names.begin(), shift_names.end(), name) != shift_names.end()) {
        tests_.push_back({name, &data_, held_out_});
        continue;
      }
      check<FileError>(std::filesystem::is_directory(name), "finetune", "--shifted: expected grey, blur, noise, rotation or a folder of pictures with captions, got ", name);
      folders_.push_back(std::make_unique<CaptionedFiles>(name, o_.trigger, pipe_.processor));
      std::vector<Index> all(static_cast<std::size_t>(folders_.back()->size()));
      std::iota(all.begin(), all.end(), Index{0});
      tests_.push_back({name, folders_.back().get(), std::move(all)});
    }
    if (o_.from_scratch) pipe_.model = Clip<float>(pipe_.model.config, generator_);
    std::filesystem::create_directories(o_.out);
  }

  void run() {
    std::vector<Measured> rows{{"before", measure()}};
    const auto list = parameters();
    const Index trained = count(list), total = count(params(pipe_.model));
    std::vector<Index> ids;
    for (const Index i : learnt_) ids.insert(ids.end(), static_cast<std::size_t>(o_.repeats), i);
    Trainer trainer(list, {.learning_rate = o_.learning_rate, .beta2 = 0.98, .eps = 1e-6, .weight_decay = o_.weight_decay, .decay_vectors = false, .clip_norm = 1.0}, o_.average,
                    std::move(ids));
    if (o_.resume) resume(trainer);
    std::cerr << learnt_.size() << " pictures to learn from, " << held_out_.size() << " held out; " << trained << " parameters are trained, the model has " << total << '\n';
    train(trainer);
    trainer.average.swap();
    Measured after{"after", measure()};
    save_result();
    save_png(plot({.title = "finetune", .x = "step", .y = "loss"}, {{"loss, mean of 50 steps", smooth(losses_, 50)}}), o_.out + "/loss.png");
    if (!o_.interpolate.empty()) interpolated(rows);
    rows.push_back(std::move(after));
    rows.push_back({"chance", {}});
    for (const Test& test : tests_) rows.back().of_tests.push_back(retrieval_by_chance(test.files->fits(test.ids, test.files->first_captions(test.ids))));
    std::vector<std::string> heading{"", "loss", "text of a picture, top-1", "top-5", "picture of a text, top-1", "top-5"};
    for (std::size_t i = 1; i < tests_.size(); ++i) heading.push_back(tests_[i].name + ": text, top-1");
    Table table(heading);
    for (const Measured& row : rows) {
      auto cells = row.of_tests.front().row(row.name, row.name != "chance");
      for (std::size_t i = 1; i < tests_.size(); ++i) cells.push_back(fixed(100 * row.of_tests[i].picture_to_text_1, 1));
      table.add(cells);
    }
    std::cout << "Held-out pictures and captions that find each other, in %, among " << held_out_.size() << "; after " << o_.steps << " steps of " << o_.method << " ("
              << fixed(seconds_, 0) << " s):\n\n" << table.text() << "\nWrote " << o_.out << " and " << o_.out << "/loss.png.\n";
    if (o_.json.empty()) return;
    nlohmann::json out{{"adapter_parameters", trained}, {"model_parameters", total}, {"pictures", learnt_.size()}, {"held_out", held_out_.size()}, {"method", o_.method},
                       {"train", o_.train}, {"steps", o_.steps}, {"seconds", seconds_}, {"losses", losses_}};
    for (const Measured& row : rows)
      for (std::size_t i = 0; i < tests_.size(); ++i) {
        auto& to = i == 0 ? out[row.name] : out["shifted"][tests_[i].name][row.name];
        to = row.of_tests[i];
        if (row.name == "chance") to.erase("loss");
      }
    save_json(o_.json, out);
  }

 private:
  /// Pictures with captions to measure on, under a shift where `name` is one's.
  struct Test {
    std::string name;
    const CaptionedFiles* files;
    std::vector<Index> ids;
  };
  /// A row of the table: a model on each of `tests_`.
  struct Measured {
    std::string name;
    std::vector<Retrieval> of_tests;
  };

  static std::optional<DType> weights_as(const std::string& dtype) {
    return dtype == "f32" ? std::nullopt : std::optional(dtype == "bf16" ? DType::bf16 : DType::i8);
  }

  /// What is trained; `full` has the projections of the trained towers and the temperature too.
  std::vector<ParamRef<float>> parameters() {
    Clip<float>& clip = pipe_.model;
    prepare(clip, o_, generator_);
    if (o_.method == "full") {
      if (o_.train != "text") unfreeze(clip.visual_projection);
      if (o_.train != "vision") unfreeze(clip.text_projection);
      clip.logit_scale->set_trainable(true);
    }
    return trainable(clip);
  }

  /// Which pictures are held out.
  void split() {
    const Index n = data_.size();
    Generator generator(o_.seed);
    const auto order = permutation(n, generator);
    const auto held = std::clamp<Index>(std::llround(o_.validation * static_cast<double>(n)), 1, n / 2);
    held_out_.assign(order.begin(), order.begin() + held);
    learnt_.assign(order.begin() + held, order.end());
  }

  /// CLIP's loss of features [N, E] of length 1, a caption that is true of another picture too left out of that picture's softmax (see pair_loss).
  Var<float> loss_of(const Var<float>& images, const Var<float>& texts, Tensor<bool> also_true) const {
    for (Index i = 0; i < also_true.extent(0); ++i) also_true(i, i) = false;
    const Var<float> logits = matmul(images, texts, {.transpose_b = true}) * exp(pipe_.model.logit_scale->var());
    return contrastive_loss(ClipOutput<float>{images, texts, where(also_true, Var<float>(Tensor<float>::scalar(-1e4f)), logits)});
  }

  /// Of the pictures of each test, each with its first caption.
  std::vector<Retrieval> measure() const {
    const NoGrad no_grad;
    Index pictures = 0;
    for (const Test& test : tests_) pictures += static_cast<Index>(test.ids.size());
    LateProgress progress("measuring", pictures);
    std::vector<Retrieval> out;
    for (const Test& test : tests_) {
      Generator generator(o_.seed);
      const auto captions = test.files->first_captions(test.ids);
      std::vector<Var<float>> parts;
      CaptionedFiles::for_each_part(test.ids, [&](std::span<const Index> ids) {
        Tensor<float> values = test.files->values(ids);
        if (test.files == &data_ && !test.name.empty()) values = shifted_values(std::move(values), test.name, generator);
        parts.push_back(l2_normalize(pipe_.model.image_features(Var<float>(std::move(values)))));
        progress.add(static_cast<Index>(ids.size()));
      });
      const Var<float> images = concat(parts, 0), texts(pipe_.embed_texts(captions));
      const Tensor<bool> right = test.files->fits(test.ids, captions);
      out.push_back(retrieval(matmul(images, texts, {.transpose_b = true}).value(), right));
      out.back().loss = static_cast<double>(loss_of(images, texts, right).item());
    }
    return out;
  }
  /// Normalised pictures under a shift.
  Tensor<float> shifted_values(Tensor<float> values, const std::string& name, Generator& generator) const {
    const auto& p = pipe_.processor;
    for (Index i = 0; i < values.size(); ++i) values.data()[i] = values.data()[i] * p.std[static_cast<std::size_t>(i % 3)] + p.mean[static_cast<std::size_t>(i % 3)];
    values = shifted(values, name, generator);
    for (Index i = 0; i < values.size(); ++i) values.data()[i] = (values.data()[i] - p.mean[static_cast<std::size_t>(i % 3)]) / p.std[static_cast<std::size_t>(i % 3)];
    return values;
  }

  /// Rows of the weights between the model before and after (WiSE-FT), each written to `alpha-A`.
  void interpolated(std::vector<Measured>& rows) {
    PairTuneOptions plain = o_;
    plain.dtype = "f32";
    Clip<float> before = load_model(plain).model;
    if (!o_.whole()) merge(pipe_.model);
    Clip<float> after = std::exchange(pipe_.model, load_model(plain).model);
    for (const double alpha : o_.interpolate) {
      interpolate(before, after, alpha, pipe_.model);
      const std::string name = "alpha-" + nlohmann::json(alpha).dump();  // the shortest that reads as alpha
      rows.push_back({name, measure()});
      save_model(o_.out + '/' + name);
    }
  }

  void train(Trainer& trainer) {
    const Schedule schedule{schedule_from_name(o_.schedule), std::min(o_.warmup, o_.steps / 2), o_.steps, 0.0};
    Progress progress(o_.method, o_.steps, trainer.steps());
    trainer.optimizer.guard.report = [&](const std::string& text) { progress.note(text); };
    auto start = std::chrono::steady_clock::now();
    while (trainer.steps() < o_.steps) {
      std::vector<Index> ids;
      std::vector<std::string> captions;
      for (Index i = 0; i < o_.batch; ++i) {
        ids.push_back(trainer.rounds.next(generator_));
        captions.push_back(data_.caption(ids.back(), generator_));
      }
      const Tensor<float> pictures = data_.values(ids);
      const Tensor<bool> also_true = data_.fits(ids, captions);
      const auto of_pictures = [&](Index begin, Index end) { return copy(pictures.view().sliced(0, begin, end)); };
      const auto of_texts = [&](Index begin, Index end) {
        return tokenize(pipe_.model, pipe_.tokenizer(), std::span(captions).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
      };
      losses_.push_back(static_cast<double>(contrastive_backward(pipe_.model, o_.batch, o_.micro_batch > 0 ? o_.micro_batch : o_.batch, of_pictures, of_texts,
                                                                 [&](const Var<float>& images, const Var<float>& texts) { return loss_of(images, texts, also_true); })));
      trainer.update(schedule(trainer.steps()), [&] {
        if (pipe_.model.logit_scale->trainable()) pipe_.model.clamp_logit_scale();
      });
      progress.update(trainer.steps(), "loss " + fixed(losses_.back(), 3));
      const auto now = std::chrono::steady_clock::now();
      if (trainer.steps() % std::max<Index>(1, o_.steps / 10) != 0 && trainer.steps() != o_.steps && now - start < std::chrono::minutes(5)) continue;
      seconds_ += std::chrono::duration<double>(now - start).count();
      start = now;
      keep(trainer);
    }
  }

  static ClipPipeline<float> load_model(const PairTuneOptions& o) {
    auto out = ClipPipeline<float>::load(o.model, {.weights = weights_as(o.dtype)});
    if (!o.image_size.empty()) apply_image_size(out, o.model, o.image_size);
    return out;
  }

  /// The adapter, or the model with its tokenizer and how its pictures are prepared.
  void save_result() {
    if (o_.method == "intrinsic") {
      save_intrinsic(pipe_.model, o_.out + "/intrinsic.safetensors");
    } else if (o_.whole()) {
      save_model(o_.out);
    } else {
      save_adapter(pipe_.model, o_.out, "default", DType::f16);
    }
  }
  void save_model(const std::string& folder) {
    const auto& p = pipe_.processor;
    save_clip(pipe_.model, folder);
    save_tokenizer(folder, pipe_.tokenizer());
    const auto size = [](Index height, Index width) { return nlohmann::json{{"height", height}, {"width", width}}; };
    nlohmann::json json = {{"do_resize", p.resize}, {"resample", 3}, {"crop_size", size(p.crop_height, p.crop_width)}, {"rescale_factor", p.rescale_factor},
                           {"image_mean", p.mean}, {"image_std", p.std}};
    if (p.exact_height > 0)
      json["size"] = size(p.exact_height, p.exact_width);
    else if (!p.cover)  // which has no name there: without a size it is read back so
      json["size"] = {{"shortest_edge", p.shortest_edge}};
    save_json(folder + "/preprocessor_config.json", json);
  }

  void keep(Trainer& trainer) {
    State out;
    trainer.save(out, generator_);
    out.tensors["losses"] = raw_copy(Tensor<double>(Shape{static_cast<Index>(losses_.size())}, losses_));
    out.set("seconds", seconds_);
    out.values["run"] = name();
    save_state(o_.out + "/state", out);
  }
  void resume(Trainer& trainer) {
    const auto state = resumed(o_.out + "/state", name());
    if (!state) return;
    trainer.restore(*state, generator_);
    const Tensor<double> losses = Trainer::saved<double>(*state, "losses");
    losses_.assign(losses.begin(), losses.end());
    seconds_ = state->get<double>("seconds");
    std::cerr << "resumed at step " << trainer.steps() << " of " << o_.steps << '\n';
  }
  /// All options that change what a run computes.
  std::string name() const {
    std::string targets;
    for (const auto& target : o_.targets) targets += " target " + target;
    return join_text("model ", o_.model, " data ", o_.data, " pictures ", data_.size(), " trigger ", o_.trigger, " validation ", o_.validation, " method ", o_.method, " train ",
                     o_.train, targets, " rank ", o_.rank, " alpha ", o_.alpha, " bottleneck ", o_.bottleneck, " length ", o_.length, " dimension ", o_.dimension, " steps ", o_.steps,
                     " repeats ", o_.repeats, " batch ", o_.batch, " lr ", o_.learning_rate, " warmup ", o_.warmup, o_.image_size.empty() ? "" : " image-size " + o_.image_size, " schedule ", o_.schedule, " dtype ", o_.dtype,
                     o_.micro_batch > 0 ? join_text(" micro-batch ", o_.micro_batch) : std::string(), o_.from_scratch ? " from scratch" : "", " seed ", o_.seed);
  }

  PairTuneOptions o_;
  ClipPipeline<float> pipe_;
  CaptionedFiles data_;
  std::vector<std::unique_ptr<CaptionedFiles>> folders_;
  std::vector<Test> tests_;  // the first is of the held-out pictures as they are
  Generator generator_;
  std::vector<Index> held_out_, learnt_;
  std::vector<double> losses_;
  double seconds_ = 0;  // of training
};

}  // namespace tenon::examples
