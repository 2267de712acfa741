// LoRA, bottleneck adapters and prefixes by the laws, and how adapters stack, merge and leave.
#include "laws.hpp"

using namespace laws;

namespace {

const LoraConfig lora{.rank = 2, .alpha = 3}, rslora{.rank = 4, .alpha = 3, .rslora = true};
const BottleneckConfig bottleneck{.bottleneck = 3, .activation = Activation::silu};
const PrefixConfig prefix{.length = 2};

/// Attention by its formula, in double, keys and values of the prefix in front.
Tensor<double> naive_attention(const Attention<double>& layer, const Tensor<double>& x, const Tensor<double>& context, const Prefix<double>& p) {
  const auto q = layer.q_proj(x).value(), k = layer.k_proj(context).value(), v = layer.v_proj(context).value();
  const Tensor<double>&pk = p.keys->value(), &pv = p.values->value();
  const Index width = q.extent(2), d = width / layer.heads, front = pk.extent(0);
  Tensor<double> out(q.shape());
  for (Index n = 0; n < q.extent(0); ++n)
    for (Index h = 0; h < layer.heads; ++h)
      for (Index i = 0; i < q.extent(1); ++i) {
        double total = 0;
        for (Index j = 0; j < front + k.extent(1); ++j) {
          if (layer.causal && j - front > i) continue;
          double dot = 0;
          for (Index c = h * d; c < (h + 1) * d; ++c) dot += q(n, i, c) * (j < front ? pk(j, c) : k(n, j - front, c));
          const double mass = std::exp(dot / std::sqrt(static_cast<double>(d)));
          total += mass;
          for (Index c = h * d; c < (h + 1) * d; ++c) out(n, i, c) += mass * (j < front ? pv(j, c) : v(n, j - front, c));
        }
        for (Index c = h * d; c < (h + 1) * d; ++c) out(n, i, c) /= total;
      }
  return layer.out_proj(Var<double>(out)).value();
}

}  // namespace

TEST_CASE("LoRA obeys the laws") { CHECK(obey(lora) == 16); }
TEST_CASE("LoRA with rsLoRA's scale obeys the laws") { CHECK(obey(rslora) == 16); }
TEST_CASE("bottleneck adapters obey the laws") { CHECK(obey(bottleneck) == 20); }
TEST_CASE("prefixes obey the laws, from a network and with gates too") {
  CHECK(obey(prefix) == 3);
  CHECK(obey(PrefixConfig{.length = 2, .reparametrisation = 5}) == 3);
  CHECK(obey(PrefixConfig{.length = 3, .gated = true}) == 3);
  CHECK(obey(PrefixConfig{.length = 2, .reparametrisation = 4, .gated = true}) == 3);
}

TEST_CASE("LoRA by hand: alpha and rank, rsLoRA, scales multiply") {
  Linear<double> layer(2, 1, false);
  layer.weight->set(Tensor<double>({1, 2}, {1, 2}));
  Generator generator(1);
  attach(layer, LoraConfig{.rank = 4, .alpha = 6, .targets = {""}}, generator, {.name = "one", .scale = 0.5});
  attach(layer, LoraConfig{.rank = 4, .alpha = 6, .targets = {""}, .rslora = true}, generator, {.name = "two"});
  for (const auto& ref : patch_params(layer)) ref.weight->set(Tensor<double>::full(ref.weight->shape(), 1));
  const Var<double> x(Tensor<double>({1, 2}, {3, 5}));
  // W x = 13; B A x = 4 (3 + 5) = 32, at 6/4 * 0.5 and at 6/2
  CHECK(layer(x).item() == Approx(13 + 32 * 0.75 + 32 * 3));
  set_scale(layer, "one", 0);
  CHECK(layer(x).item() == Approx(13 + 32 * 3));
  merge(layer, "two");
  CHECK(layer.weight->value() == Tensor<double>({1, 2}, {13, 14}));
}

