// What peft 0.21 and LyCORIS 4.1.3 give for each method: outputs, gradients, merged weights, and their files back.
#include <tenon/autograd/backward.hpp>
#include <tenon/io/checkpoint.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/formats/peft.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error;

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
       {"ia3", "dora", "dora_rslora", "dora_table", "dora_bias", "loha", "loha_effective", "lokr", "lokr_both", "lokr_full", "lora_bias", "bias_only"}) {
    INFO(name);
    const std::string folder = "peft_methods/" + name;
    Layers<float> model;
    check_against(model, folder, folder + "/expected.safetensors");
    Scratch scratch("parity");
    save_adapter(model, scratch / "adapter");
    check_same_tensors(load_adapter(scratch / "adapter"), load_adapter(golden::path(folder)));
  }
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
