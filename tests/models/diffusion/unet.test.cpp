#include <filesystem>

#include <tenon/autograd/gradcheck.hpp>
#include <tenon/models/diffusion/control_net.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/lora.hpp>

#include "../../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"
#include "unet_numbers.hpp"

using namespace tenon;
using golden::error, golden::input, golden::numbers, golden::pixels;

namespace {

const std::string folder = golden::path("unet");

SafetensorsFile expected(const std::string& name) { return SafetensorsFile::open(folder + "/" + name + ".safetensors"); }

template <class T>
Unet2d<T> filled(const std::string& name, double tiny = 1) {
  Unet2d<T> unet(read_unet_config(folder + "/" + name + ".json"));
  golden::fill(params(unet), tiny);
  return unet;
}

template <class T>
UnetConditions<T> conditions(const UnetConfig& c) {
  UnetConditions<T> out;
  out.states = input<T>("states", {2, 7, c.cross_attention_dim[0]});
  if (c.addition_time_embed_dim > 0) {
    out.text_embeds = input<T>("text_embeds", {2, 24});
    out.time_ids = Tensor<float>({2, 6}, {64, 48, 0, 8, 64, 48, 1024, 1024, 0, 0, 768, 512});
  }
  if (c.time_cond_proj_dim > 0) out.guidance = input<T>("guidance", {2, c.time_cond_proj_dim});
  if (c.num_class_embeds > 0) out.class_labels = Tensor<std::int32_t>({2}, {3, 0});
  return out;
}

const Tensor<float> times = Tensor<float>::of({981.0f, 313.1875f});

template <class T>
Tensor<T> run(const Unet2d<T>& unet, Index h, Index w) {
  return unet(pixels<T>("latents", {2, unet.config.in_channels, h, w}), times, conditions<T>(unet.config)).value();
}

}  // namespace

TEMPLATE_TEST_CASE("U-Nets of diffusers", "", float, double) {
  using T = TestType;
  // torch's sinusoids are float32, so a double model agrees to about 1e-7 only
  const double limit = std::same_as<T, float> ? 5e-6 : 5e-7;
  for (const char* name : {"sd15", "sd21", "sdxl", "inpainting", "lcm", "small_stream", "upscaler", "distilled", "bare_mid"}) {
    const auto file = expected(name);
    const Unet2d<T> unet = filled<T>(name, name == std::string("small_stream") ? 3e-3 : 1);
    for (const auto& info : file.tensors()) {
      Index h = 0, w = 0;
      if (std::sscanf(std::string(info.name).c_str(), "%tdx%td", &h, &w) != 2) continue;
      INFO(name << " " << info.name);
      const double e = error(run(unet, h, w), file.load<double>(info.name));
      CHECK(e < limit);
      if (h != 16) continue;
      for (const char* trap : name == std::string("sd15") ? std::vector<const char*>{"tanh_gelu"}
                                                           : std::vector<const char*>{"transformer_eps", "resnet_eps", "out_eps", "layer_norm_eps"}) {
        INFO(trap);
        CHECK(10 * e < file.load<double>(std::string("trap.") + trap).item());
      }
    }
  }
}

TEMPLATE_TEST_CASE("pixel U-Nets of diffusers", "", float, double) {
  using T = TestType;
  for (const char* name : {"ddpm", "ddpm_heads", "ddpm_plain"}) {
    INFO(name);
    const Unet2d<T> unet = filled<T>(name);
    UnetConditions<T> labels;
    if (unet.config.num_class_embeds > 0) labels.class_labels = Tensor<std::int32_t>({2}, {3, 0});
    const auto y = unet(pixels<T>("latents", {2, 3, 8, 12}), Tensor<float>::of({981.0f, 313.0f}), labels).value();
    CHECK(error(y, expected(name).load<double>("8x12")) < (std::same_as<T, float> ? 5e-6 : 5e-7));
  }
}

