#include <limits>

#include <tenon/autograd/backward.hpp>
#include <tenon/io/state.hpp>
#include <tenon/nn/linear.hpp>
#include <tenon/optim/adamw.hpp>
#include <tenon/optim/ema.hpp>
#include <tenon/optim/schedule.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"
#include "group.hpp"

using namespace tenon;
using golden::error, golden::numbers;

namespace {

Group<float> two() {
  Group<float> out;
  out.add("a", Tensor<float>({2}, {1, 2}));
  out.add("b", Tensor<float>({2, 2}, {1, 2, 3, 4}));
  return out;
}

}  // namespace

TEMPLATE_TEST_CASE("AdamW takes torch's steps", "", float, double) {
  using T = TestType;
  const auto file = SafetensorsFile::open(golden::path("adamw.safetensors"));
  const std::string name = GENERATE("plain", "clip", "vectors");
  INFO(name);
  const std::vector<std::string> keys{"matrix", "vector", "scalar"};
  Group<T> group;
  for (const auto& key : keys) group.add(key, file.load<T>("start." + key));
  AdamW<T> optimizer(group.list, {.learning_rate = 0.02, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3, .weight_decay = 0.3,
                                  .decay_vectors = name != "vectors", .clip_norm = name == "clip" ? 1.5 : 0});
  double worst = 0;
  for (int step = 0; step < 6; ++step) {
    double squares = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const auto gradient = file.load<T>(join_text("grad.", step, '.', keys[i]));
      for (T g : gradient) squares += static_cast<double>(g) * static_cast<double>(g);
      group.give(i, gradient);
    }
    const auto result = optimizer.step(name == "clip" ? 1.0 / (step + 1) : 1.0);
    CHECK(!result.skipped);
    CHECK(result.grad_norm == Approx(std::sqrt(squares)));
    for (std::size_t i = 0; i < keys.size(); ++i) {
      worst = std::max(worst, error(group.weights[i]->value(), file.load<double>(join_text(name, '.', step, '.', keys[i]))));
      CHECK(!group.weights[i]->var().has_grad());
    }
  }
  CHECK(optimizer.steps() == 6);
  CHECK(worst < (std::same_as<T, float> ? 1e-6 : 1e-13));
}

TEST_CASE("AdamW leaves parameters without a gradient alone, and refuses frozen ones") {
  auto group = two();
  AdamW<float> optimizer(group.list);
  group.give(1, Tensor<float>::full({2, 2}, 1));
  optimizer.step();
  CHECK(group.weights[0]->value() == Tensor<float>({2}, {1, 2}));
  CHECK(group.weights[1]->value()(0, 0) < 1);
  group.weights[1]->set_trainable(false);
  REQUIRE_THROWS_WITH(AdamW<float>(group.list), contains("[AdamW]") && contains("the frozen b"));
  REQUIRE_THROWS_AS(AdamW<float>(std::vector<ParamRef<float>>{}), Error);
}

TEST_CASE("learning rates by path are those of two optimizers") {
  auto one = two(), other = two();
  one.add("b.scale", Tensor<float>({2}, {-1, 3}));
  other.add("b.scale", Tensor<float>({2}, {-1, 3}));
  const AdamWConfig config{.learning_rate = 0.02, .weight_decay = 0.3};
  AdamWConfig by_path = config, fast = config, faster = config;
  by_path.learning_rate_pattern = {{"b.", 0.2}, {"b", 0.07}};
  fast.learning_rate = 0.07, faster.learning_rate = 0.2;
  AdamW<float> together(one.list, by_path);
  AdamW<float> a({other.list[0]}, config), b({other.list[1]}, fast), c({other.list[2]}, faster);
  for (int step = 0; step < 4; ++step) {
    for (auto* group : {&one, &other}) {
      group->give(0, Tensor<float>({2}, {0.5f, -1}));
      group->give(1, Tensor<float>({2, 2}, {1, -2, 0.1f, static_cast<float>(step)}));
      group->give(2, Tensor<float>({2}, {3, 0}));
    }
    const double factor = 1.0 / (step + 1);
    together.step(factor);
    for (auto* optimizer : {&a, &b, &c}) optimizer->step(factor);
  }
  for (std::size_t i = 0; i < 3; ++i) CHECK(one.weights[i]->value() == other.weights[i]->value());

  AdamWConfig wrong;
  wrong.learning_rate_pattern = {{"b", 0.1}, {"text", 0.2}};
  REQUIRE_THROWS_AS(AdamW<float>(one.list, wrong), NameError);
  REQUIRE_THROWS_WITH(AdamW<float>(one.list, wrong), contains("[AdamW] learning_rate_pattern: no parameter's path begins with 'text'"));
}

