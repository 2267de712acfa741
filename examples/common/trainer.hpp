#pragma once
// What pretraining and fine-tuning share: a run over batches of the emoji that can be put away and taken up with the same bits.
#include <tenon/io/state.hpp>
#include <tenon/optim/adamw.hpp>
#include <tenon/optim/ema.hpp>
#include <tenon/optim/schedule.hpp>

#include "pairs.hpp"

namespace tenon::examples {

/// Parameters, their optimizer and average, and the batches still to come. The generator is the caller's: models are drawn from it too.
class Trainer {
 public:
  AdamW<float> optimizer;
  Ema<float> average;
  Rounds rounds;

  Trainer(std::vector<ParamRef<float>> list, AdamWConfig config, double decay, std::vector<Index> ids)
      : optimizer(list, config), average(std::move(list), decay), rounds(std::move(ids)) {}

  /// Differentiates the loss, updates the parameters, lets `constrain` correct them, and averages. Returns the loss. A step that
  /// the optimizer's guard skips changes nothing.
  template <class F>
  double step(const Var<float>& loss, double rate_factor, F&& constrain) {
    const double value = static_cast<double>(loss.item());
    backward(loss);
    update(rate_factor, constrain);
    return value;
  }
  /// The same from gradients that are there already.
  template <class F>
  void update(double rate_factor, F&& constrain) {
    if (!optimizer.step(rate_factor).skipped) {
      constrain();
      average.update();
    }
    ++steps_;
  }
  Index steps() const { return steps_; }

  /// Runs `f` with the averaged weights in place.
  template <class F>
  void averaged(F&& f) {
    average.swap();
    f();
    average.swap();
  }

  void save(State& out, const Generator& generator) {
    for (const auto& ref : optimizer.params()) out.tensors["model." + ref.path] = raw_copy(ref.weight->value());
    for (const auto& [name, moment] : optimizer.state()) out.tensors["optimizer." + name] = raw_copy(moment);
    const auto& averages = average.averages();
    for (std::size_t i = 0; i < averages.size(); ++i)
      out.tensors["average." + average.params()[i].path] = raw_copy(averages[i]);
    out.tensors["order"] = raw_copy(Tensor<Index>(Shape{static_cast<Index>(rounds.order().size())}, rounds.order()));
    out.set("generator", generator);
    out.set("step", steps_);
    out.set("optimizer.steps", optimizer.steps());
    out.set("average.updates", average.updates());
  }
  /// Puts back what `save` gave. Throws FileError when the state lacks something.
  void restore(const State& state, Generator& generator) {
    for (const auto& ref : optimizer.params()) ref.weight->update([&](Tensor<float>& value) { value = saved<float>(state, "model." + ref.path); });
    std::map<std::string, Tensor<float>> moments;
    for (const auto& [name, moment] : optimizer.state()) moments.emplace(name, saved<float>(state, "optimizer." + name));
    optimizer.restore(moments, state.get<Index>("optimizer.steps"));
    std::vector<Tensor<float>> averages;
    for (const auto& ref : average.params()) averages.push_back(saved<float>(state, "average." + ref.path));
    average.restore(std::move(averages), state.get<Index>("average.updates"));
    const Tensor<Index> order = saved<Index>(state, "order");
    rounds.order().assign(order.begin(), order.end());
    state.get("generator", generator);
    steps_ = state.get<Index>("step");
  }

  template <class T>
  static Tensor<T> saved(const State& state, const std::string& name) {
    const auto at = state.tensors.find(name);
    check<FileError>(at != state.tensors.end(), "resume", "the saved state lacks ", name);
    return cast<T>(at->second);
  }

 private:
  Index steps_ = 0;
};

/// The state of an interrupted run, if one was saved. Throws FileError when it was started with other options.
inline std::optional<State> resumed(const std::string& folder, const std::string& options) {
  auto state = load_state(folder);
  if (!state) return state;
  const auto at = state->values.find("run");
  check<FileError>(at != state->values.end() && at->second == options, "resume", folder, ": expected a run with the options '", options,
                   "', found one with '", at == state->values.end() ? "" : at->second, "'; give the same ones, or leave out --resume");
  return state;
}

}  // namespace tenon::examples
