// latency: what an adapter costs when a model serves: the text tower of a CLIP as it is, with a LoRA beside its weights, with the
// LoRA merged, with bottleneck adapters, with prefixes, at several batches and lengths (table 1 of the LoRA paper, 2106.09685, on a
// CPU); and what a task costs on disk, and to change to.
//
// All towers hold the same weights and run in turn, another one first each time; a ratio is that of medians.
#include <filesystem>
#include <iostream>

#include <nlohmann/json.hpp>

#include <tenon/clip.hpp>

#include "common/bars.hpp"
#include "common/program.hpp"
#include "common/progress.hpp"
#include "common/table.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options {
  std::string model, out = "latency", json;
  Index rank = 8, bottleneck = 16, length = 8, rounds = 40;
  bool full_size = false;
  int threads = 0;
  std::uint64_t seed = 0;
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

/// A way to serve, with its copy of the tower.
struct Way {
  std::string name;
  ClipText<float> tower;
  std::vector<double> seconds;
};

ClipText<float> text_tower(const Options& o) {
  if (!o.full_size) return load_clip<float>(o.model).text_model;
  ClipText<float> tower{ClipTextConfig{}};  // ViT-B/32's
  Generator generator(o.seed);
  tower.initialize(generator);
  freeze(tower);
  return tower;
}

/// Attaches what a way is called after, with numbers that do something.
void attach_way(ClipText<float>& tower, const std::string& way, const Options& o) {
  Generator generator(o.seed + 1);
  if (way.starts_with("LoRA")) attach(tower, LoraConfig{.rank = o.rank, .alpha = 2 * static_cast<double>(o.rank), .targets = {"q_proj", "k_proj", "v_proj", "out_proj"}}, generator);
  if (way == "adapter") attach(tower, BottleneckConfig{.bottleneck = o.bottleneck, .targets = {"mlp", "self_attn"}}, generator);
  if (way == "prefix") attach(tower, PrefixConfig{.length = o.length, .targets = {"self_attn"}}, generator);
  for (const auto& ref : patch_params(tower)) ref.weight->update([&](Tensor<float>& value) { fill_normal(value.span(), 0.0f, 0.02f, generator); });
  if (way == "LoRA merged") merge(tower);
}

/// Words of a batch, `length` tokens each, the last one the end.
Tensor<std::int32_t> random_ids(const ClipTextConfig& c, Index batch, Index length, Generator& generator) {
  auto ids = Tensor<std::int32_t>::uninitialized({batch, length});
  for (Index i = 0; i < ids.size(); ++i)
    ids.data()[i] = (i + 1) % length == 0 ? c.eos_token_id : static_cast<std::int32_t>(generator.integer(0, std::min<std::int64_t>(c.vocab_size, c.eos_token_id)));
  return ids;
}

double difference(const Tensor<float>& a, const Tensor<float>& b) {
  double most = 0, scale = 0;
  for (Index i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a.data()[i] - b.data()[i])));
    scale = std::max(scale, std::abs(static_cast<double>(b.data()[i])));
  }
  return most / scale;
}

std::uintmax_t bytes_below(const std::string& path) {
  std::uintmax_t sum = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path))
    if (entry.is_regular_file()) sum += entry.file_size();
  return sum;
}

/// Of one way: numbers, bytes on disk, and milliseconds from the file to a first batch of one less those of a later one.
struct Swap {
  Index numbers;
  std::uintmax_t bytes;
  double seconds;
};

Swap swap_cost(ClipText<float>& tower, const std::string& way, const Tensor<std::int32_t>& ids, const Options& o) {
  const std::string folder = o.out + ".task";
  attach_way(tower, way, o);
  save_adapter(tower, folder, "default", DType::f16);
  Swap out{count(patch_params(tower)), bytes_below(folder), 0};
  std::vector<double> fresh, steady;
  for (Index i = 0; i < o.rounds; ++i) {
    const double start = now();
    detach(tower, "default");
    attach(tower, load_adapter(folder));
    tower.pooled(ids);
    const double attached = now();
    tower.pooled(ids);
    fresh.push_back(attached - start), steady.push_back(now() - attached);
  }
  out.seconds = median(fresh) - median(steady);
  detach(tower, "default");
  std::filesystem::remove_all(folder);
  return out;
}

