#include <tenon/autograd/gradcheck.hpp>
#include <tenon/models/diffusion/tiny_autoencoder.hpp>

#include <filesystem>

#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;

namespace {

AutoencoderKlConfig small() {
  AutoencoderKlConfig c;
  c.block_out_channels = {2, 4};
  c.layers_per_block = 1;
  c.norm_num_groups = 2;
  c.latent_channels = 2;
  return c;
}
std::string folder(const std::string& name) { return golden::path("vae/" + name); }
struct Expected {
  SafetensorsFile file;
  explicit Expected(const std::string& name) : file(SafetensorsFile::open(folder(name) + "/expected.safetensors")) {}
  Tensor<float> operator()(const std::string& name) const { return cast<float>(file.raw(name)); }
};
/// Means and logarithms of variances together, as diffusers' moments but cut.
template <class T>
Tensor<T> moments(const DiagonalGaussian<T>& d) {
  return concat<T>({d.mean, d.logvar}, 3).value();
}

}  // namespace

TEST_CASE("a diagonal Gaussian by hand") {
  const DiagonalGaussian<double> d(Var<double>(Tensor<double>({1, 1, 1, 4}, {2, 3, 0, 100})));
  CHECK(d.mean.value() == Tensor<double>({1, 1, 1, 2}, {2, 3}));
  CHECK(d.logvar.value() == Tensor<double>({1, 1, 1, 2}, {0, 20}));
  CHECK(d.kl().value().data()[0] == Approx(0.5 * (4 + 1 - 1 - 0 + 9 + std::exp(20.0) - 1 - 20)));
  Generator a(3), b(3);
  const auto noise = draw_noise<double>({1, 2, 1, 1}, a);  // numbers go by [N, C, h, w]
  CHECK(d.sample(b).value().data()[0] == Approx(2 + noise.data()[0]));
  CHECK(d.sample(b).shape() == Shape{1, 1, 1, 2});
}

TEST_CASE("tiles blend by hand") {
  const Tensor<double> before({1, 1, 3, 1}, {8, 4, 12});
  Tensor<double> tile({1, 1, 4, 1}, {0, 0, 0, 0});
  detail::blend_edge(before, tile, 2, 2);
  CHECK(tile == Tensor<double>({1, 1, 4, 1}, {4, 6, 0, 0}));
  // an identity over tiles is the identity, whatever the edges
  Generator generator(1);
  const auto x = golden::numbers({2, 7, 11, 3}, generator);
  CHECK(golden::error(detail::tiled(x, {4, 3, 1, 3}, [](const Var<double>& v) { return v; }), x) < 1e-15);
  REQUIRE_THROWS_AS(detail::tiled(x, {0, 0, 0, 0}, [](const Var<double>& v) { return v; }), ShapeError);
}

TEST_CASE("resnets, samplings and whole autoencoders have their gradients") {
  Generator generator(2);
  const auto x = golden::numbers({2, 3, 4, 2}, generator);
  const auto time = golden::numbers({2, 3}, generator);
  for (const auto norm : {TimeEmbeddingNorm::add, TimeEmbeddingNorm::scale_shift}) {
    ResnetBlock<double> block(2, 4, 3, 2, 1e-5, norm);
    block.initialize(generator);
    CHECK(check_grad([&](const auto& v) { return block(v[0], v[1]); }, {x, time}) == "");
    REQUIRE_THROWS_AS(block(Var<double>(x)), ShapeError);
  }
  ResnetBlock<double> plain(2, 2, 0, 1);
  plain.initialize(generator);
  CHECK(params(plain).size() == 8);
  REQUIRE_THROWS_AS(plain(Var<double>(x), Var<double>(time)), ShapeError);
  Downsample<double> down(2, true);
  Upsample<double> up(2);
  down.initialize(generator);
  up.initialize(generator);
  CHECK(check_grad([&](const auto& v) { return up(down(v[0]), 3, 4); }, {x}) == "");
  CHECK(Downsample<double>(2).conv.padding == 1);

  const AutoencoderKl<double> vae(small(), generator);
  const auto pictures = golden::numbers({1, 4, 6, 3}, generator, 0.5);
  CHECK(check_grad(
            [&](const auto& v) {
              Generator same(5);
              const auto d = vae.encode(v[0]);
              return vae.decode(d.sample(same)) + sum(d.kl()) * 0.1;
            },
            {pictures}) == "");
}

