#pragma once
// Tuning the towers of a CLIP by one of many methods, and its vision tower to drawings.
#include <tenon/clip.hpp>
#include <tenon/peft/bitfit.hpp>
#include <tenon/peft/intrinsic.hpp>

#include "baselines.hpp"
#include "evaluate.hpp"
#include "trainer.hpp"

namespace tenon::examples {

struct ClipTuneOptions {
  std::string method = "lora", train = "vision";  // train: vision, text or both
  std::vector<std::string> targets;
  Index rank = 3, bottleneck = 8, length = 8, dimension = 1000, steps = 1500, batch = 64;
  double alpha = 6, learning_rate = 0, weight_decay = 0.01, keep = 0.5, average = 0.99;
};

/// What `prepare` knows.
inline const std::vector<std::string> clip_methods{"lora", "dora", "loha", "lokr", "ia3", "adapter", "prefix", "intrinsic", "bitfit", "full"};

inline double learning_rate(const ClipTuneOptions& o) {
  if (o.learning_rate > 0) return o.learning_rate;
  return o.method == "full" ? 3e-4 : o.method == "intrinsic" ? 1e-2 : o.method == "prefix" ? 0.5 : 3e-3;
}

/// Attaches the method to the towers that are trained (or, for `full` and `bitfit`, unfreezes them or their biases) and returns the
/// parameters to train.
inline std::vector<ParamRef<float>> prepare(Clip<float>& clip, const ClipTuneOptions& o, Generator& generator) {
  std::vector<std::string> targets = o.targets;
  const bool vision = o.train != "text", text = o.train != "vision";
  const auto in_towers = [&](std::initializer_list<const char*> names) {
    std::vector<std::string> out;
    for (const std::string name : names) {
      if (vision) out.push_back("vision_model.*." + name);
      if (text && name != "patch_embedding") out.push_back("text_model.*." + name);
    }
    return out;
  };
  const auto by_default = [&](std::initializer_list<const char*> names) {
    if (targets.empty()) targets = in_towers(names);
  };
  const std::initializer_list<const char*> layers{"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "patch_embedding"};
  if (o.method == "full") {
    if (vision) unfreeze(clip.vision_model);
    if (text) unfreeze(clip.text_model);
  } else if (o.method == "bitfit") {
    freeze(clip);
    if (vision) train_biases(clip.vision_model);
    if (text) train_biases(clip.text_model);
  } else if (o.method == "intrinsic") {
    by_default(layers);
    attach(clip, IntrinsicConfig{.dimension = o.dimension, .seed = static_cast<std::uint64_t>(generator.integer(0, 1 << 30)), .targets = targets}, generator);
  } else if (o.method == "lora") {
    by_default(layers);
    attach(clip, LoraConfig{.rank = o.rank, .alpha = o.alpha, .targets = targets}, generator);
  } else if (o.method == "dora") {
    by_default(layers);
    attach(clip, DoraConfig{.rank = o.rank, .alpha = o.alpha, .targets = targets}, generator);
  } else if (o.method == "loha") {
    by_default(layers);
    attach(clip, LohaConfig{.rank = o.rank, .alpha = o.alpha, .targets = targets}, generator);
  } else if (o.method == "lokr") {
    by_default(layers);
    attach(clip, LokrConfig{.rank = o.rank, .alpha = o.alpha, .targets = targets}, generator);
  } else if (o.method == "ia3") {
    by_default({"k_proj", "v_proj", "fc2"});
    attach(clip, Ia3Config{.targets = targets, .feedforward = in_towers({"fc2"})}, generator);
  } else if (o.method == "adapter") {
    by_default({"mlp", "self_attn"});
    attach(clip, BottleneckConfig{.bottleneck = o.bottleneck, .targets = targets}, generator);
  } else {
    by_default({"self_attn"});
    attach(clip, PrefixConfig{.length = o.length, .targets = targets}, generator);
  }
  return trainable(clip);
}

/// CLIP's own captions as a classifier (as 2109.01903 tunes its zero-shot head): a drawing is drawn to the directions of its group,
/// its subgroup and its name among those of all groups, all subgroups and all training characters.
class CaptionLoss {
 public:
  CaptionLoss(const Clip<float>& clip, const Tokenizer& tokenizer, const EmojiSet& set)
      : clip_(clip), set_(set), name_of_row_(set.rows.size(), 0) {
    const Labels labels(clip, tokenizer, set);
    std::vector<std::string> names;
    for (Index id : set.split(false, true)) {
      name_of_row_[static_cast<std::size_t>(id)] = static_cast<std::int32_t>(names.size());
      names.push_back(in_words(set.rows[static_cast<std::size_t>(id)].name));
    }
    groups_ = Var<float>(labels.groups), subgroups_ = Var<float>(labels.subgroups);
    names_ = Var<float>(zero_shot_directions(clip, tokenizer, names, set.label_templates("name")));
  }

  Var<float> operator()(const Var<float>& pooled, const std::vector<Index>& ids) const {
    const Targets targets(set_, ids);
    auto own = Tensor<std::int32_t>::uninitialized({static_cast<Index>(ids.size())});
    for (std::size_t i = 0; i < ids.size(); ++i) own(i) = name_of_row_[static_cast<std::size_t>(ids[i])];
    // Half the scale that the model learnt: it is sure of itself where it has never been, and the loss would be nothing but that.
    const Var<float> images = l2_normalize(clip_.visual_projection(pooled)) * 15.0f;
    return cross_entropy(matmul(images, groups_, {.transpose_b = true}), targets.groups) +
           cross_entropy(matmul(images, subgroups_, {.transpose_b = true}), targets.subgroups) +
           cross_entropy(matmul(images, names_, {.transpose_b = true}), own);
  }

 private:
  const Clip<float>& clip_;
  const EmojiSet& set_;
  std::vector<std::int32_t> name_of_row_;
  Var<float> groups_, subgroups_, names_;
};

/// A trainer of these parameters on the drawings of the training characters.
inline Trainer trainer_on_drawings(std::vector<ParamRef<float>> list, const EmojiSet& set, const ClipTuneOptions& o, double rate, double weight_decay) {
  return Trainer(std::move(list), {.learning_rate = rate, .beta2 = 0.98, .eps = 1e-6, .weight_decay = weight_decay, .decay_vectors = false, .clip_norm = 1.0}, o.average,
                 set.split(false, true));
}

/// One step of it: `loss_of(pooled, ids)` of a batch of augmented drawings, patches dropped but for the last tenth of the steps, along
/// a cosine. Returns the loss.
template <class Loss>
double drawing_step(Trainer& trainer, const ClipVision<float>& tower, const EmojiSet& set, const ClipTuneOptions& o, Generator& generator, Loss&& loss_of) {
  const Schedule schedule{Schedule::Kind::cosine, o.steps / 10, o.steps, 0.0};
  std::vector<Index> ids;
  while (static_cast<Index>(ids.size()) < o.batch) ids.push_back(trainer.rounds.next(generator));
  Tensor<float> pictures = augment(pick(set.line_art, ids), {.ink = 0, .hue = 0}, generator);
  normalise(pictures);
  const double keep = 10 * trainer.steps() < 9 * o.steps ? o.keep : 1.0;
  const Var<float> loss = loss_of(training_features(tower, Var<float>(std::move(pictures)), keep, generator), ids);
  return trainer.step(loss, schedule(trainer.steps()), [] {});
}

}  // namespace tenon::examples
