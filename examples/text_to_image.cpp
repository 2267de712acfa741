// text_to_image: pictures from words with the small model that ships, or with Stable Diffusion 1, 2 and XL; from a picture and
// words; and inpainting. Without a prompt the small model shows what it can do.
#include <csignal>
#include <filesystem>

#include <tenon/diffusion.hpp>
#include <tenon/io/npy.hpp>
#include <tenon/models/diffusion/preview.hpp>

#include "common/clip_options.hpp"
#include "common/contact_sheet.hpp"
#include "common/diffusion_model.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options {
  std::string model, prompt, negative, prompts_file, scheduler, vae, tiny_vae, init, mask, image_encoder, weights = "off", dtype = "f32", preview, out = "out.png", save_latents,
      save_embeds;
  std::vector<std::string> scheduler_config, loras, embeddings, controls, ip_adapters;
  std::vector<double> control_starts, control_ends;
  Index steps = 0, width = 0, height = 0, count = 1, clip_skip = 0, winograd = 0;
  double guidance = -1, guidance_rescale = 0, strength = -1, text_scale = -1;
  std::uint64_t seed = 0;
  int threads = 0;
  bool has_prompt = false, has_negative = false, tile = false, strict = false;
};

volatile std::sig_atomic_t interrupted = 0;
/// Ctrl-C ends the run after the step that is being made; a second one ends the program.
void on_interrupt(int) {
  interrupted = 1;
  std::signal(SIGINT, SIG_DFL);
}

/// Refuses a job whose weights do not fit. Files of half precision hold twice their size as float32.
void check_memory(const std::string& path, const std::string& dtype) {
  namespace fs = std::filesystem;
  std::uintmax_t total = 0;
  std::error_code error;
  const auto add = [&](const fs::path& file, bool half) {
    const auto size = fs::file_size(file, error);
    if (!error) total += dtype == "f32" ? (half ? 2 * size : size) : dtype == "bf16" ? (half ? size : size / 2) : (half ? size / 2 : size / 4);
  };
  if (fs::is_regular_file(path, error)) add(path, false);
  for (const char* part : {"unet", "text_encoder", "text_encoder_2", "vae"}) {
    bool plain = false;
    for (const int pass : {0, 1}) {
      if (!fs::is_directory(fs::path(path) / part, error) || (pass == 1 && plain)) continue;
      for (const auto& entry : fs::directory_iterator(fs::path(path) / part, error)) {
        const bool half = entry.path().string().find(".fp16") != std::string::npos;
        if (entry.path().extension() != ".safetensors" || half != (pass == 1)) continue;
        plain = plain || !half;
        add(entry.path(), half);
      }
    }
  }
  const std::uint64_t memory = available_memory();
  check(memory == 0 || total < memory, "memory", path, ": the weights take about ", total / 1'000'000, " MB as ", dtype, ", and ", memory / 1'000'000,
        " MB are free", dtype == "f32" ? "; try --dtype bf16 or int8" : "");
}

using Pipe = StableDiffusion<float>;

void attach_lora(Pipe& pipe, const std::string& text, const Options& o, std::set<std::string>& names) {
  const std::string name = attach_adapter(pipe, text, o.strict, names);
  if (o.text_scale < 0) return;
  bool has_text = false;
  for (const auto& site : sites(pipe.conditioner))
    for_each_patch(site, [&](const auto& entry) { has_text = has_text || entry.adapter == name; });
  if (has_text) set_scale(pipe.conditioner, name, o.text_scale);
}

Pipe load(const Options& o) {
  print_first_line("text_to_image", o.dtype == "f32" ? "float32" : o.dtype == "bf16" ? "bfloat16" : "int8");
  const std::string path = o.model.empty() ? shipped_diffusion() : o.model;
  check_memory(path, o.dtype);
  DiffusionLoadOptions options;
  options.vae = o.vae;
  if (o.dtype != "f32") options.weights = o.dtype == "bf16" ? DType::bf16 : DType::i8;
  Pipe pipe = Pipe::load(path, options);
  check(o.winograd == 0 || o.dtype != "int8", "text_to_image", "--winograd: expected --dtype f32 or bf16, got ", o.dtype);
  use_winograd(pipe, o.winograd);
  if (!o.tiny_vae.empty()) pipe.tiny_vae = load_autoencoder_tiny<float>(o.tiny_vae);
  pipe.tiling = o.tile;
  pipe.free_text = o.has_prompt && o.prompts_file.empty();
  for (const auto& setting : o.scheduler_config) {
    const auto equals = setting.find('=');
    check(equals != std::string::npos, "text_to_image", "--scheduler-config: expected KEY=VALUE, got ", setting);
    set_scheduler_option(pipe.scheduler.config, setting.substr(0, equals), setting.substr(equals + 1));
  }
  std::set<std::string> names;
  for (const auto& lora : o.loras) attach_lora(pipe, lora, o, names);
  for (const auto& text : o.embeddings) {
    const auto colon = detail::exists(text) ? std::string::npos : text.rfind(':');
    add_textual_inversion(pipe, load_textual_inversion(text.substr(0, colon)), colon == std::string::npos ? "" : text.substr(colon + 1));
  }
  return pipe;
}

