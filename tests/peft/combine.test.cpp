// Adapters from adapters: weighted combination, conversion, extraction, PiSSA and orthogonal initialisation.
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/combine.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/pissa.hpp>

#include "laws.hpp"

using namespace laws;

namespace {

const std::vector<std::string> layers{"linear", "bare", "strided", "dilated", "grouped", "table", "fc1"};

/// All of the zoo's outputs on their inputs.
template <class T>
std::vector<Tensor<T>> outputs(const Zoo<T>& zoo) {
  std::vector<Tensor<T>> out;
  for (const auto& run : runs<T>()) out.push_back(run.call(zoo, inputs_of(run)).value());
  return out;
}
template <class T>
double worst(const std::vector<Tensor<T>>& a, const std::vector<Tensor<T>>& b) {
  double out = 0;
  for (std::size_t i = 0; i < a.size(); ++i) out = std::max(out, error(a[i], b[i]));
  return out;
}
Zoo<double> with_loras(std::initializer_list<std::tuple<const char*, Index, double>> adapters) {
  auto zoo = frozen_zoo<double>();
  Generator generator(2);
  std::uint64_t seed = 20;
  for (const auto& [name, rank, alpha] : adapters) {
    attach(zoo, LoraConfig{.rank = rank, .alpha = alpha, .targets = layers}, generator, {.name = name});
    shake(zoo, name, seed++);
  }
  return zoo;
}

}  // namespace

TEST_CASE("a sum of adapters is exact: ranks add, weights and each adapter's own scale count once") {
  auto zoo = with_loras({{"a", 2, 3}, {"b", 4, 1}});
  set_scale(zoo, "a", 0.7);
  set_scale(zoo, "b", -1.2);
  const auto both = outputs(zoo);
  const auto report = combine(zoo, {{"a", 0.7}, {"b", -1.2}});
  CHECK(report.sites.size() == 7);
  activate(zoo, {"combined"});
  CHECK(worst(outputs(zoo), both) < 1e-13);
  CHECK(dynamic_cast<Lora<double>&>(*zoo.linear.patches.entries.at(2).patch).rank() == 6);
  detach(zoo, "combined");
  combine(zoo, {{"a", 0.7}, {"b", -1.2}}, {.method = CombineOptions::Method::svd, .rank = 6});
  activate(zoo, {"combined"});
  CHECK(worst(outputs(zoo), both) < 1e-12);
}

TEST_CASE("one adapter of weight one is itself, by every method") {
  // in peft 0.21 a result that is scaled already inherits rsLoRA's flag
  for (const auto method : {CombineOptions::Method::sum, CombineOptions::Method::svd, CombineOptions::Method::linear}) {
    auto zoo = frozen_zoo<double>();
    Generator generator(2);
    attach(zoo, LoraConfig{.rank = 4, .alpha = 3, .targets = layers, .rslora = true}, generator, {.name = "a"});
    attach(zoo, LoraConfig{.rank = 4, .alpha = 9, .targets = layers}, generator, {.name = "b"});
    shake(zoo, "");
    activate(zoo, {"a"});
    const auto alone = outputs(zoo);
    for (const bool other : {false, true}) {
      std::vector<std::pair<std::string, double>> adapters{{"a", 1}};
      if (other && method != CombineOptions::Method::linear) adapters.emplace_back("b", 0);
      combine(zoo, adapters, {.method = method, .rank = 4});
      activate(zoo, {"combined"});
      CHECK(worst(outputs(zoo), alone) < 1e-12);
      detach(zoo, "combined");
    }
  }
}

