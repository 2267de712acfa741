#include <filesystem>
#include <fstream>

#include <tenon/autograd/gradcheck.hpp>
#include <tenon/models/clip/bpe_trainer.hpp>
#include <tenon/models/clip/checkpoint.hpp>
#include <tenon/models/clip/image_encoder.hpp>
#include <tenon/models/clip/zero_shot.hpp>
#include <tenon/ops/create.hpp>
#include <tenon/peft/bottleneck.hpp>
#include <tenon/peft/lora.hpp>
#include <tenon/peft/merge.hpp>
#include <tenon/peft/prefix.hpp>

#include <nlohmann/json.hpp>

#include "../../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error, golden::numbers;

namespace {

const std::string folder = golden::path("clip");

SafetensorsFile expected(const std::string& activation) { return SafetensorsFile::open(folder + "/expected_" + activation + ".safetensors"); }

template <class T>
Clip<T> with_activation(Activation activation) {
  ClipConfig config = read_clip_config(Json::read(folder + "/config.json"));
  config.text_config.hidden_act = config.vision_config.hidden_act = activation;
  Clip<T> clip(config);
  load_params(params(clip), SafetensorsFile::open(folder + "/model.safetensors"));
  return clip;
}

/// The loss when the rows of `images` and `texts` are pairs and cosines count `scale` times.
double loss_of(const Tensor<double>& images, const Tensor<double>& texts, double scale) {
  const Var<double> logits = matmul(Var<double>(images), Var<double>(texts), {.transpose_b = true}) * scale;
  return contrastive_loss(ClipOutput<double>{images, texts, logits}).item();
}

}  // namespace

TEST_CASE("contrastive_loss by hand") {
  const Tensor<double> images({3, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1}), texts({3, 3}, {.8, .6, 0, 0, .6, .8, .6, 0, .8});
  CHECK(loss_of(images, texts, 1) == Approx(0.8845233639562347).epsilon(1e-12));
  CHECK(loss_of(images, texts, 1 / 0.07) == Approx(0.7444923638274895).epsilon(1e-12));
  CHECK(loss_of(images, texts, 100) == Approx(3.564382394894087).epsilon(1e-12));
  CHECK(loss_of(Tensor<double>({2, 1}, {1, 1}), Tensor<double>({2, 1}, {1, 1}), 7) == Approx(std::log(2.0)));
  const Var<double> wide(Tensor<double>({2, 3}));
  REQUIRE_THROWS_WITH(contrastive_loss(ClipOutput<double>{wide, wide, wide}), contains("[contrastive_loss]") && contains("[2, 3]"));
}

TEST_CASE("contrastive_loss has the gradient of central differences") {
  Generator generator(3);
  const auto loss = [](const std::vector<Var<double>>& x) {
    const Var<double> a = l2_normalize(x[0]), b = l2_normalize(x[1]);
    return contrastive_loss(ClipOutput<double>{a, b, matmul(a, b, {.transpose_b = true}) * exp(x[2])});
  };
  CHECK(check_grad(loss, {numbers({4, 5}, generator), numbers({4, 5}, generator), Tensor<double>::scalar(1.1)}) == "");
}

