// IA3, DoRA, LoHa, LoKr and Tucker: the laws on every layer they fit, and numbers by hand. (parity.test.cpp: what peft gives.)
#include "laws.hpp"

using namespace laws;

namespace {
const Through kohya{[](Zoo<float>& zoo, const std::string& path) { save_kohya(zoo, path); }, "adapter.safetensors"};
bool detached(const std::string& path) { return !path.ends_with("lora_magnitude_vector"); }
}  // namespace

TEST_CASE("IA3 obeys the laws") {
  CHECK(obey(Ia3Config{}) == 15);
  CHECK(obey(Ia3Config{.targets = {}, .feedforward = {"*"}}) == 15);
}
TEST_CASE("DoRA obeys the laws") {  // the norm is a constant in training: only the magnitude's gradient is by differences
  CHECK(obey(DoraConfig{.rank = 2, .alpha = 3}, {}, detached) == 16);
  CHECK(obey(DoraConfig{.rank = 4, .alpha = 3, .targets = {}, .rslora = true}, {}, detached) == 16);
  CHECK(obey(DoraConfig{.rank = 2, .alpha = 3, .targets = {}, .bias = LoraConfig::Bias::layer}, {}, detached) == 16);
}
TEST_CASE("LoHa obeys the laws") {
  CHECK(obey(LohaConfig{.rank = 2, .alpha = 3}) == 15);
  CHECK(obey(LohaConfig{.rank = 3, .alpha = 2, .targets = {}, .effective_conv = true}, kohya) == 15);
}
TEST_CASE("LoKr obeys the laws") {
  CHECK(obey(LokrConfig{.rank = 1, .alpha = 3}) == 15);
  CHECK(obey(LokrConfig{.rank = 1, .alpha = 3, .targets = {}, .factor = 2, .decompose_both = true, .effective_conv = true}, kohya) == 15);
  CHECK(obey(LokrConfig{.rank = 8, .alpha = 3}) == 15);
}
TEST_CASE("Tucker's three convolutions obey the laws") { CHECK(obey(TuckerConfig{.rank = 3, .alpha = 2}, kohya) == 2); }
TEST_CASE("LoRA with biases obeys the laws") {
  CHECK(obey(LoraConfig{.rank = 2, .alpha = 3, .bias = LoraConfig::Bias::own}) == 16);
  CHECK(obey(LoraConfig{.rank = 2, .alpha = 3, .bias = LoraConfig::Bias::layer}) == 16);
}

TEST_CASE("methods stack on one layer in any order, merge together and leave the bits of before") {
  const auto all = runs<double>();
  std::vector<int> order{0, 1, 2, 3, 4};
  for (int turn = 0; turn < 10; ++turn) {
    Zoo<double> zoo = frozen_zoo<double>();
    Generator generator(2);
    const std::vector<std::string> targets{"linear", "strided", "bare"};
    for (const int method : order) {
      const AttachOptions options{.name = "m" + std::to_string(method), .scale = 0.3 + 0.4 * method};
      if (method == 0) attach(zoo, LoraConfig{.rank = 2, .alpha = 3, .targets = targets}, generator, options);
      if (method == 1) attach(zoo, DoraConfig{.rank = 2, .alpha = 3, .targets = targets}, generator, options);
      if (method == 2) attach(zoo, LohaConfig{.rank = 2, .alpha = 3, .targets = targets}, generator, options);
      if (method == 3) attach(zoo, Ia3Config{.targets = targets}, generator, options);
      if (method == 4) attach(zoo, Ia3Config{.targets = targets, .feedforward = targets}, generator, options);
    }
    shake(zoo, "");
    std::vector<Tensor<double>> weights, tuned;
    const auto outputs = [&] {
      std::vector<Tensor<double>> out;
      for (const std::size_t r : {0, 2, 3}) out.push_back(all[r].call(zoo, inputs_of(all[r])).value());
      return out;
    };
    for (const auto& ref : params(zoo)) weights.push_back(ref.weight->value());
    tuned = outputs();
    merge(zoo);
    const auto merged = outputs();
    for (std::size_t i = 0; i < tuned.size(); ++i) CHECK(error(merged[i], tuned[i]) < 1e-12);
    unmerge(zoo);
    const auto after = params(zoo);
    for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i].weight->value() == weights[i]);
    CHECK(outputs() == tuned);
    std::next_permutation(order.begin() + turn % 3, order.end());
  }
}

TEST_CASE("DoRA and IA3 by hand; an entry's scale goes in a straight line from the base") {
  Linear<double> layer(2, 1);
  layer.weight->set(Tensor<double>({1, 2}, {3, 4}));
  layer.bias->set(Tensor<double>({1}, {10}));
  Generator generator(1);
  attach(layer, DoraConfig{.rank = 1, .alpha = 1, .targets = {""}}, generator);
  auto& dora = dynamic_cast<Dora<double>&>(*layer.patches.entries.at(0).patch);
  CHECK(dora.magnitude->value().item() == 5);
  dora.lora.a->set(Tensor<double>({1, 2}, {5, 8}));
  dora.lora.b->set(Tensor<double>({1, 1}, {1}));
  dora.magnitude->set(Tensor<double>({1}, {26}));
  // W + B A = [8, 12], of length sqrt(208)
  const double c = 26 / std::sqrt(208.0);
  const Var<double> x(Tensor<double>({1, 2}, {1, 2}));
  CHECK(layer(x).item() == Approx(10 + c * (8 + 24)));
  set_scale(layer, "*", 0.25);
  CHECK(layer(x).item() == Approx(10 + 11 + 0.25 * (c * 32 - 11)));  // peft would have 26 / |W + B A / 4| here
  detach(layer);
  attach(layer, Ia3Config{.targets = {""}}, generator);
  patch_params(layer).at(0).weight->set(Tensor<double>({1, 1}, {3}));
  CHECK(layer(x).item() == 3 * 21);
  set_scale(layer, "*", 0.5);
  CHECK(layer(x).item() == 2 * 21);
  merge(layer);
  CHECK(layer.weight->value() == Tensor<double>({1, 2}, {6, 8}));
  CHECK(layer.bias->value().item() == 20);
  unmerge(layer);
  CHECK(layer.bias->value().item() == 10);
  detach(layer);
  attach(layer, Ia3Config{.targets = {""}, .feedforward = {""}}, generator, {.scale = 2});
  patch_params(layer).at(0).weight->set(Tensor<double>({1, 2}, {2, 1}));
  CHECK(layer(x).item() == 10 + 3 * 3 + 4 * 2);  // 1 + 2 (2 - 1) for the first input
}

TEST_CASE("an extent as two divisors, as peft splits it") {
  CHECK(kronecker_split(256, -1) == std::pair<Index, Index>(16, 16));
  CHECK(kronecker_split(128, -1) == std::pair<Index, Index>(8, 16));
  CHECK(kronecker_split(127, -1) == std::pair<Index, Index>(1, 127));
  CHECK(kronecker_split(128, 4) == std::pair<Index, Index>(4, 32));
  CHECK(kronecker_split(12, 5) == std::pair<Index, Index>(3, 4));
}
