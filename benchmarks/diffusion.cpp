// benchmarks/run diffusion [--latent 64]: Stable Diffusion 1.5 at full size with random weights, made here: the guided step of
// the U-Net (batch 2, latents of --latent x --latent, 77 tokens), the decoding of such latents, and a picture of twenty steps from
// the start of the process, by float32 (and with Winograd's convolutions), bfloat16 and int8 weights. The start to the first step is
// the least of three, the files in the page cache: the first process of a size may wait for memory that the system has to clear, or a
// virtual machine to ask its host for. --python adds torch and, where it is installed, OpenVINO.
//
// Each row is a process of its own, so that `peak_gb` is the largest resident memory of that row alone. `expected` are the
// seconds of the products alone: each product of different extents is timed by itself in the same process, times how often it
// occurs; what `seconds` has more is norms, sums, copies and what the caches lose. `error` is the distance from float32's result.
// Takes 4.3 GB of disk for the weights; --latent 32 is a quick run of a quarter of the work.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>

#include <tenon/diffusion.hpp>
#include <tenon/io/npy.hpp>

#include "options.hpp"
#include "peak.hpp"
#include "resident.hpp"
#include "temporary_folder.hpp"

namespace {

using namespace tenon;
using tenon_benchmark::peak_gb;
using tenon_benchmark::seconds_now;
using tenon_benchmark::TemporaryFolder;
namespace fs = std::filesystem;

Tensor<float> numbers(const Shape& shape, std::uint32_t seed, float scale = 1) {
  auto out = Tensor<float>::uninitialized(shape);
  for (float& x : out) {
    seed = seed * 1664525u + 1013904223u;
    x = (static_cast<float>(seed >> 8) / 8388608.0f - 1.0f) * scale;
  }
  return out;
}

/// Matrices and kernels of variance 1 / fan in, norms of ones, biases of zeros.
template <class M>
M& draw(M& model) {
  std::uint32_t seed = 0;
  for (const auto& ref : params(model)) {
    const Shape& shape = ref.weight->shape();
    if (shape.rank() == 1)
      ref.weight->set(Tensor<float>::full(shape, ref.path.ends_with("bias") ? 0.0f : 1.0f));
    else
      ref.weight->set(numbers(shape, ++seed, static_cast<float>(std::sqrt(3.0 * static_cast<double>(shape[0]) / static_cast<double>(shape.size())))));
  }
  return model;
}

/// Stable Diffusion 1.5 as a folder of diffusers, with the words of the model that ships.
void make_model(const std::string& folder) {
  fs::create_directories(folder + "/scheduler");
  fs::create_directories(folder + "/text_encoder");
  fs::create_directories(folder + "/tokenizer");
  for (const char* file : {"vocab.json", "merges.txt"})
    fs::copy(fs::path(__FILE__).parent_path() / "../examples/data/clip" / file, folder + "/tokenizer/" + file);
  nlohmann::json index{{"_class_name", "StableDiffusionPipeline"}};
  for (const char* part : {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}) index[part] = {"diffusers", part};
  save_json(folder + "/model_index.json", index);
  save_json(folder + "/scheduler/scheduler_config.json",
            {{"_class_name", "PNDMScheduler"}, {"beta_start", 0.00085}, {"beta_end", 0.012}, {"beta_schedule", "scaled_linear"}, {"set_alpha_to_one", false},
             {"skip_prk_steps", true}, {"steps_offset", 1}, {"clip_sample", false}});
  ClipTextConfig text;
  text.hidden_size = 768;
  text.intermediate_size = 3072;
  text.num_attention_heads = 12;
  save_json(folder + "/text_encoder/config.json",
            {{"model_type", "clip_text_model"}, {"vocab_size", text.vocab_size}, {"hidden_size", text.hidden_size}, {"intermediate_size", text.intermediate_size},
             {"num_hidden_layers", text.num_hidden_layers}, {"num_attention_heads", text.num_attention_heads}, {"max_position_embeddings", text.max_position_embeddings}});
  {
    TextEncoder<float> encoder(text);
    save_params(folder + "/text_encoder/model.safetensors", params(draw(encoder)));
  }
  {
    AutoencoderKl<float> vae{AutoencoderKlConfig{}};
    save_autoencoder_kl(draw(vae), folder + "/vae");
  }
  Unet2d<float> unet{UnetConfig{}};
  save_unet(draw(unet), folder + "/unet");
}

// Products of a model, one by one.

/// Notes the shape of the input of the layer that it is attached to.
struct Note : OutputPatch<float> {
  Shape* input;
  explicit Note(Shape* to) : input(to) {}
  std::string_view kind() const override { return "note"; }
  std::vector<NamedParam<float>> params() override { return {}; }
  Var<float> before(const Var<float>& x) const override {
    *input = x.shape();
    return x;
  }
};

struct Products {
  double work = 0;      ///< multiplications and additions
  double expected = 0;  ///< seconds of all, each as fast as by itself
};

/// Runs `forward` once to see what the model's products are, then each different one by itself.
template <class M>
Products products_of(M& model, DType panels, const std::function<void()>& forward) {
  const auto list = sites(model);
  std::vector<Shape> inputs(list.size(), Shape{0});
  for (std::size_t i = 0; i < list.size(); ++i) {
    PatchEntry<float, OutputPatch<float>> entry;
    entry.adapter = "note";
    entry.patch = std::make_unique<Note>(&inputs[i]);
    list[i].patches->entries.push_back(std::move(entry));
  }
  forward();
  for (const auto& site : list) site.patches->entries.clear();

  std::map<std::string, double> known;
  Products out;
  const auto add = [&](const std::string& key, double work, const std::function<void()>& run) {
    auto [at, fresh] = known.emplace(key, 1e30);
    for (int i = 0; fresh && i < 4; ++i) {  // the first one packs the weight
      const double start = seconds_now();
      run();
      if (i > 0) at->second = std::min(at->second, seconds_now() - start);
    }
    out.work += work;
    out.expected += at->second;
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Shape& in = inputs[i];
    if (in.size() == 0) continue;  // a norm, or a layer that did not run
    std::visit([&](auto* layer) {
      using Layer = std::remove_pointer_t<decltype(layer)>;
      if constexpr (std::same_as<Layer, Linear<float>>) {
        const bool gated = list[i].path.ends_with("net.0.proj");
        const Var<float> x(numbers(in, 1));
        add(join_text("linear ", in, layer->weight->shape(), gated), 2.0 * static_cast<double>(in.size()) * static_cast<double>(layer->out()),
            [&] { gated ? layer->geglu(x) : (*layer)(x); });
      } else if constexpr (std::same_as<Layer, Conv2d<float>>) {
        const kernels::ConvShape s = detail::conv_shape(in, layer->weight->shape(), layer->options());
        const Var<float> x(numbers(in, 1));
        add(join_text("conv ", in, layer->weight->shape(), layer->stride, layer->upsample),
            2.0 * static_cast<double>(s.pixels()) * static_cast<double>(layer->weight->size()), [&] { (*layer)(x); });
      } else if constexpr (std::same_as<Layer, Attention<float>>) {
        const auto keys = static_cast<std::size_t>(std::find_if(list.begin(), list.end(), [&](const auto& site) {
          return std::holds_alternative<Linear<float>*>(site.layer) && std::get<Linear<float>*>(site.layer) == &layer->k_proj;
        }) - list.begin());
        const Index length = in[1], seen = inputs[keys][1], width = layer->q_proj.out();
        AttentionOptions<float> options;
        options.heads = layer->heads;
        if (panels != DType::f32) options.products = DType::bf16;
        const Var<float> q(numbers({in[0], length, width}, 1)), k(numbers({in[0], seen, width}, 2)), v(numbers({in[0], seen, width}, 3));
        add(join_text("attention ", q.shape(), k.shape(), layer->heads), 4.0 * static_cast<double>(in[0] * length) * static_cast<double>(seen * width),
            [&] { attention(q, k, v, options); });
      }
    }, list[i].layer);
  }
  return out;
}

// One row, in a process of its own.

struct Task {
  std::string kind, dtype;  ///< `make`, `step`, `decode`, `picture` or `first`, a picture's first step; f32, bf16 or int8, and +TILE for Winograd's convolutions
  Index side = 64;
  int threads = 0;
};

std::optional<DType> storage_of(const std::string& dtype) {
  return dtype == "bf16" ? std::optional(DType::bf16) : dtype == "int8" ? std::optional(DType::i8) : std::nullopt;
}

/// Prints the row as JSON: seconds of some runs, and what belongs to them.
int perform(const Task& task, const std::string& folder) {
  const ThreadScope threads(task.threads);
  const NoGrad no_grad;
  if (task.kind == "make") {
    make_model(folder);
    return 0;
  }
  const auto plus = task.dtype.find('+');
  const Index tile = plus == std::string::npos ? 0 : task.dtype.back() - '0';
  const std::string dtype = task.dtype.substr(0, plus);
  nlohmann::json row{{"dtype", dtype}, {"impl", tile != 0 ? join_text("winograd ", tile) : "tenon"}, {"shape", {2, task.side, task.side, 4}}};
  const auto weights = storage_of(dtype);
  if (task.kind == "picture" || task.kind == "first") {
    StableDiffusion<float> pipe = StableDiffusion<float>::load(folder, {.weights = weights});
    pipe.free_text = true;
    use_winograd(pipe, tile);
    GenerationOptions<float> options{.steps = 20, .width = 8 * task.side, .height = 8 * task.side};
    bool first = true;
    options.on_step = [&](Denoising<float>&) {
      if (std::exchange(first, false)) std::printf("\n"), std::fflush(stdout);
      return task.kind == "picture";
    };
    const Image image = pipe("a photo of a cat", options);
    check(task.kind == "first" || image.width == 8 * task.side, "diffusion", "no picture");
    row["peak_gb"] = peak_gb();
  } else {
    Unet2d<float> unet;
    AutoencoderKl<float> vae;
    std::function<Tensor<float>()> forward;
    if (task.kind == "step") {
      unet = load_unet<float>(folder + "/unet", {.weights = weights});
      use_winograd(unet, tile);
      UnetConditions<float> conditions;
      conditions.states = numbers({2, 77, 768}, 3);
      forward = [&unet, conditions, x = Var<float>(numbers({2, task.side, task.side, 4}, 2))] { return unet(x, Tensor<float>::of({981}), conditions).value(); };
    } else {
      vae = load_autoencoder_kl<float>(folder + "/vae", {.weights = weights});
      use_winograd(vae, tile);
      row["shape"][0] = 1;
      forward = [&vae, x = Var<float>(numbers({1, task.side, task.side, 4}, 2))] { return vae.decode(x).value(); };
    }
    const Tensor<float> y = forward();
    std::vector<double> seconds;
    for (const double begin = seconds_now(); seconds.size() < 3 || (seconds.size() < 9 && seconds_now() - begin < 6);) {
      const double start = seconds_now();
      forward();
      seconds.push_back(seconds_now() - start);
    }
    std::sort(seconds.begin(), seconds.end());
    row.update({{"seconds", seconds.front()}, {"seconds_median", seconds[seconds.size() / 2]}, {"peak_gb", peak_gb()}});
    const std::string exact = folder + "/" + task.kind + ".npy";
    if (task.dtype == "f32") save_npy(exact, y);
    const Tensor<float> right = load_npy<float>(exact);
    double most = 0, scale = 0;
    for (Index i = 0; i < y.size(); ++i) {
      const double far = std::abs(static_cast<double>(y.data()[i]) - static_cast<double>(right.data()[i]));
      most = far <= most ? most : far;
      scale = std::max(scale, std::abs(static_cast<double>(right.data()[i])));
    }
    row["max_rel_err"] = most / scale;
    const auto once = [&] { forward(); };
    const Products products = task.kind == "step" ? products_of(unet, weights.value_or(DType::f32), once) : products_of(vae, weights.value_or(DType::f32), once);
    row.update({{"expected", products.expected}, {"gflops", products.work / seconds.front() / 1e9}});
  }
  std::printf("%s\n", row.dump().c_str());
  return 0;
}

class Report {
 public:
  explicit Report(const tenon_benchmark::Peaks& peaks) : peaks_(peaks) {}
  void row(const std::string& name, nlohmann::json row) {
    row["name"] = name;
    const auto dtype = row.at("dtype").get<std::string>();
    std::printf("%-21s %-5s %-10s %8.3f s", name.c_str(), dtype.c_str(), row.at("impl").get<std::string>().c_str(), row.at("seconds").get<double>());
    const bool counted = !row.at("impl").get<std::string>().starts_with("winograd");  // its GFLOP/s count the direct products
    if (counted && row.contains("gflops") && peaks_.of(dtype) > 0) row["peak_fraction"] = row.at("gflops").get<double>() / peaks_.of(dtype);
    for (const char* key : {"seconds_median", "expected", "gflops", "peak_fraction", "max_rel_err", "peak_gb"})
      if (row.contains(key)) std::printf("  %s %.3g", key, row.at(key).get<double>());
    std::printf("\n");
    std::fflush(stdout);
    rows.push_back(std::move(row));
  }
  nlohmann::json rows = nlohmann::json::array();