TEST_CASE("AdamW trains a weight whose elements others hold too") {
  const auto shared = std::make_shared<const Tensor<float>>(Tensor<float>({2}, {1, 2}));
  Group<float> group;
  group.add("a", Tensor<float>({2}));
  group.weights[0]->set(Weight<float>::Stored(shared));  // as loading and unmerging do
  AdamW<float> optimizer(group.list, {.learning_rate = 0.5, .weight_decay = 0});
  group.give(0, Tensor<float>({2}, {1, -1}));
  optimizer.step();
  CHECK(*shared == Tensor<float>({2}, {1, 2}));
  CHECK(error(group.weights[0]->value(), Tensor<float>({2}, {0.5f, 2.5f})) < 1e-6);
  CHECK(!group.weights[0]->var().has_grad());
}

TEST_CASE("a step with a gradient that is not finite is skipped whole") {
  const float bad = GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
  auto group = two();
  AdamW<float> optimizer(group.list);
  std::vector<std::string> reports;
  optimizer.guard.report = [&](const std::string& text) { reports.push_back(text); };
  const auto good = [&] {
    group.give(0, Tensor<float>::full({2}, 0.5f));
    group.give(1, Tensor<float>::full({2, 2}, 0.5f));
    return optimizer.step();
  };
  const auto broken = [&] {
    group.give(0, Tensor<float>::full({2}, 0.5f));
    group.give(1, Tensor<float>({2, 2}, {0, bad, 0, 0}));
    return optimizer.step();
  };
  good();
  const auto a = group.weights[0]->value(), b = group.weights[1]->value();
  const auto state = optimizer.state();
  const auto result = broken();
  CHECK(result.skipped);
  CHECK(result.bad_param == "b");
  CHECK(!std::isfinite(result.grad_norm));
  REQUIRE(reports.size() == 1);
  CHECK_THAT(reports[0], contains("the gradient of b is not finite (1 in a row, 1 in all)"));
  CHECK(!group.weights[0]->var().has_grad());
  CHECK(!group.weights[1]->var().has_grad());
  for (int i = 2; i < 10; ++i) CHECK(broken().skipped);
  CHECK(!good().skipped);  // starts the count again
  const auto after = group.weights[0]->value();
  for (int i = 1; i < 10; ++i) broken();
  REQUIRE_THROWS_AS(broken(), NumericError);
  REQUIRE_THROWS_WITH(broken(), contains("that of b"));
  CHECK(optimizer.steps() == 2);
  CHECK(group.weights[0]->value() == after);
  CHECK(optimizer.guard.skipped() == 20);

  auto other = two();  // the bad steps left no trace: the same bits without them
  AdamW<float> clean(other.list);
  for (int i = 0; i < 2; ++i) {
    other.give(0, Tensor<float>::full({2}, 0.5f));
    other.give(1, Tensor<float>::full({2, 2}, 0.5f));
    clean.step();
    if (i == 0) {
      CHECK(other.weights[0]->value() == a);
      CHECK(other.weights[1]->value() == b);
      CHECK(clean.state() == state);
    }
  }
  CHECK(other.weights[0]->value() == group.weights[0]->value());
  CHECK(other.weights[1]->value() == group.weights[1]->value());
  CHECK(clean.state() == optimizer.state());
}

