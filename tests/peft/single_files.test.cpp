// Single files of kohya's scripts, LyCORIS and diffusers: names resolved from the model, reports, round trips.
#include <nlohmann/json.hpp>

#include <tenon/io/checkpoint.hpp>
#include <tenon/peft/formats/peft.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error, golden::numbers;

namespace {

// A U-Net's and a text encoder's names over one layer each.
template <class T>
struct TransformerBlock {
  Attention<T> attn1{8, 2}, attn2{8, 2, false, 8};
  Mlp<T> ff{8, 16, Activation::gelu};
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    const Renames names{{"q_proj", "to_q"}, {"k_proj", "to_k"}, {"v_proj", "to_v"}, {"out_proj", "to_out.0"}};
    f("attn1", s.attn1, names), f("attn2", s.attn2, names), f("ff", s.ff, Renames{{"fc1", "net.0.proj"}, {"fc2", "net.2"}});
  }
};
template <class T>
struct Transformer {
  Linear<T> proj_in{8, 8};
  std::vector<TransformerBlock<T>> transformer_blocks = std::vector<TransformerBlock<T>>(2);
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("proj_in", s.proj_in), f("transformer_blocks", s.transformer_blocks);
  }
};
template <class T>
struct Resnet {
  Conv2d<T> conv1{8, 6, 3, {.padding = 1}}, conv2{6, 8, 3, {.padding = 1}};
  Linear<T> time_emb_proj{5, 6};
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv1", s.conv1), f("conv2", s.conv2), f("time_emb_proj", s.time_emb_proj);
  }
};
template <class T>
struct Sampler {
  Conv2d<T> conv{8, 8, 3, {.padding = 1}};
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv", s.conv);
  }
};
template <class T>
struct Block {
  std::vector<Transformer<T>> attentions = std::vector<Transformer<T>>(1);
  std::vector<Resnet<T>> resnets = std::vector<Resnet<T>>(2);
  std::vector<Sampler<T>> downsamplers, upsamplers;
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("attentions", s.attentions), f("resnets", s.resnets), f("downsamplers", s.downsamplers), f("upsamplers", s.upsamplers);
  }
};
template <class T>
struct Unet {
  std::vector<Block<T>> down_blocks = std::vector<Block<T>>(2), up_blocks = std::vector<Block<T>>(1);
  Block<T> mid_block;
  Unet() {
    down_blocks[0].downsamplers.resize(1);
    up_blocks[0].upsamplers.resize(1);
  }
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("down_blocks", s.down_blocks), f("mid_block", s.mid_block), f("up_blocks", s.up_blocks);
  }
};
template <class T>
struct EncoderLayer {
  Attention<T> self_attn{8, 2, true};
  Mlp<T> mlp{8, 16, Activation::gelu};
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("self_attn", s.self_attn), f("mlp", s.mlp);
  }
};
template <class T>
struct Encoder {
  std::vector<EncoderLayer<T>> layers = std::vector<EncoderLayer<T>>(2);
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("text_model.encoder.layers", s.layers);
  }
};
template <class T>
struct Pipeline {
  Unet<T> unet;
  Encoder<T> text_encoder, text_encoder_2;
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("unet", s.unet), f("text_encoder", s.text_encoder), f("text_encoder_2", s.text_encoder_2);
  }
};

template <class T>
struct Words {
  Embedding<T> table{7, 8};
  Linear<T> out{8, 5};
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("wte", s.table), f("out", s.out);
  }
};

template <class M>
M filled() {
  M model;
  Generator generator(3);
  for (const auto& ref : params(model)) ref.weight->set(numbers<float>(ref.weight->shape(), generator, 0.4));
  freeze(model);
  return model;
}
template <class M>
void shake(M& model) {
  Generator generator(5);
  for (const auto& ref : patch_params(model)) ref.weight->set(numbers<float>(ref.weight->shape(), generator));
}
/// Every attached parameter by path, and each LoRA's scale.
template <class M>
std::map<std::string, Tensor<float>> contents(M& model) {
  std::map<std::string, Tensor<float>> out;
  for (const auto& ref : patch_params(model)) out.emplace(ref.path, ref.weight->value());
  for (const auto& site : sites(model))
    for (const auto& entry : *site.patches)
      if (const auto* lora = dynamic_cast<const Lora<float>*>(entry.patch.get())) out.emplace(site.path + " scale", Tensor<float>::scalar(lora->scale()));
  return out;
}
std::map<std::string, RawTensor> golden_names(const std::string& name) {
  return load_adapter(golden::path("peft_names/" + name + ".safetensors")).tensors;
}
RawTensor raw(const Shape& shape, float value = 0.5f) { return raw_copy(Tensor<float>::full(shape, value)); }

}  // namespace

