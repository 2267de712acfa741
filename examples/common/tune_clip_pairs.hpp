#pragma once
// finetune on a CLIP and pictures with captions: its towers learn by CLIP's own loss which caption belongs to which picture, measured
// by retrieval on pictures that are held out.
#include <cmath>
#include <filesystem>
#include <iostream>

#include <nlohmann/json.hpp>

#include <tenon/models/clip/pipeline.hpp>

#include "captioned_files.hpp"
#include "plot.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "retrieval.hpp"
#include "table.hpp"
#include "tune_clip.hpp"

namespace tenon::examples {

struct PairTuneOptions : ClipTuneOptions {
  std::string model, data, trigger, schedule = "cosine", out, json;
  Index epochs = 0, repeats = 1, warmup = 50;
  double validation = 0.1;
  std::uint64_t seed = 0;
  bool resume = false;
};

class PairTuning {
 public:
  explicit PairTuning(PairTuneOptions options) : o_(std::move(options)), pipe_(ClipPipeline<float>::load(o_.model)), data_(o_.data, o_.trigger, pipe_.processor), generator_(o_.seed) {
    const bool whole = o_.method == "full" || o_.method == "bitfit";
    check(!pipe_.model.visual || (o_.train == "text" && !whole), "finetune", o_.model, " has a ResNet, which is for inference only: expected --train text and an adapter");
    check(!whole || o_.targets.empty(), "finetune", "--target is of no use to ", o_.method);
    std::error_code ignored;
    check(!std::filesystem::equivalent(o_.out, o_.model, ignored), "finetune", "--out: expected another folder than the model's, got ", o_.out);
    split();
    o_.batch = std::min(o_.batch, static_cast<Index>(learnt_.size()));
    check(o_.batch >= 2, "finetune", "--batch: expected at least 2 pictures to tell apart, got ", o_.batch);
    const auto in_round = static_cast<Index>(learnt_.size()) * o_.repeats;
    if (o_.epochs > 0) o_.steps = o_.epochs * ((in_round + o_.batch - 1) / o_.batch);
    if (o_.learning_rate == 0) {
      const bool ships = std::filesystem::equivalent(o_.model, default_data() + "/clip", ignored);
      o_.learning_rate = learning_rate(o_) * (ships ? 1 : 0.1);
    }
    std::filesystem::create_directories(o_.out);
  }

  void run() {
    const Retrieval before = measure(), chance = retrieval_by_chance(data_.fits(held_out_, data_.first_captions(held_out_)));
    const auto list = prepare(pipe_.model, o_, generator_);
    const Index trained = count(list), total = count(params(pipe_.model));
    std::vector<Index> ids;
    for (const Index i : learnt_) ids.insert(ids.end(), static_cast<std::size_t>(o_.repeats), i);
    Trainer trainer(list, {.learning_rate = o_.learning_rate, .beta2 = 0.98, .eps = 1e-6, .weight_decay = o_.weight_decay, .decay_vectors = false, .clip_norm = 1.0}, o_.average,
                    std::move(ids));
    if (o_.resume) resume(trainer);
    std::cerr << learnt_.size() << " pictures to learn from, " << held_out_.size() << " held out; " << trained << " parameters are trained, the model has " << total << '\n';
    train(trainer);
    trainer.average.swap();
    const Retrieval after = measure();
    save_result();
    save_png(plot({.title = "finetune", .x = "step", .y = "loss"}, {{"loss, mean of 50 steps", smooth(losses_, 50)}}), o_.out + "/loss.png");
    Table table({"", "loss", "text of a picture, top-1", "top-5", "picture of a text, top-1", "top-5"});
    table.add(before.row("before"));
    table.add(after.row("after"));
    table.add(chance.row("chance", false));
    std::cout << "Held-out pictures and captions that find each other, in %, among " << held_out_.size() << "; after " << o_.steps << " steps of " << o_.method << " ("
              << fixed(seconds_, 0) << " s):\n\n" << table.text() << "\nWrote " << o_.out << " and " << o_.out << "/loss.png.\n";
    if (o_.json.empty()) return;
    nlohmann::json by_chance = chance;
    by_chance.erase("loss");
    save_json(o_.json, {{"before", before}, {"after", after}, {"chance", by_chance}, {"adapter_parameters", trained}, {"model_parameters", total}, {"pictures", learnt_.size()},
                        {"held_out", held_out_.size()}, {"method", o_.method}, {"train", o_.train}, {"steps", o_.steps}, {"seconds", seconds_}, {"losses", losses_}});
  }