TEMPLATE_TEST_CASE("a CLIP of transformers gives its features, loss and gradients", "", float, double) {
  using T = TestType;
  const double limit = std::same_as<T, float> ? 1e-5 : 1e-12;
  const auto inputs = expected("quick_gelu");
  const auto pictures = inputs.load<T>("pictures");
  const auto ids = inputs.load<std::int32_t>("ids");
  for (const Activation activation : {Activation::quick_gelu, Activation::gelu}) {
    const auto file = expected(std::string(name_of(activation)));
    Clip<T> clip = activation == Activation::quick_gelu ? load_clip<T>(folder) : with_activation<T>(activation);
    CHECK(trainable(clip).empty());
    const auto far = [&](const std::string& name, const Tensor<T>& value) {
      INFO(name);
      const double e = error(value, file.load<double>(name));
      CHECK(e < limit);
      return e;
    };
    far("vision.last_hidden_state", clip.vision_model(pictures).last_hidden_state.value());
    far("text.last_hidden_state", clip.text_model(ids).last_hidden_state.value());
    double worst = far("image_features", clip.image_features(pictures).value());
    worst = std::max(worst, far("text_features", clip.text_features(ids).value()));
    CHECK(clip.text_model(ids).pooled.value() == clip.text_model.pooled(ids).value());
    unfreeze(clip);
    const auto output = clip(pictures, ids);
    far("logits_per_image", output.logits_per_image.value());
    const auto loss = contrastive_loss(output);
    far("loss", loss.value());
    backward(loss);
    for (const auto& ref : params(clip)) {
      if (!file.contains("grad." + ref.path)) continue;
      INFO(ref.path);
      const double e = error(ref.weight->var().grad(), file.load<double>("grad." + ref.path));
      CHECK(e < std::max(limit, 2e-7) * 2);
      worst = std::max(worst, e);
    }
    CHECK(worst < 2 * std::max(limit, 2e-7));
  }
}

TEST_CASE("texts cut behind their end tokens give the same bits") {
  const Clip<float> clip = load_clip<float>(folder);
  const auto ids = expected("quick_gelu").load<std::int32_t>("ids");
  CHECK(clip.text_model.end_positions(ids) == Tensor<std::int32_t>::of({4, 7, 10}));
  const Tensor<std::int32_t> none({2, 3}, {5, 7, 7, 0, 6, 8});
  CHECK(clip.text_model.end_positions(none) == Tensor<std::int32_t>::of({1, 2}));
  ClipText<float> endless;
  endless.config.eos_token_id = 99;
  endless.config.vocab_size = 99;
  CHECK(endless.end_positions(none) == Tensor<std::int32_t>::of({0, 0}));
  const Tensor<float> whole = clip.text_features(ids).value();
  for (Index row = 0; row < 2; ++row) {
    const auto cut = copy(ids.view().sliced(0, row, row + 1).sliced(1, 0, row == 0 ? 5 : 8));
    CHECK(clip.text_features(cut).value() == copy(whole.view().sliced(0, row, row + 1)));
  }
}

TEMPLATE_TEST_CASE("pooled states alone have the bits of whole towers", "", float, double) {
  using T = TestType;
  Generator generator(4);
  ClipConfig config = read_clip_config(Json::read(folder + "/config.json"));
  config.vision_config.image_size = 8 * 19;  // more keys than one block of attention
  config.text_config.max_position_embeddings = 300;
  Clip<T> clip(config, generator);
  const auto pictures = numbers<T>({3, 152, 152, 3}, generator);
  Tensor<std::int32_t> ids({3, 300});
  for (Index i = 0; i < ids.size(); ++i) ids.data()[i] = static_cast<std::int32_t>(i * 31 % 97);
  for (const auto& [text, end] : {std::pair<Index, Index>{0, 0}, {1, 288}, {2, 63}}) ids(text, end) = 98;
  const auto check_both = [&] {
    CHECK(clip.vision_model.pooled(pictures).value() == clip.vision_model(pictures).pooled.value());
    CHECK(clip.text_model.pooled(ids).value() == clip.text_model(ids).pooled.value());
  };
  check_both();
  const auto with = [&](const auto& method) {
    INFO(method.targets.front());
    const Tensor<T> before = clip.image_features(pictures).value();
    attach(clip, method, generator);
    for (const auto& ref : patch_params(clip))
      ref.weight->update([&](Tensor<T>& value) { fill_normal(value.span(), T(0), T(0.3), generator); });
    CHECK(!(clip.image_features(pictures).value() == before));
    check_both();
    detach(clip);
  };
  with(LoraConfig{.rank = 2, .targets = {"q_proj", "v_proj", "out_proj", "fc1"}});
  with(BottleneckConfig{.bottleneck = 4, .targets = {"self_attn"}});
  with(BottleneckConfig{.bottleneck = 4, .targets = {"mlp"}});
  with(PrefixConfig{.length = 3, .targets = {"self_attn"}});
}

