// Complete runs of diffusers' pipelines on tiny models: see golden/make_stable_diffusion.py.
#include <nlohmann/json.hpp>

#include <tenon/diffusion.hpp>
#include <tenon/models/diffusion/preview.hpp>

#include "catch.hpp"
#include "tiny_pipelines.hpp"

using namespace tenon;

namespace {

using Options = GenerationOptions<float>;

/// The arguments of a case as options.
Options options_of(const Json& c) {
  Options o;
  o.steps = c.get<Index>("steps");
  o.seed = c.get<std::uint64_t>("seed");
  o.width = c.get<Index>("width", 0);
  o.height = c.get<Index>("height", 0);
  o.scheduler = c.get("scheduler", std::string());
  o.guidance_rescale = c.get("guidance_rescale", 0.0);
  o.eta = c.get("eta", 0.0);
  o.prompt.clip_skip = c.get<Index>("clip_skip", 0);
  if (c.contains("guidance_scale")) o.guidance_scale = c.get<double>("guidance_scale");
  if (c.contains("strength")) o.strength = c.get<double>("strength");
  if (c.contains("negative_prompt")) o.negative_prompt = c.get<std::string>("negative_prompt");
  const auto pair = [&](const char* key) {
    const auto list = c.get<std::vector<Index>>(key);
    return std::array<Index, 2>{list[0], list[1]};
  };
  if (c.contains("original_size")) o.original_size = pair("original_size");
  if (c.contains("target_size")) o.target_size = pair("target_size");
  if (c.contains("crops_coords_top_left")) o.crop = pair("crops_coords_top_left");
  if (c.contains("picture")) {
    const auto size = pair("picture");
    o.image = tiny::picture(size[0], size[1]);
    if (c.get<std::string>("kind") == "inpaint") o.mask = tiny::mask(size[0], size[1]);
  }
  return o;
}

struct Models {
  ThreadScope one_thread{1};  // the models are too small for more
  Scratch scratch{"stable-diffusion"};
  std::map<std::string, std::string> folders;
  const std::string& folder(const std::string& name) {
    if (!folders.contains(name)) folders[name] = tiny::folder(scratch, name);
    return folders[name];
  }
};
Models& models() {
  static Models all;
  return all;
}
const std::string golden_folder = golden::path("stable_diffusion");

}  // namespace

TEST_CASE("complete runs give diffusers' latents") {
  const Json cases = Json::read(golden_folder + "/cases.json");
  const auto finals = SafetensorsFile::open(golden_folder + "/finals.safetensors");
  for (Index n = 0; n < cases.size(); ++n) {
    const Json c = cases.at(std::to_string(n));
    INFO(n << ' ' << c.value().dump());
    auto pipe = StableDiffusion<float>::load(models().folder(c.get<std::string>("model")));
    if (c.contains("lora")) attach(pipe, load_adapter(golden_folder + "/lora.safetensors"), {.scale = c.get<double>("lora")});
    if (c.contains("word")) add_textual_inversion(pipe, load_textual_inversion(golden_folder + "/word.safetensors"));
    Options options = options_of(c);
    ControlNet<float> net;
    if (c.contains("control")) {
      const bool xl = pipe.family == DiffusionFamily::sdxl;
      net = ControlNet<float>(read_control_net_config(Json::read(golden_folder + (xl ? "/control_net_xl/config.json" : "/control_net/config.json"))));
      tiny::draw(net, 7);
      options.controls.push_back({&net, tiny::picture(20, 31), {.scale = c.get<double>("control.0"), .guess = c.get<bool>("control.1")},
                                  c.get("control.2", 0.0), c.get("control.3", 1.0)});
    }
    const auto out = pipe.generate(c.get<std::string>("prompt"), options);
    CHECK(golden::error(out.latents, finals.load<double>(std::to_string(n))) < 20 * c.get<double>("distance"));
    const auto picture = std::to_string(n) + ".image";
    if (!finals.contains(picture)) continue;
    const auto expected = finals.load<float>(picture);
    const Image image = as_image(expected.reshape({expected.extent(1), expected.extent(2), 3}));
    REQUIRE(image.pixels.size() == out.image.pixels.size());
    int far = 0;
    for (std::size_t i = 0; i < image.pixels.size(); ++i) far = std::max(far, std::abs(image.pixels[i] - out.image.pixels[i]));
    CHECK(far <= 1);
  }
}