TEST_CASE("a prefix is attention over [P_k; K] and [P_v; V]") {
  for (const auto& run : runs<double>()) {
    Zoo<double> zoo = frozen_zoo<double>();
    if (!try_attach(zoo, prefix, run)) continue;
    INFO(run.name);
    const auto x = inputs_of(run);
    const Attention<double>& layer = run.name == "self" ? zoo.self : run.name == "causal" ? zoo.causal : zoo.cross;
    const auto& patch = dynamic_cast<const Prefix<double>&>(*layer.key_values.entries.at(0).patch);
    for (int shaken = 0; shaken < 2; ++shaken) {
      const auto expected = naive_attention(layer, x[0].value(), x.back().value(), patch);
      CHECK(error(run.call(zoo, x).value(), expected) < 1e-13);
      shake(zoo, "default");
    }
  }
}

TEST_CASE("a gated prefix from a network: peft's prefix_projection, attended apart and added") {
  Zoo<double> zoo = frozen_zoo<double>();
  Generator generator(3);
  attach(zoo, PrefixConfig{.length = 2, .reparametrisation = 5, .gated = true, .targets = {"self", "cross"}}, generator);
  shake(zoo, "default");
  const auto& patch = dynamic_cast<const Prefix<double>&>(*zoo.cross.key_values.entries.at(0).patch);
  const auto made = patch.keys_values();
  const Tensor<double>&table = patch.trunk->table->value(), &w1 = patch.trunk->hidden.weight->value(), &b1 = patch.trunk->hidden.bias->value();
  const Tensor<double>&w2 = patch.last.weight->value(), &b2 = patch.last.bias->value();
  for (Index p = 0; p < 2; ++p)
    for (Index c = 0; c < 12; ++c) {
      double sum = b2(c);
      for (Index h = 0; h < 5; ++h) {
        double inner = b1(h);
        for (Index e = 0; e < 6; ++e) inner += table(p, e) * w1(h, e);
        sum += std::tanh(inner) * w2(c, h);
      }
      CHECK((c < 6 ? made.keys.value()(p, c) : made.values.value()(p, c - 6)) == Approx(sum));
    }
  const Var<double> x(numbers<double>({2, 3, 6}, generator)), context(numbers<double>({2, 4, 4}, generator));
  const auto tuned = zoo.cross(x, context).value();
  disable(zoo, "default");
  const auto base = zoo.cross(x, context);
  const auto twice = [](const Var<double>& one) { return stack<double>({one, one}); };
  AttentionOptions<double> options;
  options.heads = 2;
  const auto beside = attention(zoo.cross.q_proj(x), twice(made.keys), twice(made.values), options) * *made.gate;
  CHECK(error((base + linear(beside, *zoo.cross.out_proj.weight)).value(), tuned) < 1e-13);
}

TEST_CASE("adapters stack, merge together and leave one by one") {
  Zoo<float> zoo = frozen_zoo<float>();
  const auto run = runs<float>().at(0);
  const auto x = inputs_of(run);
  const auto weight = zoo.linear.weight->value();
  const auto base = run.call(zoo, x).value();
  REQUIRE(try_attach(zoo, lora, run, {.name = "a", .scale = 0.7}));
  shake(zoo, "a", 1);
  const auto only_a = run.call(zoo, x).value();
  REQUIRE(try_attach(zoo, rslora, run, {.name = "b", .scale = -1.2}));
  shake(zoo, "b", 2);
  const auto both = run.call(zoo, x).value();
  activate(zoo, {"a"});
  CHECK(run.call(zoo, x).value() == only_a);
  activate(zoo, {"a", "b"});
  merge(zoo);
  CHECK(error(run.call(zoo, x).value(), both) < 1e-6);
  unmerge(zoo, "b");
  CHECK(error(run.call(zoo, x).value(), both) < 1e-6);
  disable(zoo, "b");
  CHECK(error(run.call(zoo, x).value(), only_a) < 1e-6);
  detach(zoo, "a");
  CHECK(zoo.linear.weight->value() == weight);
  CHECK(run.call(zoo, x).value() == base);
  CHECK(adapter_names(zoo) == std::set<std::string>{"b"});
  enable(zoo, "b");
  merge_and_unload(zoo, "b");
  CHECK(adapter_names(zoo).empty());
  CHECK(!(zoo.linear.weight->value() == weight));
}

