// probe: a linear classifier on CLIP's frozen features, from 1, 2, 4, ... pictures a class up to all, beside zero-shot CLIP.
#include <nlohmann/json.hpp>

#include "common/clip_options.hpp"
#include "common/evaluate.hpp"
#include "common/linear_probe.hpp"
#include "common/table.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;
namespace fs = std::filesystem;

struct Options : ClipOptions {
  std::string data, json, text = "a photo of a {}.";
  double c = 0.316, held_out = 0.2;
  Index seeds = 5;
};

/// One way to label the pictures.
struct Task {
  std::string name;
  std::vector<std::string> labels;
  std::vector<std::int32_t> train, held_out;  ///< the label of each picture
  std::vector<std::string> templates;
};

struct Data {
  Tensor<float> train, held_out;  ///< features, as the model gives them
  std::vector<Task> tasks;
};

/// The emoji that ship, by group and by subgroup, on their fixed split.
Data emoji(const ClipPipeline<float>& clip) {
  const EmojiSet set(default_data());
  Data out;
  out.tasks = {{"groups", set.groups, {}, {}, set.label_templates("group")}, {"subgroups", set.subgroups, {}, {}, set.label_templates("subgroup")}};
  for (const bool held_out : {false, true}) {
    const auto ids = set.split(held_out);
    std::vector<Tensor<float>> parts;
    Progress progress(held_out ? "held-out pictures" : "pictures", static_cast<std::int64_t>(ids.size()));
    Tensor<float>& features = held_out ? out.held_out : out.train;
    features = Tensor<float>({static_cast<Index>(ids.size()), clip.model.config.projection_dim});
    float* to = features.data();
    constexpr std::size_t batch = 64;
    for (std::size_t begin = 0; begin < ids.size(); begin += batch) {
      std::vector<Image> images;
      for (const Index id : std::span(ids).subspan(begin, std::min(batch, ids.size() - begin)))
        images.push_back(as_image(pick(set.colour, std::array{id}).reshape({EmojiSet::side, EmojiSet::side, 3})));
      const auto part = clip.embed_images(images, false);
      to = std::copy_n(part.data(), part.size(), to);
      progress.update(static_cast<std::int64_t>(begin + images.size()));
    }
    for (const Index id : ids) {
      const Emoji& row = set.rows[static_cast<std::size_t>(id)];
      (held_out ? out.tasks[0].held_out : out.tasks[0].train).push_back(static_cast<std::int32_t>(row.group_label));
      (held_out ? out.tasks[1].held_out : out.tasks[1].train).push_back(static_cast<std::int32_t>(row.subgroup_label));
    }
  }
  return out;
}

/// The folders in a folder, sorted.
std::vector<std::string> folders_in(const std::string& path) {
  std::vector<std::string> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path, error))
    if (entry.is_directory(error) && !entry.path().filename().string().starts_with('.')) out.push_back(entry.path().filename().string());
  check<FileError>(!error, "probe", path, ": ", error.message());
  std::sort(out.begin(), out.end());
  return out;
}

/// A folder with a folder of pictures for each class; or with two such folders, train and test (or val).
Data folders(const ClipPipeline<float>& clip, const Options& o) {
  std::error_code error;
  check<FileError>(fs::is_directory(o.data, error), "probe", o.data, ": expected a folder that holds a folder of pictures for each class");
  std::string train = o.data, test;
  for (const char* name : {"test", "val"})
    if (fs::is_directory(o.data + "/train", error) && fs::is_directory(o.data + "/" + name, error) && test.empty()) train = o.data + "/train", test = o.data + "/" + name;
  const auto classes = folders_in(train);
  check<FileError>(classes.size() >= 2, "probe", train, ": expected at least two folders, one for each class, found ", classes.size());
  Data out;
  Task task{"classes", {}, {}, {}, {o.text}};
  std::vector<std::string> files[2];
  std::vector<std::int32_t> labels[2];
  Generator generator(o.seed);
  for (std::size_t c = 0; c < classes.size(); ++c) {
    task.labels.push_back(classes[c]);
    std::replace(task.labels.back().begin(), task.labels.back().end(), '_', ' ');
    auto pictures = pictures_in(train + "/" + classes[c]);
    std::size_t kept = pictures.size();
    if (test.empty()) {  // the first part of a random order is held out, at least one
      const auto order = permutation(static_cast<Index>(pictures.size()), generator);
      std::vector<std::string> mixed;
      for (const Index i : order) mixed.push_back(pictures[static_cast<std::size_t>(i)]);
      pictures = std::move(mixed);
      kept -= std::min(kept, std::max<std::size_t>(1, static_cast<std::size_t>(o.held_out * static_cast<double>(kept) + 0.5)));
    }
    check<FileError>(kept > 0, "probe", train, '/', classes[c], ": expected ", test.empty() ? "at least two pictures" : "pictures", ", found ", pictures.size());
    for (std::size_t i = 0; i < pictures.size(); ++i) files[i < kept ? 0 : 1].push_back(pictures[i]), labels[i < kept ? 0 : 1].push_back(static_cast<std::int32_t>(c));
    if (test.empty()) continue;
    for (auto& file : pictures_in(test + "/" + classes[c])) files[1].push_back(std::move(file)), labels[1].push_back(static_cast<std::int32_t>(c));
  }
  for (const int side : {0, 1}) {
    auto found = embed_pictures(clip, files[side], o, false);
    for (const auto n : found.read) (side == 0 ? task.train : task.held_out).push_back(labels[side][n]);
    (side == 0 ? out.train : out.held_out) = std::move(found.features);
  }
  out.tasks = {std::move(task)};
  return out;
}

