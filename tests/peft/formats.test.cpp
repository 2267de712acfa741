// Adapters of Hugging Face peft: files that peft wrote (golden/make_peft.py) and files that it reads.
#include <filesystem>

#include <nlohmann/json.hpp>

#include <tenon/models/clip/checkpoint.hpp>
#include <tenon/models/diffusion/text_encoder.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/merge.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error;

namespace {

const std::string clip_folder = golden::path("clip");

struct Inputs {
  Tensor<float> pictures;
  Tensor<std::int32_t> ids;
};
Inputs inputs() {
  const auto file = SafetensorsFile::open(clip_folder + "/expected_quick_gelu.safetensors");
  return {file.load<float>("pictures"), file.load<std::int32_t>("ids")};
}

template <class T>
struct Convolutions {
  Conv2d<T> strided{6, 8, 3, {.stride = 2, .padding = 1}}, grouped{6, 8, 3, {.padding = 1, .groups = 2}},
      dilated{6, 8, 3, {.padding = 2, .dilation = 2}};
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("strided", s.strided), f("grouped", s.grouped), f("dilated", s.dilated);
  }
};

/// A folder's adapter_config.json, changed.
nlohmann::json edited(const std::string& folder, const std::function<void(nlohmann::json&)>& edit) {
  nlohmann::json config = Json::read(folder + "/adapter_config.json").value();
  edit(config);
  return config;
}

}  // namespace

TEST_CASE("LoRA of peft on CLIP: features, merged weights, gradients") {
  const auto [pictures, ids] = inputs();
  for (const std::string name : {"lora", "rslora"}) {
    INFO(name);
    const std::string folder = golden::path("peft/" + name);
    const auto file = SafetensorsFile::open(folder + "/expected.safetensors");
    Clip<float> clip = load_clip<float>(clip_folder);
    const auto report = attach(clip, load_adapter(folder));
    CHECK(report.unused.empty());
    CHECK(report.sites.size() == 18);
    double worst = 0;
    const auto near = [&](const std::string& what, const Tensor<float>& value, double limit) {
      INFO(what);
      const double e = error(value, file.load<double>(what));
      CHECK(e < limit);
      worst = std::max(worst, e);
    };
    near("image_features", clip.image_features(pictures).value(), 1e-5);
    near("text_features", clip.text_features(ids).value(), 1e-5);

    CHECK(trainable(clip).empty());  // what a file brings is frozen
    for (const auto& ref : patch_params(clip)) ref.weight->set_trainable(true);
    backward(contrastive_loss(clip(pictures, ids)));
    int compared = 0;
    for (const auto& ref : patch_params(clip)) {
      if (!file.contains("grad." + ref.path)) continue;
      near("grad." + ref.path, ref.weight->var().grad(), 3e-5);
      ++compared;
    }
    CHECK(compared == 8);

    merge(clip);
    for (const auto& site : sites(clip))
      if (file.contains("merged." + site.path + ".weight")) near("merged." + site.path + ".weight", site.weight->value(), 1e-6);
    near("image_features", clip.image_features(pictures).value(), 1e-5);
    near("text_features", clip.text_features(ids).value(), 1e-5);
    CHECK(worst < 3e-5);
  }
}

TEST_CASE("LoRA of peft on convolutions: stride, groups, dilation") {
  const std::string folder = golden::path("peft/convolutions");
  const auto file = SafetensorsFile::open(folder + "/expected.safetensors");
  Convolutions<float> model;
  load_params(params(model), file, {.rename = [](const std::string& name) { return "base." + name; }, .strict = false});
  attach(model, load_adapter(folder));
  const Var<float> x(file.load<float>("x"));
  CHECK(error(model.strided(x).value(), file.load<float>("strided")) < 2e-6);
  CHECK(error(model.grouped(x).value(), file.load<float>("grouped")) < 2e-6);  // peft's A reads every input
  CHECK(error(model.dilated(x).value(), file.load<float>("dilated")) < 2e-6);
  REQUIRE_THROWS_WITH(merge(model), contains("grouped convolution"));
  model.grouped.patches.entries.clear();
  merge(model);
  CHECK(error(model.strided(x).value(), file.load<float>("strided")) < 2e-6);
  CHECK(error(model.dilated(x).value(), file.load<float>("dilated")) < 2e-6);
}