TEST_CASE("linear has cross terms, as in peft, and says so; svd is the best of its rank") {
  auto zoo = with_loras({{"a", 2, 2}, {"b", 2, 2}});
  const auto both = outputs(zoo);
  combine(zoo, {{"a", 1}, {"b", 1}}, {.method = CombineOptions::Method::linear, .name = "linear"});
  activate(zoo, {"linear"});
  CHECK(worst(outputs(zoo), both) > 1e-2);
  detach(zoo, "linear");
  combine(zoo, {{"a", 1}, {"b", -0.25}}, {.method = CombineOptions::Method::linear, .name = "linear"});
  const auto lora = [&](std::size_t i) -> Lora<double>& { return dynamic_cast<Lora<double>&>(*zoo.linear.patches.entries.at(i).patch); };
  for (Index i = 0; i < 12; ++i) CHECK(lora(2).a->value().data()[i] == Approx(lora(0).a->value().data()[i] - 0.5 * lora(1).a->value().data()[i]));
  for (Index i = 0; i < 10; ++i) CHECK(lora(2).b->value().data()[i] == Approx(lora(0).b->value().data()[i] + 0.5 * lora(1).b->value().data()[i]));
  activate(zoo, {"a", "b"});
  const auto report = combine(zoo, {{"a", 1}, {"b", 1}}, {.method = CombineOptions::Method::svd, .rank = 2, .name = "best"});
  Tensor<double> delta({5, 6}), made({5, 6});  // the reported error is the true one
  const auto into = [&](std::size_t i, Tensor<double>& out) { out = *zoo.linear.patches.entries.at(i).patch->merged(out, 1); };
  into(0, delta), into(1, delta), into(3, made);
  double missed = 0, all = 0;
  for (Index i = 0; i < delta.size(); ++i) missed += std::pow(delta.data()[i] - made.data()[i], 2), all += std::pow(delta.data()[i], 2);
  CHECK(report.errors.at(0) == Approx(std::sqrt(missed / all)));
  CHECK(report.errors.at(0) > 0);
}

TEST_CASE("what cannot be combined is a named error and attaches nothing") {
  auto zoo = with_loras({{"a", 2, 2}, {"b", 4, 2}});
  Generator generator(3);
  attach(zoo, DoraConfig{.rank = 2, .targets = {"linear"}}, generator, {.name = "d"});
  REQUIRE_THROWS_WITH(combine(zoo, {{"a", 1}, {"c", 1}}), contains("no adapter 'c' is attached"));
  REQUIRE_THROWS_WITH(combine(zoo, {{"a", 1}, {"d", 1}}), contains("expected a plain LoRA at linear, got dora"));
  REQUIRE_THROWS_WITH(combine(zoo, {{"a", 1}, {"b", 1}}, {.method = CombineOptions::Method::linear}), contains("equal ranks"));
  REQUIRE_THROWS_WITH(combine(zoo, {{"a", 1}}, {.name = "b"}), contains("an adapter named 'b' is attached"));
  REQUIRE_THROWS_WITH(combine(zoo, {}), contains("at least one adapter"));
  REQUIRE_THROWS_WITH(combine(zoo, {{"a", std::nan("")}}), contains("expected a finite weight for 'a', got "));
  CHECK(adapter_names(zoo) == std::set<std::string>{"a", "b", "d"});
}

TEST_CASE("any weight delta becomes a LoRA, exactly where the rank allows it") {
  const auto check_method = [](const auto& config, Index rank, double limit) {
    auto zoo = frozen_zoo<double>();
    Generator generator(2);
    attach(zoo, config, generator, {.scale = 0.5});
    shake(zoo, "default");
    const auto before = outputs(zoo);
    const auto report = convert_to_lora(zoo, "default", rank);
    CHECK(worst(outputs(zoo), before) < limit);
    for (const double e : report.errors) CHECK(e < limit);
    CHECK(dynamic_cast<Lora<double>*>(zoo.linear.patches.entries.at(0).patch.get()) != nullptr);
  };
  const std::vector<std::string> some{"linear", "bare", "strided"};
  check_method(LohaConfig{.rank = 2, .alpha = 3, .targets = some}, 4, 1e-12);  // rank R^2
  check_method(LokrConfig{.rank = 1, .alpha = 3, .targets = some}, 6, 1e-12);
  check_method(DoraConfig{.rank = 2, .alpha = 3, .targets = some}, 6, 1e-12);  // full
  check_method(Ia3Config{.targets = {"linear"}, .feedforward = {"linear"}}, 5, 1e-12);
  check_method(LohaConfig{.rank = 2, .alpha = 3, .targets = {"grouped", "linear"}}, 6, 1e-12);
  auto zoo = frozen_zoo<double>();
  Generator generator(2);
  attach(zoo, Ia3Config{.targets = {"linear"}}, generator);
  REQUIRE_THROWS_WITH(convert_to_lora(zoo, "default", 5), contains("no delta of the weight alone at linear"));
}

