// The program examples/adapters, run by its command lines.
#if __has_include(<CLI/CLI.hpp>)
#define TENON_EXAMPLES_DATA TENON_TEST_DATA "/../../examples/data"
#define main adapters_main
#include "../../examples/adapters.cpp"
#undef main

#include <nlohmann/json.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

namespace {

/// Exit code and what was printed, errors too.
std::pair<int, std::string> run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "adapters");
  std::vector<char*> argv;
  for (auto& argument : arguments) argv.push_back(argument.data());
  std::ostringstream text;
  auto* const out = std::cout.rdbuf(text.rdbuf());
  auto* const err = std::cerr.rdbuf(text.rdbuf());
  const int code = adapters_main(static_cast<int>(argv.size()), argv.data());
  std::cout.rdbuf(out);
  std::cerr.rdbuf(err);
  return {code, text.str()};
}
void holds(const std::string& text, std::initializer_list<std::string> parts) {
  INFO(text);
  for (const auto& part : parts) CHECK(text.find(part) != std::string::npos);
}
std::string succeed(const std::vector<std::string>& arguments) {
  const auto [code, text] = run(arguments);
  INFO(text);
  CHECK(code == 0);
  return text;
}
void refuse(const std::vector<std::string>& arguments, const std::string& expected) {
  const auto [code, text] = run(arguments);
  CHECK(code == 1);
  holds(text, {expected});
}
std::string name(const std::string& dialect) { return golden::path("peft_names/" + dialect + ".safetensors"); }
/// s B A of one layer in diffusers' or peft's names.
Tensor<float> delta(const AdapterFile& file, const std::string& module, double scale) {
  const auto a = cast<float>(file.tensors.at(module + ".lora_A.weight")), b = cast<float>(file.tensors.at(module + ".lora_B.weight"));
  Tensor<float> out({b.extent(0), a.extent(1)});
  detail::add_low_rank(a, detail::scaled(b, static_cast<float>(scale)), out);
  return out;
}

const std::string to_q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";

}  // namespace

TEST_CASE("adapters info: method, layers, ranks and alphas") {
  const auto text = succeed({"info", name("kohya")});
  holds(text, {"format   kohya", "lora to_q", "lora out_proj"});
  holds(succeed({"info", golden::path("peft_methods/lokr")}), {"format   peft, LOKR", "lokr conv"});
  holds(succeed({"info", golden::path("peft/lora"), "--model", golden::path("clip")}), {"lora q_proj"});
  refuse({"info", "/nowhere.safetensors"}, "/nowhere.safetensors");
  refuse({"info"}, "FILE is required");
}