TEST_CASE("a grouped convolution's A is written as peft has it, reading every input, and read back as it was") {
  Scratch scratch("grouped");
  const std::string folder = golden::path("peft/convolutions");
  const auto file = SafetensorsFile::open(folder + "/expected.safetensors");
  Convolutions<float> model;
  load_params(params(model), file, {.rename = [](const std::string& name) { return "base." + name; }, .strict = false});
  Generator generator(1);
  attach(model, LoraConfig{.rank = 4, .alpha = 6, .targets = {"grouped"}}, generator);
  for (const auto& ref : patch_params(model)) ref.weight->set(golden::numbers<float>(ref.weight->shape(), generator));
  const Var<float> x(file.load<float>("x"));
  const auto y = model.grouped(x).value(), a = patch_params(model).at(0).weight->value();
  CHECK(a.shape() == Shape{4, 3, 3, 3});
  save_adapter(model, scratch / "adapter");
  const auto written = SafetensorsFile::open(scratch / "adapter/adapter_model.safetensors").load<float>("base_model.model.grouped.lora_A.weight");
  CHECK(written.shape() == SafetensorsFile::open(folder + "/adapter_model.safetensors").info("base_model.model.grouped.lora_A.weight").shape);
  CHECK(written(1, 2, 0, 1) == a(1, 2, 0, 1));  // ranks 0 and 1 read channels 0 to 2
  CHECK(written(1, 3, 0, 1) == 0);
  CHECK(written(2, 5, 0, 1) == a(2, 2, 0, 1));
  CHECK(written(2, 2, 0, 1) == 0);  // (peft 0.21 read such a directory and gave the same output to 8e-8)
  detach(model);
  attach(model, load_adapter(scratch / "adapter"));
  CHECK(patch_params(model).at(0).weight->value() == a);
  CHECK(model.grouped(x).value() == y);
  merge(model);
  CHECK(error(model.grouped(x).value(), y) < 1e-5);
}

TEST_CASE("an adapter file finds its layers in a part of the model and in a larger one") {
  const auto [pictures, ids] = inputs();
  const std::string folder = golden::path("peft/lora");
  const auto file = SafetensorsFile::open(folder + "/expected.safetensors");
  Scratch scratch("roots");
  Clip<float> clip = load_clip<float>(clip_folder);
  attach(clip, load_adapter(folder));
  save_adapter(clip.text_model, scratch / "text");
  const auto from_part = load_adapter(scratch / "text");
  CHECK(from_part.tensors.contains("encoder.layers.0.mlp.fc1.lora_A.weight"));

  Clip<float> other = load_clip<float>(clip_folder);
  attach(other.text_model, from_part);
  CHECK(error(other.text_features(ids).value(), file.load<double>("text_features")) < 1e-5);
  detach(other);

  Clip<float> wrong = load_clip<float>(clip_folder);  // a whole model's file does not slip into one tower
  REQUIRE_THROWS_AS(attach(wrong.vision_model, load_adapter(folder)), FileError);
  REQUIRE_THROWS_AS(attach(wrong.text_model, load_adapter(folder)), FileError);
  CHECK(adapter_names(wrong).empty());
  const auto report = attach(wrong.text_model, load_adapter(folder), {.strict = false});
  CHECK(report.sites.size() == 9);
  CHECK(report.unused.size() == 18);
  CHECK(error(wrong.text_features(ids).value(), file.load<double>("text_features")) < 1e-5);
  detach(wrong);
  const auto vision = attach(wrong.vision_model, load_adapter(folder), {.strict = false});
  CHECK(vision.sites.size() == 9);
  CHECK(error(wrong.image_features(pictures).value(), file.load<double>("image_features")) < 1e-5);
}

TEST_CASE("an adapter file that fits two parts equally well is refused") {
  Scratch scratch("two-roots");
  Clip<float> clip = load_clip<float>(clip_folder);
  Generator generator(1);
  attach(clip.text_model, LoraConfig{.rank = 2, .targets = {"q_proj"}}, generator);
  save_adapter(clip.text_model, scratch / "adapter");
  detach(clip);
  REQUIRE_THROWS_WITH(attach(clip, load_adapter(scratch / "adapter")),
                      contains("fits the model in two ways") && contains("text_model.") && contains("vision_model."));
  CHECK(adapter_names(clip).empty());
  CHECK(attach(clip.text_model, load_adapter(scratch / "adapter")).sites.size() == 2);
}