TEST_CASE("one LoRA in the names of every dialect of diffusers is one LoRA") {
  const auto values = golden_names("peft");
  const std::string unet = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.", text = "text_model.encoder.layers.0.self_attn.";
  for (const std::string dialect : {"peft", "diffusers", "processors", "kohya"}) {
    INFO(dialect);
    auto pipeline = filled<Pipeline<float>>();
    const auto file = load_adapter(golden::path("peft_names/" + dialect + ".safetensors"));
    const auto report = attach(pipeline, file);
    CHECK(report.sites == std::vector<std::string>{"unet." + unet + "to_q", "unet." + unet + "to_out.0", "text_encoder." + text + "q_proj",
                                                   "text_encoder." + text + "out_proj"});
    CHECK(report.unused.empty());
    CHECK(report.used.size() == file.tensors.size());
    CHECK(std::find(report.missing.begin(), report.missing.end(), "unet.mid_block.attentions.0.transformer_blocks.1.attn2.to_q") != report.missing.end());
    for (const auto& ref : patch_params(pipeline)) CHECK(ref.weight->value() == cast<float>(values.at(ref.path)));
    const auto scale = [&](const std::string& path) { return contents(pipeline).at(path + " scale").item(); };
    // diffusers keeps every layer's own alpha only when it is the most common one; here each is what the file says (facts 2.4)
    CHECK(scale("unet." + unet + "to_q") == (dialect == "kohya" ? 3.0f / 2 : 1));
    CHECK(scale("text_encoder." + text + "q_proj") == (dialect == "kohya" ? 1.0f / 2 : 1));
    CHECK(scale("text_encoder." + text + "out_proj") == (dialect == "kohya" ? 0.5f / 2 : 1));

    // a part alone takes its own layers, and says what it leaves
    auto alone = filled<Unet<float>>();
    REQUIRE_THROWS_AS(attach(alone, file), FileError);
    CHECK(adapter_names(alone).empty());
    const auto partial = attach(alone, file, {.strict = false});
    CHECK(partial.sites == std::vector<std::string>{unet + "to_q", unet + "to_out.0"});
    CHECK(partial.unused.size() == file.tensors.size() / 2);
    auto encoder = filled<Encoder<float>>();
    CHECK(attach(encoder, file, {.strict = false}).sites == std::vector<std::string>{text + "q_proj", text + "out_proj"});
  }
}

TEST_CASE("a text tower's names may lack text_model, as transformers 5 has them") {
  Scratch scratch("transformers5");
  for (const std::string dialect : {"peft", "diffusers", "kohya"}) {
    INFO(dialect);
    std::vector<NamedTensor> tensors;
    const auto golden = golden_names(dialect);
    for (const auto& [key, tensor] : golden) {
      std::string name = key;
      for (const std::string_view part : {"text_model.", "text_model_"})
        if (const auto at = name.find(part); at != name.npos) name.erase(at, part.size());
      tensors.push_back({name, tensor});
    }
    save_safetensors(scratch / "a.safetensors", tensors);
    auto pipeline = filled<Pipeline<float>>(), expected = filled<Pipeline<float>>();
    attach(expected, load_adapter(golden::path("peft_names/" + dialect + ".safetensors")));
    CHECK(attach(pipeline, load_adapter(scratch / "a.safetensors")).unused.empty());
    CHECK(contents(pipeline) == contents(expected));
  }
}

TEST_CASE("files without a part's name are attention processors of the model at hand") {
  Scratch scratch("processors");
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : golden_names("processors"))
    if (name.starts_with("unet.")) tensors.push_back({name.substr(5), tensor});
  save_safetensors(scratch / "a.safetensors", tensors);
  auto unet = filled<Unet<float>>();
  CHECK(attach(unet, load_adapter(scratch / "a.safetensors")).sites.size() == 2);
  auto pipeline = filled<Pipeline<float>>();
  CHECK(attach(pipeline, load_adapter(scratch / "a.safetensors")).sites.front().starts_with("unet.down_blocks.0"));
}

