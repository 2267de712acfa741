// The laws that every patch obeys on every layer it fits.
#include <tenon/autograd/gradcheck.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/merge.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error, golden::numbers;

namespace {

/// One of each layer that patches fit.
template <class T>
struct Zoo {
  Linear<T> linear{6, 5}, bare{6, 5, false};
  Conv2d<T> strided{4, 6, 3, {.stride = 2, .padding = 1}}, dilated{4, 6, 3, {.padding = 2, .dilation = 2}}, grouped{4, 6, 3, {.groups = 2}};
  Embedding<T> table{9, 6};
  Mlp<T> mlp{6, 10, Activation::gelu};
  Attention<T> self{6, 2}, causal{6, 3, true}, cross{6, 2, false, 4};

  explicit Zoo(Generator& generator) {
    for (const auto& ref : params(*this)) ref.weight->set(numbers<T>(ref.weight->shape(), generator, 0.5));
  }
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("linear", s.linear), f("bare", s.bare), f("strided", s.strided), f("dilated", s.dilated), f("grouped", s.grouped);
    f("table", s.table), f("mlp", s.mlp), f("self", s.self), f("causal", s.causal), f("cross", s.cross);
  }
};

/// How one layer is run, and which layers to target there.
template <class T>
struct Run {
  std::string name;
  std::vector<std::string> targets;
  std::vector<Shape> inputs;
  std::function<Var<T>(const Zoo<T>&, const std::vector<Var<T>>&)> call;
};

template <class T>
std::vector<Run<T>> runs() {
  const Shape tokens{2, 3, 6}, picture{2, 5, 6, 4};
  const Tensor<std::int32_t> ids({2, 3}, {4, 0, 8, 4, 4, 2});
  std::vector<Run<T>> out{
      {"linear", {"linear"}, {tokens}, [](const auto& zoo, const auto& x) { return zoo.linear(x[0]); }},
      {"linear with activation", {"linear"}, {tokens}, [](const auto& zoo, const auto& x) { return zoo.linear(x[0], Activation::quick_gelu); }},
      {"linear without bias", {"bare"}, {tokens}, [](const auto& zoo, const auto& x) { return zoo.bare(x[0]); }},
      {"strided", {"strided"}, {picture}, [](const auto& zoo, const auto& x) { return zoo.strided(x[0]); }},
      {"dilated", {"dilated"}, {picture}, [](const auto& zoo, const auto& x) { return zoo.dilated(x[0]); }},
      {"grouped", {"grouped"}, {picture}, [](const auto& zoo, const auto& x) { return zoo.grouped(x[0]); }},
      {"table", {"table"}, {}, [ids](const auto& zoo, const auto&) { return zoo.table(ids); }},
      {"mlp", {"mlp"}, {tokens}, [](const auto& zoo, const auto& x) { return zoo.mlp(x[0]); }},
      {"mlp inside", {"fc1", "mlp.fc2"}, {tokens}, [](const auto& zoo, const auto& x) { return zoo.mlp(x[0]); }},
      {"self", {"self"}, {tokens}, [](const auto& zoo, const auto& x) { return zoo.self(x[0]); }},
      {"causal", {"causal"}, {tokens}, [](const auto& zoo, const auto& x) { return zoo.causal(x[0]); }},
      {"cross", {"cross"}, {tokens, {2, 4, 4}}, [](const auto& zoo, const auto& x) { return zoo.cross(x[0], x[1]); }}};
  for (const char* projection : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
    out.push_back({std::string("causal ") + projection, {std::string("causal.") + projection}, {tokens},
                   [](const auto& zoo, const auto& x) { return zoo.causal(x[0]); }});
    out.push_back({std::string("cross ") + projection, {std::string("cross.") + projection}, {tokens, {2, 4, 4}},
                   [](const auto& zoo, const auto& x) { return zoo.cross(x[0], x[1]); }});
  }
  return out;
}

template <class T>
Zoo<T> frozen_zoo() {
  Generator generator(7);
  Zoo<T> zoo(generator);
  freeze(zoo);
  return zoo;
}
template <class T>
std::vector<Var<T>> inputs_of(const Run<T>& run) {
  Generator generator(11);
  std::vector<Var<T>> out;
  for (const auto& shape : run.inputs) out.push_back(numbers<T>(shape, generator));
  return out;
}
template <class M>
void shake(M& model, std::string_view adapter, std::uint64_t seed = 5) {
  Generator generator(seed);
  for (const auto& ref : patch_params(model, adapter)) {
    const bool trainable = ref.weight->trainable();
    ref.weight->set(numbers<scalar_of<M>>(ref.weight->shape(), generator, 0.4));
    ref.weight->set_trainable(trainable);
  }
}

const LoraConfig lora{.rank = 2, .alpha = 3}, rslora{.rank = 4, .alpha = 3, .rslora = true};
const BottleneckConfig bottleneck{.bottleneck = 3, .activation = Activation::silu};
const PrefixConfig prefix{.length = 2};

/// Attaches; false where the method does not fit the layers.
template <class T, class Config>
bool try_attach(Zoo<T>& zoo, Config config, const Run<T>& run, const AttachOptions& options = {}) {
  Generator generator(3);
  config.targets = run.targets;
  try {
    attach(zoo, config, generator, options);
    return true;
  } catch (const NameError&) {
    REQUIRE(adapter_names(zoo).empty());
    return false;
  }
}

