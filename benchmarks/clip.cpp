// benchmarks/run clip: CLIP ViT-B/32 (random weights): pictures and texts in batches of 1 and 32 by float32, bfloat16 and int8
// weights, JPEG files to features, the start of a process to its first embeddings with the checkpoint in the page cache, and a
// contrastive step of LoRA on both towers, whole and by gradient caching. Peaks of memory are those of processes of their own.
//
// The weights' types run in turn; --python adds torch and OpenVINO in a process of their own, which takes its turn after
// them in every round. Correctness in the same run: `error` is the distance from the double model on the first picture or text. `gflops` counts the whole model,
// though pooled features need no more of the last layer than one token.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include <tenon/models/clip/gradient_cache.hpp>
#include <tenon/models/clip/pipeline.hpp>
#include <tenon/peft/lora.hpp>

#include "options.hpp"
#include "peak.hpp"
#include "resident.hpp"
#include "temporary_folder.hpp"

namespace {

using namespace tenon;
using tenon_benchmark::seconds_now;
using tenon_benchmark::TemporaryFolder;
namespace fs = std::filesystem;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double difference(const Tensor<double>& a, const Tensor<double>& b, Index count) {
  double most = 0, scale = 0;
  for (Index i = 0; i < count; ++i) {
    most = std::max(most, std::abs(a.data()[i] - b.data()[i]));
    scale = std::max(scale, std::abs(b.data()[i]));
  }
  return most / scale;
}

/// Multiplications and additions of a tower for one sample.
double operations(const auto& tower, Index tokens, Index projection, double patches = 0) {
  const double l = static_cast<double>(tokens), d = static_cast<double>(tower.hidden_size), f = static_cast<double>(tower.intermediate_size);
  return 2 * (static_cast<double>(tower.num_hidden_layers) * (4 * l * d * d + 2 * l * l * d + 2 * l * d * f) + patches + d * static_cast<double>(projection));
}

class Report {
 public:
  explicit Report(const tenon_benchmark::Peaks& peaks) : peaks_(peaks) {}

  void row(const std::string& name, std::vector<Index> shape, const std::string& dtype, const std::vector<double>& seconds, nlohmann::json more,
           double work = 0, const std::string& impl = "tenon") {
    const double best = *std::min_element(seconds.begin(), seconds.end());
    nlohmann::json row{{"name", name}, {"shape", shape}, {"dtype", dtype}, {"impl", impl}, {"seconds", best}, {"seconds_median", median(seconds)}};
    std::printf("%-28s %-5s %-9s best %8.2f  median %8.2f ms", name.c_str(), dtype.c_str(), impl.c_str(), 1e3 * best, 1e3 * median(seconds));
    if (work > 0) {
      row["gflops"] = work / best / 1e9;
      if (peaks_.of(dtype) > 0) row["peak_fraction"] = work / best / 1e9 / peaks_.of(dtype);
      impossible += peaks_.of(dtype) > 0 && work / best / 1e9 > 1.1 * peaks_.of(dtype);  // above 1 by what the last layer saves
      std::printf("  %7.1f GFLOP/s  %5.1f %% of peak", work / best / 1e9, peaks_.of(dtype) > 0 ? 100 * work / best / 1e9 / peaks_.of(dtype) : 0.0);
    }
    for (const auto& [key, value] : more.items()) std::printf("  %s %.3g", key.c_str(), value.get<double>());
    std::printf("\n");
    std::fflush(stdout);
    row.update(more);
    rows.push_back(std::move(row));
  }

  nlohmann::json rows = nlohmann::json::array();
  int impossible = 0;  ///< rows above the peak: the machine was busy while that was measured

 private:
  tenon_benchmark::Peaks peaks_;
};

struct Model {
  std::string dtype;
  ClipPipeline<float> clip;
};

/// torch and OpenVINO in a process of their own, which runs one call when it is asked to.
class Peers {
 public:
  struct Call {
    std::string name, dtype, impl;
    std::vector<Index> shape;
  };
  std::vector<Call> calls;