TEST_CASE("a U-Net's gradients and a step of SGD are torch's") {
  const auto file = expected("sd15");
  Unet2d<double> unet = filled<double>("sd15");
  const bool checkpointing = GENERATE(false, true);
  unet.set_checkpointing(checkpointing);
  unfreeze(unet);
  const Var<double> latents = variable(pixels<double>("latents", {2, 4, 8, 8}));
  UnetConditions<double> given;
  given.states = variable(input<double>("states", {2, 7, 12}));
  Tensor<double> weights = pixels<double>("weights", {2, 4, 8, 8});
  for (double& x : weights) x /= 2;
  backward(sum(unet(latents, times, given) * Var<double>(std::move(weights))));
  CHECK(error(latents.grad(), file.load<double>("grad.latents")) < 1e-6);
  CHECK(error(given.states.grad(), file.load<double>("grad.states")) < 1e-6);
  const auto products = file.load<double>("grad.products"), norms = file.load<double>("grad.norms");
  auto list = params(unet);
  std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  REQUIRE(static_cast<Index>(list.size()) == products.size());
  double worst = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Tensor<double> grad = list[i].weight->var().grad(), along = golden::uniform("grad." + list[i].path, grad.shape());
    double product = 0, squares = 0;
    for (Index k = 0; k < grad.size(); ++k) {
      product += grad.data()[k] * along.data()[k];
      squares += grad.data()[k] * grad.data()[k];
    }
    const double norm = norms.data()[i];
    worst = std::max({worst, std::abs(product - products.data()[i]) / norm, std::abs(std::sqrt(squares) - norm) / norm});
    INFO(list[i].path);
    CHECK(worst < 1e-6);
    list[i].weight->update([&](Tensor<double>& value) {
      for (Index k = 0; k < grad.size(); ++k) value.data()[k] -= 0.001 * grad.data()[k];
    });
  }
  given.states = given.states.detach();
  CHECK(error(unet(latents.detach(), times, given).value(), file.load<double>("after_step")) < 1e-6);
}

TEST_CASE("the blocks of a U-Net have the gradients of central differences") {
  UnetConfig c;
  c.block_out_channels = {4, 4};
  c.down_block_types = {UnetBlockType::cross_attention, UnetBlockType::self_attention};
  c.up_block_types = {UnetBlockType::self_attention, UnetBlockType::cross_attention};
  c.layers_per_block = {1};
  c.cross_attention_dim = {3};
  c.attention_head_dim = {2};
  c.norm_num_groups = 2;
  Generator generator(7);
  const auto ready = [&](auto& block) {
    block.initialize(generator);
    for (const auto& ref : params(block)) ref.weight->update([&](Tensor<double>& v) { fill_normal(v.span(), 0.0, 0.5, generator); });
    freeze(block);
  };
  const std::vector<Tensor<double>> inputs{numbers({1, 3, 2, 4}, generator), numbers({1, 16}, generator), numbers({1, 2, 3}, generator)};
  SECTION("transformer") {
    Transformer2d<double> transformer(4, 2, 1, 3, 2, GENERATE(false, true), GENERATE(false, true));
    ready(transformer);
    CHECK(check_grad([&](const auto& x) { return transformer(x[0], x[1]); }, {inputs[0], inputs[2]}) == "");
  }
  SECTION("down, mid and up") {
    UnetDownBlock<double> down(c, 0);
    UnetMidBlock<double> mid(c);
    UnetUpBlock<double> up(c, 1);
    ready(down);
    ready(mid);
    ready(up);
    CHECK(check_grad([&](const auto& x) {
            std::vector<Var<double>> skips{x[0]};
            const Var<double> h = mid(down(x[0], x[1], x[2], skips), x[1], x[2]);
            skips.pop_back();
            return up(upsample_nearest(h, 3, 2), x[1], x[2], skips);
          }, inputs) == "");
  }
  SECTION("self-attention") {
    AttentionBlock<double> block(4, 2, 2);
    ready(block);
    CHECK(check_grad([&](const auto& x) { return block(x[0]); }, {inputs[0]}) == "");
  }
  SECTION("time") {
    c.time_cond_proj_dim = 3;
    c.num_class_embeds = 2;
    c.addition_time_embed_dim = 4;
    c.projection_class_embeddings_input_dim = 11;
    UnetTime<double> time(c);
    ready(time);
    CHECK(check_grad([&](const auto& x) {
            UnetConditions<double> given;
            given.guidance = x[0];
            given.text_embeds = x[1];
            given.time_ids = Tensor<float>({1, 2}, {5, 7});
            given.class_labels = Tensor<std::int32_t>({1}, {1});
            return time(1, Tensor<float>::of({3.5f}), given);
          }, {numbers({1, 3}, generator), numbers({1, 3}, generator)}) == "");
  }
}