TEST_CASE("a resumed run gives the same bits") {
  Scratch scratch("resume");
  const auto train = [](Linear<float>& layer, AdamW<float>& optimizer, Generator& generator, int steps) {
    for (int i = 0; i < steps; ++i) {
      const auto y = layer(Var<float>(numbers<float>({4, 6}, generator)));
      backward(y, y.value());
      optimizer.step(0.5);
    }
  };
  Generator generator(9);
  Linear<float> layer(6, 3, generator);
  AdamW<float> optimizer(params(layer), {.clip_norm = 1});
  train(layer, optimizer, generator, 3);
  State state;
  for (const auto& ref : params(layer)) state.tensors[ref.path] = raw_copy(ref.weight->value());
  for (const auto& [name, moment] : optimizer.state()) state.tensors["optimizer." + name] = raw_copy(moment);
  state.set("steps", optimizer.steps());
  state.set("generator", generator);
  save_state(scratch / "run", state);
  train(layer, optimizer, generator, 4);

  const auto saved = load_state(scratch / "run");
  REQUIRE(saved.has_value());
  Linear<float> again(6, 3);
  for (const auto& ref : params(again)) {
    ref.weight->set(cast<float>(saved->tensors.at(ref.path)));
    ref.weight->set_trainable(true);
  }
  AdamW<float> resumed(params(again), {.clip_norm = 1});
  std::map<std::string, Tensor<float>> moments;
  for (const auto& [name, moment] : resumed.state()) moments.emplace(name, cast<float>(saved->tensors.at("optimizer." + name)));
  resumed.restore(moments, saved->get<Index>("steps"));
  Generator continued;
  saved->get("generator", continued);
  train(again, resumed, continued, 4);
  CHECK(again.weight->value() == layer.weight->value());
  CHECK(again.bias->value() == layer.bias->value());

  moments.erase("bias.second");
  REQUIRE_THROWS_WITH(resumed.restore(moments, 3), contains("the moment bias.second"));
  moments.emplace("bias.second", Tensor<float>({4}));
  REQUIRE_THROWS_WITH(resumed.restore(moments, 3), contains("expected bias.second of shape [3], got [4]"));
}

TEST_CASE("clip_factor") {
  CHECK(clip_factor(4, 1) == Approx(0.25));
  CHECK(clip_factor(0.5, 1) == 1);
  CHECK(clip_factor(1e9, 0) == 1);
}

TEST_CASE("schedules by hand") {
  const Schedule cosine{.kind = Schedule::Kind::cosine, .warmup = 4, .total = 12, .floor = 0.1};
  CHECK(cosine(0) == 0.25);
  CHECK(cosine(3) == 1);
  CHECK(cosine(4) == 1);
  CHECK(cosine(6) == Approx(0.1 + 0.9 * 0.5 * (1 + std::sqrt(0.5))));
  CHECK(cosine(8) == Approx(0.55));
  CHECK(cosine(12) == Approx(0.1));
  CHECK(cosine(50) == Approx(0.1));
  const Schedule linear{.kind = Schedule::Kind::linear, .total = 10};
  CHECK(linear(0) == 1);
  CHECK(linear(3) == Approx(0.7));
  CHECK(linear(10) == 0);
  const Schedule constant{.kind = Schedule::Kind::constant, .warmup = 2};
  CHECK(constant(0) == 0.5);
  CHECK(constant(1000) == 1);
  CHECK(schedule_from_name("linear") == Schedule::Kind::linear);
  REQUIRE_THROWS_WITH(schedule_from_name("cosin"), contains("[schedule]") && contains("'cosin'"));
}

TEST_CASE("Ema by hand") {
  Group<float> group;
  group.add("a", Tensor<float>({1}, {10}));
  Ema<float> ema(group.list, 0.2);
  group.weights[0]->set(Tensor<float>({1}, {20}));
  ema.update();  // decay (1 + 0) / (10 + 0) = 0.1: 10 + 0.9 * 10
  CHECK(ema.averages()[0].item() == Approx(19));
  group.weights[0]->set(Tensor<float>({1}, {29}));
  ema.update();  // decay 2 / 11
  CHECK(ema.averages()[0].item() == Approx(19 + 9.0 / 11 * 10));
  ema.update();  // decay 0.2, the limit
  const auto average = ema.averages()[0].item();
  CHECK(average == Approx(29 - 0.2 * (29 - 19 - 90.0 / 11)));
  ema.swap();
  CHECK(group.weights[0]->value().item() == average);
  ema.swap();
  CHECK(group.weights[0]->value().item() == 29);
}
