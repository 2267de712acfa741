// verify: tenon and diffusers side by side on a checkpoint of yours: the largest error of each block, the picture's PSNR, seconds and
// memory, as a table to paste. The reference runs in verify.py.
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "common/diffusion_model.hpp"
#include "common/program.hpp"
#include "common/table.hpp"

extern char** environ;

namespace {

using namespace tenon;
using namespace tenon::examples;
using Pipe = StableDiffusion<float>;

struct Options {
  std::string model, lora, python = "python3", prompt = "a photo of an astronaut riding a horse", json;
  Index steps = 20, width = 0, height = 0;
  double guidance = 7.5, tolerance = 1e-4;
  std::uint64_t seed = 0;
  int threads = 0;
};

/// A folder that goes with its holder.
struct TemporaryFolder {
  std::string path = (std::filesystem::temp_directory_path() / "tenon-verify-XXXXXX").string();
  TemporaryFolder() { check(::mkdtemp(path.data()) != nullptr, "verify", path, ": ", std::strerror(errno)); }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

/// Runs a program to its end; its standard streams are ours. Throws Error when it cannot start or fails.
void run_program_file(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  for (const auto& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ);
  check(error == 0, "verify", words[0], ": ", std::strerror(error));
  int status = 0;
  ::waitpid(child, &status, 0);
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "verify", words[0], ' ', words[1], ": the reference failed; it needs torch, diffusers and transformers (--python)");
}

double seconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double peak_gigabytes() {
  struct ::rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e9;
}

/// max|a - b| / max|b|. Throws ShapeError.
double relative_error(const std::string& name, const Tensor<float>& a, const Tensor<float>& b) {
  check<ShapeError>(a.shape() == b.shape(), "verify", name, ": tenon gives shape ", a.shape(), ", diffusers ", b.shape());
  double far = 0, largest = 0;
  for (Index i = 0; i < a.size(); ++i) {
    far = std::max(far, std::abs(static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i])));
    largest = std::max(largest, std::abs(static_cast<double>(b.data()[i])));
  }
  return far / largest;
}

/// What tenon makes of the same inputs, by diffusers' names, and seconds.
struct Run {
  std::map<std::string, Tensor<float>> outputs, inputs;
  std::map<std::string, double> seconds;
  Image picture;
};

/// The U-Net as Unet2d runs it, each block's output kept.
void keep_blocks(const Unet2d<float>& unet, const Tensor<float>& latents, float t, const UnetConditions<float>& conditions, std::map<std::string, Tensor<float>>& out) {
  const Var<float> x0(channels_last(latents)), time = unet.time(1, Tensor<float>::of({t}), conditions);
  const auto keep = [&](const std::string& name, const Var<float>& x) { out["unet." + name] = channels_first(x.value()); };
  std::vector<Var<float>> skips{unet.conv_in(unet.config.center_input_sample ? x0 * 2.0f - 1.0f : x0)};
  Var<float> x = skips.back();
  keep("conv_in", x);
  for (std::size_t i = 0; i < unet.down_blocks.size(); ++i) keep(join_text("down_blocks.", i), x = unet.down_blocks[i](x, time, conditions.states, skips));
  if (unet.mid_block) keep("mid_block", x = (*unet.mid_block)(x, time, conditions.states));
  for (std::size_t i = 0; i < unet.up_blocks.size(); ++i) keep(join_text("up_blocks.", i), x = unet.up_blocks[i](x, time, conditions.states, skips));
}

