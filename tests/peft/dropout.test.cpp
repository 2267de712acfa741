// Dropout, only inside a Training: LoRA's on the input of A, on ranks and on the whole; LoHa's and LoKr's on outputs and on the whole.
#include <array>

#include <tenon/autograd/gradcheck.hpp>
#include <tenon/nn/checkpoint.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/merge.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error, golden::numbers;

namespace {

template <class T>
struct Pair {
  Linear<T> linear{6, 5};
  Conv2d<T> conv{4, 6, 3, {.padding = 1, .groups = 2}};
  Embedding<T> table{9, 6};

  explicit Pair(double dropout) {
    Generator generator(7);
    for (const auto& ref : params(*this)) ref.weight->set(numbers<T>(ref.weight->shape(), generator, 0.5));
    freeze(*this);
    attach(*this, LoraConfig{.rank = 2, .alpha = 3, .targets = {"linear", "conv", "table"}, .dropout = dropout}, generator);
    for (const auto& ref : patch_params(*this)) {
      ref.weight->set(numbers<T>(ref.weight->shape(), generator, 0.4));
      ref.weight->set_trainable(true);
    }
  }
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("linear", s.linear), f("conv", s.conv), f("table", s.table);
  }
};

template <class M>
void detach_all(M& model) {
  if (!adapter_names(model).empty()) detach(model);
}

/// y = base(x) + s B A drop(x), by the parts.
Tensor<double> by_parts(const Pair<double>& model, const Var<double>& x, double p, const Philox& draw) {
  const auto& patch = dynamic_cast<const Lora<double>&>(*model.linear.patches.entries.at(0).patch);
  const Var<double> base = linear(x, *model.linear.weight, model.linear.bias.get_if());
  return (base + linear(linear(dropout(x, p, draw), *patch.a), *patch.b) * patch.scale()).value();
}

}  // namespace

TEST_CASE("dropout by hand: B A takes x with elements dropped, W takes all of it") {
  Linear<double> layer(4, 1, false);
  layer.weight->set(Tensor<double>({1, 4}, {1, 10, 100, 1000}));
  Generator generator(1);
  attach(layer, LoraConfig{.rank = 1, .alpha = 3, .targets = {""}, .dropout = 0.5}, generator);
  for (const auto& ref : patch_params(layer)) ref.weight->set(Tensor<double>::full(ref.weight->shape(), 1));
  const Var<double> x(Tensor<double>({1, 4}, {1, 1, 1, 1}));
  std::set<double> seen;
  for (std::uint64_t step = 0; step < 40; ++step) {
    const Training training(3, step);
    seen.insert(layer(x).item());
  }
  CHECK(seen == std::set<double>{1111, 1111 + 6, 1111 + 12, 1111 + 18, 1111 + 24});  // 3 * 2 for each kept element
  CHECK(layer(x).item() == 1111 + 12);
}

TEST_CASE("dropout of ranks, others for each sample, and of a layer's whole adapter") {
  Generator generator(1);
  const Var<double> x(Tensor<double>::full({3, 2, 1}, 1)), picture(Tensor<double>::full({3, 2, 2, 1}, 1));
  for (const bool conv : {false, true}) {
    Conv2d<double> kernel(1, 1, 1, {.bias = false});
    Linear<double> matrix(1, 1, false);
    const auto tune = [&](auto& layer, const LoraConfig& config) {
      layer.weight->set(Tensor<double>::full(layer.weight->shape(), 100));
      detach_all(layer);
      attach(layer, config, generator);
      Tensor<double> b(patch_params(layer).at(1).weight->shape(), std::vector<double>{1, 10});
      patch_params(layer).at(0).weight->set(Tensor<double>::full(patch_params(layer).at(0).weight->shape(), 1));
      patch_params(layer).at(1).weight->set(std::move(b));
    };
    const auto tune_both = [&](const LoraConfig& config) { conv ? tune(kernel, config) : tune(matrix, config); };
    const auto run = [&] { return conv ? kernel(picture).value() : matrix(x).value(); };

    tune_both({.rank = 2, .alpha = 2, .targets = {""}, .rank_dropout = 0.5});
    std::set<double> seen;
    bool differ = false;
    for (std::uint64_t step = 0; step < 40; ++step) {
      const Training training(3, step);
      const auto y = run();
      const Index each = y.size() / 3;
      for (Index i = 0; i < y.size(); ++i) {
        seen.insert(y.data()[i]);
        CHECK(y.data()[i] == y.data()[i / each * each]);  // one draw for each sample
      }
      differ = differ || y.data()[0] != y.data()[each];
    }
    CHECK(seen == std::set<double>{100, 102, 120, 122});  // twice what is kept
    CHECK(differ);
    CHECK(run().data()[0] == 111);

    tune_both({.rank = 2, .alpha = 2, .targets = {""}, .module_dropout = 0.25});
    Index kept = 0;
    for (std::uint64_t step = 0; step < 200; ++step) {
      const Training training(3, step);
      const auto y = run();
      for (const double v : y) CHECK(v == y.data()[0]);
      CHECK((y.data()[0] == 100 || y.data()[0] == 111));
      kept += y.data()[0] == 111 ? 1 : 0;
    }
    CHECK((kept > 120 && kept < 180));
    CHECK(run().data()[0] == 111);
  }
  REQUIRE_THROWS_WITH(attach(*std::make_unique<Linear<double>>(1, 1), LoraConfig{.targets = {""}, .module_dropout = 1}, generator), contains("expected a dropout in [0, 1), got 1"));
}