TEST_CASE("adapters convert: one LoRA in every dialect, there and back to the bit") {
  Scratch scratch("convert");
  const auto same = [](const std::string& a, const std::string& b) {
    const auto x = load_adapter(a), y = load_adapter(b);
    CHECK(x.tensors.size() == y.tensors.size());
    for (const auto& [key, raw] : x.tensors) {
      INFO(key);
      REQUIRE(y.tensors.contains(key));
      CHECK(cast<float>(raw) == cast<float>(y.tensors.at(key)));
    }
  };
  for (const std::string dialect : {"diffusers", "processors"}) {
    succeed({"convert", name(dialect), scratch / (dialect + ".safetensors"), "--to", "diffusers"});
    same(scratch / (dialect + ".safetensors"), name("peft"));
  }
  succeed({"convert", name("kohya"), scratch / "a.safetensors", "--to", "diffusers"});
  succeed({"convert", scratch / "a.safetensors", scratch / "b.safetensors", "--to", "kohya"});
  const auto again = load_adapter(scratch / "b.safetensors");  // alphas too; one encoder is lora_te_ there, as kohya's scripts have it
  for (const auto& [key, raw] : load_adapter(name("kohya")).tensors) {
    const std::string key_again = key.starts_with("lora_te1_") ? "lora_te_" + key.substr(9) : key;
    INFO(key);
    REQUIRE(again.tensors.contains(key_again));
    CHECK(cast<float>(again.tensors.at(key_again)) == cast<float>(raw));
  }
  succeed({"convert", name("kohya"), scratch / "folder", "--to", "peft"});
  CHECK(load_adapter(scratch / "folder/unet").tensors.size() == 4);
  REQUIRE_THROWS_WITH(load_adapter(scratch / "folder"), contains("found it for each of unet, text_encoder: load these"));
  const auto text = load_adapter(scratch / "folder/text_encoder");  // a CLIPTextModel of transformers 5, and back
  CHECK(text.tensors.size() == 4);
  CHECK(text.tensors.contains("encoder.layers.0.self_attn.q_proj.lora_A.weight"));
  succeed({"convert", scratch / "folder/text_encoder", scratch / "text.safetensors", "--to", "kohya"});
  CHECK(load_adapter(scratch / "text.safetensors").tensors.contains("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"));
  succeed({"convert", scratch / "folder/text_encoder/adapter_model.safetensors", scratch / "text2.safetensors", "--to", "kohya"});
  same(scratch / "text2.safetensors", scratch / "text.safetensors");
  succeed({"convert", scratch / "folder/unet", scratch / "unet.safetensors", "--to", "kohya"});
  CHECK(load_adapter(scratch / "unet.safetensors").tensors.size() == 6);
  std::vector<NamedTensor> tensors;  // diffusers with transformers 5: kohya's names have text_model all the same
  for (const auto& [key, raw] : load_adapter(name("peft")).tensors) {
    const bool encoder = key.starts_with("text_encoder.text_model.");
    tensors.push_back({encoder ? "text_encoder." + key.substr(24) : key, raw});
  }
  save_safetensors(scratch / "five.safetensors", tensors);
  for (const std::string to : {"kohya", "diffusers"}) {
    succeed({"convert", scratch / "five.safetensors", scratch / "five2.safetensors", "--to", to, "--strict"});
    succeed({"convert", name("peft"), scratch / "four2.safetensors", "--to", to});
    same(scratch / "five2.safetensors", scratch / "four2.safetensors");
  }
  refuse({"convert", name("kohya"), scratch / "x.safetensors", "--to", "a1111"}, "--to");
  refuse({"convert", golden::path("peft_methods/loha"), scratch / "x.safetensors", "--to", "diffusers"}, "diffusers' format has no 'loha'");
  save_safetensors(scratch / "odd.safetensors", {{"lora_unet_something_else.lora_down.weight", raw_copy(Tensor<float>({2, 2}))}});
  refuse({"convert", scratch / "odd.safetensors", scratch / "x.safetensors", "--to", "peft"}, "cannot be told from its names alone");
}

TEST_CASE("adapters convert: without a model SDXL's original names, norms and half types; what a file says of itself stays") {
  Scratch scratch("convert-sgm");
  const auto raw = [](const Shape& shape, DType dtype, float value) {
    return visit_dtype(dtype, [&]<class To>() { return raw_copy(cast<To>(Tensor<float>::full(shape, value))); });
  };
  std::vector<NamedTensor> tensors;
  const auto lora = [&](const std::string& name, DType dtype) {
    tensors.push_back({"lora_unet_" + name + ".lora_down.weight", raw({2, 8}, dtype, 0.1f)});
    tensors.push_back({"lora_unet_" + name + ".lora_up.weight", raw({8, 2}, dtype, 0.3f)});
    tensors.push_back({"lora_unet_" + name + ".alpha", raw({}, DType::f32, 1.5f)});
  };
  lora("input_blocks_4_1_transformer_blocks_0_attn1_to_q", DType::f16), lora("middle_block_1_proj_in", DType::f16);
  const std::string in = scratch / "a.safetensors", out = scratch / "b.safetensors";
  const std::map<std::string, std::string> metadata{{"ss_output_name", "style"}, {"sshs_model_hash", "0123"}, {"format", "pt"}};
  save_safetensors(in, tensors, metadata);
  succeed({"convert", in, out, "--to", "kohya", "--strict"});
  auto file = load_adapter(out);
  CHECK(file.metadata == std::map<std::string, std::string>{{"ss_output_name", "style"}});
  const std::string q = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight";
  CHECK(file.tensors.at(q).dtype == DType::f16);
  CHECK(file.tensors.contains("lora_unet_mid_block_attentions_0_proj_in.alpha"));
  holds(succeed({"convert", in, scratch / "folder", "--to", "peft"}), {"left out: 1 metadata"});
  succeed({"convert", in, in, "--to", "diffusers", "--strict"});  // over itself
  CHECK(load_adapter(in).metadata.at("ss_output_name") == "style");

  lora("output_blocks_8_1_proj_out", DType::bf16);  // no half type holds both
  tensors.push_back({"lora_unet_out_0.w_norm", raw({8}, DType::bf16, 0.1f)});
  tensors.push_back({"lora_unet_out_0.b_norm", raw({8}, DType::bf16, 0.1f)});
  tensors.push_back({"lora_te2_text_model_encoder_layers_31_layer_norm1.w_norm", raw({8}, DType::f32, 0.1f)});
  tensors.push_back({"lora_te2_text_model_encoder_layers_31_layer_norm1.b_norm", raw({8}, DType::f32, 0.1f)});
  save_safetensors(in, tensors);
  succeed({"convert", in, out, "--to", "kohya", "--strict"});
  file = load_adapter(out);
  CHECK(file.tensors.size() == tensors.size());
  CHECK(cast<float>(file.tensors.at(q)) == cast<float>(raw({2, 8}, DType::f16, 0.1f)));
  CHECK(cast<float>(file.tensors.at("lora_unet_up_blocks_2_attentions_2_proj_out.lora_up.weight")) == cast<float>(raw({8, 2}, DType::bf16, 0.3f)));
  CHECK(cast<float>(file.tensors.at("lora_te2_text_model_encoder_layers_31_layer_norm1.b_norm"))(7) == 0.1f);

  tensors.resize(3);
  save_safetensors(in, tensors);
  holds(succeed({"combine", in + ":1e6", "--out", out}), {"numbers as float32"});  // too large for float16
  holds(succeed({"info", out}), {"lora to_q"});
  save_safetensors(in, {{"lora_unet_conv_in.lora_down.weight", raw({8}, DType::f32, 1)}});
  refuse({"info", in}, "the shapes of its layers cannot be told from its tensors");
}