TEST_CASE("a resnet with a time is diffusers'") {
  for (const auto& [name, norm] : {std::pair("default", TimeEmbeddingNorm::add), {"scale_shift", TimeEmbeddingNorm::scale_shift}}) {
    INFO(name);
    StateDict dict(SafetensorsFile::open(folder(std::string("resnet_") + name + ".safetensors")));
    const auto taken = [&](const char* key) {
      auto out = cast<float>(dict.raw(key));
      dict.erase(key);
      return out;
    };
    const auto x = taken("x"), time = taken("time"), y = taken("y");
    ResnetBlock<float> block(4, 8, 6, 2, 1e-2, norm);
    load_params(params(block), dict);
    CHECK(golden::error(block(Var<float>(x), Var<float>(time)).value(), y) < 2e-6);
  }
}

TEST_CASE("AutoencoderKL is diffusers'") {
  const std::string name = GENERATE("quiet", "loud", "bare");
  INFO(name);
  const Expected expected(name);
  const auto vae = load_autoencoder_kl<float>(folder(name));
  CHECK_FALSE(params(const_cast<AutoencoderKl<float>&>(vae)).front().weight->trainable());
  const Var<float> pictures(expected("pictures")), latents(expected("latents"));
  const auto posterior = vae.encode(pictures);
  CHECK(golden::error(moments(posterior), expected("moments")) < 2e-5);
  CHECK(golden::error(moments(vae.encode(Var<float>(expected("odd")))), expected("odd_moments")) < 2e-5);
  CHECK(golden::error(vae.decode(latents).value(), expected("decoded")) < 2e-5);
  CHECK(golden::error(posterior.kl().value(), expected("kl")) < 2e-5);
  Generator generator(7);
  CHECK(golden::error(posterior.sample(generator).value(), expected("sample")) < 2e-5);
  CHECK(golden::error(moments(vae.encode(pictures, true)), expected("tiled_moments")) < 2e-5);
  CHECK(golden::error(vae.decode(latents, true).value(), expected("tiled_decoded")) < 2e-5);
  const auto scaled = vae.scale_latents(latents);
  const double z = static_cast<double>(latents.value().data()[0]);
  CHECK(scaled.value().data()[0] == Approx(name == "bare" ? (z - 0.1159) * 0.3611 : z * 0.18215));
  CHECK(golden::error(vae.unscale_latents(scaled).value(), latents.value()) < 1e-6);
  REQUIRE_THROWS_AS(vae.decode(pictures.extent(3) == vae.config.latent_channels ? Var<float>(Tensor<float>({1, 2, 2, 9})) : pictures), ShapeError);
}

TEST_CASE("AutoencoderKL's gradients are diffusers'") {
  const std::string name = GENERATE("quiet", "loud", "bare");
  INFO(name);
  const Expected expected(name);
  auto vae = load_autoencoder_kl<double>(folder(name));
  unfreeze(vae);
  const auto weighted = [](const Var<double>& x) {
    auto w = Tensor<double>::uninitialized(x.shape());
    for (Index i = 0; i < w.size(); ++i) w.data()[i] = std::sin(0.37 * static_cast<double>(i));
    return sum(x * Var<double>(std::move(w)));
  };
  const auto posterior = vae.encode(Var<double>(cast<double>(expected("pictures"))));
  backward(weighted(concat<double>({posterior.mean, posterior.logvar}, 3)) + weighted(vae.decode(Var<double>(cast<double>(expected("latents"))))));
  Index compared = 0;
  for (const auto& ref : params(vae)) {
    const std::string key = "grad." + ref.path;
    if (!StateDict(expected.file).contains(key)) continue;
    INFO(key);
    CHECK(golden::error(ref.weight->var().grad(), expected(key)) < 1e-5);
    ++compared;
  }
  CHECK(compared >= 5);
}