  Peers() = default;
  Peers(const std::string& python, const std::string& folder, int threads) {
    const std::string script = (fs::path(__FILE__).parent_path() / "clip" / "peers.py").string(), pipe = folder + "/ask";
    check(::mkfifo(pipe.c_str(), 0600) == 0, "clip", pipe, ": ", std::strerror(errno));
    answers_ = ::popen(("exec '" + python + "' '" + script + "' " + std::to_string(threads) + " < '" + pipe + "'").c_str(), "r");
    questions_ = std::fopen(pipe.c_str(), "w");
    check(answers_ != nullptr && questions_ != nullptr, "clip", script, ": ", std::strerror(errno));
    for (const auto& call : nlohmann::json::parse(answer()))
      calls.push_back({call.at("name"), call.at("dtype"), call.at("impl"), call.at("shape")});
  }
  ~Peers() {
    if (questions_ != nullptr) std::fclose(questions_);
    if (answers_ != nullptr) ::pclose(answers_);
  }
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  /// Runs a call once and returns its seconds. A pause before and after lets idle threads of either side go to sleep.
  double seconds(std::size_t call) {
    ::usleep(20000);
    std::fprintf(questions_, "%zu\n", call);
    std::fflush(questions_);
    const double out = std::stod(answer());
    ::usleep(20000);
    return out;
  }

 private:
  std::string answer() {
    std::string line;
    for (int c; (c = std::fgetc(answers_)) != EOF && c != '\n';) line += static_cast<char>(c);
    check(!line.empty(), "clip", "the peers' process has ended");
    return line;
  }
  std::FILE *questions_ = nullptr, *answers_ = nullptr;
};

using Features = std::function<Tensor<float>(const Clip<float>&)>;

/// One row for each model and each peer that knows it, run in turn.
void rows_of(Report& report, const std::vector<Model>& models, Peers& peers, const std::string& name, const std::vector<Index>& shape, double work, int rounds,
             const Tensor<double>& exact, const Features& run) {
  std::vector<std::vector<double>> seconds(models.size());
  std::vector<double> errors;
  for (const Model& model : models) errors.push_back(difference(cast<double>(run(model.clip.model)), exact, exact.size()));
  std::vector<std::vector<double>> peer_seconds(peers.calls.size());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < models.size(); ++i) {
      const double start = seconds_now();
      run(models[i].clip.model);
      seconds[i].push_back(seconds_now() - start);
    }
    for (std::size_t i = 0; i < peers.calls.size(); ++i)
      if (peers.calls[i].name == name) peer_seconds[i].push_back(peers.seconds(i));
  }
  for (std::size_t i = 0; i < models.size(); ++i) report.row(name, shape, models[i].dtype, seconds[i], {{"max_rel_err", errors[i]}}, work);
  for (std::size_t i = 0; i < peers.calls.size(); ++i) {
    const auto& call = peers.calls[i];
    if (call.name == name) report.row(name, call.shape, call.dtype, peer_seconds[i], nlohmann::json::object(), work, call.impl);
  }
}

/// A JPEG file of width x height: soft waves with some grain, so that it is neither trivial nor noise.
void write_jpeg(const std::string& path, unsigned width, unsigned height, unsigned seed) {
  std::vector<JSAMPLE> row(std::size_t{3} * width);
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  std::FILE* file = std::fopen(path.c_str(), "wb");
  check<FileError>(file != nullptr, "clip", path, ": ", std::strerror(errno));
  jpeg_stdio_dest(&info, file);
  info.image_width = width;
  info.image_height = height;
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 90, TRUE);
  jpeg_start_compress(&info, TRUE);
  std::uint32_t state = seed;
  for (unsigned y = 0; y < height; ++y) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      state = state * 1664525u + 1013904223u;
      const double wave = std::sin(0.01 * static_cast<double>((i + seed * 50) % row.size())) * std::cos(0.02 * static_cast<double>(y) + static_cast<double>(i % 3));
      row[i] = static_cast<JSAMPLE>(128 + 90 * wave + static_cast<double>(state >> 28));
    }
    JSAMPROW line = row.data();
    jpeg_write_scanlines(&info, &line, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::fclose(file);
}

/// What a process of its own does for a row: it prints its seconds and its peak, and ends at once.
struct Task {
  std::string kind, dtype;  ///< `embed` or `lora_step`
  Index batch = 1, micro_batch = 0;
};