/// Central differences of sum(y w) in every patch parameter; the first disagreement, or nothing.
std::string check_patch_grad(Zoo<double>& zoo, const Run<double>& run, const std::vector<Var<double>>& x) {
  const auto weigh = [](const Tensor<double>& y) {
    auto w = Tensor<double>::uninitialized(y.shape());
    for (Index i = 0; i < w.size(); ++i) w.data()[i] = 0.5 + std::fmod(0.618 * static_cast<double>(i + 1), 1.0);
    return w;
  };
  const auto objective = [&] {
    const NoGrad none;
    const Tensor<double> y = run.call(zoo, x).value(), w = weigh(y);
    double total = 0;
    for (Index i = 0; i < y.size(); ++i) total += y.data()[i] * w.data()[i];
    return total;
  };
  const auto y = run.call(zoo, x);
  backward(y, weigh(y.value()));
  for (const auto& ref : params(zoo))
    if (ref.weight->var().has_grad()) return ref.path + " of the base has a gradient";
  for (const auto& ref : patch_params(zoo)) {
    if (!ref.weight->var().has_grad()) return ref.path + " has no gradient";
    const Tensor<double> grad = ref.weight->var().grad();
    for (Index i = 0; i < grad.size(); ++i) {
      const auto at = [&](double by) {
        ref.weight->update([&](Tensor<double>& value) { value.data()[i] += by; });
        return objective();
      };
      const double above = at(1e-6), below = at(-2e-6), expected = (above - below) / 2e-6;
      at(1e-6);
      if (!(std::abs(grad.data()[i] - expected) <= 1e-6 + 1e-4 * std::abs(expected)))
        return join_text(ref.path, " element ", i, ": expected ", expected, ", got ", grad.data()[i]);
    }
  }
  return {};
}

template <class Config>
int obey(const Config& config) {
  int fitted = 0;
  const auto all = runs<float>();
  const auto all_double = runs<double>();
  for (std::size_t r = 0; r < all.size(); ++r) {
    const auto& run = all[r];
    Zoo<float> zoo = frozen_zoo<float>();
    if (!try_attach(zoo, config, run)) continue;
    INFO(run.name);
    ++fitted;
    const auto x = inputs_of(run);
    Zoo<float> plain = frozen_zoo<float>();
    const Tensor<float> before = run.call(plain, x).value();
    const auto out = [&] { return run.call(zoo, x).value(); };
    constexpr bool is_prefix = std::same_as<Config, PrefixConfig>, mergeable = std::same_as<Config, LoraConfig>;

    if (!is_prefix) CHECK(out() == before);  // a fresh patch changes nothing
    shake(zoo, "default");
    const Tensor<float> tuned = out();
    CHECK(error(tuned, before) > 1e-3);

    disable(zoo, "default");
    CHECK(out() == before);
    enable(zoo, "default");
    CHECK(out() == tuned);
    activate(zoo, {});
    CHECK(out() == before);
    activate(zoo, {"def*"});
    CHECK(out() == tuned);
    if constexpr (!is_prefix) {
      set_scale(zoo, "default", 0.0);
      CHECK(error(out(), before) < 1e-6);
      set_scale(zoo, "default", 1.0);
    } else {
      REQUIRE_THROWS_WITH(set_scale(zoo, "default", 0.5), contains("takes no scale"));
    }

    Scratch scratch("laws");  // through a file into another model of the same base
    save_adapter(zoo, scratch / "adapter");
    const auto report = attach(plain, load_adapter(scratch / "adapter"), {.name = "from file"});
    CHECK(report.unused.empty());
    CHECK(run.call(plain, x).value() == tuned);
    CHECK(trainable(plain).empty());
    REQUIRE_THROWS_WITH(attach(plain, load_adapter(scratch / "adapter"), {.name = "from file"}),
                        contains("'from file' is attached to") && contains("already"));
    detach(plain, "from file");
    CHECK(run.call(plain, x).value() == before);

    if constexpr (mergeable) {
      std::vector<Tensor<float>> weights;
      for (const auto& ref : params(zoo)) weights.push_back(ref.weight->value());
      merge(zoo);
      CHECK(error(out(), tuned) < 2e-6);
      REQUIRE_THROWS_WITH(set_scale(zoo, "*", 2.0), contains("unmerge it first"));
      REQUIRE_THROWS_WITH(disable(zoo, "*"), contains("unmerge it first"));
      REQUIRE_THROWS_WITH(activate(zoo, {}), contains("unmerge it first"));
      unmerge(zoo);
      CHECK(out() == tuned);
      const auto after = params(zoo);
      for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i].weight->value() == weights[i]);
      merge(zoo);
    } else {
      REQUIRE_THROWS_WITH(merge(zoo), contains("cannot be merged at") && contains("default"));
      CHECK(out() == tuned);
    }
    detach(zoo);
    CHECK(out() == before);
    CHECK(patch_params(zoo).empty());

    const auto& deep = all_double[r];
    Zoo<double> fine = frozen_zoo<double>();
    REQUIRE(try_attach(fine, config, deep));
    shake(fine, "default");
    const auto z = inputs_of(deep);
    CHECK(check_patch_grad(fine, deep, z) == "");
    std::vector<Tensor<double>> values;
    for (const auto& v : z) values.push_back(v.value());
    for (const auto& ref : patch_params(fine)) ref.weight->set_trainable(false);
    if (!values.empty()) CHECK(check_grad([&](const auto& v) { return deep.call(fine, v); }, values) == "");
    if constexpr (mergeable) {
      const auto run_time = deep.call(fine, z).value();
      merge(fine);
      CHECK(error(deep.call(fine, z).value(), run_time) < 1e-13);
    }
  }
  return fitted;
}

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
TEST_CASE("prefixes obey the laws") { CHECK(obey(prefix) == 3); }

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