TEST_CASE("old names and 1x1 kernels load, and what does not fit is named") {
  const auto config = read_autoencoder_kl_config(Json::read(folder("loud") + "/config.json"));
  StateDict old(SafetensorsFile::open(folder("loud") + "/diffusion_pytorch_model.safetensors"));
  old.rename([](const std::string& name) -> std::optional<std::string> {
    std::string out = name;
    for (const auto& [from, to] : {std::pair(".to_q.", ".query."), {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}})
      if (const auto at = out.find(from); at != std::string::npos) out.replace(at, std::string_view(from).size(), to);
    return out;
  });
  for (const std::string& name : old.names())
    if (name.find(".attentions.0.query.weight") != name.npos) old.reshape(name, {12, 12, 1, 1});
  const auto vae = load_autoencoder_kl<float>(old, config);
  const Expected expected("loud");
  CHECK(golden::error(vae.decode(Var<float>(expected("latents"))).value(), expected("decoded")) < 2e-5);

  old.erase("encoder.conv_in.bias");
  REQUIRE_THROWS_WITH(load_autoencoder_kl<float>(old, config), contains("missing encoder.conv_in.bias"));
  const auto config_of = [](std::string_view text) { return read_autoencoder_kl_config(Json::parse(text, "config.json")); };
  REQUIRE_THROWS_WITH(config_of(R"({"block_out_channels": [8], "down_block_types": ["AttnDownEncoderBlock2D"]})"), contains("DownEncoderBlock2D"));
  REQUIRE_THROWS_WITH(config_of(R"({"act_fn": "relu"})"), contains("expected silu, found relu"));
  CHECK(config_of("{}").block_out_channels == std::vector<Index>{64});
}

TEST_CASE("what is saved loads again, in half the bytes") {
  Generator generator(3);
  AutoencoderKlConfig config = small();
  config.latents_mean = {0.5, -1};
  config.latents_std = {2, 4};
  config.scaling_factor = 0.7;
  AutoencoderKl<float> vae(config, generator);
  const std::string path = (std::filesystem::temp_directory_path() / "tenon_test_vae").string();
  save_autoencoder_kl(vae, path, DType::f16);
  const auto back = load_autoencoder_kl<float>(path);
  std::filesystem::remove_all(path);
  const auto z = golden::numbers<float>({1, 2, 3, 2}, generator);
  CHECK(golden::error(back.decode(Var<float>(z)).value(), vae.decode(Var<float>(z)).value()) < 1e-2);
  const Tensor<float> scaled = back.scale_latents(Var<float>(Tensor<float>({1, 1, 1, 2}, {2.5f, 3.0f}))).value();
  CHECK(scaled.data()[0] == Approx(0.7));
  CHECK(scaled.data()[1] == Approx(0.7));
  CHECK(golden::error(back.unscale_latents(back.scale_latents(Var<float>(z))).value(), z) < 1e-6);
}

TEST_CASE("AutoencoderTiny is diffusers'") {
  const Expected expected("tiny");
  const auto vae = load_autoencoder_tiny<float>(folder("tiny"));
  CHECK(golden::error(vae.encode(Var<float>(expected("pictures"))).value(), expected("encoded")) < 2e-5);
  CHECK(golden::error(vae.decode(Var<float>(expected("latents"))).value(), expected("decoded")) < 2e-5);
  CHECK(vae.config.scale() == 4);
  REQUIRE_THROWS_AS(vae.encode(Var<float>(expected("latents"))), ShapeError);
  REQUIRE_THROWS_WITH(read_autoencoder_tiny_config(Json::parse(R"({"num_encoder_blocks": [1]})", "config.json")), contains("encoder"));
  const auto hostile = [](const std::string& key, const std::string& value) { return Json::parse("{\"" + key + "\": " + value + "}", "config.json"); };
  REQUIRE_THROWS_WITH(read_autoencoder_tiny_config(hostile("num_decoder_blocks", "[3, 3, 3, 4611686018427387904]")), contains("num_decoder_blocks.3: expected 0 to 1024"));
  REQUIRE_THROWS_WITH(read_autoencoder_kl_config(hostile("layers_per_block", "4611686018427387904")), contains("layers_per_block: expected 0 to 1024"));
  REQUIRE_THROWS_WITH(read_autoencoder_kl_config(hostile("block_out_channels", "[64, -1]")), contains("block_out_channels.1: expected 1 to 16777216, found -1"));
}