TEST_CASE("training a merged weight is an error before it is a loss") {
  Zoo<float> zoo = frozen_zoo<float>();
  const auto run = runs<float>().at(0);
  REQUIRE(try_attach(zoo, lora, run));
  shake(zoo, "default");
  const auto write = [&] { zoo.linear.weight->update([](Tensor<float>& value) { value.data()[0] += 1; }); };
  write();  // before merging: of no concern
  merge(zoo);
  const auto merged = zoo.linear.weight->value();
  write();
  const auto trained = zoo.linear.weight->value();
  CHECK(!(merged == trained));
  REQUIRE_THROWS_WITH(unmerge(zoo), contains("the weight of linear was written while an adapter was merged into it"));
  REQUIRE_THROWS_AS(detach(zoo), Error);
  CHECK(zoo.linear.weight->value() == trained);
  merge_and_unload(zoo);
  CHECK(zoo.linear.weight->value() == trained);
  CHECK(adapter_names(zoo).empty());
}

TEST_CASE("disabled adapters are not merged, and not lost") {
  Zoo<float> zoo = frozen_zoo<float>();
  const auto run = runs<float>().at(0);
  const auto weight = zoo.linear.weight->value();
  REQUIRE(try_attach(zoo, lora, run, {.name = "a"}));
  REQUIRE(try_attach(zoo, lora, run, {.name = "b"}));
  shake(zoo, "");
  disable(zoo, "b");
  REQUIRE_THROWS_WITH(merge(zoo, "b"), contains("every adapter 'b' is disabled; enable it first"));
  REQUIRE_THROWS_WITH(merge_and_unload(zoo), contains("adapter 'b' is disabled at linear and would be lost"));
  CHECK(zoo.linear.weight->value() == weight);
  const auto only_a = run.call(zoo, inputs_of(run)).value();
  merge(zoo);
  CHECK(error(run.call(zoo, inputs_of(run)).value(), only_a) < 1e-6);
  CHECK(!zoo.linear.patches.entries.at(1).merged);
}

TEST_CASE("different methods stack on one layer") {
  Zoo<float> zoo = frozen_zoo<float>();
  const auto run = runs<float>().at(9);
  REQUIRE(run.name == "self");
  const auto x = inputs_of(run);
  const auto base = run.call(zoo, x).value();
  Generator generator(2);
  attach(zoo, LoraConfig{.rank = 2, .alpha = 3, .targets = {"self.*_proj"}}, generator, {.name = "lora"});
  REQUIRE(try_attach(zoo, bottleneck, run, {.name = "adapter"}));
  REQUIRE(try_attach(zoo, prefix, run, {.name = "prefix"}));
  shake(zoo, "");
  const auto all = run.call(zoo, x).value();
  merge(zoo, "lora");
  CHECK(error(run.call(zoo, x).value(), all) < 1e-6);
  detach(zoo, "prefix");
  detach(zoo, "adapter");
  detach(zoo, "lora");
  CHECK(run.call(zoo, x).value() == base);
}