TEMPLATE_TEST_CASE("a ControlNet of diffusers, and the U-Net it steers", "", float, double) {
  using T = TestType;
  const double limit = std::same_as<T, float> ? 5e-6 : 5e-7;
  const auto file = expected("control_net");
  ControlNet<T> net(read_control_net_config(Json::read(folder + "/control_net.json")));
  golden::fill(params(net));
  const Unet2d<T> unet = filled<T>("controlled");
  const auto latents = pixels<T>("latents", {2, 4, 8, 6}), picture = pixels<T>("picture", {2, 3, 32, 24});
  auto given = conditions<T>(unet.config);
  for (const bool guess : {false, true}) {
    const std::string prefix = guess ? "guess." : "";
    const auto residuals = net(latents, times, given, picture, {.scale = 0.7, .guess = guess});
    for (std::size_t i = 0; i < residuals.down.size(); ++i)
      CHECK(error(residuals.down[i].value(), file.load<double>(prefix + "down." + std::to_string(i))) < limit);
    CHECK(error(residuals.mid->value(), file.load<double>(prefix + "mid")) < limit);
    given.control = residuals;
    CHECK(error(unet(latents, times, given).value(), file.load<double>(prefix + "sample")) < limit);
    const auto twice = residuals + residuals;
    CHECK(error(twice.down[1].value(), (residuals.down[1] * T(2)).value()) == 0);
  }
  REQUIRE_THROWS_WITH(net(latents, times, given, pixels<T>("picture", {2, 3, 32, 32})),
                      contains("[control_net] expected a picture [N, 8 f, 6 f, 3] with f = 2^2"));
}

TEST_CASE("an adapter that peft made for a U-Net") {
  Unet2d<float> unet = filled<float>("small_stream");
  const Tensor<float> before = run(unet, 16, 16);
  attach(unet, load_adapter(folder + "/lora.safetensors"));
  const auto want = expected("lora_expected").load<double>("16x16");
  CHECK(error(run(unet, 16, 16), want) < 5e-6);
  CHECK(error(before, want) > 0.1);
}

