// What peft 0.21 and LyCORIS 4.1.3 give for each method: outputs, gradients, merged weights, and their files back.
#include <tenon/autograd/backward.hpp>
#include <tenon/io/checkpoint.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/skeleton.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error, golden::numbers;

namespace {

/// The model of golden/peft_methods.
template <class T>
struct Layers {
  Linear<T> linear{12, 10}, bare{12, 10, false};
  Conv2d<T> conv{6, 8, 3, {.stride = 2, .padding = 1}}, point{6, 8, 1}, grouped{6, 8, 3, {.padding = 1, .groups = 2}};
  Embedding<T> table{9, 10};
  LayerNorm<T> norm{12};
  GroupNorm<T> group{3, 6};
  Var<T> tokens, picture;

  Layers() {
    const auto file = SafetensorsFile::open(golden::path("peft_methods/base.safetensors"));
    load_params(params(*this), file, {.rename = [](const std::string& name) { return "base." + name; }, .strict = false});
    tokens = file.load<T>("tokens"), picture = file.load<T>("picture");
  }
  std::vector<std::pair<std::string, Var<T>>> outputs() const {
    const Tensor<std::int32_t> ids({2, 3}, {4, 0, 8, 4, 4, 2});
    return {{"linear", linear(tokens)}, {"bare", bare(tokens)}, {"conv", conv(picture)}, {"point", point(picture)},
            {"grouped", grouped(picture)}, {"table", table(ids)}, {"norm", norm(tokens)}, {"group", group(picture)}};
  }
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("linear", s.linear), f("bare", s.bare), f("conv", s.conv), f("point", s.point), f("grouped", s.grouped), f("table", s.table);
    f("norm", s.norm), f("group", s.group);
  }
};

/// An adapter against the numbers beside it; leaves it attached.
void check_against(Layers<float>& model, const std::string& adapter, const std::string& numbers) {
  const auto file = SafetensorsFile::open(golden::path(numbers));
  CHECK(attach(model, load_adapter(golden::path(adapter))).unused.empty());
  const auto compare = [&] {
    Var<float> loss(Tensor<float>::scalar(0));
    for (const auto& [layer, y] : model.outputs()) {
      if (!file.contains(layer)) continue;
      INFO(layer);
      CHECK(error(y.value(), file.load<float>(layer)) < 3e-6);
      loss = loss + sum(y * y) * 0.5;
    }
    return loss;
  };
  for (const auto& ref : patch_params(model)) ref.weight->set_trainable(true);
  backward(compare());
  for (const auto& ref : patch_params(model)) {
    INFO(ref.path);
    std::string name = "grad." + ref.path;
    if (!file.contains(name)) name = name.substr(0, name.rfind('.')) + ".dora_scale";  // LyCORIS' word for lora_magnitude_vector
    const Tensor<float> expected = file.load<float>(name);
    CHECK(error(ref.weight->var().grad().share(expected.shape()), expected) < 1e-5);
    ref.weight->set_trainable(false);
  }
  std::vector<Tensor<float>> elements;
  for (const auto& ref : params(model)) elements.push_back(ref.weight->value());
  merge(model);
  for (const auto& ref : params(model)) {
    if (!file.contains("merged." + ref.path)) continue;
    INFO(ref.path);
    CHECK(error(ref.weight->value(), file.load<float>("merged." + ref.path)) < 2e-6);
  }
  compare();
  unmerge(model);
  const auto after = params(model);
  for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i].weight->value() == elements[i]);
}

/// What was written holds the tensors that were read.
void check_same_tensors(const AdapterFile& written, const AdapterFile& read) {
  CHECK(written.tensors.size() == read.tensors.size());
  for (const auto& [key, raw] : read.tensors) {
    INFO(key);
    REQUIRE(written.tensors.contains(key));
    CHECK(cast<float>(written.tensors.at(key)) == cast<float>(raw));
  }
}

}  // namespace

TEST_CASE("peft's methods: outputs, gradients, merged weights, and files back") {
  for (const std::string name :
       {"ia3", "dora", "dora_rslora", "dora_table", "dora_bias", "loha", "loha_effective", "lokr", "lokr_both", "lokr_full", "lora_bias", "bias_only", "bias_all", "dora_bias_all"}) {
    INFO(name);
    const std::string folder = "peft_methods/" + name;
    Layers<float> model;
    check_against(model, folder, folder + "/expected.safetensors");
    Scratch scratch("parity");
    save_adapter(model, scratch / "adapter");
    check_same_tensors(load_adapter(scratch / "adapter"), load_adapter(golden::path(folder)));
  }
}

