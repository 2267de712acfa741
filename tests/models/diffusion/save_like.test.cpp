// A tuned pipeline in the form of its checkpoint.
#include <fstream>

#include <tenon/diffusion.hpp>
#include <tenon/models/diffusion/save_like.hpp>

#include "catch.hpp"
#include "tiny_pipelines.hpp"

using namespace tenon;
namespace fs = std::filesystem;

namespace {

constexpr auto attention = {"unet.*.to_q", "unet.*.to_out.0", "unet.*.conv1", "text_encoder*.q_proj", "text_encoder*.fc1"};

/// Folds a LoRA of random numbers into a pipeline; returns how many layers it tuned.
Index tune(StableDiffusion<float>& pipe) {
  Generator generator(7);
  LoraConfig config{.rank = 2, .alpha = 3};
  config.targets.assign(attention.begin(), attention.end());
  attach(pipe, config, generator);
  const auto list = trainable(pipe);
  for (const auto& ref : list) ref.weight->update([&](Tensor<float>& value) { fill_uniform(value.span(), -0.3, 0.3, generator); });
  merge_and_unload(pipe);
  return static_cast<Index>(list.size()) / 2;
}
Tensor<float> latents(const StableDiffusion<float>& pipe) {
  return pipe.generate("a red apple", {.steps = 2, .seed = 3, .width = 24, .height = 16, .scheduler = "euler"}).latents;
}
/// The names whose bytes or types differ between two files of the same names.
std::vector<std::string> changed(const std::string& one, const std::string& other) {
  const auto a = SafetensorsFile::open(one), b = SafetensorsFile::open(other);
  REQUIRE(a.names() == b.names());
  std::vector<std::string> out;
  for (const auto& name : a.names()) {
    const RawTensor x = a.raw(name), y = b.raw(name);
    CHECK(x.dtype == y.dtype);
    if (std::memcmp(x.bytes.get(), y.bytes.get(), x.byte_count()) != 0) out.push_back(name);
  }
  return out;
}
std::string text_of(const std::string& path) { return read_file(path, 1 << 20); }
/// All paths below a folder, sorted.
std::vector<std::string> tree(const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (!entry.is_directory()) out.push_back(entry.path().lexically_relative(folder).string());
  std::sort(out.begin(), out.end());
  return out;
}
void to_half(const std::string& from, const std::string& to) {
  const auto file = SafetensorsFile::open(from);
  std::vector<NamedTensor> tensors;
  for (const auto& name : file.names()) tensors.push_back({name, raw_copy(cast<half>(file.raw(name)))});
  save_safetensors(to, tensors);
}

}  // namespace

TEST_CASE("a tuned pipeline is written as the folder it came from") {
  const ThreadScope one_thread(1);
  for (const std::string name : {"sd1", "sd2", "sdxl"}) {
    INFO(name);
    Scratch scratch("save-like");
    const std::string source = tiny::folder(scratch, name), out = scratch / "out";
    std::ofstream(source + "/model.ckpt") << "the base once more";
    fs::create_directory(source + "/.git");
    std::ofstream(source + "/.git/config") << "no part of a model";
    auto pipe = StableDiffusion<float>::load(source);
    const auto before = latents(pipe);
    const Index layers = tune(pipe);
    save_like(pipe, source, out);
    auto expected = tree(source);
    std::erase_if(expected, [](const auto& path) { return path == "model.ckpt" || path == ".git/config"; });
    CHECK(tree(out) == expected);
    CHECK(text_of(out + "/unet/config.json") == text_of(source + "/unet/config.json"));
    Index count = 0;
    for (const auto& path : expected)
      if (path.ends_with(".safetensors")) {
        const auto names = changed(source + "/" + path, out + "/" + path);
        CHECK(names.empty() == (path.starts_with("vae")));
        count += static_cast<Index>(names.size());
      }
    CHECK(count == layers);
    const auto again = StableDiffusion<float>::load(out);
    CHECK(latents(again) == latents(pipe));
    CHECK_FALSE(latents(again) == before);

    CHECK_THROWS_WITH(save_like(pipe, source, out), contains("expected a new or empty folder"));
    CHECK(changed(source + "/vae/diffusion_pytorch_model.safetensors", out + "/vae/diffusion_pytorch_model.safetensors").empty());
  }
}

TEST_CASE("half-precision files of a variant stay half precision") {
  const ThreadScope one_thread(1);
  Scratch scratch("save-like-half");
  const std::string source = tiny::folder(scratch, "sd1");
  for (const std::string stem : {"/unet/diffusion_pytorch_model", "/text_encoder/model"}) {
    to_half(source + stem + ".safetensors", source + stem + ".fp16.safetensors");
    fs::remove(source + stem + ".safetensors");
  }
  auto pipe = StableDiffusion<float>::load(source);
  const Index layers = tune(pipe);
  save_like(pipe, source, scratch / "out");
  CHECK_FALSE(fs::exists(scratch / "out/unet/diffusion_pytorch_model.fp16.safetensors"));
  const auto unet = changed(source + "/unet/diffusion_pytorch_model.fp16.safetensors", scratch / "out/unet/diffusion_pytorch_model.safetensors");
  const auto text = changed(source + "/text_encoder/model.fp16.safetensors", scratch / "out/text_encoder/model.safetensors");
  CHECK(static_cast<Index>(unet.size() + text.size()) == layers);
  const auto again = StableDiffusion<float>::load(scratch / "out");
  const auto exact = latents(pipe);
  CHECK(golden::error(latents(again), exact) < 5e-3);
  auto wanted = params(pipe), found = params(const_cast<StableDiffusion<float>&>(again));
  for (std::size_t i = 0; i < wanted.size(); ++i) CHECK(cast<half>(cast<float>(wanted[i].weight->bytes())) == cast<half>(found[i].weight->bytes()));
}