TEST_CASE("a LoRA from a delta or a sum behind a DoRA stays behind it") {
  auto zoo = frozen_zoo<double>();
  Generator generator(2);
  const std::vector<std::string> targets{"linear", "strided"};
  attach(zoo, DoraConfig{.rank = 2, .alpha = 3, .targets = targets}, generator, {.name = "dora"});
  attach(zoo, LohaConfig{.rank = 2, .alpha = 3, .targets = targets}, generator, {.name = "loha"});
  shake(zoo, "");
  const auto tuned = outputs(zoo);
  convert_to_lora(zoo, "loha", 6);
  CHECK(worst(outputs(zoo), tuned) < 1e-12);
  attach(zoo, LoraConfig{.rank = 2, .alpha = 3, .targets = targets}, generator, {.name = "a"});
  shake(zoo, "a");
  const auto with_a = outputs(zoo);
  combine(zoo, {{"a", 1}});
  disable(zoo, "a");
  CHECK(worst(outputs(zoo), with_a) < 1e-12);
  convert_to_lora(zoo, "dora", 6);
  CHECK(worst(outputs(zoo), with_a) < 1e-12);

  auto merged = frozen_zoo<double>();  // what is merged beside it does not count
  attach(merged, LohaConfig{.rank = 2, .alpha = 3, .targets = targets}, generator, {.name = "merged"});
  attach(merged, Ia3Config{.targets = {"strided"}, .feedforward = {"strided"}}, generator, {.name = "ia3"});
  shake(merged, "");
  disable(merged, "merged");
  const auto alone = outputs(merged);
  enable(merged, "merged");
  merge(merged, "merged");
  convert_to_lora(merged, "ia3", 6);
  unmerge(merged);
  disable(merged, "merged");
  CHECK(worst(outputs(merged), alone) < 1e-12);
}

TEST_CASE("a LoRA is extracted from a model and its tuned copy") {
  auto base = frozen_zoo<double>();
  auto tuned = with_loras({{"a", 2, 3}});
  const auto expected = outputs(tuned);
  merge_and_unload(tuned);
  const auto report = extract(base, tuned, {.rank = 2});
  CHECK(report.sites.size() == 7);
  for (const double e : report.errors) CHECK(e < 1e-12);
  CHECK(worst(outputs(base), expected) < 1e-12);
  detach(base);
  REQUIRE_THROWS_WITH(extract(base, tuned, {.targets = {"liner"}}), contains("'liner' matches no layer") && contains("linear"));
  const auto one = extract(base, tuned, {.rank = 1, .targets = {"linear"}, .name = "one"});
  CHECK(one.errors.at(0) > 1e-3);
  auto same = frozen_zoo<double>();
  auto other = frozen_zoo<double>();
  REQUIRE_THROWS_WITH(extract(same, other), contains("no weight of the two models differs"));
}

TEST_CASE("low rank by hand") {
  const Tensor<double> m({2, 3}, {3, 0, 0, 0, 0, 4});
  const auto one = low_rank_of(m, 1);
  CHECK(one.error == Approx(0.6));
  CHECK(one.b(1, 0) * one.a(0, 2) == Approx(4));
  CHECK(one.b(0, 0) == Approx(0));
  const auto product = low_rank_of_product(Tensor<double>({2, 1}, {1, 2}), Tensor<double>({1, 3}, {1, 0, -1}), 2);
  CHECK(product.error < 1e-15);
  CHECK(product.b(1, 0) * product.a(0, 2) + product.b(1, 1) * product.a(1, 2) == Approx(-2));
  REQUIRE_THROWS_WITH(low_rank_of(Tensor<double>({1, 2}, {NAN, 1}), 1), contains("finite"));
}