TEST_CASE("what is written in kohya's and diffusers' names comes back to the bit, alphas too") {
  Scratch scratch("single");
  const auto round = [&](auto&& config, bool kohya) {
    auto pipeline = filled<Pipeline<float>>(), other = filled<Pipeline<float>>();
    Generator generator(1);
    attach(pipeline, config, generator, {.name = "style"});
    shake(pipeline);
    const SaveFileOptions options{.name = "style", .metadata = {{"ss_output_name", "style"}}};
    if (kohya)
      save_kohya(pipeline, scratch / "a.safetensors", options);
    else
      save_diffusers(pipeline, scratch / "a.safetensors", options);
    CHECK(SafetensorsFile::open(scratch / "a.safetensors").metadata().at("ss_output_name") == "style");
    const auto file = load_adapter(scratch / "a.safetensors");
    CHECK((file.format == AdapterFile::Format::kohya) == kohya);
    CHECK(attach(other, file).unused.empty());
    CHECK(contents(other) == contents(pipeline));
    return file;
  };
  const std::vector<std::string> every{"to_q", "to_out.0", "net.2", "conv", "conv1", "q_proj", "fc1", "time_emb_proj"};
  const LoraConfig lora{.rank = 3, .alpha = 1.5, .targets = every, .rank_pattern = {{"conv1", 5}}, .alpha_pattern = {{"to_q", 0.25}, {"fc1", 7}}};
  for (const bool kohya : {true, false}) {
    round(lora, kohya);
    round(DoraConfig{.rank = 2, .alpha = 5, .targets = every}, kohya);
  }
  round(LohaConfig{.rank = 2, .alpha = 3, .targets = every, .effective_conv = true}, true);
  round(LokrConfig{.rank = 1, .alpha = 3, .targets = every, .decompose_both = true}, true);
  round(TuckerConfig{.rank = 2, .alpha = 3, .targets = {"conv1", "conv"}}, true);
  const auto file = round(LoraConfig{.rank = 2, .targets = {"unet.*.to_q", "text_encoder*.q_proj"}}, true);
  CHECK(file.tensors.contains("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight"));
  CHECK(file.tensors.contains("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.alpha"));
  CHECK(file.tensors.contains("lora_te2_text_model_encoder_layers_1_self_attn_q_proj.alpha"));

  auto unet = filled<Unet<float>>();  // two encoders' layers fit one encoder: it must be said which
  REQUIRE_THROWS_AS(attach(unet, file), FileError);
  auto encoder = filled<Encoder<float>>();
  REQUIRE_THROWS_WITH(attach(encoder, file, {.strict = false}), contains("text_encoder_2") && contains("that both fit this model"));
  CHECK(adapter_names(encoder).empty());
  attach(encoder, file, {.strict = false, .part = "text_encoder_2"});
  const auto second = cast<float>(file.tensors.at("lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"));
  CHECK(contents(encoder).at("text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight") == second);
}

TEST_CASE("a state dictionary of loralib: factors without .weight and without alphas") {
  Scratch scratch("loralib");
  auto model = filled<Words<float>>();
  Generator generator(6);
  const auto a = numbers<float>({2, 8}, generator), b = numbers<float>({5, 2}, generator);
  const auto rows = numbers<float>({2, 7}, generator), up = numbers<float>({8, 2}, generator);
  save_safetensors(scratch / "a.safetensors", {{"out.lora_A", raw_copy(a)}, {"out.lora_B", raw_copy(b)},
                                               {"wte.lora_A", raw_copy(rows)}, {"wte.lora_B", raw_copy(up)}});
  const Tensor<float> w = model.out.weight->value(), table = model.table.weight->value();
  CHECK(attach(model, load_adapter(scratch / "a.safetensors"), {.scale = 0.5}).unused.empty());
  merge(model);
  for (Index o = 0; o < 5; ++o) CHECK(model.out.weight->value()(o, 3) == Approx(w(o, 3) + 0.5 * (b(o, 0) * a(0, 3) + b(o, 1) * a(1, 3))).epsilon(1e-5));
  CHECK(model.table.weight->value()(6, 4) == Approx(table(6, 4) + 0.5 * (up(4, 0) * rows(0, 6) + up(4, 1) * rows(1, 6))).epsilon(1e-5));
}

