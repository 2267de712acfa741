// embed: pictures and texts as CLIP features, one row each, in a .npy file with the names beside it.
#include <nlohmann/json.hpp>

#include "common/clip_options.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options : ClipOptions {
  std::vector<std::string> images, texts;
  std::string texts_file, out;
  bool normalize = true, json = false;
};

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  auto texts = o.texts;
  if (!o.texts_file.empty())
    for (auto& line : read_lines(o.texts_file)) texts.push_back(std::move(line));
  check(!o.images.empty() || !texts.empty(), "embed", "expected --image FILE_OR_FOLDER or --text TEXT");
  const auto files = list_pictures(o.images);
  const auto clip = o.load("embed");
  std::vector<std::string> names;
  Tensor<float> pictures, words;
  if (!files.empty()) {
    auto embedded = embed_pictures(clip, files, o, o.normalize);
    for (const auto n : embedded.read) names.push_back(files[n]);
    pictures = std::move(embedded.features);
  }
  if (!texts.empty()) words = clip.embed_texts(texts, o.normalize);
  names.insert(names.end(), texts.begin(), texts.end());

  const Index width = clip.model.config.projection_dim;
  auto features = Tensor<float>::uninitialized({static_cast<Index>(names.size()), width});
  float* to = features.data();
  if (!files.empty()) to = std::copy_n(pictures.data(), pictures.size(), to);
  if (!texts.empty()) std::copy_n(words.data(), words.size(), to);

  if (!o.out.empty()) {
    save_npy(o.out, features);
    std::string list;
    for (auto name : names) {
      std::replace(name.begin(), name.end(), '\n', ' ');
      list += name + '\n';
    }
    const std::string beside = std::filesystem::path(o.out).replace_extension(".txt").string();
    atomic_write(beside, [&](FileSink& sink) { sink.write(list); });
    std::cerr << "wrote " << o.out << ": [" << names.size() << ", " << width << "] float32, names in " << beside << '\n';
  }
  if (o.json) {
    nlohmann::json rows = nlohmann::json::array();
    for (std::size_t n = 0; n < names.size(); ++n) {
      const float* row = features.data() + static_cast<Index>(n) * width;
      rows.push_back({{"name", names[n]}, {"kind", n + texts.size() < names.size() ? "image" : "text"}, {"features", std::vector<float>(row, row + width)}});
    }
    std::cout << rows.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  } else if (o.out.empty()) {
    for (std::size_t n = 0; n < names.size(); ++n) {
      const float* row = features.data() + static_cast<Index>(n) * width;
      std::cout << names[n];
      for (Index i = 0; i < std::min<Index>(4, width); ++i) std::cout << "  " << fixed(static_cast<double>(row[i]), 5);
      std::cout << (width > 4 ? "  ...\n" : "\n");
    }
    std::cerr << "the first of " << width << " values each; --out FILE.npy writes all\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("CLIP features of pictures and texts: a row each, pictures first, each in the order given.");
  Options o;
  o.add_to(app);
  app.add_option("--image", o.images, "Picture, or folder of pictures (repeatable)");
  app.add_option("--text", o.texts, "Text (repeatable)");
  app.add_option("--texts", o.texts_file, "File of texts, one a line");
  app.add_flag("--normalize,!--raw", o.normalize, "Features of length 1 (the default), or as the model gives them (--raw)");
  app.add_option("--out", o.out, "File for the features, [N, D] float32; the names go beside it as .txt");
  app.add_flag("--json", o.json, "Names and features as JSON on standard output");
  return run_program(app, argc, argv, [&] { run(o); });
}