namespace {

/// Outputs that a delta of ones adds to a layer of 1 input and 4 outputs, over many steps of a Training; each picture or row the same.
template <class Layer, class Config>
std::vector<std::array<double, 4>> dropped_outputs(Layer& layer, const Config& config, const Var<double>& x) {
  Generator generator(1);
  layer.weight->set(Tensor<double>::full(layer.weight->shape(), 100));
  detach_all(layer);
  attach(layer, config, generator);
  for (const auto& ref : patch_params(layer)) ref.weight->set(Tensor<double>::full(ref.weight->shape(), 1));
  std::vector<std::array<double, 4>> out;
  for (std::uint64_t step = 0; step < 60; ++step) {
    const Training training(3, step);
    const Tensor<double> y = layer(x).value();
    for (Index i = 0; i < y.size(); ++i) CHECK(y.data()[i] == y.data()[i % 4]);
    out.push_back({y.data()[0] - 100, y.data()[1] - 100, y.data()[2] - 100, y.data()[3] - 100});
  }
  const Tensor<double> y = layer(x).value();
  CHECK(y == Tensor<double>::full(y.shape(), 101));
  return out;
}

}  // namespace

TEST_CASE("dropout of the outputs of a LoHa and a LoKr, and of the whole, with the scales of peft; through files") {
  Scratch scratch("delta_dropout");
  Linear<double> matrix(1, 4, false);
  Conv2d<double> kernel(1, 4, 1, {.bias = false});
  const Var<double> rows(Tensor<double>::full({3, 2, 1}, 1)), picture(Tensor<double>::full({3, 2, 2, 1}, 1));
  const auto both = [&](const auto& config, auto&& check_each) {
    for (const bool conv : {false, true}) {
      const auto seen = conv ? dropped_outputs(kernel, config, picture) : dropped_outputs(matrix, config, rows);
      CHECK(std::set<std::array<double, 4>>(seen.begin(), seen.end()).size() > 1);
      for (const auto& outputs : seen) check_each(outputs);
    }
  };
  const auto sum = [](const auto& outputs) { return outputs[0] + outputs[1] + outputs[2] + outputs[3]; };
  const auto rescaled = [&](const auto& outputs) { CHECK((sum(outputs) == 0 || sum(outputs) == Approx(4))); };
  const auto plain = [&](const auto& outputs) {
    for (const double v : outputs) CHECK((v == 0 || v == 1));
  };
  const auto all_or_nothing = [&](const auto& outputs) { CHECK((sum(outputs) == 0 || sum(outputs) == 4)); };
  both(LohaConfig{.rank = 1, .alpha = 1, .targets = {""}, .rank_dropout = 0.5}, rescaled);
  both(LokrConfig{.rank = 1, .alpha = 1, .targets = {""}, .rank_dropout = 0.5}, plain);
  both(LokrConfig{.rank = 1, .alpha = 1, .targets = {""}, .rank_dropout = 0.5, .rank_dropout_scale = true}, rescaled);
  both(LohaConfig{.rank = 1, .alpha = 1, .targets = {""}, .module_dropout = 0.5}, all_or_nothing);
  both(LokrConfig{.rank = 1, .alpha = 1, .targets = {""}, .module_dropout = 0.5}, all_or_nothing);

  Generator generator(1);
  REQUIRE_THROWS_WITH(attach(matrix, LohaConfig{.targets = {""}, .rank_dropout = 1}, generator, {.name = "other"}), contains("expected a dropout in [0, 1), got 1"));
  Pair<double> model(0);
  detach(model);
  attach(model, LokrConfig{.rank = 1, .targets = {"linear"}, .rank_dropout = 0.25, .module_dropout = 0.125, .rank_dropout_scale = true}, generator);
  save_adapter(model, scratch / "lokr");
  detach(model);
  attach(model, load_adapter(scratch / "lokr"));
  const DeltaDropout& drops = dynamic_cast<Lokr<double>&>(*model.linear.patches.entries.at(0).patch).drops;
  CHECK((drops.rows == 0.25 && drops.rescaled && drops.module == 0.125));
}

TEST_CASE("a layer's draws depend on seed, step and order alone") {
  Generator generator(1);
  const Var<double> x(numbers({2, 3, 6}, generator));
  const Pair<double> model(0.3);
  const Training training(9, 4);
  CHECK(error(model.linear(x).value(), by_parts(model, x, 0.3, Philox(9, 4))) < 1e-13);
  CHECK(error(model.linear(x).value(), by_parts(model, x, 0.3, Philox(9, (std::uint64_t{1} << 40) | 4))) < 1e-13);
  {
    const Training inner(9, 5);
    CHECK(error(model.linear(x).value(), by_parts(model, x, 0.3, Philox(9, 5))) < 1e-13);
  }
  CHECK(error(model.linear(x).value(), by_parts(model, x, 0.3, Philox(9, (std::uint64_t{2} << 40) | 4))) < 1e-13);
}