TEST_CASE("diffusers is told of LoRA's own biases, which it drops otherwise; numbers too large for float16 are not written") {
  Scratch scratch("biases");
  auto pipeline = filled<Pipeline<float>>();
  Generator generator(1);
  attach(pipeline, LoraConfig{.rank = 2, .targets = {"q_proj"}, .bias = LoraConfig::Bias::own}, generator);
  shake(pipeline);
  const std::string path = scratch / "a.safetensors";
  save_diffusers(pipeline, path);
  const auto file = load_adapter(path);
  CHECK(file.config->value().at("text_encoder.lora_bias") == true);
  CHECK(file.metadata.contains("lora_adapter_metadata"));
  auto other = filled<Pipeline<float>>();
  attach(other, file);
  CHECK(contents(other) == contents(pipeline));
  detach(pipeline);
  attach(pipeline, LoraConfig{.rank = 2, .targets = {"q_proj"}}, generator);
  for (const auto& ref : patch_params(pipeline)) ref.weight->set(Tensor<float>::full(ref.weight->shape(), 70000));
  const std::string before = ::contents(path);
  const SaveFileOptions half{.dtype = DType::f16};
  REQUIRE_THROWS_WITH(save_kohya(pipeline, path, half), contains("q_proj.lora_A.weight: 70000") && contains("is too large for float16"));
  REQUIRE_THROWS_WITH(save_diffusers(pipeline, path, half), contains("too large for float16"));
  REQUIRE_THROWS_WITH(save_adapter(pipeline.text_encoder, scratch / "folder", "default", DType::f16), contains("too large for float16"));
  CHECK(::contents(path) == before);
  CHECK(scratch.count() == 1);
}

TEST_CASE("the original names of SDXL's U-Net") {
  using detail::original_unet_name;
  CHECK(original_unet_name("down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q") == "input_blocks.5.1.transformer_blocks.0.attn1.to_q");
  CHECK(original_unet_name("mid_block.attentions.0.proj_in") == "middle_block.1.proj_in");
  CHECK(original_unet_name("mid_block.resnets.1.conv2") == "middle_block.2.out_layers.3");
  CHECK(original_unet_name("up_blocks.0.attentions.2.transformer_blocks.9.ff.net.0.proj") == "output_blocks.2.1.transformer_blocks.9.ff.net.0.proj");
  CHECK(original_unet_name("down_blocks.0.downsamplers.0.conv") == "input_blocks.3.0.op");
  CHECK(original_unet_name("up_blocks.2.resnets.0.conv_shortcut") == "output_blocks.6.0.skip_connection");
  CHECK(original_unet_name("conv_in") == "input_blocks.0.0");
  CHECK(original_unet_name("conv_norm_out") == "out.0");
  CHECK(original_unet_name("down_blocks.0.resnets.1.norm1") == "input_blocks.2.0.in_layers.0");
  CHECK(original_unet_name("up_blocks.1.resnets.0.norm2") == "output_blocks.3.0.out_layers.0");
  // a third block of a level, or a second attention in the middle, would have another layer's name
  CHECK(original_unet_name("down_blocks.0.attentions.1.proj_in") == "input_blocks.2.1.proj_in");
  CHECK(!original_unet_name("down_blocks.0.attentions.3.proj_in"));
  CHECK(!original_unet_name("up_blocks.0.resnets.3.conv1"));
  CHECK(!original_unet_name("mid_block.attentions.1.proj_in"));
  CHECK(!original_unet_name("text_model.encoder.layers.0.mlp.fc1"));
  Scratch scratch("sgm");
  const auto module = [](const std::string& name) { return "lora_unet_" + name; };
  std::vector<NamedTensor> tensors;
  for (const std::string name : {"input_blocks_1_1_transformer_blocks_0_attn1_to_q", "middle_block_1_transformer_blocks_1_attn2_to_out_0"}) {
    tensors.push_back({module(name) + ".lora_down.weight", raw({2, 8})});
    tensors.push_back({module(name) + ".lora_up.weight", raw({8, 2})});
  }
  tensors.push_back({module("output_blocks_2_2_conv.lora_down.weight"), raw({2, 8, 3, 3})});
  tensors.push_back({module("output_blocks_2_2_conv.lora_up.weight"), raw({8, 2, 1, 1})});
  save_safetensors(scratch / "a.safetensors", tensors);
  auto unet = filled<Unet<float>>();
  CHECK(attach(unet, load_adapter(scratch / "a.safetensors")).sites ==
        std::vector<std::string>{"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.attentions.0.transformer_blocks.1.attn2.to_out.0",
                                 "up_blocks.0.upsamplers.0.conv"});
}