TEST_CASE("clip says what it expects of pictures and texts") {
  const Clip<float> clip = load_clip<float>(folder);
  REQUIRE_THROWS_WITH(clip.image_features(Tensor<float>({1, 8, 72, 3})), contains("expected pictures [N, 24, 24, 3], got [1, 8, 72, 3]"));
  REQUIRE_THROWS_AS(clip.image_features(Tensor<float>({24, 24, 3})), ShapeError);
  REQUIRE_THROWS_WITH(clip.text_features(Tensor<std::int32_t>({1, 17})), contains("at most 16 tokens") && contains("[1, 17]"));
  REQUIRE_THROWS_WITH(clip.text_features(Tensor<std::int32_t>({1, 1}, {99})), contains("[0, 99)"));
}

TEST_CASE("read_clip_config") {
  const ClipConfig whole = read_clip_config(Json::read(folder + "/config.json"));
  CHECK(whole.text_config.layer_norm_eps == 3e-2);
  CHECK(whole.vision_config.layer_norm_eps == 2e-2);
  CHECK(whole.text_config.eos_token_id == 98);
  CHECK(whole.logit_scale_init_value == 1.3);
  const auto eos = [](const std::string& text) { return read_clip_config(Json::parse(text, "test")).text_config.eos_token_id; };
  CHECK(eos("{}") == 49407);
  CHECK(eos(R"({"text_config": {"eos_token_id": 2}})") == 49407);
  CHECK(eos(R"({"text_config": {"eos_token_id": 2, "vocab_size": 99}})") == 98);
  CHECK(eos(R"({"text_config": {"eos_token_id": 7}, "text_config_dict": null})") == 7);
  CHECK(eos(R"({"text_config": {"eos_token_id": 7}, "text_config_dict": {"hidden_size": 64}})") == 49407);  // as in transformers
}

TEST_CASE("sizes that no model has are named before anything is made of them") {
  const auto read = [](const std::string& vision) { return read_clip_config(Json::parse(R"({"vision_config": {)" + vision + "}}", "c.json")); };
  CHECK(read(R"("image_size": [24, 40])").image_size() == ImageSize(24, 40));
  CHECK(read(R"("image_size": [24, 24])").image_size() == 24);
  CHECK(read(R"("image_size": null)").image_size() == 224);
  const std::pair<const char*, const char*> wrong[] = {
      {R"("image_size": [0, 5])", "c.json: vision_config.image_size.0: expected 1 to 16384, found 0"},
      {R"("image_size": [8, -1])", "c.json: vision_config.image_size.1: expected 1 to 16384, found -1"},
      {R"("image_size": 9223372036854775807)", "c.json: vision_config.image_size: expected 1 to 16384, found 9223372036854775807"},
      {R"("image_size": [1, 2, 3])", "c.json: vision_config.image_size: expected a number or [height, width], found 3 numbers"},
      {R"("image_size": [])", "c.json: vision_config.image_size: expected a number or [height, width], found 0 numbers"},
      {R"("image_size": [[24, 24], 24])", "c.json: vision_config.image_size.0: expected an integer, found array"},
      {R"("image_size": {"0": 24})", "c.json: vision_config.image_size: expected an integer, found object"},
      {R"("hidden_act": "swoosh")", "c.json: vision_config.hidden_act: [activation] expected relu, gelu"},
      {R"("patch_size": 0)", "c.json: vision_config.patch_size: expected 1 to 16777216, found 0"},
      {R"("hidden_size": -1)", "c.json: vision_config.hidden_size: expected 1 to 16777216, found -1"},
      {R"("num_hidden_layers": 4611686018427387904)", "c.json: vision_config.num_hidden_layers: expected 0 to 1024, found 4611686018427387904"},
      {R"("num_hidden_layers": -1)", "c.json: vision_config.num_hidden_layers: expected 0 to 1024, found -1"}};
  for (const auto& [text, message] : wrong) {
    REQUIRE_THROWS_WITH(read(text), contains(message));
    REQUIRE_THROWS_WITH(read_vision_config(Json::parse(R"({"model_type": "clip", "vision_config": {)" + std::string(text) + "}}", "c.json")), contains(message));
  }
}