TEST_CASE("save_adapter writes what peft reads") {
  const auto [pictures, ids] = inputs();
  const char* keep = std::getenv("TENON_KEEP");  // a directory for make_peft.py --read
  Scratch scratch("save-adapter");
  const std::string out = keep != nullptr ? std::string(keep) : scratch / "adapter";
  Clip<float> clip = load_clip<float>(clip_folder);
  attach(clip, load_adapter(golden::path("peft/lora")), {.name = "style"});
  save_adapter(clip, out, "style");
  const Json config = Json::read(out + "/adapter_config.json");
  CHECK(config.get<std::string>("peft_type") == "LORA");
  CHECK(config.get<std::int64_t>("r") == 4);
  CHECK(config.get<double>("lora_alpha") == 6);
  CHECK(config.at("rank_pattern").value().at("^text_model.encoder.layers.1.self_attn.v_proj") == 2);
  CHECK(config.at("alpha_pattern").value().at("^vision_model.encoder.layers.0.self_attn.out_proj") == 3.5);
  const auto written = SafetensorsFile::open(out + "/adapter_model.safetensors");
  const auto original = SafetensorsFile::open(golden::path("peft/lora/adapter_model.safetensors"));
  CHECK(written.names() == original.names());
  for (const auto& name : original.names()) CHECK(written.load<float>(name) == original.load<float>(name));
  Clip<float> again = load_clip<float>(clip_folder);
  attach(again, load_adapter(out));
  CHECK(again.image_features(pictures).value() == clip.image_features(pictures).value());
  CHECK(again.text_features(ids).value() == clip.text_features(ids).value());
  detach(again);
  attach(again, load_adapter(out + "/adapter_model.safetensors"));  // a directory by its tensors
  CHECK(again.text_features(ids).value() == clip.text_features(ids).value());
  if (keep != nullptr)
    save_safetensors(out + "/expected.safetensors", {{"image_features", raw_copy(clip.image_features(pictures).value())},
                                                     {"text_features", raw_copy(clip.text_features(ids).value())}});

  save_adapter(clip, scratch / "half", "style", DType::bf16);
  const auto half_size = SafetensorsFile::open(scratch / "half/adapter_model.safetensors");
  CHECK(half_size.tensors().front().dtype == DType::bf16);
  REQUIRE_THROWS_WITH(save_adapter(clip, scratch / "x", "styel"), contains("no adapter 'styel' is attached; attached: style"));
}

TEST_CASE("a rank in the configuration that the tensors contradict is an error") {
  Scratch scratch("ranks");
  Generator generator(1);
  Mlp<float> block(4, 6, Activation::gelu);
  block.initialize(generator);
  const auto refuses = [&](const auto& config, const char* part) {
    attach(block, config, generator);
    save_adapter(block, scratch / "adapter");
    detach(block);
    CHECK(attach(block, load_adapter(scratch / "adapter")).sites.size() == 2);
    detach(block);
    for (const bool pattern : {false, true}) {
      save_json(scratch / "adapter/adapter_config.json", edited(scratch / "adapter", [&](auto& c) {
        c["r"] = pattern ? 2 : 3;
        if (pattern) c["rank_pattern"] = {{"fc1", 3}};
      }));
      REQUIRE_THROWS_WITH(attach(block, load_adapter(scratch / "adapter")), contains(std::string("fc1.") + part) && contains("expected rank 3") &&
                                                                                contains("adapter_config.json say, found 2"));
      CHECK(adapter_names(block).empty());
    }
  };
  refuses(LoraConfig{.rank = 2, .targets = {"fc1", "fc2"}}, "lora_A.weight");
  refuses(DoraConfig{.rank = 2, .targets = {"fc1", "fc2"}}, "lora_A.weight");
  refuses(LohaConfig{.rank = 2, .targets = {"fc1", "fc2"}}, "hada_w1_b");
  refuses(LokrConfig{.rank = 2, .targets = {"fc1", "fc2"}, .factor = 1}, "lokr_w2_b");
}

TEST_CASE("feedforward_modules are any ends of the paths, inside a name too, as in peft") {
  Scratch scratch("feedforward");
  Generator generator(1);
  Mlp<float> block(4, 6, Activation::gelu), other(4, 6, Activation::gelu);
  block.initialize(generator), other.initialize(generator);
  attach(block, Ia3Config{.targets = {"fc1", "fc2"}, .feedforward = {"fc2"}}, generator);
  save_adapter(block, scratch / "adapter");
  save_json(scratch / "adapter/adapter_config.json", edited(scratch / "adapter", [](auto& c) { c["feedforward_modules"] = {"c2"}; }));
  attach(other, load_adapter(scratch / "adapter"));
  CHECK(dynamic_cast<Ia3Input<float>*>(other.fc2.patches.entries.at(0).patch.get()) != nullptr);
  CHECK(dynamic_cast<Ia3Output<float>*>(other.fc1.patches.entries.at(0).patch.get()) != nullptr);
}

