// The one traversal, the layers, and checkpointing of a layer.
#include <thread>

#include <tenon/autograd/gradcheck.hpp>
#include <tenon/models/clip/transformer.hpp>
#include <tenon/nn/conv2d.hpp>
#include <tenon/nn/embedding.hpp>
#include <tenon/ops/matmul.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/lora.hpp>

#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error, golden::numbers;

namespace {

template <class T>
struct Block {
  std::vector<Mlp<T>> mlps;
  std::optional<Linear<T>> shortcut;
  std::unique_ptr<Attention<T>> attention;
  Param<T> scale, absent;

  Block() : scale(Shape{3}) {
    mlps.emplace_back(3, 4, Activation::gelu);
    mlps.emplace_back(3, 4, Activation::gelu);
  }
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("ff", s.mlps, {{"fc1", "net.0.proj"}, {"fc2", "net.2"}});
    f("shortcut", s.shortcut);
    f("attn", s.attention, {{"out_proj", "to_out.0"}});
    f("scale", s.scale);
    f("absent", s.absent);
  }
};

std::vector<std::string> paths(const auto& list) {
  std::vector<std::string> out;
  for (const auto& ref : list) out.push_back(ref.path);
  return out;
}
using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("params: vectors, renames, optionals, absent parameters") {
  Block<float> block;
  CHECK(paths(params(block)) == Names{"ff.0.net.0.proj.weight", "ff.0.net.0.proj.bias", "ff.0.net.2.weight", "ff.0.net.2.bias",
                                      "ff.1.net.0.proj.weight", "ff.1.net.0.proj.bias", "ff.1.net.2.weight", "ff.1.net.2.bias", "scale"});
  CHECK(count(params(block)) == 2 * (12 + 4 + 12 + 3) + 3);
  block.mlps.clear();
  block.shortcut.emplace(3, 2, false);
  block.attention = std::make_unique<Attention<float>>(4, 2, false, 0, false);
  CHECK(paths(params(block)) == Names{"shortcut.weight", "attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight",
                                      "attn.to_out.0.weight", "attn.to_out.0.bias", "scale"});
}

TEST_CASE("sites: outer layers first, each with its weight and slots") {
  Block<float> block;
  block.attention = std::make_unique<Attention<float>>(4, 2);
  const auto all = sites(block);
  CHECK(paths(all) == Names{"ff.0", "ff.0.net.0.proj", "ff.0.net.2", "ff.1", "ff.1.net.0.proj", "ff.1.net.2", "attn", "attn.q_proj",
                            "attn.k_proj", "attn.v_proj", "attn.to_out.0"});
  CHECK(all[0].weight == nullptr);
  CHECK(all[0].key_values == nullptr);
  CHECK(all[1].weight == block.mlps[0].fc1.weight.get());
  CHECK(all[1].patches == &block.mlps[0].fc1.patches);
  CHECK(all[6].key_values == &block.attention->key_values);
  CHECK(std::get<Attention<float>*>(all[6].layer) == block.attention.get());
  Linear<float> root(2, 2);
  CHECK(paths(sites(root)) == Names{""});
}

TEST_CASE("declared layers cost nothing and say that they are empty") {
  Linear<float> layer(1000000, 1000000);
  CHECK(!layer.weight->filled());
  REQUIRE_THROWS_WITH(Linear<float>(2, 3)(Var<float>(Tensor<float>({1, 2}))), contains("load a checkpoint or initialise first"));
  REQUIRE_THROWS_WITH(unfreeze(layer), contains("without elements"));
  REQUIRE_THROWS_AS(Conv2d<float>(3, 4, 1, {.groups = 2}), ShapeError);
  REQUIRE_THROWS_AS(Attention<float>(5, 2), ShapeError);
}