 private:
  /// Which pictures are held out.
  void split() {
    const Index n = data_.size();
    Generator generator(o_.seed);
    const auto order = permutation(n, generator);
    const auto held = std::clamp<Index>(std::llround(o_.validation * static_cast<double>(n)), 1, n / 2);
    held_out_.assign(order.begin(), order.begin() + held);
    learnt_.assign(order.begin() + held, order.end());
  }

  /// CLIP's loss of features [N, E], a caption that is true of another picture too left out of that picture's softmax (see pair_loss).
  Var<float> loss_of(const Var<float>& image_features, const Var<float>& text_features, Tensor<bool> also_true) const {
    for (Index i = 0; i < also_true.extent(0); ++i) also_true(i, i) = false;
    const Var<float> images = l2_normalize(image_features), texts = l2_normalize(text_features);
    const Var<float> logits = matmul(images, texts, {.transpose_b = true}) * exp(pipe_.model.logit_scale->var());
    return contrastive_loss(ClipOutput<float>{images, texts, where(also_true, Var<float>(Tensor<float>::scalar(-1e4f)), logits)});
  }

  /// Of the held-out pictures, each with its first caption.
  Retrieval measure() const {
    const NoGrad no_grad;
    const auto captions = data_.first_captions(held_out_);
    std::vector<Var<float>> parts;
    CaptionedFiles::for_each_part(held_out_, [&](std::span<const Index> ids) { parts.push_back(l2_normalize(pipe_.model.image_features(Var<float>(data_.values(ids))))); });
    const Var<float> images = concat(parts, 0), texts(pipe_.embed_texts(captions));
    const Tensor<bool> right = data_.fits(held_out_, captions);
    Retrieval out = retrieval(matmul(images, texts, {.transpose_b = true}).value(), right);
    out.loss = static_cast<double>(loss_of(images, texts, right).item());
    return out;
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
      const Var<float> images = pipe_.model.image_features(Var<float>(data_.values(ids))), texts = pipe_.model.text_features(tokenize(pipe_.model, pipe_.tokenizer(), captions));
      losses_.push_back(trainer.step(loss_of(images, texts, data_.fits(ids, captions)), schedule(trainer.steps()), [] {}));
      progress.update(trainer.steps(), "loss " + fixed(losses_.back(), 3));
      if (trainer.steps() % std::max<Index>(1, o_.steps / 10) != 0 && trainer.steps() != o_.steps) continue;
      const auto now = std::chrono::steady_clock::now();
      seconds_ += std::chrono::duration<double>(now - start).count();
      start = now;
      keep(trainer);
    }
  }

  /// The adapter, or the model with its tokenizer and how its pictures are prepared.
  void save_result() {
    if (o_.method == "intrinsic") {
      save_intrinsic(pipe_.model, o_.out + "/intrinsic.safetensors");
    } else if (o_.method == "full" || o_.method == "bitfit") {
      const auto& p = pipe_.processor;
      save_clip(pipe_.model, o_.out);
      save_tokenizer(o_.out, pipe_.tokenizer());
      const auto size = [](Index height, Index width) { return nlohmann::json{{"height", height}, {"width", width}}; };
      save_json(o_.out + "/preprocessor_config.json",
                {{"do_resize", p.resize}, {"size", p.exact_height > 0 ? size(p.exact_height, p.exact_width) : nlohmann::json{{"shortest_edge", p.shortest_edge}}}, {"resample", 3},
                 {"crop_size", size(p.crop_height, p.crop_width)}, {"rescale_factor", p.rescale_factor}, {"image_mean", p.mean}, {"image_std", p.std}});
    } else {
      save_adapter(pipe_.model, o_.out, "default", DType::f16);
    }
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
                     " repeats ", o_.repeats, " batch ", o_.batch, " lr ", o_.learning_rate, " warmup ", o_.warmup, " schedule ", o_.schedule, " seed ", o_.seed);
  }

  PairTuneOptions o_;
  ClipPipeline<float> pipe_;
  CaptionedFiles data_;
  Generator generator_;
  std::vector<Index> held_out_, learnt_;
  std::vector<double> losses_;
  double seconds_ = 0;  // of training
};

}  // namespace tenon::examples