TEST_CASE("a single file gives its folder's bits") {
  for (const std::string name : {"sd1", "sd2", "sdxl"}) {
    INFO(name);
    const std::string path = models().scratch / (name + ".safetensors");
    StateDict dict = tiny::single_file(models().folder(name), name);
    tiny::save(path, dict);
    const auto pipe = StableDiffusion<float>::load(path, {.tokenizer = models().folder(name) + "/tokenizer"});
    const std::string copy = models().scratch / ("one-head-" + name);
    std::filesystem::copy(models().folder(name), copy, std::filesystem::copy_options::recursive);
    if (name != "sd1") {  // heads cannot be seen: 64 wide
      auto config = Json::read(copy + "/unet/config.json").value();
      config["attention_head_dim"] = 1;
      save_json(copy + "/unet/config.json", config);
    }
    const auto folder = StableDiffusion<float>::load(copy);
    CHECK(pipe.family == folder.family);
    const Options options{.steps = 2, .seed = 3, .width = 24, .height = 16, .scheduler = "euler"};
    const auto one = pipe.generate("a red apple", options), other = folder.generate("a red apple", options);
    CHECK(one.latents == other.latents);
    CHECK(one.image == other.image);
    CHECK(pipe.scheduler.name == (name == "sd1" ? "pndm" : name == "sd2" ? "ddim" : "euler"));
    CHECK((pipe.scheduler.config.prediction_type == PredictionType::v_prediction) == (name == "sd2"));
  }
  // what a file's keys say
  StateDict dict = tiny::single_file(models().folder("sdxl"), "sdxl");
  const Tensor<float> flag = Tensor<float>::of({});
  for (const char* key : {"v_pred", "ztsnr"}) dict.insert(key, {DType::f32, "F32", flag.shape(), [flag] { return raw_copy(flag); }});
  const std::string path = models().scratch / "v.safetensors";
  tiny::save(path, dict);
  const auto pipe = StableDiffusion<float>::load(path, {.tokenizer = models().folder("sdxl") + "/tokenizer_2"});
  CHECK(pipe.scheduler.config.prediction_type == PredictionType::v_prediction);
  CHECK(pipe.scheduler.config.rescale_betas_zero_snr == true);
  const auto plain = StableDiffusion<float>::load(path, {.tokenizer = models().folder("sdxl") + "/tokenizer", .prediction = PredictionType::epsilon});
  CHECK(plain.scheduler.config.prediction_type == PredictionType::epsilon);
}