Run run_tenon(const Pipe& pipe, const Options& o) {
  const NoGrad no_grad;
  Run run;
  const bool xl = pipe.family == DiffusionFamily::sdxl;
  Generator generator(o.seed);
  const Tensor<float> latents = draw_noise<float>({1, pipe.vae.config.latent_channels, o.height / pipe.scale(), o.width / pipe.scale()}, generator);
  Tensor<float> picture({1, o.height, o.width, 3});
  for (Index y = 0; y < o.height; ++y)
    for (Index x = 0; x < o.width; ++x)
      for (Index c = 0; c < 3; ++c)
        picture.data()[(y * o.width + x) * 3 + c] = std::sin(0.11f * static_cast<float>(x + 7 * c)) * std::cos(0.07f * static_cast<float>(y)) ;
  std::pair<PromptEmbeds<float>, PromptEmbeds<float>> texts;
  run.seconds["text"] = seconds_of([&] { texts = pipe.conditioner.encode_pair(o.prompt, std::nullopt); });
  run.outputs["text"] = texts.second.states.value();
  run.outputs["text, negative"] = texts.first.states.value();
  UnetConditions<float> conditions{.states = texts.second.states};
  run.inputs = {{"latents", latents}, {"states", texts.second.states.value()}, {"picture", channels_first(picture)}};
  if (xl) {
    run.outputs["text, pooled"] = texts.second.pooled.value();
    const float h = static_cast<float>(o.height), w = static_cast<float>(o.width);
    conditions.text_embeds = texts.second.pooled;
    conditions.time_ids = Tensor<float>({1, 6}, std::vector<float>{h, w, 0, 0, h, w});
    run.inputs["text_embeds"] = texts.second.pooled.value();
    run.inputs["time_ids"] = *conditions.time_ids;
  }
  constexpr float t = 501;
  const Var<float> x(channels_last(latents));
  run.seconds["unet"] = seconds_of([&] { run.outputs["unet"] = channels_first(pipe.unet(x, Tensor<float>::of({t}), conditions).value()); });
  keep_blocks(pipe.unet, latents, t, conditions, run.outputs);
  run.seconds["vae.encode"] = seconds_of([&] { run.outputs["vae.encode"] = channels_first(pipe.vae.encode(Var<float>(picture)).mean.value()); });
  run.seconds["vae.decode"] = seconds_of([&] { run.outputs["vae.decode"] = channels_first(pipe.vae.decode(x).value()); });
  run.seconds["picture"] = seconds_of([&] {
    run.picture = pipe(o.prompt, {.steps = o.steps, .guidance_scale = o.guidance, .seed = o.seed, .width = o.width, .height = o.height});
  });
  return run;
}

double psnr(const Image& ours, const Tensor<float>& theirs) {
  check<ShapeError>(theirs.shape() == Shape{ours.height, ours.width, 3}, "verify", "tenon's picture is ", ours.height, " x ", ours.width, ", diffusers' ", theirs.shape());
  double squares = 0;
  for (Index i = 0; i < theirs.size(); ++i) {
    const double d = static_cast<double>(ours.pixels[static_cast<std::size_t>(i)]) - std::round(255.0 * static_cast<double>(theirs.data()[i]));
    squares += d * d / static_cast<double>(theirs.size());
  }
  return squares == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(255 * 255 / squares);
}

std::string scientific(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", x);
  return text;
}