TEST_CASE("LyCORIS: magnitudes by output and by input, full deltas, 1x1 kernels of linear layers, full Kronecker factors") {
  Scratch scratch("lycoris");
  const std::string q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", conv = "lora_unet_mid_block_resnets_0_conv1";
  const auto attached = [&](std::vector<NamedTensor> tensors) {
    auto unet = filled<Unet<float>>();
    save_safetensors(scratch / "a.safetensors", tensors);
    attach(unet, load_adapter(scratch / "a.safetensors"));
    return unet;
  };
  Generator generator(8);
  const auto base = filled<Unet<float>>();
  const Tensor<float>& w = base.mid_block.resnets[0].conv1.weight->value();
  const auto a = numbers<float>({2, 8, 3, 3}, generator, 0.3), b = numbers<float>({6, 2, 1, 1}, generator, 0.3);
  Tensor<double> v = cast<double>(w);  // W + s B A, s = 3 / 2
  for (Index o = 0; o < 6; ++o)
    for (Index i = 0; i < 72; ++i)
      for (Index r = 0; r < 2; ++r) v.data()[o * 72 + i] += 1.5 * static_cast<double>(b.data()[o * 2 + r]) * static_cast<double>(a.data()[r * 72 + i]);
  for (const bool by_input : {false, true}) {
    INFO(by_input);
    const Index extent = by_input ? 8 : 6;
    const auto m = numbers<float>(by_input ? Shape{1, 8, 1, 1} : Shape{6, 1, 1, 1}, generator);
    std::vector<double> squares(static_cast<std::size_t>(extent), 0);
    const auto channel = [&](Index i) { return by_input ? i / 9 % 8 : i / 72; };
    for (Index i = 0; i < v.size(); ++i) squares[static_cast<std::size_t>(channel(i))] += v.data()[i] * v.data()[i];
    Tensor<double> expected(v.shape());
    for (Index i = 0; i < v.size(); ++i)
      expected.data()[i] = v.data()[i] * static_cast<double>(m.data()[channel(i)]) / std::sqrt(squares[static_cast<std::size_t>(channel(i))]);
    auto unet = attached({{conv + ".lora_down.weight", raw_copy(a)}, {conv + ".lora_up.weight", raw_copy(b)}, {conv + ".alpha", raw({}, 3)},
                          {conv + ".dora_scale", raw_copy(m)}});
    const Var<float> x(numbers<float>({1, 4, 5, 8}, generator));
    const auto y = unet.mid_block.resnets[0].conv1(x).value();
    save_kohya(unet, scratch / "b.safetensors");
    CHECK(cast<float>(load_adapter(scratch / "b.safetensors").tensors.at(conv + ".dora_scale")) == m);
    merge(unet);
    CHECK(error(unet.mid_block.resnets[0].conv1.weight->value(), expected) < 2e-6);
    CHECK(error(unet.mid_block.resnets[0].conv1(x).value(), y) < 3e-6);
  }
  {
    auto unet = attached({{q + ".diff", raw({8, 8}, 0.25f)}, {q + ".diff_b", raw({8}, 0.5f)}});
    const auto& layer = unet.mid_block.attentions[0].transformer_blocks[0].attn1.q_proj;
    const float before = layer.weight->value()(1, 2), bias = layer.bias->value()(3);
    const Var<float> x(numbers<float>({1, 2, 8}, generator));
    const auto y = layer(x).value();
    merge(unet);
    CHECK(layer.weight->value()(1, 2) == before + 0.25f);
    CHECK(layer.bias->value()(3) == bias + 0.5f);
    CHECK(error(layer(x).value(), y) < 2e-6);
    unmerge(unet);
    CHECK(layer.bias->value()(3) == bias);
  }
  {  // proj_in is a 1x1 convolution in SD 1.x and in these files, a Linear here
    auto unet = attached({{"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", raw({2, 8, 1, 1})},
                          {"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", raw({8, 2, 1, 1})}});
    merge(unet);
    CHECK(unet.mid_block.attentions[0].proj_in.weight->value()(0, 0) == Approx(base.mid_block.attentions[0].proj_in.weight->value()(0, 0) + 0.5));
  }
  {  // LyCORIS' alpha of two full factors is the rank that it would have had: scale 1, whatever it says
    auto unet = attached({{q + ".lokr_w1", raw({2, 2}, 0.5f)}, {q + ".lokr_w2", raw({4, 4}, 0.5f)}, {q + ".alpha", raw({}, 1e10f)}});
    merge(unet);
    const auto& layer = unet.mid_block.attentions[0].transformer_blocks[0].attn1.q_proj;
    CHECK(layer.weight->value()(0, 0) == Approx(base.mid_block.attentions[0].transformer_blocks[0].attn1.q_proj.weight->value()(0, 0) + 0.25));
  }
}