TEST_CASE("outside of a Training, merged, and on ids, dropout does nothing") {
  Pair<float> with(0.4), without(0);
  Generator generator(1);
  const Var<float> x(numbers<float>({2, 3, 6}, generator)), picture(numbers<float>({1, 5, 4, 4}, generator));
  const Tensor<std::int32_t> ids({3}, {0, 8, 8});
  const auto all = [&](const Pair<float>& m) {
    return std::vector<Tensor<float>>{m.linear(x).value(), m.conv(picture).value(), m.table(ids).value()};
  };
  const auto expected = all(without);
  CHECK(all(with) == expected);
  {
    const Training training(1, 1);
    const auto dropped = all(with);
    CHECK(error(dropped[0], expected[0]) > 1e-2);
    CHECK(error(dropped[1], expected[1]) > 1e-2);
    CHECK(dropped[2] == expected[2]);  // as in peft
    CHECK(all(without) == expected);
  }
  merge(with);
  merge(without);
  const Training training(1, 1);
  CHECK(all(with) == all(without));
}

TEST_CASE("dropout has the gradients of central differences") {
  Generator generator(4);
  const auto check = [&](const Pair<double>& model, auto call, const Shape& shape) {
    return check_grad([&](const auto& x) {
      const Training training(2, 7);
      return call(model, x[0]);
    }, {numbers(shape, generator)});
  };
  Pair<double> model(0.4);
  const auto linear_call = [](const auto& m, const auto& x) { return m.linear(x); };
  const auto conv_call = [](const auto& m, const auto& x) { return m.conv(x); };
  CHECK(check(model, linear_call, {2, 3, 6}) == "");
  CHECK(check(model, conv_call, {1, 5, 4, 4}) == "");
  for (const std::string name : {"linear", "conv"}) {  // and those of A and B
    const auto list = patch_params(model);
    for (const auto& ref : list) {
      if (!ref.path.starts_with(name)) continue;
      INFO(ref.path);
      const Tensor<double> at = ref.weight->value(), x = numbers(name == "conv" ? Shape{1, 5, 4, 4} : Shape{2, 3, 6}, generator);
      const auto y = [&] {
        const Training training(2, 7);
        return name == "conv" ? model.conv(Var<double>(x)) : model.linear(Var<double>(x));
      };
      for (const auto& other : list) other.weight->var().clear_grad();
      const auto out = y();
      backward(out, Tensor<double>::full(out.shape(), 1));
      const Tensor<double> grad = ref.weight->var().grad();
      const auto total = [&](Index i, double by) {
        const NoGrad none;
        Tensor<double> moved(at);
        moved.data()[i] += by;
        ref.weight->set(std::move(moved));
        double sum = 0;
        const Var<double> moved_out = y();
        for (double v : moved_out.value()) sum += v;
        return sum;
      };
      for (Index i = 0; i < at.size(); ++i)
        CHECK(grad.data()[i] == Approx((total(i, 1e-6) - total(i, -1e-6)) / 2e-6).epsilon(1e-4).margin(1e-6));
      ref.weight->set(at);
    }
  }
}

TEST_CASE("a checkpointed layer drops the same elements again, and later layers are not moved by it") {
  Generator generator(4);
  const auto tensor = numbers<float>({2, 3, 6}, generator);
  std::vector<std::vector<Tensor<float>>> runs;
  for (const bool checkpointed : {false, true}) {
    Pair<float> model(0.4);
    const Var<float> x = variable(tensor);
    Var<float> y;
    Tensor<float> after;
    {
      const Training training(5, 6);
      y = checkpointed ? checkpoint(model.linear, x) : model.linear(x);
      after = model.linear(x).value();
    }
    backward(y, y.value());  // the Training is over
    runs.push_back({y.value(), after, x.grad()});
    for (const auto& ref : patch_params(model))
      if (ref.weight->var().has_grad()) runs.back().push_back(ref.weight->var().grad());
    CHECK(runs.back().size() == 5);
    CHECK(!is_training());
  }
  CHECK(runs[0] == runs[1]);
}

TEST_CASE("dropout goes through a file; a share outside [0, 1) is refused") {
  Scratch scratch("dropout");
  Pair<float> model(0.25);
  save_adapter(model, scratch / "adapter");
  CHECK(Json::read(scratch / "adapter/adapter_config.json").get<double>("lora_dropout") == 0.25);
  detach(model);
  attach(model, load_adapter(scratch / "adapter"));
  CHECK(dynamic_cast<Lora<float>&>(*model.linear.patches.entries.at(0).patch).dropout == 0.25);
  Generator generator(1);
  const LoraConfig all{.targets = {"linear"}, .dropout = 1};
  REQUIRE_THROWS_WITH(attach(model, all, generator, {.name = "other"}), contains("expected a dropout in [0, 1), got 1"));
}