TEST_CASE("a tuned U-Net is written as the folder it came from") {
  Scratch scratch("save-like-unet");
  const std::string source = tiny::folder(scratch, "sd1") + "/unet", file = "/diffusion_pytorch_model.safetensors";
  auto unet = load_unet<float>(source);
  Generator generator(7);
  attach(unet, LoraConfig{.rank = 2, .targets = {"*.attn2.to_k"}}, generator);
  const auto list = trainable(unet);
  for (const auto& ref : list) ref.weight->update([&](Tensor<float>& value) { fill_uniform(value.span(), -0.3, 0.3, generator); });
  merge_and_unload(unet);
  save_like(unet, source, scratch / "out/");
  CHECK(tree(scratch / "out") == tree(source));
  CHECK(static_cast<Index>(changed(source + file, scratch / "out" + file).size()) == static_cast<Index>(list.size()) / 2);
  auto again = load_unet<float>(scratch / "out");
  const auto wanted = params(unet), found = params(again);
  for (std::size_t i = 0; i < wanted.size(); ++i) CHECK(wanted[i].weight->value() == found[i].weight->value());
}

TEST_CASE("a tuned pipeline is written as the single file it came from") {
  const ThreadScope one_thread(1);
  for (const std::string name : {"sd1", "sd2", "sdxl"}) {
    INFO(name);
    Scratch scratch("save-like-single");
    const std::string folder = tiny::folder(scratch, name), source = scratch / "model.safetensors", out = scratch / "tuned.safetensors";
    const StateDict dict = tiny::single_file(folder, name);
    std::vector<NamedTensor> tensors;
    for (const auto& key : dict.names()) tensors.push_back({key, dict.raw(key)});
    save_safetensors(source, tensors, {{"modelspec.title", "mine"}});
    auto pipe = StableDiffusion<float>::load(source, {.tokenizer = folder + "/tokenizer"});
    tune(pipe);
    save_like(pipe, source, out);
    CHECK(SafetensorsFile::open(out).metadata() == SafetensorsFile::open(source).metadata());
    for (const auto& key : changed(source, out)) {
      const bool tuned = key.starts_with("model.diffusion_model.") || key.starts_with("cond_stage_model.") || key.starts_with("conditioner.");
      CHECK(tuned);
      CHECK(key.ends_with("weight"));
    }
    CHECK(latents(StableDiffusion<float>::load(out, {.tokenizer = folder + "/tokenizer"})) == latents(pipe));
    CHECK_THROWS_WITH(save_like(pipe, source, scratch / "tuned.ckpt"), contains("expected a name that ends with .safetensors"));
  }
}

TEST_CASE("a projection that the file holds transposed may stay, and is refused when it changes") {
  const ThreadScope one_thread(1);
  Scratch scratch("save-like-transposed");
  const std::string folder = tiny::folder(scratch, "sdxl"), source = scratch / "model.safetensors", out = scratch / "tuned.safetensors";
  tiny::save(source, tiny::single_file(folder, "sdxl"));
  auto pipe = StableDiffusion<float>::load(source, {.tokenizer = folder + "/tokenizer"});
  save_like(pipe, source, out);
  CHECK(changed(source, out).empty());
  pipe.conditioner.text_encoder_2->text_projection->weight->update([](Tensor<float>& value) { value.data()[0] += 1; });
  fs::remove(out);
  CHECK_THROWS_WITH(save_like(pipe, source, out), contains("text_projection.weight: the file holds it in another order"));
  CHECK_FALSE(fs::exists(out));
}

TEST_CASE("another checkpoint than the pipeline's is refused and nothing stays behind") {
  const ThreadScope one_thread(1);
  Scratch scratch("save-like-refused");
  const std::string source = tiny::folder(scratch, "sd1"), other = tiny::folder(scratch, "sdxl");
  auto pipe = StableDiffusion<float>::load(source);
  const auto before = tree(scratch / "");
  CHECK_THROWS_AS(save_like(pipe, other, scratch / "out"), Error);
  CHECK_THROWS_WITH(save_like(pipe, scratch / "nowhere", scratch / "out"), contains("nowhere"));
  CHECK_THROWS_WITH(save_like(pipe, source + "/unet", scratch / "out"), contains("model_index.json"));
  CHECK(tree(scratch / "") == before);
}