TEST_CASE("adapters combine and resize") {
  Scratch scratch("combine");
  const std::string kohya = name("kohya"), out = scratch / "a.safetensors";
  const auto file = load_adapter(name("peft"));
  succeed({"combine", kohya + ":0.25", kohya + ":0.75", "--out", out, "--to", "diffusers"});
  const auto sum = load_adapter(out);
  CHECK(sum.tensors.at(to_q + ".lora_A.weight").shape == Shape{4, 8});
  CHECK(golden::error(delta(sum, to_q, 1), delta(file, to_q, 1.5)) < 1e-6);  // kohya's alpha there is 3 of rank 2
  holds(succeed({"combine", kohya, "--method", "svd", "--rank", "2", "--out", out, "--to", "diffusers"}), {"mean 0.00 %"});
  CHECK(golden::error(delta(load_adapter(out), to_q, 1), delta(file, to_q, 1.5)) < 1e-5);
  holds(succeed({"resize", kohya, "--rank", "1", "--out", out}), {"4 layers; what the rank leaves out"});
  CHECK(load_adapter(out).format == AdapterFile::Format::kohya);
  succeed({"convert", kohya, scratch / "folder", "--to", "peft"});  // a U-Net of its own: its layers are the other file's in a pipeline only
  refuse({"combine", scratch / "folder/unet", kohya, "--out", out}, "names layers as text_encoder.text_model.encoder.layers.0.self_attn.out_proj, another file as "
         "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0; give the model");
  refuse({"resize", golden::path("peft_methods/dora"), "--rank", "1", "--out", out}, "expected a plain LoRA at");
  refuse({"resize", kohya, "--rank", "0", "--out", out}, "--rank");
  for (const std::string weight : {":much", ":nan", ":inf"}) refuse({"combine", kohya + weight, "--out", out}, "expected FILE or FILE:NUMBER");
  refuse({"resize", kohya, "--rank", "99999999999999", "--out", out}, "--rank");
}

