#include <filesystem>

#include <tenon/models/clip/checkpoint.hpp>

#include "../../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;

namespace {
const std::string folder = golden::path("clip_names");
}

TEST_CASE("open_clip's and OpenAI's checkpoints give open_clip's features") {
  for (const std::string checkpoint : {"open_clip", "open_clip_wide", "vit.pt", "resnet.pt"}) {
    INFO(checkpoint);
    const auto file = SafetensorsFile::open(folder + "/expected_" + checkpoint.substr(0, checkpoint.find('.')) + ".safetensors");
    const Clip<double> clip = load_clip<double>(folder + "/" + checkpoint);
    const auto ids = file.load<std::int32_t>("ids");
    CHECK(golden::error(clip.image_features(file.load<double>("pictures")).value(), file.load<double>("image_features")) < 1e-6);
    CHECK(golden::error(clip.text_features(ids).value(), file.load<double>("text_features")) < 1e-6);
    const Clip<float> narrow = load_clip<float>(folder + "/" + checkpoint);
    CHECK(golden::error(narrow.image_features(file.load<float>("pictures")).value(), file.load<double>("image_features")) < 1e-5);
    CHECK(golden::error(narrow.text_features(ids).value(), file.load<double>("text_features")) < 1e-5);
  }
  for (const DType weights : {DType::bf16, DType::i8}) {  // a ResNet's pooling has a table that is no weight of a product
    const auto file = SafetensorsFile::open(folder + "/expected_resnet.safetensors");
    const Clip<float> narrow = load_clip<float>(folder + "/resnet.pt", {.weights = weights});
    CHECK(golden::error(narrow.image_features(file.load<float>("pictures")).value(), file.load<double>("image_features")) < 0.1);
  }
  // the other activation shows
  const auto file = SafetensorsFile::open(folder + "/expected_vit.safetensors");
  const Clip<double> other = load_clip<double>(folder + "/vit.pt", {.hidden_act = Activation::quick_gelu});
  CHECK(golden::error(other.image_features(file.load<double>("pictures")).value(), file.load<double>("image_features")) > 1e-4);
}

TEST_CASE("Hugging Face's names behind clip. and a scale of shape [1]") {
  const Scratch scratch("names-prefix");
  const auto good = SafetensorsFile::open(golden::path("clip") + "/model.safetensors");
  const auto bits = good.load<float>("logit_scale");
  for (const std::string prefix : {"", "clip."}) {
    std::vector<NamedTensor> tensors;
    for (const auto& name : good.names())
      tensors.push_back({prefix + name, name == "logit_scale" ? raw_copy(Tensor<float>::of({*bits.data()})) : good.raw(name)});
    save_safetensors(scratch / "model.safetensors", tensors);
    std::filesystem::copy_file(golden::path("clip") + "/config.json", scratch / "config.json", std::filesystem::copy_options::overwrite_existing);
    Clip<float> clip = load_clip<float>(scratch.path.string()), wanted = load_clip<float>(golden::path("clip"));
    const auto found = params(clip), right = params(wanted);
    for (std::size_t i = 0; i < right.size(); ++i) CHECK(found[i].weight->value() == right[i].weight->value());
  }
}

TEST_CASE("a configuration read from shapes") {
  StateDict dict = open_checkpoint(folder + "/resnet.pt");
  to_hugging_face_clip(dict);
  const ClipConfig c = infer_clip_config(dict, Activation::quick_gelu);
  REQUIRE(c.resnet_config);
  CHECK(c.resnet_config->layers == std::array<Index, 4>{1, 2, 1, 1});
  CHECK(c.resnet_config->width == 4);
  CHECK(c.image_size() == 64);
  CHECK(c.resnet_config->num_attention_heads == 2);
  CHECK(c.projection_dim == 12);
  CHECK(c.text_config.max_position_embeddings == 9);
  CHECK(c.text_config.eos_token_id == 98);
  // a Hugging Face folder's shapes give its configuration back, but for the heads that shapes cannot tell
  StateDict hf = open_checkpoint(golden::path("clip") + "/model.safetensors");
  to_hugging_face_clip(hf);
  const ClipConfig d = infer_clip_config(hf, Activation::quick_gelu), e = read_clip_config(Json::read(golden::path("clip") + "/config.json"));
  CHECK(d.vision_config.image_size == e.vision_config.image_size);
  CHECK(d.vision_config.intermediate_size == e.vision_config.intermediate_size);
  CHECK(d.vision_config.num_hidden_layers == e.vision_config.num_hidden_layers);
  CHECK(d.text_config.vocab_size == e.text_config.vocab_size);
  dict.erase("visual.attnpool.positional_embedding");
  REQUIRE_THROWS_WITH(infer_clip_config(dict, Activation::gelu), contains("no tensor \"visual.attnpool.positional_embedding\""));
}

