// gallery: what the small diffusion model makes of 24 captions that it was trained on and of 24 combinations of words that it never
// saw, each beside the training picture nearest to it, with CLIP's score; or, with --styles, of the same prompts plain, in each
// style, and in both. Nothing is picked: captions are taken from the table at equal distances, and each has the same seed.
#include <iostream>

#include <nlohmann/json.hpp>

#include <tenon/clip.hpp>

#include "common/contact_sheet.hpp"
#include "common/diffusion_model.hpp"
#include "common/emoji.hpp"
#include "common/program.hpp"
#include "common/progress.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options {
  std::string model, data = default_data(), out = "gallery.png", json;
  Index count = 24, steps = 50;
  double guidance = shipped_guidance;
  std::uint64_t seed = 0;
  int threads = 0;
  bool styles = false;
};

/// `count` of a list, at equal distances.
std::vector<std::string> spread(const std::vector<std::string>& all, Index count) {
  std::vector<std::string> out;
  const auto size = static_cast<Index>(all.size());
  for (Index i = 0; i < std::min(count, size); ++i) out.push_back(all[static_cast<std::size_t>(i * size / std::min(count, size))]);
  return out;
}

/// Names of training characters.
std::vector<std::string> seen_captions(const EmojiSet& set) {
  std::vector<std::string> out;
  for (const Index id : set.split(false)) out.push_back(in_words(set.rows[static_cast<std::size_t>(id)].name));
  return out;
}

/// Every colour with every thing of coloured_things, where no character has that name.
std::vector<std::string> unseen_captions(const EmojiSet& set) {
  std::set<std::string> names;
  std::vector<std::string> out;
  for (const auto& row : set.rows) names.insert(in_words(row.name));
  for (const auto& thing : coloured_things(set))
    for (const NamedColour& colour : plain_colours)
      if (const std::string caption = std::string(colour.name) + " " + thing; !names.contains(caption)) out.push_back(caption);
  return out;
}

/// Values 0..1, [1, side, side, 3].
Tensor<float> values_of(const Image& image) {
  auto out = Tensor<float>::uninitialized({1, image.height, image.width, 3});
  for (Index i = 0; i < out.size(); ++i) out.data()[i] = static_cast<float>(image.pixels[static_cast<std::size_t>(i)]) / 255.0f;
  return out;
}

/// The training picture nearest to these values, and the root mean square of their differences.
std::pair<Index, double> nearest_training_picture(const EmojiSet& set, const Tensor<float>& picture) {
  std::pair<Index, double> best{-1, 0};
  for (const Index id : set.split(false)) {
    const float* other = set.colour.data() + id * picture.size();
    double sum = 0;
    for (Index i = 0; i < picture.size(); ++i) sum += static_cast<double>((picture.data()[i] - other[i]) * (picture.data()[i] - other[i]));
    if (best.first < 0 || sum < best.second) best = {id, sum};
  }
  return {best.first, std::sqrt(best.second / static_cast<double>(picture.size()))};
}

class Gallery {
 public:
  explicit Gallery(const Options& o) : o_(o), set_(o.data), pipe_(StableDiffusion<float>::load(o.model)), clip_(load_clip<float>(o.data + "/clip")), tokenizer_(load_tokenizer(o.data + "/clip")) {}

  void captions() {
    const auto seen = spread(seen_captions(set_), o_.count), unseen = spread(unseen_captions(set_), o_.count);
    std::vector<Tile> tiles;
    nlohmann::json rows = nlohmann::json::array();
    Progress progress("pictures", static_cast<std::int64_t>(seen.size() + unseen.size()));
    for (const auto* list : {&seen, &unseen}) {
      double score = 0, distance = 0;
      for (const auto& caption : *list) {
        Image picture = make(caption);
        const Tensor<float> values = values_of(picture);
        const auto [nearest, far] = nearest_training_picture(set_, values);
        const double fits = clip_score(values, caption);
        score += fits / static_cast<double>(list->size()), distance += far / static_cast<double>(list->size());
        rows.push_back({{"caption", caption}, {"seen", list == &seen}, {"clip_score", fits}, {"nearest", set_.rows[static_cast<std::size_t>(nearest)].name}, {"distance", far}});
        tiles.push_back({beside(picture, nearest), {{caption}, {"CLIP " + fixed(fits, 1) + ", distance " + fixed(far, 2)}}});
        progress.update(static_cast<std::int64_t>(tiles.size()));
      }
      progress.note(join_text(list->size(), list == &seen ? " captions of the training" : " combinations never seen", ": CLIP score ", fixed(score, 1), ", distance ", fixed(distance, 3)));
    }
    progress.finish();
    save_png(contact_sheet(tiles, {.title = "made | nearest training picture: captions of the training, then combinations never seen", .columns = 6, .letters = 24}), o_.out);
    if (!o_.json.empty()) save_json(o_.json, rows);
    std::cout << "wrote " << o_.out << '\n';
  }

