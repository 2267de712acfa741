// Adapters on one layer: in which order they act, and that merging, unmerging and attaching in any order change nothing.
#include <tenon/peft/intrinsic.hpp>

#include "laws.hpp"

using namespace laws;

namespace {

const std::vector<std::string> layers{"linear", "bare", "strided", "table"};

std::vector<Tensor<double>> outputs(const Zoo<double>& zoo) {
  std::vector<Tensor<double>> out;
  const auto all = runs<double>();
  for (const std::size_t r : {0, 2, 3, 6}) out.push_back(all[r].call(zoo, inputs_of(all[r])).value());
  return out;
}
double worst(const std::vector<Tensor<double>>& a, const std::vector<Tensor<double>>& b) {
  double out = 0;
  for (std::size_t i = 0; i < a.size(); ++i) out = std::max(out, error(a[i], b[i]));
  return out;
}

constexpr int methods = 9;
void attach_method(Zoo<double>& zoo, int method, std::uint64_t seed, const AttachOptions& options) {
  Generator generator(seed);
  const std::vector<std::string> linear{"linear", "bare"}, products{"linear", "bare", "strided"};
  switch (method) {
    case 0: attach(zoo, LoraConfig{.rank = 2, .alpha = 3, .targets = layers}, generator, options); break;
    case 1: attach(zoo, LoraConfig{.rank = 2, .alpha = 3, .targets = {"linear", "strided"}, .bias = LoraConfig::Bias::own}, generator, options); break;
    case 2: attach(zoo, LoraConfig{.rank = 2, .alpha = 3, .targets = layers, .bias = LoraConfig::Bias::layer}, generator, options); break;
    case 3: attach(zoo, DoraConfig{.rank = 2, .alpha = 3, .targets = layers}, generator, options); break;
    case 4: attach(zoo, DoraConfig{.rank = 2, .alpha = 3, .targets = layers, .bias = LoraConfig::Bias::layer}, generator, options); break;
    case 5: attach(zoo, LohaConfig{.rank = 2, .alpha = 3, .targets = products}, generator, options); break;
    case 6: attach(zoo, Ia3Config{.targets = products}, generator, options); break;
    case 7: attach(zoo, Ia3Config{.targets = products, .feedforward = products}, generator, options); break;
    default: attach(zoo, IntrinsicConfig{.dimension = 5, .targets = products}, generator, options); break;
  }
  shake(zoo, options.name, seed);
}

}  // namespace

TEST_CASE("a LoRA behind a DoRA or IA3 is added to what that makes of the output, one before it is part of it") {
  for (const bool dora : {true, false})
    for (const bool last : {true, false}) {
      Linear<double> layer(2, 1);
      layer.weight->set(Tensor<double>({1, 2}, {3, 4}));
      layer.bias->set(Tensor<double>({1}, {7}));
      Generator generator(1);
      const auto lora = [&] { attach(layer, LoraConfig{.rank = 1, .alpha = 1, .targets = {""}}, generator, {.name = "lora"}); };
      if (!last) lora();
      if (dora)
        attach(layer, DoraConfig{.rank = 1, .alpha = 1, .targets = {""}}, generator, {.name = "other"});
      else
        attach(layer, Ia3Config{.targets = {""}}, generator, {.name = "other"});
      if (last) lora();
      for (const auto& ref : patch_params(layer, "lora")) ref.weight->set(Tensor<double>::full(ref.weight->shape(), 1));  // B A = [1, 1]
      for (const auto& ref : patch_params(layer, "other"))
        if (ref.path == "ia3_l" || ref.path == "lora_magnitude_vector") ref.weight->set(Tensor<double>::full(ref.weight->shape(), dora ? 10 : 2));
      // the factor is 10 / ||(3, 4)|| = 2, of the bias too for IA3
      const double bias = dora ? 7 : 14, expected = last ? 2 * (3 + 8) + 3 : 2 * (3 + 8 + 3);
      const Var<double> x(Tensor<double>({1, 2}, {1, 2}));
      CHECK(layer(x).item() == Approx(expected + bias));
      merge(layer);
      CHECK(layer(x).item() == Approx(expected + bias));
    }
}