/// Row numbers of at most `shots` random pictures of each class; all when it is 0.
std::vector<Index> few(const std::vector<std::int32_t>& labels, Index classes, Index shots, Generator& generator) {
  std::vector<Index> out, left(static_cast<std::size_t>(classes), shots > 0 ? shots : static_cast<Index>(labels.size()));
  for (const Index i : permutation(static_cast<Index>(labels.size()), generator))
    if (left[static_cast<std::size_t>(labels[static_cast<std::size_t>(i)])]-- > 0) out.push_back(i);
  return out;
}

/// Shares of hits among the best one and the best five.
struct Hits {
  double top1 = 0, top5 = 0;
};
Hits hits(const Tensor<float>& scores, const std::vector<std::int32_t>& labels) {
  const std::vector<Index> wanted(labels.begin(), labels.end());
  return {top_share(scores, wanted, 1), top_share(scores, wanted, 5)};
}

std::string percent(double low, double high, double mean) {
  return fixed(100 * mean, 1) + (high > low ? " \u00b1 " + fixed(50 * (high - low), 1) : "");
}

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  std::error_code error;
  check<FileError>(o.data.empty() || fs::is_directory(o.data, error), "probe", o.data, ": expected a folder that holds a folder of pictures for each class");
  if (!o.data.empty()) check<FileError>(folders_in(o.data).size() >= 2, "probe", o.data, ": expected at least two folders, one for each class");
  fill_template(o.text, "");
  const auto clip = o.load("probe");
  const Data data = o.data.empty() ? emoji(clip) : folders(clip, o);
  std::cerr << data.train.extent(0) << " training pictures, " << data.held_out.extent(0) << " held out\n";

  const Index all_shots[] = {1, 2, 4, 8, 16, 0};
  std::vector<std::string> heading{"pictures a class"};
  for (const auto& task : data.tasks)
    for (const char* top : {" top-1", " top-5"}) heading.push_back(task.name + top + " %");
  Table table(heading);
  nlohmann::json rows = nlohmann::json::array();
  std::vector<std::string> zero{"none: zero-shot"};
  for (const auto& task : data.tasks) {
    const Hits found = hits(clip.zero_shot(data.held_out, task.labels, task.templates), task.held_out);
    for (const double share : {found.top1, found.top5}) zero.push_back(fixed(100 * share, 1));
    rows.push_back({{"task", task.name}, {"shots", 0}, {"kind", "zero_shot"}, {"top1", found.top1}, {"top5", found.top5}});
  }
  table.add(zero);
  Progress progress("fitting", static_cast<std::int64_t>(std::size(all_shots)) * static_cast<std::int64_t>(data.tasks.size()) * o.seeds);
  std::int64_t done = 0;
  for (const Index shots : all_shots) {
    std::vector<std::string> cells{shots == 0 ? "all" : std::to_string(shots)};
    for (const auto& task : data.tasks) {
      const auto classes = static_cast<Index>(task.labels.size());
      std::vector<Hits> runs;
      const Index seeds = shots == 0 ? 1 : o.seeds;  // all pictures are the same for any seed
      for (Index s = 0; s < seeds; ++s) {
        Generator generator(o.seed + static_cast<std::uint64_t>(s));
        const auto ids = few(task.train, classes, shots, generator);
        std::vector<std::int32_t> labels;
        for (const Index id : ids) labels.push_back(task.train[static_cast<std::size_t>(id)]);
        const LinearProbe probe(pick(data.train, ids), labels, classes, o.c);
        runs.push_back(hits(probe(data.held_out), task.held_out));
        rows.push_back({{"task", task.name}, {"shots", shots}, {"kind", "probe"}, {"seed", o.seed + static_cast<std::uint64_t>(s)}, {"pictures", ids.size()},
                        {"top1", runs.back().top1}, {"top5", runs.back().top5}, {"loss", probe.result.value}, {"iterations", probe.result.iterations}});
        progress.update(++done);
      }
      done += o.seeds - seeds;
      progress.update(done);
      for (const auto field : {&Hits::top1, &Hits::top5}) {
        double low = 1, high = 0, sum = 0;
        for (const Hits& run : runs) low = std::min(low, run.*field), high = std::max(high, run.*field), sum += run.*field;
        cells.push_back(percent(low, high, sum / static_cast<double>(runs.size())));
      }
    }
    table.add(cells);
  }
  progress.finish();
  std::cout << table.text();
  std::cerr << "mean of " << o.seeds << " draws of pictures, and half the distance of the extremes\n";
  if (!o.json.empty()) save_json(o.json, {{"rows", rows}, {"c", o.c}, {"train", data.train.extent(0)}, {"held_out", data.held_out.extent(0)}});
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("A linear classifier on CLIP's frozen features, few-shot and with all pictures, beside zero-shot CLIP.");
  Options o;
  o.add_to(app);
  app.add_option("--data", o.data, "Folder that holds a folder of pictures for each class, or train and test with such folders (default: the emoji that ship)");
  app.add_option("--held-out", o.held_out, "Share of each class to test on, where there is no test folder")->capture_default_str()->check(CLI::Range(0.01, 0.9));
  app.add_option("--template", o.text, "Text around a class name for the zero-shot row")->capture_default_str();
  app.add_option("--c", o.c, "Inverse strength of the regularisation, as in scikit-learn; 0.316 is CLIP's")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--seeds", o.seeds, "Draws of few-shot pictures, with seeds s, s + 1, ...")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--json", o.json, "File for the numbers");
  return run_program(app, argc, argv, [&] { run(o); });
}