 private:
  tenon_benchmark::Peaks peaks_;
};

/// Leaves the model's files in the page cache, from where the next process gets them.
void read_files(const std::string& folder) {
  std::vector<char> part(1 << 20);
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file())
      for (std::ifstream file(entry.path(), std::ios::binary); file.read(part.data(), static_cast<std::streamsize>(part.size()));) {}
}

/// Runs a command and returns its lines, each with the seconds at which it came.
std::vector<std::pair<std::string, double>> lines_of(const std::string& command) {
  std::vector<std::pair<std::string, double>> out;
  const double start = seconds_now();
  std::FILE* child = ::popen(command.c_str(), "r");
  check(child != nullptr, "diffusion", command, ": ", std::strerror(errno));
  std::string line;
  for (int c; (c = std::fgetc(child)) != EOF;) {
    if (c != '\n') {
      line += static_cast<char>(c);
      continue;
    }
    out.emplace_back(std::exchange(line, {}), seconds_now() - start);
  }
  check(::pclose(child) == 0, "diffusion", "this failed: ", command);
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 7 && std::string(argv[1]) == "--task") return perform({argv[3], argv[4], std::atoi(argv[5]), std::atoi(argv[6])}, argv[2]);
  Index side = 64;
  std::vector<char*> others{argv[0]};
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--latent" && i + 1 < argc)
      side = std::atoi(argv[++i]);
    else
      others.push_back(argv[i]);
  }
  const tenon_benchmark::Options options = tenon_benchmark::parse(static_cast<int>(others.size()), others.data());
  check(side >= 8 && side % 8 == 0, "diffusion", "--latent: expected a multiple of 8, got ", side);
  const ThreadScope threads(options.threads);
  const TemporaryFolder folder;
  const tenon_benchmark::Peaks peaks(thread_count());
  std::printf("Stable Diffusion 1.5, random weights, latents %d x %d; %d threads, %s; peaks %.0f f32, %.0f bf16, %.0f int8 GFLOP/s\n", static_cast<int>(side),
              static_cast<int>(side), thread_count(), std::string(name_of(current_isa())).c_str(), peaks.f32, peaks.bf16, peaks.int8);
  std::fflush(stdout);
  Report report(peaks);
  const std::string program = fs::read_symlink("/proc/self/exe").string(), script = (fs::path(__FILE__).parent_path() / "diffusion" / "peers.py").string();
  const auto run = [&](const std::string& kind, const std::string& dtype) {
    return lines_of("exec '" + program + "' --task '" + folder.path + "' " + kind + " " + dtype + " " + std::to_string(side) + " " + std::to_string(thread_count()));
  };
  run("make", "f32");
  const std::string pixels = std::to_string(8 * side);
  for (const auto& [kind, name] : {std::pair<std::string, std::string>{"step", "sd15_guided_step"}, {"decode", "vae_decode_" + pixels}}) {
    for (const char* dtype : {"f32", "f32+2", "f32+4", "bf16", "bf16+4", "int8"}) report.row(name, nlohmann::json::parse(run(kind, dtype).back().first));
    for (const char* peer : {"torch f32", "torch bf16", "openvino f32", "openvino bf16"})
      if (!options.python.empty())
        for (const auto& [line, at] : lines_of("exec '" + options.python + "' '" + script + "' " + kind + " " + peer + " " + std::to_string(side) + " " +
                                               std::to_string(thread_count())))
          report.row(name, nlohmann::json::parse(line));
  }
  for (const char* dtype : {"f32", "f32+4", "bf16", "bf16+4", "int8"}) {
    read_files(folder.path);
    const auto lines = run("picture", dtype);
    auto row = nlohmann::json::parse(lines.back().first);
    row["seconds"] = lines.front().second;
    for (int again = 0; again < 2; ++again) {
      const double start = run("first", dtype).front().second;
      if (start < row["seconds"].get<double>()) row["seconds"] = start;
    }
    report.row("start_to_first_step", row);
    row["seconds"] = lines.back().second;
    report.row("sd15_picture_20_steps", row);
  }
  if (!options.json.empty()) save_json(options.json, report.rows);
  return 0;
}