TEST_CASE("a merge that fails changes nothing") {
  Zoo<float> zoo = frozen_zoo<float>();
  const auto all = runs<float>();
  Generator generator(4);
  attach(zoo, LoraConfig{.rank = 2, .alpha = 3, .targets = {"linear", "grouped"}}, generator);
  auto& patch = dynamic_cast<Lora<float>&>(*zoo.grouped.patches.entries.at(0).patch);
  patch.a = Param<float>(numbers<float>({2, 4, 3, 3}, generator));  // reads every input: such a delta has no place in the weight
  shake(zoo, "");
  const auto weight = zoo.linear.weight->value();
  const auto x = inputs_of(all[0]);
  const auto y = all[0].call(zoo, x).value();
  REQUIRE_THROWS_WITH(merge(zoo), contains("[merge]") && contains("grouped convolution"));
  CHECK(zoo.linear.weight->value() == weight);
  CHECK(all[0].call(zoo, x).value() == y);
  set_scale(zoo, "*", 0.5);  // nothing counts as merged
}

TEST_CASE("wrong names and shapes are named errors and attach nothing") {
  Zoo<float> zoo = frozen_zoo<float>();
  Generator generator(4);
  const auto with = [&](std::vector<std::string> targets, Index rank = 2) {
    attach(zoo, LoraConfig{.rank = rank, .alpha = 3, .targets = std::move(targets)}, generator);
  };
  REQUIRE_THROWS_WITH(with({"linear", "qproj"}), contains("[attach] 'qproj' matches no layer of the model; nearest: ") && contains("q_proj"));
  REQUIRE_THROWS_WITH(with({"mlp"}), contains("'mlp' names only layers that this method does not fit, such as mlp (mlp)"));
  REQUIRE_THROWS_WITH(with({"mlp", "nowhere"}), contains("'mlp' names only layers that this method does not fit"));
  REQUIRE_THROWS_WITH(with({"nowhere", "causal*"}), contains("'nowhere' matches no layer"));
  REQUIRE_THROWS_WITH(with({}), contains("no layer that this method fits"));
  const auto patterned = [&](LoraConfig config) {
    config.targets = {"linear", "causal.*"};
    attach(zoo, config, generator);
  };
  REQUIRE_THROWS_WITH(patterned({.rank_pattern = {{"linear", 3}, {"causal.qproj", 4}}}),
                      contains("'causal.qproj' of the rank pattern matches no layer that the targets name; nearest: ") && contains("causal.q_proj"));
  REQUIRE_THROWS_WITH(patterned({.alpha_pattern = {{"conv", 3}}}), contains("'conv' of the alpha pattern matches no layer that the targets name"));
  REQUIRE_THROWS_WITH(with({"linear"}, 0), contains("[LoraConfig] expected a rank of at least 1, got 0"));
  REQUIRE_THROWS_WITH(with({"grouped"}, 3), contains("groups of grouped divide, got 3"));
  REQUIRE_THROWS_WITH(attach(zoo, PrefixConfig{.length = 2}, generator, {.name = "p", .scale = 0.5}), contains("takes no scale"));
  CHECK(adapter_names(zoo).empty());
  with({"linear"});
  REQUIRE_THROWS_WITH(with({"bare", "linear"}), contains("an adapter named 'default' is attached to linear already"));
  CHECK(patch_params(zoo).size() == 2);
  REQUIRE_THROWS_WITH(merge(zoo, "other"), contains("[merge] no adapter 'other' is attached; attached: default"));
  REQUIRE_THROWS_AS(detach(zoo, "other"), NameError);
  REQUIRE_THROWS_AS(activate(zoo, {"default", "other"}), NameError);

  Scratch scratch("wrong");  // another model's file
  save_adapter(zoo, scratch / "adapter");
  Linear<float> narrow(5, 5);
  REQUIRE_THROWS_WITH(attach(narrow, load_adapter(scratch / "adapter")), contains("no layer of this model takes anything from it"));
  Zoo<float> wide = frozen_zoo<float>();
  wide.linear = Linear<float>(7, 5, generator);
  REQUIRE_THROWS_WITH(attach(wide, load_adapter(scratch / "adapter")), contains("linear.lora_A.weight: expected shape [2, 7], found [2, 6]"));
  CHECK(adapter_names(wide).empty());
}