TEST_CASE("adapters in any order, merged one by one in any other, put out the same and leave the bits of before") {
  Generator dice(17);
  const auto roll = [&](int n) { return static_cast<int>(dice.random() % static_cast<std::uint32_t>(n)); };
  int moved = 0, refused = 0;
  for (int turn = 0; turn < 40; ++turn) {
    Zoo<double> zoo = frozen_zoo<double>();
    std::vector<Tensor<double>> weights;
    for (const auto& ref : params(zoo)) weights.push_back(ref.weight->value());
    const auto before = outputs(zoo);
    const int count = 2 + roll(3);
    std::string order;
    for (int i = 0; i < count; ++i) {
      const int method = roll(methods);
      order += std::to_string(method) + " ";
      attach_method(zoo, method, static_cast<std::uint64_t>(100 * turn + i), {.name = "m" + std::to_string(i), .scale = roll(2) == 0 ? 1.0 : 0.25 * (roll(9) - 4)});
    }
    INFO(turn << ": " << order);
    const auto tuned = outputs(zoo);
    for (int step = 0; step < 5; ++step) {
      const std::string name = "m" + std::to_string(roll(count));
      INFO("step " << step << " " << name);
      try {
        if (roll(3) > 0)
          merge(zoo, name);
        else
          unmerge(zoo, name);
        ++moved;
      } catch (const Error& e) {  // out of order
        REQUIRE_THAT(e.what(), contains("merge both, or unmerge"));
        ++refused;
      }
      CHECK(worst(outputs(zoo), tuned) < 1e-12);
    }
    if (roll(2) == 0) {
      unmerge(zoo);
      CHECK(outputs(zoo) == tuned);
    }
    detach(zoo);
    const auto after = params(zoo);
    for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i].weight->value() == weights[i]);
    CHECK(outputs(zoo) == before);
  }
  CHECK(moved > 100);
  CHECK(refused > 20);
}

TEST_CASE("what acts in another order when merged is an error and changes nothing") {
  Zoo<double> zoo = frozen_zoo<double>();
  attach_method(zoo, 0, 1, {.name = "lora"});
  attach_method(zoo, 3, 2, {.name = "dora"});
  attach_method(zoo, 0, 3, {.name = "late"});
  const auto tuned = outputs(zoo);
  REQUIRE_THROWS_WITH(merge(zoo, "dora"), contains("[merge] at linear 'lora' acts before 'dora', which cannot be in the weight without it"));
  REQUIRE_THROWS_WITH(merge(zoo, "late"), contains("'dora' acts before 'late'"));
  CHECK(outputs(zoo) == tuned);
  disable(zoo, "lora");
  merge(zoo, "dora");
  REQUIRE_THROWS_WITH(enable(zoo, "lora"), contains("[enable] at linear 'lora' acts before 'dora'"));
  REQUIRE_THROWS_WITH(activate(zoo, {"lora", "dora"}), contains("[activate] at linear 'lora' acts before 'dora'"));
  unmerge(zoo);
  enable(zoo, "lora");
  CHECK(outputs(zoo) == tuned);
  merge(zoo);
  REQUIRE_THROWS_WITH(unmerge(zoo, "dora"), contains("[unmerge] at linear 'dora' acts before 'late'"));
  CHECK(worst(outputs(zoo), tuned) < 1e-12);
  detach(zoo, "lora");  // what stays is what was attached behind it
  Zoo<double> rest = frozen_zoo<double>();
  attach_method(rest, 3, 2, {.name = "dora"});
  attach_method(rest, 0, 3, {.name = "late"});
  CHECK(worst(outputs(zoo), outputs(rest)) < 1e-12);

  detach(zoo);
  attach_method(zoo, 7, 1, {.name = "input"});
  merge(zoo);
  REQUIRE_THROWS_WITH(attach_method(zoo, 0, 2, {.name = "lora"}), contains("adapter 'input', which changes what linear takes in, is merged there"));
  unmerge(zoo);
  attach_method(zoo, 0, 2, {.name = "lora"});
  REQUIRE_THROWS_WITH(merge(zoo, "input"), contains("'lora' acts before 'input'"));
}

TEST_CASE("an adapter that comes while another is merged is what it is beside it") {
  for (int method = 0; method < methods; ++method)
    for (const int merged : {0, 2, 4, 6}) {
      INFO(method << " over " << merged);
      Zoo<double> zoo = frozen_zoo<double>();
      attach_method(zoo, merged, 1, {.name = "merged"});
      merge(zoo);
      attach_method(zoo, method, 2, {.name = "late", .scale = 0.5});
      const auto tuned = outputs(zoo);
      unmerge(zoo);
      CHECK(worst(outputs(zoo), tuned) < 1e-12);
      Zoo<double> beside = frozen_zoo<double>();
      attach_method(beside, merged, 1, {.name = "merged"});
      attach_method(beside, method, 2, {.name = "late", .scale = 0.5});
      CHECK(worst(outputs(beside), tuned) < 1e-12);
    }
}