void verify(Options o) {
  const ThreadScope threads(o.threads);
  print_first_line("verify", "float32");
  Pipe pipe = Pipe::load(o.model);
  check(pipe.unet.config.in_channels == 4, "verify", o.model, ": expected a text-to-image model, found a U-Net of ", pipe.unet.config.in_channels, " channels");
  if (o.width == 0) o.width = pipe.unet.config.sample_size * pipe.scale();
  if (o.height == 0) o.height = pipe.unet.config.sample_size * pipe.scale();
  std::string lora;
  double scale = 1;
  if (!o.lora.empty()) {
    std::set<std::string> names;
    attach_adapter(pipe, o.lora, true, names);
    std::tie(lora, scale) = with_scale(o.lora);
    lora = std::filesystem::absolute(adapter_path(lora)).string();
  }
  std::cerr << "tenon ...\n";
  Run ours = run_tenon(pipe, o);
  const double gigabytes = peak_gigabytes();

  const TemporaryFolder folder;
  std::vector<NamedTensor> inputs;
  for (const auto& [name, value] : ours.inputs) inputs.push_back({name, raw_copy(value)});
  save_safetensors(folder.path + "/inputs.safetensors", inputs);
  save_json(folder.path + "/job.json", {{"model", std::filesystem::absolute(o.model).string()}, {"lora", lora}, {"lora_scale", scale}, {"prompt", o.prompt}, {"steps", o.steps},
                                        {"guidance", o.guidance}, {"width", o.width}, {"height", o.height}, {"seed", o.seed}, {"timestep", 501},
                                        {"threads", thread_count()}, {"xl", pipe.family == DiffusionFamily::sdxl}});
  std::cerr << "diffusers ...\n";
  run_program_file({o.python, default_data() + "/../verify.py", folder.path});

  const auto file = SafetensorsFile::open(folder.path + "/reference.safetensors");
  const auto& metadata = file.metadata();
  const nlohmann::json their_seconds = nlohmann::json::parse(metadata.at("seconds"));
  Table table({"part", "largest error", "tenon s", "diffusers s"});
  nlohmann::json rows = nlohmann::json::array();
  double worst = 0;
  std::vector<std::string> order{"text", "text, negative", "text, pooled", "unet.conv_in"};
  for (std::size_t i = 0; i < pipe.unet.down_blocks.size(); ++i) order.push_back(join_text("unet.down_blocks.", i));
  order.push_back("unet.mid_block");
  for (std::size_t i = 0; i < pipe.unet.up_blocks.size(); ++i) order.push_back(join_text("unet.up_blocks.", i));
  order.insert(order.end(), {"unet", "vae.encode", "vae.decode"});
  for (const auto& name : order) {
    const auto at = ours.outputs.find(name);
    if (at == ours.outputs.end()) continue;
    const double error = relative_error(name, at->second, file.load<float>(name));
    worst = std::max(worst, error);
    const bool timed = ours.seconds.contains(name);
    table.add({name, scientific(error), timed ? fixed(ours.seconds[name], 3) : "", timed ? fixed(their_seconds.at(name).get<double>(), 3) : ""});
    rows.push_back({{"name", name}, {"error", error}});
  }
  const double similar = psnr(ours.picture, file.load<float>("picture"));
  table.add({join_text("picture, ", o.width, " x ", o.height, ", ", o.steps, " steps"), "PSNR " + (std::isinf(similar) ? std::string("inf") : fixed(similar, 1)) + " dB",
             fixed(ours.seconds["picture"], 3), fixed(their_seconds.at("picture").get<double>(), 3)});
  table.add({"largest memory, GB", "", fixed(gigabytes, 2), fixed(std::stod(metadata.at("gigabytes")), 2)});
  std::cout << "tenon " << version << ", " << metadata.at("versions") << ", " << thread_count() << " threads, float32; error: max|a - b| / max|b|\n\n" << table.text();
  if (!o.json.empty())
    save_json(o.json, {{"rows", rows}, {"psnr", std::isinf(similar) ? nlohmann::json("inf") : nlohmann::json(similar)}, {"seconds", ours.seconds}, {"reference_seconds", their_seconds},
                       {"gigabytes", gigabytes}, {"reference_gigabytes", std::stod(metadata.at("gigabytes"))}});
  check(worst <= o.tolerance, "verify", "an error of ", scientific(worst), " is larger than ", scientific(o.tolerance));
  std::cout << "\nevery part is within " << scientific(o.tolerance) << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Runs tenon and diffusers side by side on a Stable Diffusion and compares them part by part. Exit code 1 when a part differs.");
  Options o;
  app.add_option("--model", o.model, "Folder of diffusers, or single file (default: the small model that ships)");
  app.add_option("--lora", o.lora, "FILE[:SCALE]: adapter on both sides");
  app.add_option("--python", o.python, "A Python with torch, diffusers, transformers and, for --lora, peft")->capture_default_str();
  app.add_option("--prompt", o.prompt, "The words")->capture_default_str();
  app.add_option("--steps", o.steps, "Steps of the picture")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--guidance", o.guidance, "Guidance scale")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--width", o.width, "Pixels (default: what the model was trained on)")->check(CLI::PositiveNumber);
  app.add_option("--height", o.height, "Pixels")->check(CLI::PositiveNumber);
  app.add_option("--tolerance", o.tolerance, "Largest error that passes")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--seed", o.seed, "Seed")->capture_default_str();
  app.add_option("--threads", o.threads, "Threads of both (0: all available)")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--json", o.json, "File for the numbers");
  return run_program(app, argc, argv, [&] {
    if (o.model.empty()) o.model = shipped_diffusion();
    verify(o);
  });
}