int perform(const Task& task, const std::string& folder, const std::string& picture) {
  double seconds = 0;
  if (task.kind == "embed") {
    ClipLoadOptions options;
    if (task.dtype == "bf16") options.weights = DType::bf16;
    const auto clip = ClipPipeline<float>::load(folder, options);
    const Tensor<float> features = clip.embed_images(std::vector(static_cast<std::size_t>(task.batch), load_image(picture)));
    check(std::isfinite(features(0, 0)), "clip", "a feature is not finite");
  } else {
    Clip<float> clip = load_clip<float>(folder);
    Generator generator(1);
    attach(clip, LoraConfig{.rank = 8, .alpha = 16, .targets = {"q_proj", "v_proj"}}, generator);
    Tensor<float> pictures({task.batch, 224, 224, 3});
    fill_normal(pictures.span(), 0.0f, 1.0f, generator);
    Tensor<std::int32_t> ids({task.batch, 77});
    for (Index i = 0; i < ids.size(); ++i) ids.data()[i] = static_cast<std::int32_t>(i * 31 % 49406);
    for (int i = 0; i < 2; ++i) {
      const double start = seconds_now();
      contrastive_backward(clip, pictures, ids, task.micro_batch);
      seconds = seconds_now() - start;
    }
  }
  std::printf("%.6f %.6f\n", seconds, tenon_benchmark::peak_gb());
  std::fflush(stdout);
  ::_exit(0);
}

void process_rows(Report& report, const std::string& folder, const std::string& picture, int threads) {
  const std::string program = fs::read_symlink("/proc/self/exe").string();
  const auto run = [&](const std::string& name, const Task& task, int repeats) {
    std::vector<double> seconds;
    double inside = 0, memory = 0;
    for (int i = 0; i < repeats; ++i) {
      const std::string command = "exec '" + program + "' --task '" + folder + "' '" + picture + "' " + task.kind + " " + task.dtype + " " +
                                  std::to_string(task.batch) + " " + std::to_string(task.micro_batch) + " " + std::to_string(threads);
      const double start = seconds_now();
      std::FILE* child = ::popen(command.c_str(), "r");
      check(child != nullptr && std::fscanf(child, "%lf %lf", &inside, &memory) == 2, "clip", "the process for ", name, " failed");
      seconds.push_back(task.kind == "embed" ? seconds_now() - start : inside);
      ::pclose(child);
    }
    if (repeats > 1) seconds.erase(seconds.begin());  // the first one filled the page cache
    report.row(name, {task.batch, 224, 224, 3}, task.dtype, seconds, {{"peak_gb", memory}});
  };
  for (const char* dtype : {"f32", "bf16"}) {
    run("clip_b32_first_embedding", {"embed", dtype}, 6);
    run("clip_b32_first_32", {"embed", dtype, 32}, 3);
  }
  run("clip_b32_lora_step_b64", {"lora_step", "f32", 64, 64}, 1);
  run("clip_b32_lora_step_b64_by_8", {"lora_step", "f32", 64, 8}, 1);
}