TEST_CASE("lists survive moves; freezing and initialising") {
  Generator generator(1);
  Mlp<float> first(3, 4, Activation::gelu);
  first.initialize(generator);
  const auto list = params(first);
  CHECK(trainable(first).size() == 4);
  freeze(first);
  CHECK(trainable(first).empty());
  unfreeze(first);
  Mlp<float> second = std::move(first);
  CHECK(list[0].weight == second.fc1.weight.get());
  for (float w : second.fc1.weight->value()) CHECK(std::abs(w) <= 1 / std::sqrt(3.0f));
  const auto before = second.fc1.weight->version();
  second.fc1.weight->update([](Tensor<float>& value) { value.fill(1); });
  CHECK(second.fc1.weight->version() > before);
}

TEST_CASE("copy_params copies deep, or nothing") {
  Generator generator(1);
  Mlp<float> from(3, 4, Activation::gelu), to(3, 4, Activation::gelu), other(3, 5, Activation::gelu);
  REQUIRE_THROWS_WITH(copy_params(from, to), contains("fc1.weight has no elements"));
  from.initialize(generator);
  from.fc2.bias->set_trainable(false);
  copy_params(from, to);
  CHECK(to.fc1.weight->value() == from.fc1.weight->value());
  CHECK(to.fc1.weight->trainable());
  CHECK(!to.fc2.bias->trainable());
  to.fc1.weight->update([](Tensor<float>& value) { value.fill(0); });
  CHECK(!(to.fc1.weight->value() == from.fc1.weight->value()));
  REQUIRE_THROWS_WITH(copy_params(from, other), contains("fc1.weight: expected shape [5, 3], got [4, 3]"));
  CHECK(!other.fc1.weight->filled());
}

TEST_CASE("Linear and Mlp by hand") {
  Linear<double> layer(2, 2);
  layer.weight->set(Tensor<double>({2, 2}, {1, 2, 3, 4}));
  layer.bias->set(Tensor<double>({2}, {10, -20}));
  const Var<double> x(Tensor<double>({1, 2}, {1, -1}));
  CHECK(layer(x).value() == Tensor<double>({1, 2}, {9, -21}));
  CHECK(layer(x, Activation::relu).value() == Tensor<double>({1, 2}, {9, 0}));
  Mlp<double> mlp(2, 2, Activation::relu);
  mlp.fc1 = std::move(layer);
  mlp.fc2.weight->set(Tensor<double>({2, 2}, {1, 1, 0, 1}));
  mlp.fc2.bias->set(Tensor<double>({2}, {0.5, 0}));
  CHECK(mlp(x).value() == Tensor<double>({1, 2}, {9.5, 0}));
}

TEST_CASE("cross-attention by hand: one key takes all") {
  Attention<double> layer(2, 1, false, 3);
  for (const auto& ref : params(layer)) ref.weight->set(Tensor<double>(ref.weight->shape()));
  layer.v_proj.weight->set(Tensor<double>({2, 3}, {1, 0, 0, 0, 1, 0}));
  layer.out_proj.weight->set(Tensor<double>({2, 2}, {0, 1, 1, 0}));
  const Var<double> x(Tensor<double>({1, 2, 2}, {1, 2, 3, 4}));
  const Var<double> one(Tensor<double>({1, 1, 3}, {5, 6, 7})), pair(Tensor<double>({1, 2, 3}, {5, 6, 7, 7, 8, 9}));
  CHECK(layer(x, one).value() == Tensor<double>({1, 2, 2}, {6, 5, 6, 5}));
  CHECK(layer(x, pair).value() == Tensor<double>({1, 2, 2}, {7, 6, 7, 6}));  // equal scores: the mean
}

TEST_CASE("layers have the gradients of central differences") {
  Generator generator(4);
  EncoderLayer<double> layer(6, 8, 2, Activation::quick_gelu, 1e-2, true);
  for (const auto& ref : params(layer)) ref.weight->set(numbers(ref.weight->shape(), generator, 0.5));
  CHECK(check_grad([&](const auto& x) { return layer(x[0]); }, {numbers({2, 3, 6}, generator)}) == "");
  Attention<double> cross(6, 3, false, 4);
  for (const auto& ref : params(cross)) ref.weight->set(numbers(ref.weight->shape(), generator, 0.5));
  CHECK(check_grad([&](const auto& x) { return cross(x[0], x[1]); }, {numbers({2, 3, 6}, generator), numbers({2, 5, 4}, generator)}) == "");
}

