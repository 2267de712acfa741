#pragma once
// The laws that every patch obeys on every layer it fits.
#include <tenon/autograd/gradcheck.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/merge.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

namespace laws {

using namespace tenon;
using golden::error, golden::numbers;

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
inline std::string check_patch_grad(Zoo<double>& zoo, const Run<double>& run, const std::vector<Var<double>>& x,
                                    const std::function<bool(const std::string&)>& skip = {}) {
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
    if (skip && skip(ref.path)) continue;
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

/// How an adapter goes through a file.
struct Through {
  std::function<void(Zoo<float>&, const std::string&)> save = [](Zoo<float>& zoo, const std::string& path) { save_adapter(zoo, path); };
  std::string name = "adapter";
};

/// `not_by_differences` names the parameters whose gradient is not that of the output on purpose.
template <class Config>
int obey(const Config& config, const Through& through = {}, const std::function<bool(const std::string&)>& not_by_differences = {}) {
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
    constexpr bool is_prefix = std::same_as<Config, PrefixConfig>;
    bool mergeable = true;
    for (const auto& site : sites(zoo))
      for_each_patch(site, [&](const auto& entry) {
        if constexpr (requires { entry.patch->can_merge(); })
          mergeable = mergeable && entry.patch->can_merge();
        else
          mergeable = false;
      });

    bool identity = true;
    if constexpr (is_prefix) identity = config.gated;
    if (identity) CHECK(out() == before);  // a fresh patch changes nothing
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
    bool scales = true;  // keys and values in front of a layer's own have no scale; what is attended apart has
    if constexpr (is_prefix) scales = config.gated;
    if (scales) {
      set_scale(zoo, "default", 0.0);
      CHECK(error(out(), before) < 1e-6);
      set_scale(zoo, "default", 1.0);
    } else {
      REQUIRE_THROWS_WITH(set_scale(zoo, "default", 0.5), contains("takes no scale"));
    }

    Scratch scratch("laws");  // through a file into another model of the same base
    through.save(zoo, scratch / through.name);
    const auto report = attach(plain, load_adapter(scratch / through.name), {.name = "from file"});
    CHECK(report.unused.empty());
    CHECK(report.used.size() == load_adapter(scratch / through.name).tensors.size());
    CHECK(run.call(plain, x).value() == tuned);
    CHECK(trainable(plain).empty());
    REQUIRE_THROWS_WITH(attach(plain, load_adapter(scratch / through.name), {.name = "from file"}),
                        contains("'from file' is attached to") && contains("already"));
    detach(plain, "from file");
    CHECK(run.call(plain, x).value() == before);

    if (mergeable) {
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
    CHECK(check_patch_grad(fine, deep, z, not_by_differences) == "");
    std::vector<Tensor<double>> values;
    for (const auto& v : z) values.push_back(v.value());
    for (const auto& ref : patch_params(fine)) ref.weight->set_trainable(false);
    if (!values.empty()) CHECK(check_grad([&](const auto& v) { return deep.call(fine, v); }, values) == "");
    if (mergeable) {
      const auto run_time = deep.call(fine, z).value();
      merge(fine);
      CHECK(error(deep.call(fine, z).value(), run_time) < 1e-13);
    }
  }
  return fitted;
}

}  // namespace laws