void jpeg_rows(Report& report, const std::vector<Model>& models, const std::string& folder) {
  constexpr Index count = 64;
  std::vector<std::string> paths;
  for (unsigned i = 0; i < count; ++i) {
    paths.push_back(folder + "/" + std::to_string(i) + ".jpg");
    write_jpeg(paths.back(), 640, 480, i);
  }
  const auto measure = [&](const std::string& name, const std::string& dtype, const std::function<void()>& run) {
    std::vector<double> seconds;
    for (int i = 0; i < 4; ++i) {
      const double start = seconds_now();
      run();
      if (i > 0) seconds.push_back(seconds_now() - start);
    }
    report.row(name, {count, 480, 640, 3}, dtype, seconds, {{"pictures_per_second", count / *std::min_element(seconds.begin(), seconds.end())}});
  };
  measure("clip_preprocess_jpeg", "f32", [&] {
    Tensor<float> values({count, 224, 224, 3});
    parallel_for(count, [&](Index i) { models[0].clip.processor.write(load_image(paths[static_cast<std::size_t>(i)]), values.data() + i * 224 * 224 * 3); });
  });
  for (const Model& model : models)
    measure("clip_b32_jpeg", model.dtype, [&] { check(model.clip.embed_files(paths).errors.empty(), "clip", "a picture could not be read"); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 9 && std::string(argv[1]) == "--task") {
    const ThreadScope threads(std::atoi(argv[8]));
    return perform({argv[4], argv[5], std::atoi(argv[6]), std::atoi(argv[7])}, argv[2], argv[3]);
  }
  const tenon_benchmark::Options options = tenon_benchmark::parse(argc, argv);
  const ThreadScope threads(options.threads);
  const NoGrad no_grad;
  const TemporaryFolder folder;
  const tenon_benchmark::Peaks peaks(thread_count());
  std::printf("CLIP ViT-B/32, random weights; %d threads, %s; peaks %.0f f32, %.0f bf16, %.0f int8 GFLOP/s\n", thread_count(),
              std::string(name_of(current_isa())).c_str(), peaks.f32, peaks.bf16, peaks.int8);
  Report report(peaks);
  Generator generator(0);
  const ClipConfig config;
  {
    Clip<float> made(config, generator);
    save_clip(made, folder.path + "/model");
  }
  std::vector<Model> models;
  models.push_back({"f32", ClipPipeline<float>::load(folder.path + "/model")});
  models.push_back({"bf16", ClipPipeline<float>::load(folder.path + "/model", {.weights = DType::bf16})});
  models.push_back({"int8", ClipPipeline<float>::load(folder.path + "/model", {.weights = DType::i8})});
  Tensor<float> pictures({32, 224, 224, 3});
  fill_normal(pictures.span(), 0.0f, 1.0f, generator);
  Tensor<std::int32_t> ids({32, 77});
  for (Index i = 0; i < 32; ++i)
    for (Index k = 0; k < 77; ++k) ids(i, k) = k == 0 ? 49406 : k < 7 ? static_cast<std::int32_t>(320 + 37 * i + k) : 49407;
  Tensor<double> image_exact, text_exact;
  {
    const Clip<double> exact = load_clip<double>(folder.path + "/model");
    image_exact = exact.image_features(Var<double>(cast<double>(copy(pictures.view().sliced(0, 0, 1))))).value();
    text_exact = exact.text_features(copy(ids.view().sliced(0, 0, 1).sliced(1, 0, 8))).value();
  }
  const ClipVisionConfig& vision = config.vision_config;
  const Index patches = vision.grid_height() * vision.grid_width(), side = vision.image_size.height;
  const double image_work = operations(vision, patches + 1, config.projection_dim, static_cast<double>(side * side * 3 * vision.hidden_size));
  auto peers = options.python.empty() ? std::make_unique<Peers>() : std::make_unique<Peers>(options.python, folder.path, thread_count());
  for (const Index batch : {Index{1}, Index{32}}) {
    const int rounds = batch == 1 ? 41 : 9;
    const Var<float> x(copy(pictures.view().sliced(0, 0, batch)));
    rows_of(report, models, *peers, "clip_b32_image_b" + std::to_string(batch), {batch, side, side, 3}, static_cast<double>(batch) * image_work, rounds, image_exact,
            [&](const Clip<float>& clip) { return clip.image_features(x).value(); });
    for (const Index tokens : {Index{77}, Index{8}}) {  // padded to the context, and cut behind the end as `tokenize` does
      const Tensor<std::int32_t> texts = copy(ids.view().sliced(0, 0, batch).sliced(1, 0, tokens));
      rows_of(report, models, *peers, "clip_b32_text" + std::to_string(tokens) + "_b" + std::to_string(batch), {batch, tokens},
              static_cast<double>(batch) * operations(config.text_config, tokens, config.projection_dim), rounds, text_exact,
              [&](const Clip<float>& clip) { return clip.text_features(texts).value(); });
    }
  }
  peers.reset();
  jpeg_rows(report, models, folder.path);
  models.clear();
  process_rows(report, folder.path + "/model", folder.path + "/0.jpg", thread_count());
  if (!options.json.empty()) save_json(options.json, report.rows);
  if (report.impossible > 0) std::fprintf(stderr, "%d rows lie above the peak measured in this run: the machine was busy\n", report.impossible);
  return report.impossible > 0;
}