TEST_CASE("a checkpointed layer gives the same bits") {
  const bool frozen_input = GENERATE(true, false);
  std::vector<std::vector<Tensor<float>>> runs;
  for (const bool checkpointed : {false, true}) {
    Generator generator(4);
    EncoderLayer<float> layer(6, 8, 2, Activation::gelu, 1e-5, false);
    for (const auto& ref : params(layer)) ref.weight->set(numbers<float>(ref.weight->shape(), generator, 0.5));
    freeze(layer);
    attach(layer, LoraConfig{.rank = 2, .targets = {"q_proj", "fc1"}}, generator);
    for (const auto& ref : patch_params(layer)) {
      ref.weight->set(numbers<float>(ref.weight->shape(), generator, 0.5));
      ref.weight->set_trainable(true);
    }
    layer.layer_norm1.weight->set_trainable(true);
    const auto tensor = numbers<float>({2, 3, 6}, generator);
    const Var<float> x = frozen_input ? Var<float>(tensor) : variable(tensor);
    const Var<float> y = checkpointed ? checkpoint(layer, x) : layer(x);
    REQUIRE(y.requires_grad());  // also when only parameters inside want a gradient
    backward(y, y.value());
    auto& run = runs.emplace_back();
    run.push_back(y.value());
    if (!frozen_input) run.push_back(x.grad());
    for (const auto& ref : trainable(layer)) run.push_back(ref.weight->var().grad());
    CHECK(run.size() == (frozen_input ? 6u : 7u));
  }
  CHECK(runs[0] == runs[1]);
}

TEST_CASE("a checkpointed layer notices what moved before backward") {
  Generator generator(4);
  EncoderLayer<float> layer(6, 8, 2, Activation::gelu, 1e-5, false);
  for (const auto& ref : params(layer)) ref.weight->set(numbers<float>(ref.weight->shape(), generator, 0.5));
  attach(layer, LoraConfig{.rank = 2, .targets = {"q_proj"}}, generator);
  const auto run = [&](auto between) {
    const Var<float> y = checkpoint(layer, variable(numbers<float>({1, 2, 6}, generator)));
    between();
    backward(y, y.value());
  };
  run([] {});
  REQUIRE_THROWS_WITH(run([&] { layer.mlp.fc2.weight->update([](Tensor<float>& w) { w.fill(0); }); }),
                      contains("[checkpoint] the parameter mlp.fc2.weight was written between forward and backward"));
  REQUIRE_THROWS_WITH(run([&] { patch_params(layer)[1].weight->set(Tensor<float>({6, 2})); }), contains("self_attn.q_proj.lora_B.weight was written"));
  REQUIRE_THROWS_WITH(run([&] { disable(layer, "default"); }), contains("patches changed between forward and backward"));
  run([] {});
  const NoGrad none;
  CHECK(!checkpoint(layer, variable(Tensor<float>({1, 2, 6}))).requires_grad());
}

TEST_CASE("one model serves several threads") {
  Generator generator(4);
  EncoderLayer<float> layer(6, 8, 2, Activation::gelu, 1e-5, false);
  for (const auto& ref : params(layer)) ref.weight->set(numbers<float>(ref.weight->shape(), generator, 0.5));
  freeze(layer);
  const Var<float> x(numbers<float>({2, 3, 6}, generator));
  std::vector<Tensor<float>> out(3);
  {
    std::vector<std::thread> threads;
    for (auto& y : out) threads.emplace_back([&] { y = layer(x).value(); });
    for (auto& t : threads) t.join();
  }
  const auto y = layer(x).value();
  for (const auto& other : out) CHECK(other == y);
}