TEST_CASE("checkpoints that are none, or not whole") {
  const auto load = [](const std::string& path) { return StableDiffusion<float>::load(path); };
  REQUIRE_THROWS_WITH(load("/no/such/model"), contains("/no/such/model"));
  REQUIRE_THROWS_WITH(load(models().scratch / ""), contains("expected a folder of diffusers with model_index.json"));
  const std::string path = models().scratch / "broken.safetensors";
  const auto refused = [&](const std::function<void(StateDict&)>& change, const std::string& text) {
    StateDict dict = tiny::single_file(models().folder("sd1"), "sd1");
    change(dict);
    tiny::save(path, dict);
    REQUIRE_THROWS_WITH(StableDiffusion<float>::load(path, {.tokenizer = models().folder("sd1") + "/tokenizer"}), contains(text));
  };
  const auto rename = [](std::string_view from, std::string_view to) {
    return [=](StateDict& dict) {
      dict.rename([&](const std::string& name) { return name.starts_with(from) ? std::optional(join_text(to, name.substr(from.size()))) : std::optional(name); });
    };
  };
  refused(rename("cond_stage_model.transformer.", "conditioner.embedders.0.model."), "found the refiner of Stable Diffusion XL");
  refused(rename("model.diffusion_model.", "double_blocks."), "found Flux");
  refused(rename("model.diffusion_model.", "model."), "expected a checkpoint of Stable Diffusion 1, 2 or XL");
  refused([](StateDict& d) { d.rename([](const std::string& n) { return n.starts_with("first") ? std::nullopt : std::optional(n); }); }, "expected the autoencoder");
  refused([](StateDict& d) { d.erase("model.diffusion_model.middle_block.0.out_layers.3.weight"); }, "missing mid_block.resnets.0.conv2.weight");
  tiny::save(path, tiny::single_file(models().folder("sd1"), "sd1"));
  REQUIRE_THROWS_WITH(load(path), contains("name a folder with its tokenizer"));

  namespace fs = std::filesystem;
  const std::string copy = models().scratch / "copy";
  fs::copy(models().folder("sd1"), copy, fs::copy_options::recursive);
  fs::remove_all(copy + "/vae");
  REQUIRE_THROWS_WITH(load(copy), contains("the component vae is missing"));
  put(copy + "/model_index.json", R"({"_class_name": "FluxPipeline"})");
  REQUIRE_THROWS_WITH(load(copy), contains("found FluxPipeline"));
}

TEST_CASE("what diffusers' pipelines of this family do not read of an autoencoder changes nothing") {
  const std::string copy = models().scratch / "shifted";
  std::filesystem::copy(models().folder("sd1"), copy, std::filesystem::copy_options::recursive);
  auto config = Json::read(copy + "/vae/config.json").value();
  config.update({{"shift_factor", 0.3}, {"latents_mean", {0.1, -0.2, 0.3, 0.4}}, {"latents_std", {0.9, 1.1, 1.3, 0.7}}});
  save_json(copy + "/vae/config.json", config);
  const Options options{.steps = 2, .seed = 3, .image = tiny::picture(16, 24)};
  const auto plain = StableDiffusion<float>::load(models().folder("sd1")).generate("a red apple", options);
  const auto shifted = StableDiffusion<float>::load(copy).generate("a red apple", options);
  CHECK(shifted.latents == plain.latents);
  CHECK(shifted.image == plain.image);
}

TEST_CASE("XL's inpainting encodes without the latents' mean and standard deviation, as diffusers'") {
  const std::string moved = models().scratch / "moved-latents";
  std::filesystem::copy(models().folder("sdxl"), moved, std::filesystem::copy_options::recursive);
  auto config = Json::read(moved + "/vae/config.json").value();
  config.update({{"latents_mean", {0.1, -0.2, 0.3, 0.4}}, {"latents_std", {0.9, 1.1, 1.3, 0.7}}});
  save_json(moved + "/vae/config.json", config);
  Options options{.steps = 2, .seed = 5, .width = 24, .height = 16, .image = tiny::picture(16, 24), .mask = Image(16, 24, 1)};  // nothing is painted anew
  const auto run = [&](const std::string& folder) { return StableDiffusion<float>::load(folder).generate("a red apple", options).latents; };
  CHECK(run(moved) == run(models().folder("sdxl")));
  options.mask.reset();
  options.strength = 0.8;
  CHECK_FALSE(run(moved) == run(models().folder("sdxl")));
}

TEST_CASE("a picture that a ControlNet guides has the size of what it reads") {
  const auto pipe = StableDiffusion<float>::load(models().folder("sd1"));
  ControlNet<float> net(read_control_net_config(Json::read(golden_folder + "/control_net/config.json")));
  tiny::draw(net, 7);
  Options options{.steps = 1, .controls = {{&net, tiny::picture(32, 25), {}}}};
  const Image image = pipe("a red apple", options);
  CHECK(image.width == 24);
  CHECK(image.height == 32);
  options.width = options.height = 16;
  CHECK(pipe("a red apple", options).width == 16);
  options.controls.front().start = 0.5;
  options.controls.front().end = 0.5;
  REQUIRE_THROWS_WITH(pipe("a red apple", options), contains("a later end of at most 1, got 0.500000 to 0.500000"));
}