TEST_CASE("text towers have the names of transformers 5: CLIPTextModel without text_model, with a projection with it") {
  const char* keep = std::getenv("TENON_KEEP");
  const auto ids = inputs().ids;
  const auto dict = open_checkpoint(clip_folder, {"model"});
  const ClipTextConfig config = read_text_config(Json::read(clip_folder + "/config.json"));
  for (const bool projection : {false, true}) {
    INFO(projection);
    Scratch scratch("tower");
    const std::string folder = golden::path(projection ? "peft/text_projected" : "peft/text"), out = keep != nullptr ? keep + std::string(projection ? "_projected" : "_text") : scratch / "adapter";
    const auto expected = SafetensorsFile::open(folder + "/expected.safetensors").load<double>("last_hidden_state");
    const Index width = projection ? dict.info("text_projection.weight").shape[0] : 0;
    TextEncoder<float> tower(config, width), other(config, width);
    for (auto* model : {&tower, &other}) load_params(params(*model), dict, {.strict = false});
    attach(tower, load_adapter(folder));
    CHECK(error(tower.text_model(ids).last_hidden_state.value(), expected) < 1e-5);
    save_adapter(tower, out);
    const auto written = load_adapter(out), theirs = load_adapter(folder);
    CHECK(written.tensors.size() == theirs.tensors.size());
    for (const auto& [name, tensor] : theirs.tensors) {
      INFO(name);
      CHECK(written.tensors.contains(name));
    }
    CHECK(written.config->at("alpha_pattern").value().contains(std::string(projection ? "^text_model." : "^") + "encoder.layers.1.self_attn.q_proj"));
    attach(other, written);
    CHECK(other.text_model(ids).last_hidden_state.value() == tower.text_model(ids).last_hidden_state.value());
    Clip<float> clip = load_clip<float>(clip_folder);
    attach(clip.text_model, theirs, {.strict = false});
    CHECK(error(clip.text_model(ids).last_hidden_state.value(), expected) < 1e-5);
  }
}

TEST_CASE("a pattern that is a suffix of another layer's path names one layer only") {
  Scratch scratch("patterns");
  Mlp<float> block(4, 6, Activation::gelu);
  Generator generator(1);
  block.initialize(generator);
  attach(block, LoraConfig{.rank = 2, .alpha = 5, .targets = {"fc1"}}, generator);
  attach(block, LoraConfig{.rank = 3, .alpha = 7, .targets = {"fc2"}}, generator);
  save_adapter(block, scratch / "adapter");
  Mlp<float> other(4, 6, Activation::gelu);
  other.initialize(generator);
  attach(other, load_adapter(scratch / "adapter"));
  CHECK(dynamic_cast<Lora<float>&>(*other.fc1.patches.entries.at(0).patch).alpha == 5);
  CHECK(dynamic_cast<Lora<float>&>(*other.fc2.patches.entries.at(0).patch).alpha == 7);
  CHECK(dynamic_cast<Lora<float>&>(*other.fc2.patches.entries.at(0).patch).rank() == 3);
}

TEST_CASE("save_adapter refuses what the format cannot hold") {
  Scratch scratch("mixed");
  Clip<float> clip = load_clip<float>(clip_folder);
  Generator generator(1);
  const auto refuses = [&](const std::string& text) {
    REQUIRE_THROWS_WITH(save_adapter(clip, scratch / "adapter"), contains(text));
    CHECK(scratch.count() == 0);
    detach(clip);
  };
  attach(clip, LoraConfig{.targets = {"q_proj"}}, generator);
  attach(clip, LoraConfig{.targets = {"v_proj"}, .rslora = true}, generator);
  refuses("more than one value of use_rslora");
  attach(clip, LoraConfig{.targets = {"q_proj"}}, generator);
  attach(clip.text_model, BottleneckConfig{}, generator);
  refuses("mixes lora and bottleneck");
  attach(clip, PrefixConfig{.length = 2, .targets = {"layers.0.self_attn"}}, generator);
  attach(clip, PrefixConfig{.length = 3, .targets = {"layers.1.self_attn"}}, generator);
  refuses("prefixes of one length only");
}

