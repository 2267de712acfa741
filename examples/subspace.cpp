// subspace: how much of what a small LoRA learns lies in what a large one learns (figures 3 and 4 of the LoRA paper, 2106.09685).
// The CLIP that ships is tuned to line drawings with r = 8 and r = 64, and with r = 64 from another seed. For each layer,
// phi(i, j) = |U_i^T V_j|^2 / min(i, j), U_i the i first right singular vectors of the one and V_j the j first of the other: 1 when
// the smaller space lies in the larger, about max(i, j) / width for random spaces. Of A, as the paper does, which still holds the
// random numbers that it began with; and of B A, in which what B does not use has no weight.
#include <iostream>

#include <Eigen/SVD>
#include <nlohmann/json.hpp>

#include <tenon/tensor/eigen.hpp>

#include "common/canvas.hpp"
#include "common/progress.hpp"
#include "common/table.hpp"
#include "common/tune_clip.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options : ClipTuneOptions {
  std::string model, data = default_data(), out = "subspace", json;
  Index small = 8, large = 64;
  int threads = 0;
  std::uint64_t seed = 0;
};

/// Right singular vectors of A and of B A of each linear layer, as columns, by `layer A` and `layer BA`.
using Spaces = std::map<std::string, Eigen::MatrixXd>;

Eigen::MatrixXd right_vectors(const Eigen::MatrixXd& m, Index rank) { return Eigen::BDCSVD<Eigen::MatrixXd>(m, Eigen::ComputeThinV).matrixV().leftCols(rank); }

Spaces spaces(const std::vector<ParamRef<float>>& list) {
  Spaces out;
  std::map<std::string, Eigen::MatrixXd> a;
  for (const auto& ref : list) {
    const auto dot = ref.path.rfind(".lora_");
    if (dot == std::string::npos || ref.weight->shape().rank() != 2) continue;
    const std::string layer = ref.path.substr(0, dot);
    const Eigen::MatrixXd m = as_eigen(ref.weight->value()).cast<double>();
    if (ref.path.ends_with("lora_A.weight")) {
      out[layer + " A"] = right_vectors(m, m.rows());
      a[layer] = m;
    } else {
      out[layer + " BA"] = right_vectors(m * a.at(layer), m.cols());
    }
  }
  return out;
}

Spaces train(const Options& o, Index rank, std::uint64_t seed, const EmojiSet& set, const Tokenizer& tokenizer, Progress& progress, Index before) {
  Generator generator(seed);
  Clip<float> clip = load_clip<float>(o.model);
  ClipTuneOptions options = o;
  options.rank = rank, options.alpha = 2 * static_cast<double>(rank);
  const auto list = prepare(clip, options, generator);
  Trainer trainer = trainer_on_drawings(list, set, options, learning_rate(options), options.weight_decay);
  const CaptionLoss loss(clip, tokenizer, set);
  while (trainer.steps() < o.steps) {
    drawing_step(trainer, clip.vision_model, set, options, generator, loss);
    progress.update(before + trainer.steps(), join_text("r = ", rank, ", seed ", seed));
  }
  trainer.average.swap();
  return spaces(list);
}

double phi(const Eigen::MatrixXd& u, const Eigen::MatrixXd& v, Index i, Index j) {
  return (u.leftCols(i).transpose() * v.leftCols(j)).squaredNorm() / static_cast<double>(std::min(i, j));
}

/// Spaces of numbers drawn at random in the place of what was learnt.
Spaces random_like(const Spaces& shape, Generator& generator) {
  Spaces out;
  for (const auto& [name, v] : shape) {
    Tensor<float> a({v.cols(), v.rows()});
    fill_normal(a.span(), 0.0f, 1.0f, generator);
    out[name] = right_vectors(as_eigen(a).cast<double>(), v.cols());
  }
  return out;
}

/// The mean over the layers whose names end as said.
double mean_phi(const Spaces& one, const Spaces& other, std::string_view layer, Index i, Index j) {
  double sum = 0, count = 0;
  for (const auto& [name, u] : one)
    if (name.ends_with(layer)) sum += phi(u, other.at(name), i, j), ++count;
  check(count > 0, "subspace", "--target: expected layers that end with ", layer);
  return sum / count;
}