TEST_CASE("adapters check, merge and extract on a CLIP") {
  Scratch scratch("clip");
  const std::string model = golden::path("clip"), lora = golden::path("peft/lora");
  holds(succeed({"check", lora, "--model", model}), {"peft/lora: used"});
  succeed({"merge", "--model", model, "--lora", lora + ":0.5", "--out", scratch / "merged"});
  auto base = load_clip<float>(model), merged = load_clip<float>(scratch / "merged");
  attach(base, load_adapter(lora), {.scale = 0.5});
  const Tensor<std::int32_t> ids({1, 4}, {1, 5, 9, 2});
  CHECK(golden::error(merged.text_features(ids).value(), base.text_features(ids).value()) < 1e-5);
  holds(succeed({"extract", "--base", model, "--tuned", scratch / "merged", "--rank", "5", "--out", scratch / "lora"}), {"mean 0.00 %"});
  auto again = load_clip<float>(model);
  attach(again, load_adapter(scratch / "lora"));
  CHECK(golden::error(again.text_features(ids).value(), base.text_features(ids).value()) < 1e-5);
  auto more = load_clip<float>(scratch / "merged");
  more.text_model.final_layer_norm.weight->set(Tensor<float>::full(more.text_model.final_layer_norm.weight->shape(), 0.75f));
  save_clip(more, scratch / "more");
  holds(succeed({"extract", "--base", model, "--tuned", scratch / "more", "--rank", "5", "--out", scratch / "lora2"}),
        {"left out, as a LoRA has no place for biases and norms: 1\n  text_model.final_layer_norm.weight"});
  refuse({"extract", "--base", model, "--tuned", model, "--out", scratch / "none"}, "no weight of the two models differs");
  refuse({"check", name("kohya"), "--model", scratch / "nowhere"}, "nowhere");
  refuse({"check", golden::path("peft_methods/ia3"), "--model", model}, "no layer of this model takes anything from it");
}

TEST_CASE("adapters check, merge and extract know a Stable Diffusion and the folder of a U-Net") {
  Scratch scratch("adapters-diffusion");
  const std::string model = default_data() + "/diffusion", lora = default_data() + "/loras/line-art.safetensors";
  holds(succeed({"check", lora, "--model", model}), {"used 300 of 300 tensors in 100 layers"});
  holds(succeed({"check", lora, "--model", model + "/unet"}), {"used 300 of 300 tensors in 100 layers"});
  holds(succeed({"merge", "--model", model, "--lora", lora + ":0.5", "--out", scratch / "merged"}), {"wrote "});
  holds(succeed({"merge", "--model", model + "/unet", "--lora", lora + ":0.5", "--out", scratch / "unet"}), {"wrote "});
  CHECK(read_file(scratch / "merged/unet/diffusion_pytorch_model.safetensors", 1 << 24) == read_file(scratch / "unet/diffusion_pytorch_model.safetensors", 1 << 24));
  auto base = load_unet<float>(model + "/unet"), merged = load_unet<float>(scratch / "unet");
  attach(base, load_adapter(lora), {.scale = 0.5, .part = "unet"});
  Generator generator(3);
  Tensor<float> x({1, 16, 16, 4}), states({1, 16, base.config.cross_attention_dim[0]});
  fill_uniform(x.span(), -1, 1, generator);
  fill_uniform(states.span(), -1, 1, generator);
  const auto of = [&](const Unet2d<float>& unet) { return unet(Var<float>(x), Tensor<float>::of({500}), {.states = Var<float>(states)}).value(); };
  const auto wanted = of(base);
  CHECK(golden::error(of(merged), wanted) < 2e-3);  // half precision
  // The file's alpha is its rank and its scale was a half: what comes out has scale 1.
  holds(succeed({"extract", "--base", model, "--tuned", scratch / "merged", "--rank", "8", "--out", scratch / "again.safetensors"}), {"100 layers", "kohya"});
  auto again = load_unet<float>(model + "/unet");
  attach(again, load_adapter(scratch / "again.safetensors"), {.part = "unet"});
  CHECK(golden::error(of(again), wanted) < 2e-3);
  refuse({"merge", "--model", model, "--lora", lora, "--out", scratch / "merged"}, "expected a new or empty folder");
  refuse({"merge", "--model", model, "--lora", lora + ":1e9", "--out", scratch / "large"}, "too large for float16: a smaller scale is needed");
  CHECK(!std::filesystem::exists(scratch / "large"));
  refuse({"extract", "--base", model, "--tuned", model + "/unet", "--out", scratch / "none.safetensors"}, "model_index.json");
  std::filesystem::create_directory(scratch / "broken");
  save_json(scratch / "broken/config.json", {{"_class_name", "UNet2DConditionModel"}});
  refuse({"check", lora, "--model", scratch / "broken"}, "diffusion_pytorch_model.safetensors");
}
#endif