TEST_CASE("another model's folder is named in one line") {
  Scratch scratch("clip");
  std::ofstream(scratch / "config.json") << R"({"model_type": "siglip"})";
  REQUIRE_THROWS_WITH(load_clip<float>(scratch / "."), contains("expected model_type clip (both towers), found siglip"));
}

TEST_CASE("load_params lists all that does not fit and writes nothing") {
  Scratch scratch("clip");
  const auto good = SafetensorsFile::open(folder + "/model.safetensors");
  std::vector<NamedTensor> tensors;
  for (const auto& name : good.names()) {
    RawTensor raw = good.raw(name);
    if (name == "visual_projection.weight") continue;
    if (name == "text_model.final_layer_norm.bias") raw = raw_copy(Tensor<float>({25}));
    if (name == "text_model.final_layer_norm.weight") raw = raw_copy(Tensor<std::int64_t>({24}));
    tensors.push_back({name, raw});
  }
  tensors.push_back({"text_model.embeddings.position_ids", raw_copy(Tensor<std::int64_t>({1, 16}))});
  tensors.push_back({"surplus", raw_copy(Tensor<float>({1}))});
  save_safetensors(scratch / "model.safetensors", tensors);
  std::filesystem::copy(folder + "/config.json", scratch / "config.json");
  REQUIRE_THROWS_WITH(load_clip<float>(scratch / ""),
                      contains("model.safetensors does not fit the model") && contains("missing visual_projection.weight") &&
                          contains("text_model.final_layer_norm.bias: expected shape [24], found [25]") &&
                          contains("text_model.final_layer_norm.weight: expected floating-point elements, found I64") &&
                          contains("unexpected surplus") && !contains("position_ids"));
  Clip<float> clip(read_clip_config(Json::read(folder + "/config.json")));
  REQUIRE_THROWS_AS(load_params(params(clip), SafetensorsFile::open(scratch / "model.safetensors")), FileError);
  for (const auto& ref : params(clip)) CHECK(!ref.weight->filled());
  REQUIRE_THROWS_WITH(clip.text_features(Tensor<std::int32_t>({1, 2})), contains("load a checkpoint or initialise first"));
  REQUIRE_THROWS_WITH(load_clip<float>(scratch / "nowhere"), contains("nowhere: No such file"));
}

TEST_CASE("save_clip and load_clip") {
  Scratch scratch("clip-save");
  Clip<float> clip = load_clip<float>(folder);
  save_clip(clip, scratch / "f32");
  Clip<float> again = load_clip<float>(scratch / "f32");
  const auto first = params(clip), second = params(again);
  REQUIRE(first.size() == second.size());
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(first[i].weight->value() == second[i].weight->value());
  CHECK(write_clip_config(clip.config) == write_clip_config(again.config));

  save_clip(clip, scratch / "bf16", DType::bf16);
  Clip<float> kept(clip.config), widened = load_clip<float>(scratch / "bf16");
  load_params(params(kept), SafetensorsFile::open(scratch / "bf16/model.safetensors"), {.weights = DType::bf16});
  CHECK(kept.visual_projection.weight->storage() == DType::bf16);
  CHECK(kept.vision_model.post_layernorm.weight->storage() == DType::f32);
  const auto ids = expected("quick_gelu").load<std::int32_t>("ids");
  const auto pictures = expected("quick_gelu").load<float>("pictures");
  CHECK(error(widened.text_features(ids).value(), clip.text_features(ids).value()) < 0.05);
  CHECK(error(kept.text_features(ids).value(), widened.text_features(ids).value()) < 0.05);
  CHECK(error(kept.image_features(pictures).value(), widened.image_features(pictures).value()) < 0.05);

  const Clip<float> bytes = load_clip<float>(scratch / "f32", {.weights = DType::i8});
  CHECK(bytes.visual_projection.weight->panels() == DType::i8);
  for (const auto* weight : {&bytes.visual_projection.weight, &bytes.text_model.embeddings.token_embedding.weight})
    CHECK(std::get_deleter<MappedPages>((*weight)->value().memory()) != nullptr);  // the file's elements, not a copy
  CHECK(error(bytes.text_features(ids).value(), clip.text_features(ids).value()) < 0.1);
  CHECK(error(bytes.image_features(pictures).value(), clip.image_features(pictures).value()) < 0.1);
  for (const Clip<float>* narrow : std::initializer_list<const Clip<float>*>{&kept, &bytes}) {
    // Attention rounds the inputs of its products, and one query is summed in another order than many.
    CHECK(error(narrow->vision_model.pooled(pictures).value(), narrow->vision_model(pictures).pooled.value()) < 0.02);
    CHECK(error(narrow->text_model.pooled(ids).value(), narrow->text_model(ids).pooled.value()) < 0.02);
  }
}

