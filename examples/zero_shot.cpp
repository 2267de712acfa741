// zero_shot: which of some labels a picture shows, by CLIP, without training.
#include <nlohmann/json.hpp>

#include <numeric>

#include "common/clip_options.hpp"
#include "common/table.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options : ClipOptions {
  std::vector<std::string> images, labels, templates;
  std::string labels_file, template_set, save_probs;
  Index top = 5;
  bool json = false;
};

/// What the model that ships was trained with; a photo for all others.
std::vector<std::string> templates_of(const Options& o) {
  auto templates = o.templates;
  if (!o.template_set.empty())
    for (auto& text : named_templates(o.template_set)) templates.push_back(std::move(text));
  if (templates.empty()) templates = o.ships() ? std::vector<std::string>{"{}", "a picture of {}"} : std::vector<std::string>{"a photo of a {}."};
  return templates;
}

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  auto labels = o.labels;
  if (!o.labels_file.empty())
    for (auto& line : read_lines(o.labels_file)) labels.push_back(std::move(line));
  check(!labels.empty(), "zero_shot", "expected labels: --label TEXT (repeatable) or --labels FILE");
  check(!o.images.empty(), "zero_shot", "expected pictures: --image FILE_OR_FOLDER (repeatable)");
  const auto templates = templates_of(o);
  for (const auto& text : templates) fill_template(text, "");
  const auto files = list_pictures(o.images);
  const auto clip = o.load("zero_shot");
  const auto pictures = embed_pictures(clip, files, o, true);
  const Tensor<float> probabilities = clip.zero_shot(pictures.features, labels, templates);

  if (!o.save_probs.empty()) {
    save_npy(o.save_probs, probabilities);
    std::cerr << "wrote " << o.save_probs << ": [" << pictures.read.size() << ", " << labels.size() << "] float32\n";
  }
  const std::size_t top = std::min(static_cast<std::size_t>(o.top), labels.size());
  nlohmann::json rows = nlohmann::json::array();
  for (std::size_t n = 0; n < pictures.read.size(); ++n) {
    const float* row = probabilities.data() + n * labels.size();
    std::vector<std::size_t> order(labels.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return row[a] > row[b]; });
    nlohmann::json best = nlohmann::json::array();
    if (!o.json) std::cout << files[pictures.read[n]] << '\n';
    for (std::size_t k = 0; k < top; ++k) {
      const double share = static_cast<double>(row[order[k]]);
      if (o.json)
        best.push_back({{"label", labels[order[k]]}, {"index", order[k]}, {"probability", share}});
      else
        std::cout << "  " << std::string(share < 0.1 ? 1 : 0, ' ') << fixed(100 * share, 2) << " %  " << labels[order[k]] << '\n';
    }
    if (o.json) rows.push_back({{"image", files[pictures.read[n]]}, {"labels", best}});
  }
  if (o.json) std::cout << rows.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Which of the labels each picture shows: probabilities by CLIP, no training.");
  Options o;
  o.add_to(app);
  app.add_option("--image", o.images, "Picture, or folder of pictures (repeatable)");
  app.add_option("--label", o.labels, "Label (repeatable)");
  app.add_option("--labels", o.labels_file, "File of labels, one a line");
  app.add_option("--template", o.templates, "Text around a label, with {} for it (repeatable; default: a photo of a {}.)");
  app.add_option("--templates", o.template_set, "openai80, openai7, or a file of templates: the mean over them classifies");
  app.add_option("--top", o.top, "Labels to print for each picture")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_flag("--json", o.json, "Print JSON");
  app.add_option("--save-probs", o.save_probs, "File for all probabilities, [pictures, labels] float32 .npy");
  return run_program(app, argc, argv, [&] { run(o); });
}