/// `DIR:IMAGE` or `DIR:IMAGE:SCALE`.
ControlInput<float> control_input(const std::string& text, std::vector<std::unique_ptr<ControlNet<float>>>& nets) {
  const auto colon = text.find(':');
  check(colon != std::string::npos, "text_to_image", "--control: expected DIR:IMAGE or DIR:IMAGE:SCALE, got ", text);
  const auto [image, scale] = with_scale(text.substr(colon + 1));
  nets.push_back(std::make_unique<ControlNet<float>>(load_control_net<float>(text.substr(0, colon))));
  return {nets.back().get(), load_image(image), {.scale = scale}};
}

/// `FILE:IMAGE` or `FILE:IMAGE:SCALE`, attached to the U-Net.
struct LookedAt {
  IpAdapter<float> adapter;
  Image image;
};
LookedAt attach_ip_adapter_and_image(Pipe& pipe, const std::string& text, Index number) {
  const auto colon = text.find(':');
  check(colon != std::string::npos, "text_to_image", "--ip-adapter: expected FILE:IMAGE or FILE:IMAGE:SCALE, got ", text);
  const auto [image, scale] = with_scale(text.substr(colon + 1));
  Image picture = load_image(image, {.on_white = true});
  return {attach_ip_adapter(pipe.unet, text.substr(0, colon), {.name = join_text("ip_adapter_", number), .scale = scale}), std::move(picture)};
}
/// --image-encoder, else the folder image_encoder of the model, else that beside the adapter.
ClipImageEncoder<float> image_encoder(const Options& o) {
  namespace fs = std::filesystem;
  const fs::path beside = fs::path(o.ip_adapters.front().substr(0, o.ip_adapters.front().find(':'))).parent_path() / "image_encoder";
  const std::string of_model = o.model + "/image_encoder";
  return load_image_encoder<float>(!o.image_encoder.empty() ? o.image_encoder : detail::exists(of_model) ? of_model : beside.string());
}