TEST_CASE("checkpointing towers gives the same bits") {
  const auto file = expected("quick_gelu");
  const auto pictures = file.load<float>("pictures");
  const auto ids = file.load<std::int32_t>("ids");
  std::vector<std::map<std::string, Tensor<float>>> runs;
  for (const bool checkpointing : {false, true}) {
    Clip<float> clip = load_clip<float>(folder);
    unfreeze(clip);
    clip.text_model.encoder.checkpointing = clip.vision_model.encoder.checkpointing = checkpointing;
    const auto loss = contrastive_loss(clip(pictures, ids));
    backward(loss);
    auto& run = runs.emplace_back();
    run.emplace("loss", loss.value());
    for (const auto& ref : params(clip)) run.emplace(ref.path, ref.weight->var().grad());
  }
  for (const auto& [name, value] : runs[0]) {
    INFO(name);
    CHECK(runs[1].at(name) == value);
  }
}

TEST_CASE("zero-shot by hand") {
  const std::vector<std::string> corpus{"a fish", "a photo of a bird", "a bird", "two birds"};
  const Tokenizer tokenizer(train_bpe(corpus, {.vocab_size = 520}));
  ClipConfig config = read_clip_config(Json::read(folder + "/config.json"));
  config.text_config.vocab_size = 520;
  config.text_config.eos_token_id = tokenizer(std::vector<std::string>{""}, 16)(0, 1);
  Generator generator(1);
  const Clip<double> clip(config, generator);
  const std::vector<std::string> labels{"bird", "fish", "cat"}, templates{"a photo of a {}", "{}", "two {}s"};
  const Tensor<double> directions = zero_shot_directions(clip, tokenizer, labels, templates);
  CHECK(directions.shape() == Shape{3, 20});
  for (Index label = 0; label < 3; ++label) {
    std::vector<double> sum(20);
    for (const auto& text : templates) {
      const std::vector<std::string> one{fill_template(text, labels[static_cast<std::size_t>(label)])};
      const Tensor<double> feature = clip.text_features(tokenizer(one, 16)).value();
      double length = 0;
      for (double x : feature) length += x * x;
      for (std::size_t i = 0; i < 20; ++i) sum[i] += feature.data()[i] / std::sqrt(length);
    }
    double length = 0;
    for (double x : sum) length += x * x;
    for (std::size_t i = 0; i < 20; ++i)
      CHECK(directions(label, i) == Approx(sum[i] / std::sqrt(length)).epsilon(1e-9).margin(1e-12));
  }
  Tensor<double> features({1, 20});
  for (Index i = 0; i < 20; ++i) features(0, i) = 3 * directions(1, i);
  const Tensor<double> p = zero_shot_probabilities(clip, Var<double>(features), directions);
  double total = 0, dot[3] = {};
  for (Index label = 0; label < 3; ++label) {
    for (Index i = 0; i < 20; ++i) dot[label] += directions(label, i) * directions(1, i);
    total += std::exp(std::exp(1.3) * dot[label]);
  }
  for (Index label = 0; label < 3; ++label) CHECK(p(0, label) == Approx(std::exp(std::exp(1.3) * dot[label]) / total));
  REQUIRE_THROWS_WITH(fill_template("a photo", "cat"), contains("expected {} in the template 'a photo'"));
  REQUIRE_THROWS_AS(zero_shot_directions(clip, tokenizer, {}, templates), Error);
}