  void styles() {
    const std::vector<std::string> prompts{"red apple", "grinning face", "house", "cat face", "crescent moon", "sailboat"};
    std::set<std::string> names;
    std::vector<std::string> list;
    for (const char* style : {"line-art", "neon"}) list.push_back(attach_adapter(pipe_, style, true, names));
    std::vector<Tile> tiles;
    Progress progress("pictures", static_cast<std::int64_t>(4 * prompts.size()));
    for (const auto& [first, second] : {std::pair{0.0, 0.0}, {1.0, 0.0}, {0.0, 1.0}, {0.5, 0.5}}) {
      set_scale(pipe_, list[0], first);
      set_scale(pipe_, list[1], second);
      for (const auto& prompt : prompts) {
        const std::string style = first + second == 0 ? "plain" : first == second ? "both at 0.5" : first > 0 ? list[0] : list[1];
        tiles.push_back({make(prompt), {{prompt}, {style}}});
        progress.update(static_cast<std::int64_t>(tiles.size()));
      }
    }
    progress.finish();
    save_png(contact_sheet(tiles, {.columns = static_cast<Index>(prompts.size()), .zoom = 2, .letters = 16}), o_.out);
    std::cout << "wrote " << o_.out << '\n';
  }

 private:
  Image make(const std::string& caption) const { return pipe_(caption, {.steps = o_.steps, .guidance_scale = o_.guidance, .seed = o_.seed}); }

  /// 100 times the cosine of picture and caption.
  double clip_score(Tensor<float> values, const std::string& caption) const {
    const NoGrad no_grad;
    normalise(values);
    const Var<float> picture = l2_normalize(clip_.image_features(Var<float>(std::move(values))));
    const Var<float> text = l2_normalize(clip_.text_features(tokenize(clip_, tokenizer_, std::vector<std::string>{caption})));
    return 100 * static_cast<double>(sum(picture * text).item());
  }

  Image beside(const Image& picture, Index training) const {
    Image out(picture.height, 2 * picture.width + 4, 3, 255);
    draw_image(out, 0, 0, picture, 1);
    const std::vector<Index> one{training};
    draw_image(out, 0, picture.width + 4, as_image(pick(set_.colour, one).reshape({EmojiSet::side, EmojiSet::side, 3})), 1);
    return out;
  }

  Options o_;
  EmojiSet set_;
  StableDiffusion<float> pipe_;
  Clip<float> clip_;
  Tokenizer tokenizer_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("A sheet of what the small diffusion model makes of captions, seen and unseen in training; or of prompts in each style.");
  Options o;
  app.add_option("--model", o.model, "Folder of a diffusion model trained by pretrain (default: the one that ships)");
  app.add_option("--data", o.data, "Folder of the emoji set")->capture_default_str();
  app.add_flag("--styles", o.styles, "The same prompts plain, with each LoRA that ships, and with both at half scale");
  app.add_option("--count", o.count, "Captions of each kind")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--steps", o.steps, "Steps of each picture")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--guidance", o.guidance, "Guidance scale")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--seed", o.seed, "Seed of every picture")->capture_default_str();
  app.add_option("--threads", o.threads, "Threads (0: all available)")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--out", o.out, "The sheet")->capture_default_str();
  app.add_option("--json", o.json, "File for captions, scores and distances");
  return run_program(app, argc, argv, [&] {
    const ThreadScope threads(o.threads);
    print_first_line("gallery", "float32");
    if (o.model.empty()) o.model = shipped_diffusion();
    Gallery gallery(o);
    o.styles ? gallery.styles() : gallery.captions();
  });
}