TEST_CASE("a scheduler's outdated options are mended as diffusers' pipelines mend them") {
  const std::string copy = models().scratch / "outdated", path = copy + "/scheduler/scheduler_config.json";
  std::filesystem::copy(models().folder("sd2"), copy, std::filesystem::copy_options::recursive);
  const auto original = Json::read(path).value();
  const Options options{.steps = 2, .seed = 3, .width = 24, .height = 16};
  const auto latents = [&] { return StableDiffusion<float>::load(copy).generate("a red apple", options).latents; };
  const auto expected = latents();
  auto config = original;
  config.update({{"steps_offset", 0}, {"clip_sample", true}});
  save_json(path, config);
  CHECK(latents() == expected);
  config.erase("steps_offset"), config.erase("clip_sample");
  save_json(path, config);
  CHECK(latents() == expected);
  // another scheduler keeps its own defaults for what the file does not say
  const auto choice = StableDiffusion<float>::load(copy).scheduler;
  CHECK(!choice.for_run("ddpm").clip_sample);
  CHECK(choice.for_run("ddim").clip_sample == false);
  SchedulerChoice old{"pndm", {.steps_offset = 0, .clip_sample = true, .skip_prk_steps = false}};
  CHECK(old.for_run("pndm").steps_offset == 0);
  old.outdated = old.config;
  CHECK(old.for_run("pndm").steps_offset == 1);
  CHECK(old.for_run("pndm").clip_sample == false);
  CHECK(old.for_run("pndm").skip_prk_steps == false);
  CHECK(old.for_run("pndm", true).steps_offset == 1);
  CHECK(old.for_run("pndm", true).clip_sample == true);
  CHECK(old.for_run("pndm", true).skip_prk_steps == true);
  old.config.steps_offset = 2;  // what was asked for stays
  CHECK(old.for_run("pndm").steps_offset == 2);
  CHECK_FALSE(StableDiffusion<float>::load(models().folder("sdxl")).scheduler.outdated);
  CHECK_FALSE(StableDiffusion<float>::load(models().folder("lcm")).scheduler.outdated);
}

TEST_CASE("with ControlNets a scheduler's outdated options stay, as in diffusers' pipelines") {
  auto pipe = StableDiffusion<float>::load(models().folder("sd1"));
  ControlNet<float> net(read_control_net_config(Json::read(golden_folder + "/control_net/config.json")));
  tiny::draw(net, 7);
  Options options{.steps = 2, .seed = 3, .width = 24, .height = 16, .controls = {{&net, tiny::picture(16, 24), {}}}};
  const auto latents = [&] { return pipe.generate("a red apple", options).latents; };
  pipe.scheduler.config.steps_offset = 0;
  pipe.scheduler.outdated.reset();
  const auto expected = latents();
  pipe.scheduler.outdated = pipe.scheduler.config;
  CHECK(latents() == expected);
  options.controls.clear();
  const auto mended = latents();
  pipe.scheduler.outdated.reset();
  CHECK_FALSE(latents() == mended);
}

TEST_CASE("a first ControlNet that pools puts all of them in guess mode") {
  for (const bool xl : {false, true}) {
    const auto pipe = StableDiffusion<float>::load(models().folder(xl ? "sdxl" : "sd1"));
    const auto config = read_control_net_config(Json::read(golden_folder + (xl ? "/control_net_xl/config.json" : "/control_net/config.json")));
    ControlNet<float> plain(config), pooling(config);
    tiny::draw(plain, 7);
    tiny::draw(pooling, 8);
    pooling.config.global_pool_conditions = true;
    Options options{.steps = 1, .width = 24, .height = 16};
    const auto latents = [&](const ControlNet<float>& first, bool guess, const ControlNet<float>& second, bool second_guess) {
      options.controls = {{&first, tiny::picture(16, 24), {.guess = guess}}, {&second, tiny::picture(16, 24), {.guess = second_guess}}};
      return pipe.generate("a red apple", options).latents;
    };
    CHECK(latents(pooling, false, plain, false) == latents(pooling, true, plain, true));
    CHECK_FALSE(latents(plain, false, pooling, false) == latents(plain, false, pooling, true));
    options.image = tiny::picture(16, 24), options.mask = tiny::mask(16, 24), options.strength = 1;
    CHECK((latents(pooling, false, plain, false) == latents(pooling, true, plain, true)) == !xl);  // diffusers' inpainting of SDXL does not
  }
}

