// IP-Adapters in complete runs of diffusers' pipelines: see golden/make_ip_adapter.py.
#include <nlohmann/json.hpp>

#include <tenon/diffusion.hpp>

#include "catch.hpp"
#include "tiny_pipelines.hpp"

using namespace tenon;

namespace {

const std::string folder = golden::path("ip_adapter");

struct Fixture {
  ThreadScope one_thread{1};
  Scratch scratch{"ip-adapter"};
  StableDiffusion<float> pipe = StableDiffusion<float>::load(tiny::folder(scratch, "sd1"));
  ClipImageEncoder<float> encoder = load_image_encoder<float>(folder + "/image_encoder");

  IpAdapter<float> attach(const std::string& file, const AttachOptions& options = {.name = "ip_adapter"}) { return attach_ip_adapter(pipe.unet, folder + "/" + file, options); }
};

std::vector<Image> pictures(const Json& sizes) {
  std::vector<Image> out;
  for (Index i = 0; i < sizes.size(); ++i) {
    const auto size = sizes.get<std::vector<Index>>(std::to_string(i));
    out.push_back(tiny::picture(size[0], size[1]));
  }
  return out;
}

}  // namespace

TEST_CASE("runs that look at pictures give diffusers' latents") {
  const Json cases = Json::read(folder + "/cases.json");
  const auto finals = SafetensorsFile::open(folder + "/finals.safetensors");
  REQUIRE(cases.size() == 6);
  Fixture f;
  for (Index n = 0; n < cases.size(); ++n) {
    const Json c = cases.at(std::to_string(n));
    INFO(n << ' ' << c.value().dump());
    const auto kinds = c.get<std::vector<std::string>>("adapters");
    const auto scales = c.get<std::vector<double>>("scales");
    std::vector<IpAdapter<float>> adapters;
    GenerationOptions<float> o{.steps = c.get<Index>("steps"), .guidance_scale = c.get<double>("guidance_scale"), .seed = c.get<std::uint64_t>("seed"),
                               .negative_prompt = c.get<std::string>("negative_prompt"), .width = 24, .height = 16};
    for (std::size_t i = 0; i < kinds.size(); ++i) adapters.push_back(f.attach(kinds[i] + ".safetensors", {.name = kinds[i], .scale = scales[i]}));
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      o.image_prompts.push_back({&adapters[i], &f.encoder, pictures(c.at("pictures." + std::to_string(i)))});
      const NoGrad no_grad;
      const auto tokens = adapters[i].tokens(adapters[i].features(f.encoder, o.image_prompts[i].images).first);
      const auto expected = finals.load<double>(std::to_string(n) + ".tokens." + std::to_string(i));
      CHECK(golden::error(tokens.value(), expected.reshape(tokens.shape())) < 1e-5);
    }
    std::reverse(o.image_prompts.begin(), o.image_prompts.end());  // they are known by name
    const auto out = f.pipe.generate(c.get<std::string>("prompt"), o);
    CHECK(golden::error(out.latents, finals.load<double>(std::to_string(n))) < 20 * c.get<double>("distance"));
    detach(f.pipe.unet, "*");
  }
}

TEST_CASE("an IP-Adapter's scale is a number, torch's file is the same, and without it nothing is left") {
  Fixture f;
  const GenerationOptions<float> plain{.steps = 2, .seed = 3, .width = 24, .height = 16};
  const auto before = f.pipe.generate("a cat", plain).latents;
  const auto adapter = f.attach("linear.bin", {.name = "ip", .scale = 0.7});
  CHECK(adapter.image_proj.tokens == 4);
  auto looking = plain;
  looking.image_prompts = {{&adapter, &f.encoder, {tiny::picture(40, 56)}}};
  const auto at_07 = f.pipe.generate("a cat", looking);
  CHECK(at_07.metadata.back() == std::pair<std::string, std::string>("adapters", "ip:0.7"));
  CHECK(golden::error(at_07.latents, before) > 1e-2);
  set_scale(f.pipe.unet, "ip", 0.0);
  CHECK(golden::error(f.pipe.generate("a cat", looking).latents, before) < 1e-6);
  set_scale(f.pipe.unet, "ip", 0.7);
  enable(f.pipe.unet, "ip", false);
  CHECK(golden::error(f.pipe.generate("a cat", looking).latents, before) == 0);
  enable(f.pipe.unet, "ip");
  auto given = looking;
  given.image_prompts[0].encoder = nullptr, given.image_prompts[0].features = adapter.features(f.encoder, looking.image_prompts[0].images);
  CHECK(golden::error(f.pipe.generate("a cat", given).latents, at_07.latents) == 0);
  detach(f.pipe.unet, "ip");
  CHECK(golden::error(f.pipe.generate("a cat", plain).latents, before) == 0);
  attach_ip_adapter(f.pipe.unet, folder + "/linear.safetensors", {.name = "ip", .scale = 0.7});
  const auto again = f.attach("linear.safetensors", {.name = "other", .scale = 0});
  looking.image_prompts[0].adapter = &again;
  CHECK_THROWS_WITH(f.pipe.generate("a cat", looking), contains("the IP-Adapter 'ip' is attached and needs a picture"));
}

TEST_CASE("what cannot be an IP-Adapter is refused") {
  Fixture f;
  const auto adapter = f.attach("linear.safetensors");
  const GenerationOptions<float> plain{.steps = 1, .width = 24, .height = 16};
  CHECK_THROWS_WITH(f.pipe.generate("a cat", plain), contains("the IP-Adapter 'ip_adapter' is attached and needs a picture"));
  CHECK_THROWS_AS(f.attach("plus.safetensors"), NameError);
  CHECK(adapter_names(f.pipe.unet) == std::set<std::string>{"ip_adapter"});
  detach(f.pipe.unet, "ip_adapter");
  auto looking = plain;
  looking.image_prompts = {{&adapter, &f.encoder, {tiny::picture(40, 56)}}};
  CHECK_THROWS_WITH(f.pipe.generate("a cat", looking), contains("image tokens for 'ip_adapter', which is not attached"));
  looking.image_prompts[0].images.clear();
  CHECK_THROWS_WITH(f.pipe.generate("a cat", looking), contains("at least one picture"));
  CHECK_THROWS_WITH(attach_ip_adapter(f.pipe.unet, golden::path("stable_diffusion/lora.safetensors")), contains("expected tensors named image_proj. and ip_adapter."));
  CHECK_THROWS_WITH(load_image_encoder<float>(f.scratch / "sd1/text_encoder"), contains("expected a CLIP vision model, found"));
  const auto file = SafetensorsFile::open(folder + "/linear.safetensors");
  std::vector<NamedTensor> tensors;
  for (const auto& name : file.names())
    tensors.push_back({name == "ip_adapter.3.to_k_ip.weight" ? "ip_adapter.4.to_k_ip.weight" : name, raw_copy(file.load<float>(name))});
  save_safetensors(f.scratch / "broken.safetensors", tensors);
  CHECK_THROWS_WITH(attach_ip_adapter(f.pipe.unet, f.scratch / "broken.safetensors"), contains("3.to_k_ip.weight"));
  CHECK(adapter_names(f.pipe.unet).empty());
}