TEST_CASE("prefixes lie in one tensor [P, layers * 2 * D], for each layer its keys, then its values") {
  Scratch scratch("prefix");
  Clip<float> clip = load_clip<float>(clip_folder);
  Generator generator(2);
  attach(clip.text_model, PrefixConfig{.length = 3}, generator);
  for (const auto& ref : patch_params(clip)) ref.weight->set(golden::numbers<float>(ref.weight->shape(), generator));
  save_adapter(clip.text_model, scratch / "adapter");
  const auto all = SafetensorsFile::open(scratch / "adapter/adapter_model.safetensors").load<float>("prompt_embeddings");
  CHECK(all.shape() == Shape{3, 2 * 2 * 24});
  for (Index layer = 0; layer < 2; ++layer) {
    const auto& attention = clip.text_model.encoder.layers[static_cast<std::size_t>(layer)].self_attn;
    const auto& patch = dynamic_cast<const Prefix<float>&>(*attention.key_values.entries.at(0).patch);
    CHECK(copy(all.view().sliced(1, layer * 48, layer * 48 + 24)) == patch.keys->value());
    CHECK(copy(all.view().sliced(1, layer * 48 + 24, layer * 48 + 48)) == patch.values->value());
  }
  const auto ids = inputs().ids;
  Clip<float> other = load_clip<float>(clip_folder);
  attach(other.text_model, load_adapter(scratch / "adapter"));
  CHECK(other.text_features(ids).value() == clip.text_features(ids).value());
  REQUIRE_THROWS_WITH(attach(other.vision_model, load_adapter(scratch / "adapter")),
                      contains("prompt_embeddings: expected [P, 128] for 2 attention layers, found [3, 96]"));
}

TEST_CASE("adapter files that tenon would misread are refused") {
  Scratch scratch("refuse");
  const std::string folder = golden::path("peft/lora");
  std::filesystem::copy(folder + "/adapter_model.safetensors", scratch / "adapter_model.safetensors");
  Clip<float> clip = load_clip<float>(clip_folder);
  const auto load = [&](const std::function<void(nlohmann::json&)>& edit) {
    save_json(scratch / "adapter_config.json", edited(folder, edit));
    attach(clip, load_adapter(scratch / ""));
    detach(clip);
  };
  load([](auto&) {});
  load([](auto& c) { c["init_lora_weights"] = "mica"; });  // leaves the base as it is
  REQUIRE_THROWS_WITH(load([](auto& c) { c["kasa_config"] = {{"beta", 0.1}}; }), contains("kasa_config is not supported yet"));
  REQUIRE_THROWS_WITH(load([](auto& c) { c["use_bdlora"] = {{"nblocks", 2}}; }), contains("use_bdlora is not supported yet"));
  REQUIRE_THROWS_WITH(load([](auto& c) { c["use_dora"] = true; }), contains("lora_magnitude_vector, which use_dora promises"));
  REQUIRE_THROWS_WITH(load([](auto& c) { c["fan_in_fan_out"] = true; }), contains("fan_in_fan_out is not supported yet"));
  REQUIRE_THROWS_WITH(load([](auto& c) { c["init_lora_weights"] = "pissa_niter_4"; }), contains("init_lora_weights pissa is not supported yet"));
  REQUIRE_THROWS_WITH(load([](auto& c) { c["modules_to_save"] = {"text_projection"}; }), contains("modules_to_save"));
  REQUIRE_THROWS_WITH(load([](auto& c) { c["peft_type"] = "VERA"; }), contains("found VERA"));
  REQUIRE_THROWS_WITH(load([](auto& c) { c["alpha_pattern"] = {{"(", 2}}; }), contains("expected a regular expression, found '('"));
  REQUIRE_THROWS_WITH(load([](auto& c) { c["alpha_pattern"] = {{"fc1", "x"}}; }), contains("expected a number for 'fc1'"));
  CHECK(adapter_names(clip).empty());

  const auto file = SafetensorsFile::open(folder + "/adapter_model.safetensors");
  std::vector<NamedTensor> tensors;
  for (const auto& name : file.names())
    if (!name.ends_with("layers.0.mlp.fc1.lora_B.weight")) tensors.push_back({name, file.raw(name)});
  save_safetensors(scratch / "adapter_model.safetensors", tensors);
  REQUIRE_THROWS_WITH(load([](auto&) {}), contains("missing text_model.encoder.layers.0.mlp.fc1.lora_B.weight"));
  CHECK(adapter_names(clip).empty());
}