TEST_CASE("options that do not go together") {
  const auto pipe = StableDiffusion<float>::load(models().folder("sd1"));
  const auto refused = [&](const Options& options, const std::string& text) { REQUIRE_THROWS_WITH(pipe.generate("a", options), contains(text)); };
  refused({.width = 30, .height = 16}, "multiples of 8, got 30 x 16");
  refused({.steps = 2, .scheduler = "eulr"}, "unknown scheduler eulr");
  refused({.mask = tiny::mask(16, 24)}, "a mask needs the picture");
  refused({.image = Image(16, 24, 4)}, "expected an RGB picture");
  refused({.steps = 2, .latents = Tensor<float>({1, 4, 3, 3})}, "expected latents of shape [1, 4, 12, 12]");
  refused({.prompt = {.clip_skip = 4}}, "clip skip of 4 leaves nothing of 3 layers");
  refused({.steps = 2, .scheduler = "ddim", .image = tiny::picture(16, 24), .strength = 0.1}, "leaves none of 2 steps");
  refused({.steps = 2, .image = tiny::picture(16, 24), .mask = tiny::mask(16, 24), .strength = 0.1}, "leaves none of 2 steps");
  REQUIRE_THROWS_WITH(pipe("a", {.steps = 1, .count = 2}), contains("`images` makes several"));
  const auto inpainting = StableDiffusion<float>::load(models().folder("inpaint"));
  REQUIRE_THROWS_WITH(inpainting("a", {.steps = 1}), contains("it needs a picture and a mask"));
}

TEST_CASE("a run's entry points") {
  const auto pipe = StableDiffusion<float>::load(models().folder("sdxl"));
  Options options{.steps = 3, .seed = 5, .negative_prompt = "grinning face", .width = 24, .height = 16, .scheduler = "euler"};
  const auto plain = pipe.generate("a red apple", options);
  CHECK(plain.image.width == 24);
  CHECK(plain.image.height == 16);
  // the noise and the states from outside give the same bits
  Options given = options;
  Generator generator(5);
  given.latents = draw_noise<float>({1, 4, 8, 12}, generator);
  std::tie(given.negative_prompt_embeds, given.prompt_embeds) = std::make_tuple(pipe.conditioner.encode("grinning face"), pipe.conditioner.encode("a red apple"));
  given.seed = 77;
  CHECK(pipe.generate("other words", given).latents == plain.latents);
  // text towers packed anew for each run
  auto frugal = StableDiffusion<float>::load(models().folder("sdxl"));
  frugal.free_text = true;
  for (int run = 0; run < 2; ++run) CHECK(frugal.generate("a red apple", options).latents == plain.latents);
  // seeds one after the other
  options.count = 2;
  const auto pictures = pipe.images("a red apple", options);
  REQUIRE(pictures.size() == 2);
  CHECK(pictures[0] == plain.image);
  CHECK(!(pictures[1] == plain.image));
  options.count = 1;
  // the callback sees each step, may change what comes, and may end it
  Index steps = 0;
  options.on_step = [&](Denoising<float>& state) { return ++steps, state.guidance_scale = 1, true; };
  CHECK(!(pipe.generate("a red apple", options).latents == plain.latents));
  CHECK(steps == 3);
  options.on_step = [](Denoising<float>& state) { return state.step < 2; };
  const auto stopped = pipe.generate("a red apple", options);
  CHECK(!stopped.finished);
  CHECK(stopped.image.pixels.empty());
}