TEST_CASE("DoRA takes LoRA's patterns, initialisations and the layer's bias, LoHa and LoKr its patterns; patterns that name nothing are errors") {
  Zoo<float> zoo = frozen_zoo<float>();
  Generator generator(4);
  const auto x = inputs_of(runs<float>()[0])[0];
  const auto before = zoo.linear(x).value();
  attach(zoo, DoraConfig{.rank = 2, .alpha = 3, .targets = {"linear", "fc1"}, .init = LoraConfig::Init::orthogonal, .rank_pattern = {{"fc1", 4}},
                         .alpha_pattern = {{"fc1", 5}}, .bias = LoraConfig::Bias::layer}, generator);
  const auto& dora = dynamic_cast<Dora<float>&>(*zoo.mlp.fc1.patches.entries.at(0).patch);
  CHECK(dora.lora.rank() == 4);
  CHECK(dora.lora.scale() == 1.25f);
  CHECK(dora.lora.layer_bias->value() == zoo.mlp.fc1.bias->value());
  CHECK(error(zoo.linear(x).value(), before) < 1e-6);
  attach(zoo, LohaConfig{.rank = 2, .alpha = 3, .targets = {"linear", "fc1"}, .rank_pattern = {{"fc1", 4}}, .alpha_pattern = {{"linear", 8}}}, generator, {.name = "loha"});
  attach(zoo, LokrConfig{.rank = 1, .alpha = 3, .targets = {"linear", "fc1"}, .rank_pattern = {{"fc1", 2}}, .alpha_pattern = {{"fc1", 8}}}, generator, {.name = "lokr"});
  CHECK(dynamic_cast<Loha<float>&>(*zoo.mlp.fc1.patches.entries.at(1).patch).scale() == 0.75f);
  CHECK(dynamic_cast<Loha<float>&>(*zoo.linear.patches.entries.at(1).patch).scale() == 4.0f);
  CHECK(dynamic_cast<Lokr<float>&>(*zoo.mlp.fc1.patches.entries.at(2).patch).scale() == 4.0f);
  CHECK(dynamic_cast<Lokr<float>&>(*zoo.linear.patches.entries.at(2).patch).scale() == 3.0f);
  REQUIRE_THROWS_WITH(attach(zoo, LoraConfig{.alpha = std::nan(""), .targets = {"bare"}}, generator, {.name = "other"}), contains("[LoraConfig] expected a finite alpha, got "));
  REQUIRE_THROWS_WITH(attach(zoo, DoraConfig{.targets = {"bare"}, .bias = LoraConfig::Bias::own}, generator, {.name = "other"}), contains("a DoRA's B has no bias of its own"));
  REQUIRE_THROWS_WITH(attach(zoo, Ia3Config{.targets = {"bare"}, .feedforward = {"fc3"}}, generator, {.name = "other"}),
                      contains("[attach] 'fc3' of feedforward matches no layer of the model; nearest: fc"));
  REQUIRE_THROWS_WITH(attach(zoo, DoraConfig{.targets = {"bare"}, .alpha_pattern = {{"bar", 2}}}, generator, {.name = "other"}), contains("'bar' of the alpha pattern matches no layer"));
}

TEST_CASE("learned rows stay as they are beside whatever tunes the table") {
  const Tensor<std::int32_t> ids({2, 3}, {4, 9, 8, 10, 4, 2});
  std::vector<int> order{0, 1, 2};
  do {
    Zoo<double> zoo = frozen_zoo<double>();
    Generator generator(5);
    for (const int method : order) {
      if (method == 0) attach(zoo, TokenRowsConfig{.count = 2, .targets = {"table"}}, generator, {.name = "rows"});
      if (method == 1) attach(zoo, DoraConfig{.rank = 2, .alpha = 3, .targets = {"table"}}, generator, {.name = "dora"});
      if (method == 2) attach(zoo, LoraConfig{.rank = 2, .alpha = 3, .targets = {"table"}}, generator, {.name = "lora"});
    }
    shake(zoo, "");
    const auto tuned = zoo.table(ids);
    const auto& rows = patch_params(zoo, "rows").at(0).weight->value();
    for (Index c = 0; c < 6; ++c) {
      CHECK(tuned.value()(0, 1, c) == rows(0, c));
      CHECK(tuned.value()(1, 0, c) == rows(1, c));
    }
    merge(zoo, "*ora");
    CHECK(error(zoo.table(ids).value(), tuned.value()) < 1e-13);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("a scale or weight that is no finite number is refused") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Zoo<float> zoo = frozen_zoo<float>();
  Generator generator(4);
  REQUIRE_THROWS_WITH(attach(zoo, LoraConfig{.targets = {"linear"}}, generator, {.scale = nan}), contains("[attach] expected a finite scale, got "));
  CHECK(adapter_names(zoo).empty());
  attach(zoo, LoraConfig{.targets = {"linear"}}, generator);
  REQUIRE_THROWS_WITH(set_scale(zoo, "default", 1e300), contains("[set_scale] expected a finite scale, got "));
  CHECK(zoo.linear.patches.entries.at(0).scale == 1.0f);
}