TEST_CASE("PiSSA begins at the largest singular values, over an untouched base, and is saved as a LoRA of twice the rank") {
  Scratch scratch("pissa");
  auto zoo = frozen_zoo<double>();
  const auto plain = outputs(zoo);
  const auto weight = zoo.linear.weight->value();
  Generator generator(1);
  attach(zoo, PissaConfig{.rank = 2, .alpha = 3, .targets = {"linear", "fc2", "strided", "grouped"}}, generator);
  CHECK(worst(outputs(zoo), plain) < 1e-13);
  CHECK(zoo.linear.weight->value() == weight);
  auto& patch = dynamic_cast<Lora<double>&>(*zoo.linear.patches.entries.at(0).patch);
  Tensor<double> top({5, 6});
  detail::add_low_rank(patch.a->value(), detail::scaled(patch.b->value(), patch.scale()), top);
  const auto best = low_rank_of(weight, 2);
  Tensor<double> expected({5, 6});
  detail::add_low_rank(best.a, best.b, expected);
  CHECK(error(top, expected) < 1e-13);
  shake(zoo, "default");
  const auto tuned = outputs(zoo);
  const auto run = runs<double>().at(0);
  CHECK(check_patch_grad(zoo, runs<double>().at(0), inputs_of(run), {}) == "strided.lora_A.weight has no gradient");
  for (const std::size_t r : {3u, 5u}) {  // strided and grouped, each alone
    auto alone = frozen_zoo<double>();
    attach(alone, PissaConfig{.rank = 2, .alpha = 3, .targets = runs<double>().at(r).targets}, generator);
    shake(alone, "default");
    CHECK(check_patch_grad(alone, runs<double>().at(r), inputs_of(runs<double>().at(r))) == "");
  }
  save_adapter(zoo, scratch / "adapter");
  CHECK(Json::read(scratch / "adapter/adapter_config.json").get<int>("r") == 4);
  auto other = frozen_zoo<double>();
  attach(other, load_adapter(scratch / "adapter"));
  CHECK(worst(outputs(other), tuned) < 1e-6);  // float32 in the file
  merge(zoo);
  CHECK(worst(outputs(zoo), tuned) < 1e-12);
  unmerge(zoo);
  CHECK(zoo.linear.weight->value() == weight);
  detach(zoo);
  REQUIRE_THROWS_WITH(attach(zoo, PissaConfig{.rank = 6, .targets = {"linear"}}, generator), contains("a rank from 1 to 5, got 6"));
}

TEST_CASE("orthogonal initialisation: A and B are not zero and B A is") {
  auto zoo = frozen_zoo<double>();
  const auto plain = outputs(zoo);
  Generator generator(1);
  attach(zoo, LoraConfig{.rank = 4, .alpha = 3, .targets = {"linear"}, .init = LoraConfig::Init::orthogonal}, generator);
  CHECK(worst(outputs(zoo), plain) < 1e-14);
  for (const auto& ref : patch_params(zoo)) CHECK(std::abs(ref.weight->value().data()[0]) > 1e-4);
  REQUIRE_THROWS_WITH(attach(zoo, LoraConfig{.rank = 3, .targets = {"bare"}, .init = LoraConfig::Init::orthogonal}, generator), contains("even rank"));
}

TEST_CASE("ranks and alphas by pattern: the first that names a layer decides") {
  auto zoo = frozen_zoo<double>();
  Generator generator(1);
  attach(zoo, LoraConfig{.rank = 2, .alpha = 4, .targets = {"linear", "causal*", "fc1"}, .rank_pattern = {{"causal.q_proj", 3}, {"causal.*", 5}},
                         .alpha_pattern = {{"fc1", 9}}}, generator);
  const auto at = [](auto& layer) -> Lora<double>& { return dynamic_cast<Lora<double>&>(*layer.patches.entries.at(0).patch); };
  CHECK(at(zoo.causal.q_proj).rank() == 3);
  CHECK(at(zoo.causal.v_proj).rank() == 5);
  CHECK(at(zoo.linear).rank() == 2);
  CHECK(at(zoo.mlp.fc1).alpha == 9);
  CHECK(at(zoo.linear).alpha == 4);
}