TEST_CASE("LoRA on a U-Net has peft's names, and checkpointing its gradients") {
  Unet2d<float> unet = filled<float>("small_stream");
  Generator generator(11);
  attach(unet, LoraConfig{.rank = 2, .targets = {"to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "conv1", "conv2", "proj_in", "proj_out",
                                                 "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "conv_in", "linear_1"}}, generator);
  std::vector<std::string> names, theirs;
  for (const auto& ref : patch_params(unet)) names.push_back(ref.path);
  std::sort(names.begin(), names.end());
  const auto file = expected("lora");
  for (const auto& tensor : file.tensors()) theirs.emplace_back(tensor.name);
  std::sort(theirs.begin(), theirs.end());
  CHECK(names == theirs);

  for (const auto& ref : patch_params(unet))
    ref.weight->update([&](Tensor<float>& value) { fill_normal(value.span(), 0.0f, 0.3f, generator); });
  std::vector<Tensor<float>> grads[2];
  for (const bool checkpointing : {false, true}) {
    unet.set_checkpointing(checkpointing);
    backward(sum(square(unet(pixels<float>("latents", {2, 4, 8, 8}), times, conditions<float>(unet.config)))));
    for (const auto& ref : patch_params(unet)) {
      grads[checkpointing ? 1 : 0].push_back(ref.weight->var().grad());
      ref.weight->var().clear_grad();
    }
  }
  for (std::size_t i = 0; i < names.size(); ++i) CHECK(error(grads[1][i], grads[0][i]) < 1e-4);  // a skip's sums have another order
}

TEST_CASE("configurations of U-Nets") {
  for (const char* name : {"sd15", "sd21", "sdxl", "upscaler", "distilled", "bare_mid", "ddpm", "ddpm_heads", "ddpm_plain"}) {
    INFO(name);
    const UnetConfig config = read_unet_config(folder + "/" + name + ".json");
    const auto written = write_unet_config(config);
    const UnetConfig again = read_unet_config(Json::parse(written.dump(), "again"));
    CHECK(write_unet_config(again) == written);
    Unet2d<float> a(config), b(again);
    CHECK(params(a).size() == params(b).size());
  }
  const auto reading = [](const std::string& text) { return read_unet_config(Json::parse(text, "config.json")); };
  REQUIRE_THROWS_WITH(reading(R"({"layers_per_block": [2, 9223372036854775807]})"), contains("layers_per_block.1: expected 0 to 1024"));
  REQUIRE_THROWS_WITH(reading(R"({"transformer_layers_per_block": [1, [1, 1025]]})"), contains("transformer_layers_per_block.1.1: expected 0 to 1024"));
  REQUIRE_THROWS_WITH(reading(R"({"cross_attention_dim": 0})"), contains("cross_attention_dim: expected 1 to 16777216, found 0"));
  REQUIRE_THROWS_WITH(reading(R"({"act_fn": "mish"})"), contains("[unet] config.json: act_fn") && contains("\"mish\""));
  REQUIRE_THROWS_WITH(reading(R"({"down_block_types": ["KDownBlock2D"]})"), contains("down_block_types") && contains("KDownBlock2D"));
  REQUIRE_THROWS_WITH(reading(R"({"class_embed_type": "projection"})"), contains("class_embed_type"));
  REQUIRE_THROWS_WITH(reading(R"({"layers_per_block": [1, 2]})"), contains("layers_per_block") && contains("got 2"));
  REQUIRE_THROWS_WITH(reading(R"({"norm_num_groups": 7})"), contains("7 groups divide, got 320"));
  REQUIRE_THROWS_WITH(reading(R"({"_class_name": "FluxTransformer2DModel"})"), contains("_class_name"));
}

TEST_CASE("only_cross_attention is for the ways down and up, not for the mid block") {
  UnetConfig c;
  c.block_out_channels = {16};
  c.down_block_types = c.up_block_types = {UnetBlockType::cross_attention};
  c.layers_per_block = {1};
  c.cross_attention_dim = {12};
  c.attention_head_dim = {4};
  c.norm_num_groups = 4;
  c.only_cross_attention = {true};
  Unet2d<float> unet(c);
  for (const auto& ref : params(unet))
    if (ref.path.ends_with("attentions.0.transformer_blocks.0.attn1.to_k.weight"))
      CHECK(ref.weight->shape() == Shape{16, ref.path.starts_with("mid_block") ? 16 : 12});
}

TEST_CASE("a U-Net says what it expects") {
  const Unet2d<float> unet = filled<float>("sdxl");
  auto given = conditions<float>(unet.config);
  const auto latents = [](Index n, Index c) { return Tensor<float>({n, 4, 4, c}); };
  REQUIRE_THROWS_WITH(unet(latents(2, 3), times, given), contains("[unet] expected latents [N, H, W, 4], got [2, 4, 4, 3]"));
  REQUIRE_THROWS_WITH(unet(latents(3, 4), times, given), contains("expected timesteps [3] or [1], got [2]"));
  given.text_embeds.reset();
  REQUIRE_THROWS_WITH(unet(latents(2, 4), times, given), contains("P + 8 K = 72, got none and [2, 6]"));
  given = conditions<float>(unet.config);
  given.guidance = Tensor<float>({2, 16});
  REQUIRE_THROWS_WITH(unet(latents(2, 4), times, given), contains("takes no guidance embedding"));
  given = conditions<float>(unet.config);
  given.states = Tensor<float>({2, 7, 12});
  REQUIRE_THROWS_WITH(unet(latents(2, 4), times, given), contains("expected text states [2, S, 20], got [2, 7, 12]"));
  given = conditions<float>(unet.config);
  given.control = ControlResiduals<float>{};
  REQUIRE_THROWS_WITH(unet(latents(2, 4), times, given), contains("expected control residuals for 9 skips"));
}

TEST_CASE("a U-Net in a folder and in a file") {
  const Scratch scratch("unet");
  Unet2d<float> unet = filled<float>("sdxl");
  save_unet(unet, scratch / "unet");
  const Tensor<float> y = run(unet, 8, 8);
  Unet2d<float> loaded = load_unet<float>(scratch / "unet");
  CHECK(trainable(loaded).empty());
  CHECK(run(loaded, 8, 8) == y);
  const double narrow = error(run(load_unet<float>(scratch / "unet", {.weights = DType::bf16}), 8, 8), y);
  CHECK((narrow > 0 && narrow < 0.05));
  Generator generator(5);
  UnetConfig config;
  config.block_out_channels = {32, 32};
  config.down_block_types = {UnetBlockType::plain, UnetBlockType::self_attention};
  config.mid_block_type = UnetBlockType::self_attention;
  config.up_block_types = {UnetBlockType::self_attention, UnetBlockType::plain};
  Unet2d<float> drawn(config, generator);
  save_unet(drawn, scratch / "pixels");
  std::filesystem::rename(scratch / "pixels/config.json", scratch / "pixels/away");  // the file alone: its shapes say what it is
  CHECK(run(load_unet<float>(scratch / "pixels/diffusion_pytorch_model.safetensors"), 8, 8) == run(drawn, 8, 8));
  REQUIRE_THROWS_WITH(load_unet<float>(scratch / "pixels"), contains("config.json"));
  REQUIRE_THROWS_WITH(load_unet<float>(scratch / "nowhere"), contains("[load_unet]") && contains("nowhere"));
  UnetConfig other = unet.config;
  other.in_channels = 9;
  REQUIRE_THROWS_WITH(load_unet<float>(open_checkpoint(scratch / "unet", {"diffusion_pytorch_model"}), other),
                      contains("conv_in.weight: expected shape [16, 9, 3, 3]"));
}

TEST_CASE("a U-Net without a configuration is what its shapes say") {
  const auto inferred = [](const UnetConfig& config) {
    Unet2d<float> unet(config);  // declared: shapes only
    StateDict dict("shapes");
    for (const auto& ref : params(unet)) dict.insert(ref.path, {DType::f32, "F32", ref.weight->shape(), {}});
    const UnetConfig found = infer_unet_config(dict);
    Unet2d<float> again(found);
    const auto a = params(unet), b = params(again);
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK((a[i].path == b[i].path && a[i].weight->shape() == b[i].weight->shape()));
    return std::pair(found, count(params(again)));
  };
  UnetConfig sd15;
  const auto [one, one_size] = inferred(sd15);
  CHECK(one_size == 859520964);
  CHECK(one.attention_head_dim == std::vector<Index>{8, 8, 8, 8});
  UnetConfig sd21;
  sd21.cross_attention_dim = {1024};
  sd21.use_linear_projection = true;
  sd21.attention_head_dim = {5, 10, 20, 20};
  const auto [two, two_size] = inferred(sd21);
  CHECK(two_size == 865910724);
  CHECK(two.attention_head_dim == sd21.attention_head_dim);
  UnetConfig sdxl = sd21;
  using enum UnetBlockType;
  sdxl.block_out_channels = {320, 640, 1280};
  sdxl.down_block_types = {plain, cross_attention, cross_attention};
  sdxl.up_block_types = {cross_attention, cross_attention, plain};
  sdxl.attention_head_dim = {5, 10, 20};
  sdxl.cross_attention_dim = {2048};
  sdxl.transformer_layers_per_block = {{1}, {2}, {10}};
  sdxl.addition_time_embed_dim = 256;
  sdxl.projection_class_embeddings_input_dim = 2816;
  const auto [xl, xl_size] = inferred(sdxl);
  CHECK(xl_size == 2567463684);
  CHECK(xl.attention_head_dim == sdxl.attention_head_dim);
  for (const char* name : {"lcm", "inpainting", "upscaler", "distilled", "bare_mid", "ddpm"})
    inferred([&] {
      UnetConfig c = read_unet_config(folder + "/" + name + ".json");
      for (Index& channels : c.block_out_channels) channels *= 4;  // shapes do not tell groups: 32
      c.norm_num_groups = 32;
      return c;
    }());
  REQUIRE_THROWS_AS(infer_unet_config(StateDict("empty")), NameError);
}