/// phi for i down and j across as squares, white 0 and blue 1.
void draw_map(Image& image, Index top, Index left, Index cell, const std::string& title, const std::function<double(Index, Index)>& value, Index rows, Index columns) {
  draw_text(image, top, left, title);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) {
      const double t = std::clamp(value(i + 1, j + 1), 0.0, 1.0);
      const auto mix = [&](int to) { return static_cast<std::uint8_t>(std::lround(255 + t * (to - 255))); };
      fill(image, top + letter_height + 4 + i * cell, left + j * cell, cell, cell, {mix(0), mix(70), mix(150)});
    }
}

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  print_first_line("subspace", "float32");
  const EmojiSet set(o.data);
  const Tokenizer tokenizer = load_tokenizer(o.model);
  check(o.small <= o.large, "subspace", "--small: expected at most --large, got ", o.small, " and ", o.large);
  Progress progress("subspace", 3 * o.steps);
  const Spaces small = train(o, o.small, o.seed, set, tokenizer, progress, 0), large = train(o, o.large, o.seed, set, tokenizer, progress, o.steps),
               again = train(o, o.large, o.seed + 1, set, tokenizer, progress, 2 * o.steps);
  progress.finish();
  check(!small.empty() && small.begin()->second.rows() >= o.large, "subspace", "--large: expected at most the layers' width");
  Generator generator(o.seed);
  const Spaces random = random_like(large, generator);

  std::vector<Index> powers;
  for (Index j = 1; j <= o.large; j *= 2) powers.push_back(j);
  nlohmann::json json = nlohmann::json::array();
  std::cout << "phi(i, j), mean over the layers of a kind; " << o.steps << " steps of " << o.batch << " drawings each.\n";
  for (const std::string layer : {"q_proj A", "q_proj BA", "v_proj A", "v_proj BA"}) {
    std::vector<std::string> heading{join_text(layer, ", i of r = ", o.small)};
    for (const Index j : powers) heading.push_back(join_text("j = ", j));
    Table table(heading);
    for (const Index i : powers) {
      if (i > o.small) break;
      std::vector<std::string> row{std::to_string(i)};
      for (const Index j : powers) {
        row.push_back(fixed(mean_phi(small, large, layer, i, j), 2));
        json.push_back({{"layer", layer}, {"i", i}, {"j", j}, {"phi", mean_phi(small, large, layer, i, j)}, {"random", mean_phi(small, random, layer, i, j)}});
      }
      table.add(row);
    }
    for (const auto& [name, other] : {std::pair<std::string, const Spaces*>{"1, against random", &random}, {"1, two seeds of r = " + std::to_string(o.large), &again}}) {
      std::vector<std::string> row{name};
      for (const Index j : powers) row.push_back(fixed(mean_phi(other == &again ? large : small, *other, layer, 1, j), 2));
      table.add(row);
    }
    std::cout << '\n' << table.text();
  }

  const Index cell = std::max<Index>(2, 448 / o.large), width = o.large * cell, height = o.small * cell + letter_height + 18;
  Image image(4 * height + 12, width + 24, 3, 255);
  Index top = 12;
  for (const std::string layer : {"q_proj A", "q_proj BA", "v_proj A", "v_proj BA"}) {
    draw_map(image, top, 12, cell, join_text(layer, ": r = ", o.small, " (down) in r = ", o.large, " (across)"),
             [&](Index i, Index j) { return mean_phi(small, large, layer, i, j); }, o.small, o.large);
    top += height;
  }
  save_png(image, o.out + ".png");
  std::cout << "\nwrote " << o.out << ".png: phi for all i and j, white 0, blue 1\n";
  if (!o.json.empty()) save_json(o.json, json);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("How much of what a small LoRA learns lies in what a large one learns: subspaces of A and of B A after tuning the CLIP that ships to line drawings.");
  Options o;
  o.steps = 300;
  app.add_option("--model", o.model, "Folder of a CLIP (default: the one that ships)");
  app.add_option("--data", o.data, "Folder of the emoji set")->capture_default_str();
  app.add_option("--small", o.small, "The smaller rank")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--large", o.large, "The larger rank")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--steps", o.steps, "Steps of each training")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--batch", o.batch, "Drawings a step")->capture_default_str()->check(CLI::Range(2, 4096));
  app.add_option("--lr", o.learning_rate, "Highest learning rate (default: 3e-3)");
  app.add_option("--seed", o.seed, "First seed")->capture_default_str();
  app.add_option("--threads", o.threads, "Threads (0: all available)")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--out", o.out, "Beginning of the name of the picture")->capture_default_str();
  app.add_option("--json", o.json, "File for the numbers");
  return run_program(app, argc, argv, [&] {
    if (o.model.empty()) o.model = o.data + "/clip";
    run(o);
  });
}