TEST_CASE("bias all: the biases of all layers are trained, and disabling gives the base's back") {
  Layers<float> model;
  Generator generator(1);
  std::vector<Tensor<float>> before;
  for (const auto& [layer, y] : model.outputs()) before.push_back(y.value());
  attach(model, LoraConfig{.rank = 2, .targets = {"linear"}, .bias = LoraConfig::Bias::all}, generator);
  std::set<std::string> names;
  for (const auto& ref : patch_params(model)) names.insert(ref.path);
  CHECK(names == std::set<std::string>{"linear.lora_A.weight", "linear.lora_B.weight", "linear.base_layer.bias", "conv.bias", "point.bias", "grouped.bias", "norm.bias", "group.bias"});
  const auto same = [&] {
    Index count = 0;
    const auto now = model.outputs();
    for (std::size_t i = 0; i < now.size(); ++i) count += now[i].second.value() == before[i] ? 1 : 0;
    return count;
  };
  CHECK(same() == 8);
  for (const auto& ref : patch_params(model)) ref.weight->set(numbers<float>(ref.weight->shape(), generator, 0.5));
  CHECK(same() == 2);  // bare has no bias, nor has the table
  disable(model, "default");
  CHECK(same() == 8);
  enable(model, "default");
  Scratch scratch("bias_all");
  save_adapter(model, scratch / "adapter");
  CHECK(load_adapter(scratch / "adapter").config->get<std::string>("bias") == "all");
  Layers<float> other;
  CHECK(attach(other, load_adapter(scratch / "adapter")).unused.empty());
  const auto expected = model.outputs(), found = other.outputs();
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(found[i].second.value() == expected[i].second.value());
  REQUIRE_THROWS_WITH(save_kohya(model, scratch / "a.safetensors"), contains("has no place for"));

  const AdapterFile file = load_adapter(scratch / "adapter");  // without the model
  Skeleton<float> skeleton;
  add_layers(skeleton, file);
  CHECK(attach(skeleton, file).unused.empty());
  save_adapter(skeleton, scratch / "again");
  check_same_tensors(load_adapter(scratch / "again"), file);
}

TEST_CASE("adapters on one layer act in the order of attaching, as peft's do in that of set_adapter") {
  const auto file = SafetensorsFile::open(golden::path("peft_methods/stacked.safetensors"));
  for (const std::string first : {"dora", "lora_bias"}) {
    INFO(first);
    Layers<float> model;
    for (const std::string& name : {first, std::string(first == "dora" ? "lora_bias" : "dora")}) attach(model, load_adapter(golden::path("peft_methods/" + name)), {.name = name});
    const auto compare = [&] {
      CHECK(error(model.linear(model.tokens).value(), file.load<float>(first + ".linear")) < 3e-6);
      CHECK(error(model.conv(model.picture).value(), file.load<float>(first + ".conv")) < 3e-6);
    };
    compare();
    merge(model);
    compare();
  }
}

TEST_CASE("LyCORIS' methods: outputs, gradients, merged weights, and files back") {
  for (const std::string name : {"locon", "locon_tucker", "dora_out", "dora_in", "dora_tucker", "loha", "loha_tucker", "loha_dora", "lokr", "lokr_both",
                                 "lokr_dora", "full", "norm"}) {
    INFO(name);
    const std::string path = "peft_lycoris/" + name + ".safetensors";
    Layers<float> model;
    check_against(model, path, "peft_lycoris/" + name + "_expected.safetensors");
    Scratch scratch("parity");
    save_kohya(model, scratch / "a.safetensors");
    auto written = load_adapter(scratch / "a.safetensors");
    std::map<std::string, RawTensor> renamed;  // a model that is no pipeline: LyCORIS' prefix for ours
    for (const auto& [key, raw] : written.tensors) renamed.emplace("lycoris_" + key.substr(std::string("lora_unet_").size()), raw);
    written.tensors = std::move(renamed);
    check_same_tensors(written, load_adapter(golden::path(path)));
  }
}
