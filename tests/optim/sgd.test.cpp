#include <tenon/autograd/backward.hpp>
#include <tenon/io/state.hpp>
#include <tenon/nn/linear.hpp>
#include <tenon/optim/sgd.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"
#include "group.hpp"

using namespace tenon;
using golden::error, golden::numbers;

TEST_CASE("Sgd by hand") {
  Group<double> group;
  group.add("a", Tensor<double>({1}, {10}));
  Sgd<double> plain(group.list, {.learning_rate = 0.5, .weight_decay = 0.1});
  group.give(0, Tensor<double>({1}, {2}));
  plain.step();  // 10 - 0.5 (2 + 0.1 * 10)
  CHECK(group.weights[0]->value().item() == Approx(8.5));
  Sgd<double> nesterov(group.list, {.learning_rate = 0.1, .momentum = 0.5, .nesterov = true});
  for (double g : {4.0, 2.0}) {
    group.give(0, Tensor<double>({1}, {g}));
    nesterov.step();
  }  // v = 4, d = 6; v = 4, d = 4
  CHECK(group.weights[0]->value().item() == Approx(8.5 - 0.6 - 0.4));
  CHECK(nesterov.state().at("a.velocity").item() == Approx(4));
  CHECK(plain.state().empty());
}

TEMPLATE_TEST_CASE("Sgd takes torch's steps", "", float, double) {
  using T = TestType;
  const auto given = SafetensorsFile::open(golden::path("adamw.safetensors")), file = SafetensorsFile::open(golden::path("sgd.safetensors"));
  const std::string name = GENERATE("plain", "decay", "momentum", "nesterov", "clip", "rest");
  INFO(name);
  const std::vector<std::string> keys{"matrix", "vector", "scalar"};
  Group<T> group;
  for (const auto& key : keys) group.add(key, given.load<T>("start." + key));
  Sgd<T> optimizer(group.list, {.learning_rate = 0.02,
                                .momentum = name == "plain" || name == "decay" ? 0 : 0.8,
                                .nesterov = name == "nesterov" || name == "rest",
                                .weight_decay = name == "decay" || name == "momentum" || name == "nesterov" ? 0.3 : 0,
                                .clip_norm = name == "clip" ? 1.5 : 0});
  double worst = 0;
  for (int step = 0; step < 6; ++step) {
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (!(name == "rest" && i == 1 && step < 2)) group.give(i, given.load<T>(join_text("grad.", step, '.', keys[i])));
    CHECK(!optimizer.step(name == "clip" ? 1.0 / (step + 1) : 1.0).skipped);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      worst = std::max(worst, error(group.weights[i]->value(), file.load<double>(join_text(name, '.', step, '.', keys[i]))));
      CHECK(!group.weights[i]->var().has_grad());
    }
  }
  CHECK(optimizer.steps() == 6);
  CHECK(worst < (std::same_as<T, float> ? 1e-6 : 1e-13));
}

TEST_CASE("Sgd resumed gives the same bits") {
  Scratch scratch("resume-sgd");
  const SgdConfig config{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01};
  const auto train = [](Linear<float>& layer, Sgd<float>& optimizer, Generator& generator) {
    for (int i = 0; i < 3; ++i) {
      const auto y = layer(Var<float>(numbers<float>({4, 6}, generator)));
      backward(y, y.value());
      optimizer.step(0.5);
    }
  };
  Generator generator(9);
  Linear<float> layer(6, 3, generator), again(6, 3, generator);
  Sgd<float> optimizer(params(layer), config);
  train(layer, optimizer, generator);
  copy_params(layer, again);
  State state;
  for (const auto& [name, velocity] : optimizer.state()) state.tensors[name] = raw_copy(velocity);
  state.set("generator", generator);
  save_state(scratch / "run", state);
  train(layer, optimizer, generator);

  const auto saved = load_state(scratch / "run");
  Sgd<float> resumed(params(again), config);
  std::map<std::string, Tensor<float>> velocities;
  for (const auto& [name, tensor] : saved->tensors)
    if (name != "generator") velocities.emplace(name, cast<float>(tensor));
  resumed.restore(velocities, 3);
  Generator continued;
  saved->get("generator", continued);
  train(again, resumed, continued);
  CHECK(again.weight->value() == layer.weight->value());
  CHECK(again.bias->value() == layer.bias->value());
  CHECK(resumed.steps() == optimizer.steps());
  velocities.erase("bias.velocity");
  REQUIRE_THROWS_WITH(resumed.restore(velocities, 3), contains("[Sgd]") && contains("the moment bias.velocity"));
}

TEST_CASE("Sgd refuses what it cannot train") {
  Group<float> group;
  REQUIRE_THROWS_WITH(Sgd<float>(group.list), contains("[Sgd] expected at least one trainable parameter"));
  group.add("a", Tensor<float>({1}));
  REQUIRE_THROWS_WITH(Sgd<float>(group.list, {.nesterov = true}), contains("[Sgd] expected a momentum above 0 for Nesterov, got 0"));
  group.weights[0]->set_trainable(false);
  REQUIRE_THROWS_WITH(Sgd<float>(group.list), contains("the frozen a"));
}
