#pragma once
// Accuracy after tuning, over methods, sizes and seeds: one training, and what many have shown, as a file that a killed run goes on from.
#include <functional>
#include <iostream>
#include <map>

#include <nlohmann/json.hpp>

#include <tenon/io/json.hpp>

#include "tune_clip.hpp"

namespace tenon::examples {

/// Tunes the vision tower of a CLIP to a set's drawings; accuracy on those held out. `trained` receives how many numbers were trained,
/// `each` is told of each step.
inline Accuracy tuned_accuracy(const std::string& model, const ClipTuneOptions& o, const EmojiSet& set, const Tokenizer& tokenizer, std::uint64_t seed, Index& trained,
                               const std::function<void(Index)>& each) {
  Generator generator(seed);
  Clip<float> clip = load_clip<float>(model);
  const auto list = prepare(clip, o, generator);
  trained = count(list);
  Trainer trainer = trainer_on_drawings(list, set, o, learning_rate(o), o.weight_decay);
  trainer.optimizer.guard.report = [](const std::string& text) { std::cerr << text << '\n'; };
  const CaptionLoss loss(clip, tokenizer, set);
  while (trainer.steps() < o.steps) {
    drawing_step(trainer, clip.vision_model, set, o, generator, loss);
    each(trainer.steps());
  }
  trainer.average.swap();
  return evaluate(clip, tokenizer, set, set.line_art, set.split(true, true));
}

/// What a `Result` of each run is: Accuracy, or one number.
template <class Result>
struct TuningResults {
  std::string options;
  std::map<std::string, std::vector<Result>> runs;  // by label, one a seed
  std::map<std::string, Index> trained;

  /// Those of `file`, or none where there is no such file. Throws FileError when they are of other options.
  static TuningResults resumed(const std::string& file, const std::string& options) {
    if (!detail::exists(file)) return {options, {}, {}};
    auto before = nlohmann::json::parse(read_file(file, 64u << 20)).template get<TuningResults>();
    check<FileError>(before.options == options, "resume", file, ": expected a run with the options '", options, "', found one with '", before.options, "'");
    return before;
  }
  /// Of the first `seeds` runs.
  Spread<Result> spread(const std::string& label, Index seeds) const {
    const auto& all = runs.at(label);
    return Spread<Result>(std::vector<Result>(all.begin(), all.begin() + seeds));
  }
  /// Steps that are done already, of runs of `steps` each.
  Index steps_done(const std::string& label, Index seeds, Index steps) const {
    const auto at = runs.find(label);
    return at == runs.end() ? 0 : std::min(seeds, static_cast<Index>(at->second.size())) * steps;
  }

  friend void to_json(nlohmann::json& out, const TuningResults& r) { out = {{"options", r.options}, {"runs", r.runs}, {"trained", r.trained}}; }
  friend void from_json(const nlohmann::json& in, TuningResults& r) {
    in.at("options").get_to(r.options);
    in.at("runs").get_to(r.runs);
    in.at("trained").get_to(r.trained);
  }
};

}  // namespace tenon::examples