TEST_CASE("open_clip's variants are read or refused") {
  const auto read = [](const std::string& vision, const std::string& text) {
    return read_open_clip_config(Json::parse(R"({"embed_dim": 8, "vision_cfg": {)" + vision + R"(}, "text_cfg": {)" + text + "}}", "test"));
  };
  const ClipConfig c = read(R"("norm_kwargs": {"eps": 1e-6}, "pool_type": "tok", "act_kwargs": null)", R"("norm_kwargs": {"eps": 1e-3})");
  CHECK(c.vision_config.layer_norm_eps == 1e-6);
  CHECK(c.text_config.layer_norm_eps == 1e-3);
  REQUIRE_THROWS_WITH(read(R"("pool_type": "avg")", ""), contains("vision_cfg.pool_type: expected tok, found avg"));
  REQUIRE_THROWS_WITH(read("", R"("pool_type": "last")"), contains("text_cfg.pool_type: expected argmax, found last"));
  REQUIRE_THROWS_WITH(read("", R"("act_kwargs": {"approximate": "tanh"})"), contains("text_cfg.act_kwargs.approximate: expected none, found tanh"));
  REQUIRE_THROWS_WITH(read("", R"("no_causal_mask": true)"), contains("text_cfg.no_causal_mask"));
  CHECK(read(R"("image_size": [32, 32])", "").image_size() == 32);
  CHECK(read(R"("layers": [1, 2, 3, 4], "image_size": [64, 64])", "").resnet_config->layers == std::array<Index, 4>{1, 2, 3, 4});
  const std::pair<const char*, const char*> wrong[] = {
      {R"("head_width": 0)", "test: vision_cfg.head_width: expected 1 to 16777216, found 0"},
      {R"("layers": [1, 1, 1, 1], "head_width": 0)", "test: vision_cfg.head_width: expected 1 to 16777216, found 0"},
      {R"("layers": [1, 4611686018427387904, 1, 1])", "test: vision_cfg.layers.1: expected 0 to 1024, found 4611686018427387904"},
      {R"("layers": [1, 1, 1])", "test: vision_cfg.layers: expected 4 numbers, found 3"},
      {R"("layers": [1, 1, 1, 1], "image_size": [32, 64])", "test: vision_cfg.image_size: expected one number for a ResNet, found 32 x 64"},
      {R"("layers": 4611686018427387904)", "test: vision_cfg.layers: expected 0 to 1024, found 4611686018427387904"},
      {R"("mlp_ratio": 1e300)", "test: vision_cfg.mlp_ratio: expected above 0 and at most 1024, found 1e+300"},
      {R"("image_size": [0, 5])", "test: vision_cfg.image_size.0: expected 1 to 16384, found 0"}};
  for (const auto& [text, message] : wrong) REQUIRE_THROWS_WITH(read(text, ""), contains(message));
  REQUIRE_THROWS_WITH(read("", R"("width": 0)"), contains("text_cfg.width: expected 1 to 16777216, found 0"));
}

TEST_CASE("a checkpoint of something else is named") {
  const Scratch scratch("names-3");
  save_safetensors(scratch / "other.safetensors", {{"unet.conv_in.weight", raw_copy(Tensor<float>::of({1}))}});
  REQUIRE_THROWS_WITH(load_clip<float>(scratch / "other.safetensors"), contains("no tensor \"text_model.embeddings.token_embedding.weight\""));
  REQUIRE_THROWS_WITH(load_clip<float>(scratch / "nothing"), contains("[load_clip]") && contains("nothing"));
  REQUIRE_THROWS_WITH(load_clip<float>(scratch.path.string()), contains("expected one of model.safetensors"));
}

TEST_CASE("a ResNet is for inference, and Hugging Face has no name for it") {
  Clip<float> clip = load_clip<float>(folder + "/resnet.pt");
  const Scratch scratch("names-4");
  REQUIRE_THROWS_WITH(save_clip(clip, scratch / "out"), contains("no ResNet"));
  Generator generator(1);
  REQUIRE_THROWS_WITH(Clip<float>(clip.config, generator), contains("not trained from scratch"));
  REQUIRE_THROWS_WITH(clip.image_features(Tensor<float>({1, 32, 32, 3})), contains("expected pictures [N, 64, 64, 3]"));
}