TEST_CASE("adapters find their parts, and the picture tells of them") {
  auto pipe = StableDiffusion<float>::load(models().folder("sd1"));
  const auto report = attach(pipe, load_adapter(golden_folder + "/lora.safetensors"), {.name = "style", .scale = 0.5});
  CHECK(report.unused.empty());
  const auto out = pipe.generate("a red apple", {.steps = 1, .seed = 42, .width = 24, .height = 16, .prompt = {.clip_skip = 1}});
  const std::map<std::string, std::string> texts(out.metadata.begin(), out.metadata.end());
  CHECK(texts.at("prompt") == "a red apple");
  CHECK(texts.at("seed") == "42");
  CHECK(texts.at("scheduler") == "pndm");
  CHECK(texts.at("adapters") == "style:0.5");
  CHECK(texts.at("clip_skip") == "1 (as others count: 2)");
  CHECK(texts.at("size") == "24x16");
  const auto bytes = encode_png(out.image, out.metadata);
  CHECK(std::string(bytes.begin(), bytes.end()).find("a red apple") != std::string::npos);
  // text encoders and the U-Net, and nothing else
  for (const auto& ref : params(pipe)) CHECK((ref.path.starts_with("unet.") || ref.path.starts_with("text_encoder.text_model.")));
}

TEST_CASE("weights as AUTOMATIC1111 has them") {
  const auto pipe = StableDiffusion<float>::load(models().folder("sd1"));
  const Conditioner<float>& text = pipe.conditioner;
  const PromptOptions weighted{0, PromptWeights::a1111};
  // without weights the states are those of the plain prompt
  CHECK(text.encode("a red apple", weighted).states.value() == text.encode("a red apple").states.value());
  // z times the weights, brought back to its mean
  const Tensor<float> z = text.encode("a red apple").states.value(), w = text.encode("a (red:1.5) apple", weighted).states.value();
  const auto tokens = tokenize_prompt(text.tokenizer, "a (red:1.5) apple", PromptWeights::a1111);
  double before = 0, after = 0;
  const Index width = z.extent(2);
  for (Index i = 0; i < z.size(); ++i) {
    before += static_cast<double>(z.data()[i]);
    after += static_cast<double>(z.data()[i]) * static_cast<double>(tokens.weights[static_cast<std::size_t>(i / width)]);
  }
  double far = 0;
  for (Index i = 0; i < z.size(); ++i) {
    const double expected = static_cast<double>(z.data()[i]) * static_cast<double>(tokens.weights[static_cast<std::size_t>(i / width)]) * before / after;
    far = std::max(far, std::abs(expected - static_cast<double>(w.data()[i])));
  }
  CHECK(far < 1e-5);
  // both prompts get as many windows
  const auto [negative, positive] = text.encode_pair("a BREAK red BREAK apple", "face", weighted);
  CHECK(positive.states.shape() == Shape{1, 3 * 24, 32});
  CHECK(negative.states.shape() == positive.states.shape());
  const auto [longer, brief] = text.encode_pair("a", "face BREAK face", weighted);
  CHECK(brief.states.shape() == longer.states.shape());
  CHECK(pipe.generate("a BREAK (apple:1.3)", {.steps = 1, .width = 24, .height = 16, .prompt = weighted}).finished);
}

TEST_CASE("a preview has the picture's size and colours of the autoencoder") {
  const auto pipe = StableDiffusion<float>::load(models().folder("sd1"));
  const LatentPreview<float> look(pipe.vae);
  const auto out = pipe.generate("a red apple", {.steps = 1, .width = 24, .height = 16});
  const Image shown = look(out.latents);
  CHECK(shown.width == 24);
  CHECK(shown.height == 16);
  CHECK(look(out.latents) == shown);
  REQUIRE_THROWS_AS(look(Tensor<float>({1, 3, 4, 4})), ShapeError);
}