TEST_CASE("hostile and foreign single files are one clear error and change nothing") {
  Scratch scratch("foreign");
  const std::string q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
  auto unet = filled<Unet<float>>();
  const auto refused = [&](std::vector<NamedTensor> tensors, const std::string& text) {
    save_safetensors(scratch / "a.safetensors", tensors);
    REQUIRE_THROWS_WITH(attach(unet, load_adapter(scratch / "a.safetensors")), contains(text));
    CHECK(adapter_names(unet).empty());
  };
  const NamedTensor down{q + ".lora_down.weight", raw({2, 8})}, up{q + ".lora_up.weight", raw({8, 2})};
  refused({down}, "missing " + q + ".lora_B.weight");
  refused({down, {up.name, raw({8, 3})}}, q + ".lora_up.weight: expected shape [8, 2], found [8, 3]");
  refused({{down.name, raw({2, 7})}, up}, "expected shape [2, 8], found [2, 7]");
  refused({{down.name, raw({2, 8}, NAN)}, up}, "expected finite numbers");
  refused({down, up, {q + ".alpha", raw({2})}}, ".alpha: expected one number");
  refused({down, up, {q + ".alpha", raw({}, INFINITY)}}, ".alpha: expected a finite number");
  const std::string module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
  refused({{module + ".lora_A.weight", raw({2, 8})}, {module + ".lora_B.weight", raw({8, 2})},
           {module + ".alpha", raw({}, NAN)}}, ".alpha: expected a finite number");
  refused({down, up, {"bundle_emb.word.string_to_param.*", raw({2, 8})}}, "used 2 of 3 names; no layer takes bundle_emb.word");  // a kohya file all the same
  refused({down, up, {q + ".lora_left.weight", raw({2})}}, "no layer takes " + q + ".lora_left.weight");
  refused({down, up, {"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_x.lora_up.weight", raw({8, 2})}},
          "used 2 of 3 names; no layer takes lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_x.lora_up.weight; nearest layer: "
          "mid_block.attentions.0.transformer_blocks.0.attn1.to_");
  refused({{"lora_unet_nothing.lora_down.weight", raw({2, 8})}}, "no layer of this model takes anything from it");
  refused({{q + ".hada_w1_a", raw({8, 2})}, {q + ".hada_w1_b", raw({2, 8})}, {q + ".hada_w2_a", raw({8, 3})}, {q + ".hada_w2_b", raw({2, 8})}}, "hada_w2_a: expected shape [8, 2]");
  refused({{q + ".lokr_w1", raw({3, 2})}, {q + ".lokr_w2", raw({4, 4})}}, "whose Kronecker product is [8, 8]; found 3 x 2 and 4 x 4");
  refused({{q + ".lokr_w1", raw({2, 2})}, {q + ".lokr_w2_a", raw({4, 2})}, {q + ".lokr_w2_b", raw({1, 4})}}, "the ranks disagree");
  refused({{q + ".lokr_w2", raw({4, 4})}, {q + ".lokr_w1_a", raw({2, 2})}}, "lokr_w1_b, are missing");
  refused({{q + ".lora_down.weight", raw({2, 8})}, {q + ".lora_up.weight", raw({8, 2})}, {q + ".lora_mid.weight", raw({2, 2, 3, 3})}}, "is for a linear");
  refused({{q + ".lora_down.weight", raw({})}, up}, "expected a matrix");
  refused({{q + ".diff", raw({8, 7})}}, "expected shape [8, 8], found [8, 7]");
  refused({{q + ".oft_blocks", raw({2, 4, 4})}, {q + ".alpha", raw({})}}, q + ".oft_blocks is of OFT, which is not supported yet");
  refused({down, up, {"lora_unet_conv_in.b1.weight", raw({2, 4})}}, "lora_unet_conv_in.b1.weight is of GLoRA, which is not supported yet");
}