/// The same of a model of its own for each task.
Swap swap_model(const Options& o, const Tensor<std::int32_t>& ids) {
  ClipText<float> tower = text_tower(o);
  const std::string file = o.out + ".task.safetensors";
  save_params(file, params(tower), {}, DType::f16);
  Swap out{count(params(tower)), std::filesystem::file_size(file), 0};
  std::vector<double> fresh, steady;
  for (Index i = 0; i < std::min<Index>(o.rounds, 8); ++i) {
    const double start = now();
    load_params(params(tower), open_checkpoint(file));
    tower.pooled(ids);
    const double loaded = now();
    tower.pooled(ids);
    fresh.push_back(loaded - start), steady.push_back(now() - loaded);
  }
  out.seconds = median(fresh) - median(steady);
  std::filesystem::remove(file);
  return out;
}

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  print_first_line("latency", "float32");
  const NoGrad no_grad;
  std::vector<Way> ways;
  for (const char* name : {"base", "LoRA merged", "LoRA", "adapter", "prefix", "base again"}) {
    ways.push_back({name, text_tower(o), {}});
    attach_way(ways.back().tower, name, o);
  }
  const ClipTextConfig& config = ways[0].tower.config;
  const Index context = config.max_position_embeddings;
  const std::vector<Index> lengths = context >= 64 ? std::vector<Index>{16, 32, context} : std::vector<Index>{8, context / 2, context};
  std::cout << "The text tower of " << (o.full_size ? std::string("CLIP ViT-B/32, random weights") : o.model) << ": " << config.num_hidden_layers << " layers " << config.hidden_size
            << " wide. LoRA r = " << o.rank << " on q, k, v and out; adapters " << o.bottleneck << " wide after attention and feed-forward; prefixes " << o.length << " long.\n\n";

  std::vector<std::string> heading{"batch x tokens", "base, ms"};
  for (std::size_t w = 1; w < ways.size(); ++w) heading.push_back(ways[w].name);
  Table table(heading);
  std::vector<std::string> groups;
  std::vector<BarSeries> series;
  for (std::size_t w = 1; w + 1 < ways.size(); ++w) series.push_back({ways[w].name, {}, {}});
  nlohmann::json rows = nlohmann::json::array();
  Progress progress("latency", 2 * static_cast<Index>(lengths.size()) * o.rounds);
  Generator generator(o.seed + 2);
  double worst = 0;
  Index done = 0;
  for (const Index batch : {1, 32})
    for (const Index length : lengths) {
      const auto ids = random_ids(config, batch, length, generator);
      for (auto& way : ways) way.seconds.clear();
      const auto merged = ways[1].tower.pooled(ids).value();  // uncounted first calls, and what must be equal
      worst = std::max(worst, difference(merged, ways[2].tower.pooled(ids).value()));
      for (auto& way : ways) way.tower.pooled(ids);
      for (Index round = 0; round < o.rounds; ++round) {
        for (std::size_t i = 0; i < ways.size(); ++i) {
          Way& way = ways[(i + static_cast<std::size_t>(round)) % ways.size()];
          const double start = now();
          way.tower.pooled(ids);
          way.seconds.push_back(now() - start);
        }
        progress.update(++done);
      }
      const double base = median(ways[0].seconds);
      std::vector<std::string> row{join_text(batch, " x ", length), fixed(1e3 * base, 3)};
      groups.push_back(row[0]);
      for (std::size_t w = 1; w < ways.size(); ++w) {
        const double ratio = median(ways[w].seconds) / base;
        row.push_back(fixed(ratio, 3));
        if (w <= series.size()) series[w - 1].height.push_back(100 * ratio);
      }
      for (const auto& way : ways)
        rows.push_back({{"way", way.name}, {"batch", batch}, {"tokens", length}, {"seconds", median(way.seconds)}, {"ratio", median(way.seconds) / base}});
      table.add(row);
    }
  progress.finish();
  std::cout << table.text() << "\nRatios to the base; the last column is a second tower like the first, which says what such ratios are worth. Merged and unmerged differ by "
            << worst << ", relative.\n\n";

  Table tasks({"of one task", "numbers", "bytes on disk", "to change to it, ms"});
  const auto ids = random_ids(config, 1, lengths[0], generator);
  const auto add = [&](const std::string& name, const Swap& swap) {
    tasks.add({name, std::to_string(swap.numbers), std::to_string(swap.bytes), fixed(1e3 * swap.seconds, 2)});
    rows.push_back({{"way", name}, {"numbers", swap.numbers}, {"bytes", swap.bytes}, {"swap_seconds", swap.seconds}});
  };
  for (const char* name : {"LoRA", "adapter", "prefix"}) add(name, swap_cost(ways[0].tower, name, ids, o));
  add("a tower of its own", swap_model(o, ids));
  std::cout << tasks.text() << "\nFrom the files (half precision) to the first text, less a later text.\n";
  save_png(bars({.title = "time of the text tower", .y = "% of the base", .width = 720}, groups, series), o.out + ".png");
  std::cout << "wrote " << o.out << ".png\n";
  if (!o.json.empty()) save_json(o.json, rows);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What adapters cost when a model serves: LoRA beside the weights and merged, bottleneck adapters, prefixes; bytes on disk and time to change a task.");
  Options o;
  app.add_option("--model", o.model, "Folder of a CLIP (default: the one that ships)");
  app.add_flag("--full-size", o.full_size, "The text tower of CLIP ViT-B/32 with random weights instead");
  app.add_option("--rank", o.rank, "Rank of the LoRA")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--bottleneck", o.bottleneck, "Width of the adapters")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--length", o.length, "Length of the prefixes")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--rounds", o.rounds, "Runs of each")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--threads", o.threads, "Threads (0: all available)")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--seed", o.seed, "Seed of weights and words")->capture_default_str();
  app.add_option("--out", o.out, "Beginning of the name of the plot")->capture_default_str();
  app.add_option("--json", o.json, "File for the numbers");
  return run_program(app, argc, argv, [&] {
    check(o.model.empty() || !o.full_size, "latency", "expected --model or --full-size, got both");
    if (o.model.empty()) o.model = default_data() + "/clip";
    run(o);
  });
}