/// [N, ...] of N tensors [1, ...].
void save_stacked(const std::string& path, const std::vector<Tensor<float>>& parts) {
  auto all = Tensor<float>::uninitialized(parts.front().shape().with(0, static_cast<Index>(parts.size())));
  float* to = all.data();
  for (const auto& part : parts) {
    check<ShapeError>(part.shape() == parts.front().shape(), "text_to_image", path, ": the prompts have different shapes, ", parts.front().shape(), " and ", part.shape());
    to = std::copy(part.begin(), part.end(), to);
  }
  save_npy(path, all);
}

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  std::vector<std::string> prompts;
  if (o.has_prompt) prompts.push_back(o.prompt);
  if (!o.prompts_file.empty())
    for (auto& line : read_lines(o.prompts_file)) prompts.push_back(std::move(line));
  const bool show = prompts.empty() && o.model.empty() && o.init.empty();
  if (show) prompts = {"red apple", "grinning face", "house", "cat face", "crescent moon", "sailboat", "blue heart", "green car", "sunflower", "owl", "pizza", "rainbow"};
  check(!prompts.empty(), "text_to_image", "expected --prompt TEXT or --prompts FILE");
  check(o.mask.empty() || !o.init.empty(), "text_to_image", "--mask needs --init, the picture that it is for");
  check(std::filesystem::path(o.out).extension() == ".png", "text_to_image", "--out: expected a name that ends with .png, got ", o.out);

  GenerationOptions<float> options;
  options.steps = o.steps;
  options.width = o.width;
  options.height = o.height;
  options.scheduler = o.scheduler;
  options.guidance_rescale = o.guidance_rescale;
  options.prompt = {o.clip_skip, o.weights == "a1111" ? PromptWeights::a1111 : PromptWeights::off};
  if (o.guidance >= 0) options.guidance_scale = o.guidance;
  else if (o.model.empty()) options.guidance_scale = shipped_guidance;
  if (o.strength >= 0) options.strength = o.strength;
  if (o.has_negative) options.negative_prompt = o.negative;
  if (!o.init.empty()) options.image = load_image(o.init);
  if (!o.mask.empty()) options.mask = load_image(o.mask);
  Pipe pipe = load(o);
  std::vector<std::unique_ptr<ControlNet<float>>> nets;
  std::optional<ClipImageEncoder<float>> encoder;
  std::vector<LookedAt> looked_at;
  for (const auto& text : o.ip_adapters) looked_at.push_back(attach_ip_adapter_and_image(pipe, text, static_cast<Index>(looked_at.size()) + 1));
  if (!looked_at.empty()) encoder = image_encoder(o);
  for (const auto& [adapter, image] : looked_at) options.image_prompts.push_back({&adapter, &*encoder, {image}});
  const auto shares = [&](const char* name, const std::vector<double>& given, double absent, std::size_t n) {
    check(given.size() <= 1 || given.size() == o.controls.size(), "text_to_image", name, ": expected one for all controls or one for each of ", o.controls.size(), ", got ",
          given.size());
    return given.empty() ? absent : given[given.size() == 1 ? 0 : n];
  };
  for (std::size_t n = 0; n < o.controls.size(); ++n) {
    options.controls.push_back(control_input(o.controls[n], nets));
    options.controls.back().start = shares("--control-start", o.control_starts, 0, n);
    options.controls.back().end = shares("--control-end", o.control_ends, 1, n);
  }
  std::optional<LatentPreview<float>> look;
  if (!o.preview.empty() && !pipe.tiny_vae) look.emplace(pipe.vae);

  const Index total = static_cast<Index>(prompts.size()) * o.count;
  std::vector<Tile> tiles;  // of the show
  std::vector<Tensor<float>> latents, embeds;
  std::optional<Progress> progress;
  Index made = 0;
  std::int64_t done = 0;
  auto shown = std::chrono::steady_clock::now();
  options.on_step = [&](Denoising<float>& state) {
    const auto each = static_cast<std::int64_t>(state.scheduler->timesteps().size());
    done = made * each + state.step;
    if (!progress) progress.emplace(total == 1 ? "picture" : "pictures", total * each, done);
    progress->update(done);
    if (const auto now = std::chrono::steady_clock::now(); !o.preview.empty() && now - shown > std::chrono::seconds(1)) {
      save_png(look ? (*look)(state.latents) : pipe.decode(state.latents), o.preview);
      shown = now;
    }
    return interrupted == 0;
  };
  std::signal(SIGINT, on_interrupt);
  for (const auto& prompt : prompts) {
    const auto embedded = [&] {
      const NoGrad no_grad;
      return pipe.conditioner.encode(prompt, options.prompt);
    }();
    if (!embedded.cut_off.empty()) std::cerr << "the model does not see the end of the prompt: " << embedded.cut_off << "  (--weights a1111 takes long prompts)\n";
    if (!o.save_embeds.empty()) embeds.push_back(embedded.states.value());
    for (Index i = 0; i < o.count; ++i) {
      options.seed = o.seed + static_cast<std::uint64_t>(i);
      auto generated = pipe.generate(prompt, options);
      if (!generated.finished) {
        progress.reset();
        fail("text_to_image", "interrupted; ", made, " of ", total, " pictures were written");
      }
      ++made;
      if (show) {
        tiles.push_back({std::move(generated.image), {{prompt}}});
        continue;
      }
      std::filesystem::path path(o.out);
      if (total > 1) path.replace_filename(path.stem().string() + "-" + std::to_string(made) + ".png");
      generated.metadata.emplace_back("Software", join_text("tenon ", version));
      save_png(generated.image, path.string(), generated.metadata);
      const std::string line = path.string() + ": seed " + std::to_string(options.seed) + ", " + prompt;
      progress ? progress->note(line) : void(std::cerr << line << '\n');
      if (!o.save_latents.empty()) latents.push_back(std::move(generated.latents));
    }
  }
  progress.reset();
  if (show) {
    save_png(contact_sheet(tiles, {.columns = 6, .zoom = 3}), o.out);
    std::cout << "wrote " << o.out << ": a picture for each of " << total << " prompts; --prompt \"WORDS\" makes one of yours\n";
  }
  if (!latents.empty()) save_stacked(o.save_latents, latents);
  if (!embeds.empty()) save_stacked(o.save_embeds, embeds);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Pictures from words with Stable Diffusion 1, 2 and XL; from a picture and words (--init); inpainting (--init and --mask).");
  Options o;
  app.add_option("--model", o.model, "Folder of diffusers, or single file (default: the small model that ships)");
  auto* prompt = app.add_option("--prompt", o.prompt, "The words (without any: a sheet of what the small model makes of some)");
  auto* negative = app.add_option("--negative", o.negative, "What should not be seen");
  app.add_option("--prompts", o.prompts_file, "File of prompts, one a line");
  app.add_option("--steps", o.steps, "Steps (default: 50; 4 for a latent consistency model)")->check(CLI::PositiveNumber);
  app.add_option("--guidance", o.guidance, "Guidance scale (default, as diffusers: 7.5; XL 5, with --mask and no --control 7.5; 3 with the model that ships); up to 1: none, in half the time")->check(CLI::NonNegativeNumber);
  app.add_option("--guidance-rescale", o.guidance_rescale, "Share of rescaled guidance (Lin et al. 2023)")->capture_default_str()->check(CLI::Range(0.0, 1.0));
  std::string names;
  for (const auto& name : scheduler_names()) names += (names.empty() ? "" : ", ") + name;
  app.add_option("--scheduler", o.scheduler, "Default: the checkpoint's own. One of " + names)->check(CLI::IsMember(scheduler_names()));
  app.add_option("--scheduler-config", o.scheduler_config, "KEY=VALUE, as in scheduler_config.json (repeatable)");
  app.add_option("--seed", o.seed, "Seed, as torch's CPU generator has it")->capture_default_str();
  app.add_option("--width", o.width, "Pixels, a multiple of 8 (default: what the model was trained on; with --init or --control the picture's)")->check(CLI::PositiveNumber);
  app.add_option("--height", o.height, "Pixels, a multiple of 8")->check(CLI::PositiveNumber);
  app.add_option("--count", o.count, "Pictures of each prompt, of the seeds s, s+1, ...")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--lora", o.loras, "FILE_OR_DIR[:SCALE]: adapter of kohya, LyCORIS, diffusers or peft; line-art and neon ship (repeatable)");
  app.add_option("--text-scale", o.text_scale, "Scale of the adapters on the text encoders (default: the adapter's)")->check(CLI::NonNegativeNumber);
  app.add_option("--embedding", o.embeddings, "FILE[:TOKEN]: textual inversion, and the word that stands for it (repeatable)");
  app.add_option("--vae", o.vae, "Another autoencoder: folder of diffusers, or single file");
  app.add_option("--tiny-vae", o.tiny_vae, "Folder of an AutoencoderTiny (TAESD) that decodes in its place");
  app.add_flag("--tile", o.tile, "The autoencoder works tile by tile, in less memory");
  app.add_option("--init", o.init, "Picture to begin from");
  app.add_option("--strength", o.strength, "Share of the steps that is run on it (default, as diffusers: 0.8, with --mask 1; XL 0.3, with --control 0.8, with --mask 0.9999)")->check(CLI::Range(0.0, 1.0));
  app.add_option("--mask", o.mask, "White where the picture is made anew");
  CLI::Option* control = app.add_option("--control", o.controls, "DIR:IMAGE[:SCALE]: ControlNet and the picture that it reads (repeatable)");
  app.add_option("--control-start", o.control_starts, "Share of the steps after which a control begins to count (one for all, or one for each)")->needs(control);
  app.add_option("--control-end", o.control_ends, "Share of the steps up to which it counts")->needs(control);
  app.add_option("--ip-adapter", o.ip_adapters, "FILE:IMAGE[:SCALE]: IP-Adapter and the picture that it looks at (repeatable)");
  app.add_option("--image-encoder", o.image_encoder, "Its CLIP vision tower, a folder (default: image_encoder of the model, or beside the adapter)");
  app.add_option("--clip-skip", o.clip_skip, "Last layers of the text encoder that are left out; 1 here is what AUTOMATIC1111 calls 2")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--weights", o.weights, "off: parentheses are text; a1111: (word:1.3), [word], BREAK, prompts of any length")->capture_default_str()->check(CLI::IsMember({"off", "a1111"}));
  app.add_option("--dtype", o.dtype, "How weights are multiplied: f32, bf16 or int8")->capture_default_str()->check(CLI::IsMember({"f32", "bf16", "int8"}));
  app.add_option("--winograd", o.winograd, "Tiles of Winograd's convolutions (2 or 4; 0: none), for f32 and bf16: quicker, with larger weights; 4 is the quicker one")->capture_default_str()->check(CLI::IsMember({0, 2, 4}));
  app.add_option("--preview", o.preview, "File for a look at the picture as it comes, each second");
  app.add_option("--out", o.out, "Picture; several become NAME-1.png, NAME-2.png, ...")->capture_default_str();
  app.add_option("--save-latents", o.save_latents, "File for the latents, [N, C, H, W] float32 .npy");
  app.add_option("--save-embeds", o.save_embeds, "File for the prompts' states, [N, L, D] float32 .npy");
  app.add_option("--threads", o.threads, "Threads (0: all available)")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_flag("--strict", o.strict, "An adapter's names that no layer takes are an error");
  return run_program(app, argc, argv, [&] {
    o.has_prompt = prompt->count() > 0, o.has_negative = negative->count() > 0;
    run(o);
  });
}
