// pretrain clip: trains the small CLIP that ships, from the emoji in examples/data, and writes it as a Hugging Face folder.
// pretrain diffusion: see common/diffusion_pretrain.hpp.
//
// The recipe is CLIP's (2103.00020) with patch dropout (FLIP, 2212.00794), a second loss between two views of each picture (SLIP,
// 2112.12750), an average of the weights, and a loss that leaves out captions that are true of several pictures of a batch
// (common/pairs.hpp).
#include <cstdio>
#include <fstream>
#include <iostream>

#include <CLI/CLI.hpp>

#include <tenon/clip.hpp>

#include "common/diffusion_pretrain.hpp"
#include "common/evaluate.hpp"
#include "common/plot.hpp"
#include "common/program.hpp"
#include "common/progress.hpp"
#include "common/trainer.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options {
  std::string data = default_data(), out, state;
  Index steps = 10000, batch = 128, vocabulary = 1500, context = 24, width = 128, layers = 4, text_layers = 2;
  double learning_rate = 1.5e-3, keep = 0.5, whole = 0.1, ema = 0.998, grey = 0.2, second_grey = 0.5, ssl_scale = 1;
  int threads = 0;
  std::uint64_t seed = 0;
  bool resume = false, development = false;
};

class Training {
 public:
  Training(const Options& options, const EmojiSet& set, const Tokenizer& tokenizer)
      : options_(options), set_(set), tokenizer_(tokenizer), generator_(options.seed), clip_(config(options, tokenizer), generator_),
        trainer_(trainable(clip_), {.learning_rate = options.learning_rate, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.1,
                                    .decay_vectors = false, .clip_norm = 1.0}, options.ema, set.split(false)) {
    trainer_.optimizer.guard.report = [](const std::string& text) { std::cerr << text << '\n'; };
  }

  static ClipConfig config(const Options& o, const Tokenizer& tokenizer) {
    ClipConfig c;
    c.projection_dim = o.width;
    c.logit_scale_init_value = 2.659260037;
    c.text_config = {.vocab_size = tokenizer.size(), .hidden_size = o.width, .intermediate_size = 4 * o.width, .num_hidden_layers = o.text_layers,
                     .num_attention_heads = o.width / 32, .max_position_embeddings = o.context, .hidden_act = Activation::gelu,
                     .eos_token_id = tokenizer.end_id()};
    c.vision_config = {.image_size = EmojiSet::side, .patch_size = 8, .hidden_size = o.width, .intermediate_size = 4 * o.width,
                       .num_hidden_layers = o.layers, .num_attention_heads = o.width / 32, .hidden_act = Activation::gelu};
    return c;
  }

  /// One step; returns its loss.
  double step() {
    const Pairs pairs = draw_pairs(set_, trainer_.rounds, options_.batch, generator_);
    const double whole_from = (1 - options_.whole) * static_cast<double>(options_.steps);
    const double keep = static_cast<double>(trainer_.steps()) < whole_from ? options_.keep : 1.0;
    std::vector<Var<float>> views{Var<float>(view(pairs.ids, options_.grey))};
    if (options_.ssl_scale > 0) views.emplace_back(view(pairs.ids, options_.second_grey));
    const Var<float> images = clip_.visual_projection(training_features(clip_.vision_model, concat(views, 0), keep, generator_));
    const std::vector<Var<float>> of_view = chunk(images, static_cast<Index>(views.size()), 0);
    const Var<float> texts = clip_.text_features(tokenize(clip_, tokenizer_, pairs.captions));
    Var<float> loss = pair_loss(clip_, set_, pairs, of_view[0], texts);
    if (options_.ssl_scale > 0) loss = loss + view_loss(of_view[0], of_view[1]) * static_cast<float>(options_.ssl_scale);
    const Schedule schedule{Schedule::Kind::cosine, std::min<Index>(100, options_.steps / 10), options_.steps, 0.0};
    return trainer_.step(loss, schedule(trainer_.steps()), [&] { clip_.clamp_logit_scale(); });
  }

  /// The pictures of some rows, changed at random and normalised.
  Tensor<float> view(const std::vector<Index>& ids, double grey) {
    Tensor<float> pictures = augment(pick(set_.colour, ids), {.grey = grey}, generator_);
    normalise(pictures);
    return pictures;
  }

  Index steps_done() const { return trainer_.steps(); }
  Clip<float>& clip() { return clip_; }
  /// Runs `f` with the averaged weights in place.
  template <class F>
  void averaged(F&& f) {
    trainer_.averaged(f);
  }

  State state(const std::vector<double>& losses) {
    State out;
    trainer_.save(out, generator_);
    out.tensors["losses"] = raw_copy(Tensor<double>(Shape{static_cast<Index>(losses.size())}, losses));
    out.values["run"] = run_name();
    return out;
  }
  /// Goes on where a saved run stopped, if there is one; returns its losses. Throws FileError when its options were others.
  std::vector<double> resume() {
    const auto state = resumed(options_.state, run_name());
    if (!state) return {};
    trainer_.restore(*state, generator_);
    const Tensor<double> losses = Trainer::saved<double>(*state, "losses");
    return {losses.begin(), losses.end()};
  }

 private:
  std::string run_name() const {
    return join_text("steps ", options_.steps, " batch ", options_.batch, " seed ", options_.seed, " width ", options_.width, " layers ",
                     options_.layers, "+", options_.text_layers, " vocabulary ", options_.vocabulary, " lr ", options_.learning_rate, " keep ",
                     options_.keep, " grey ", options_.grey, "+", options_.second_grey, " ssl ", options_.ssl_scale, options_.development ? " development" : "");
  }

  Options options_;
  const EmojiSet& set_;
  const Tokenizer& tokenizer_;
  Generator generator_;
  Clip<float> clip_;
  Trainer trainer_;
};

/// The tokenizer that ships: merges learnt from the captions of the training characters.
Tokenizer train_tokenizer(const EmojiSet& set, const Options& options) {
  std::vector<std::string> texts;
  for (Index id : set.split(false))
    for (std::size_t t = 0; t < set.captions.size(); ++t) texts.push_back(set.caption(id, t));
  return Tokenizer(train_bpe(texts, {.vocab_size = options.vocabulary}));
}

void run(const Options& options) {
  const ThreadScope threads(options.threads);
  print_first_line("pretrain clip", "float32");
  EmojiSet set(options.data);
  if (options.development) set.use_development_split();
  const Tokenizer tokenizer = train_tokenizer(set, options);
  Training training(options, set, tokenizer);
  std::vector<double> losses;
  if (options.resume) losses = training.resume();
  if (training.steps_done() > 0) std::cerr << "resumed at step " << training.steps_done() << " of " << options.steps << '\n';
  std::cerr << set.split(false).size() << " training pictures, " << set.split(true).size() << " held out; " << tokenizer.size() << " tokens; "
            << count(params(training.clip())) << " parameters\n";

  Progress progress("training", options.steps, training.steps_done());
  const Index every = std::max<Index>(1, options.steps / 10);
  while (training.steps_done() < options.steps) {
    losses.push_back(training.step());
    const Index done = training.steps_done();
    progress.update(done, join_text("loss ", fixed(losses.back(), 3)));
    if (done % every == 0 || done == options.steps) {
      training.averaged([&] {
        const Accuracy colour = evaluate(training.clip(), tokenizer, set, set.colour, set.split(true));
        progress.note(join_text("step ", done, ": held-out colour ", colour.text()));
      });
      save_state(options.state, training.state(losses));
    }
  }
  progress.finish();
  training.averaged([&] { save_clip(training.clip(), options.out, DType::f16); });
  save_tokenizer(options.out, tokenizer);
  save_png(plot({.title = "pretrain clip", .x = "step", .y = "loss"}, {{"loss, mean of 50 steps", smooth(losses, 50)}}), options.out + "/loss.png");
  std::cout << "wrote " << options.out << " (model.safetensors, config.json, vocab.json, merges.txt, loss.png)\n";
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains the small models that ship, from examples/data.");
  app.require_subcommand(1);
  Options options;
  auto* clip = app.add_subcommand("clip", "The CLIP of pictures and captions.");
  clip->add_option("--data", options.data, "Folder of the emoji set")->capture_default_str();
  clip->add_option("--out", options.out, "Folder for the model (default: DATA/clip)");
  clip->add_option("--steps", options.steps, "Training steps")->capture_default_str()->check(CLI::PositiveNumber);
  clip->add_option("--batch", options.batch, "Pictures a step")->capture_default_str()->check(CLI::Range(2, 4096));
  clip->add_option("--lr", options.learning_rate, "Highest learning rate")->capture_default_str();
  clip->add_option("--width", options.width, "Width of both towers, a multiple of 32")->capture_default_str();
  clip->add_option("--layers", options.layers, "Layers of the vision tower")->capture_default_str();
  clip->add_option("--text-layers", options.text_layers, "Layers of the text tower")->capture_default_str();
  clip->add_option("--vocabulary", options.vocabulary, "Tokens that the tokenizer learns")->capture_default_str();
  clip->add_option("--keep", options.keep, "Share of patches that patch dropout keeps")->capture_default_str()->check(CLI::Range(0.05, 1.0));
  clip->add_option("--grey", options.grey, "Share of pictures shown without colours")->capture_default_str()->check(CLI::Range(0.0, 1.0));
  clip->add_option("--second-grey", options.second_grey, "The same for each picture's second view")->capture_default_str()->check(CLI::Range(0.0, 1.0));
  clip->add_option("--ssl-scale", options.ssl_scale, "Weight of the loss between two views of a picture (0: none)")->capture_default_str()->check(CLI::NonNegativeNumber);
  clip->add_flag("--development", options.development, "Hold out training characters instead: for choosing settings without looking at the test");
  clip->add_option("--seed", options.seed, "Seed")->capture_default_str();
  clip->add_option("--threads", options.threads, "Threads (0: all available)")->capture_default_str();
  clip->add_flag("--resume", options.resume, "Go on with an interrupted run");

  DiffusionPretrainOptions latent;
  auto* diffusion = app.add_subcommand("diffusion", "The latent diffusion model of pictures from words.");
  diffusion->add_option("--data", latent.data, "Folder of the emoji set")->capture_default_str();
  diffusion->add_option("--clip", latent.clip, "Folder of the CLIP whose text tower is used (default: DATA/clip)");
  diffusion->add_option("--out", latent.out, "Folder for the model (default: DATA/diffusion)");
  diffusion->add_option("--from", latent.from, "Folder of an earlier such model to start from (default: random weights)");
  diffusion->add_option("--vae-steps", latent.vae_steps, "Training steps of the autoencoder")->capture_default_str()->check(CLI::PositiveNumber);
  diffusion->add_option("--vae-batch", latent.vae_batch, "Pictures of each")->capture_default_str()->check(CLI::PositiveNumber);
  diffusion->add_option("--vae-lr", latent.vae_learning_rate, "Its highest learning rate")->capture_default_str();
  diffusion->add_option("--steps", latent.steps, "Training steps of the U-Net")->capture_default_str()->check(CLI::PositiveNumber);
  diffusion->add_option("--batch", latent.batch, "Pictures of each")->capture_default_str()->check(CLI::PositiveNumber);
  diffusion->add_option("--lr", latent.learning_rate, "Its highest learning rate")->capture_default_str();
  diffusion->add_option("--width", latent.width, "Its channels at full size, a multiple of 8")->capture_default_str();
  diffusion->add_option("--views", latent.views, "Latents kept of each picture: as it is, and moved a little")->capture_default_str()->check(CLI::PositiveNumber);
  diffusion->add_option("--ema", latent.ema, "Decay of the average of its weights")->capture_default_str()->check(CLI::Range(0.0, 1.0));
  diffusion->add_option("--caption-dropout", latent.caption_dropout, "Share of captions left out, for guidance")->capture_default_str()->check(CLI::Range(0.0, 1.0));
  diffusion->add_option("--painted", latent.painted, "Share of pictures in one colour, which their captions name")->capture_default_str()->check(CLI::Range(0.0, 1.0));
  diffusion->add_option("--min-snr", latent.snr_gamma, "Gamma of the weights")->capture_default_str()->check(CLI::PositiveNumber);
  diffusion->add_option("--guidance", latent.guidance, "Guidance of the sample pictures")->capture_default_str();
  diffusion->add_option("--seed", latent.seed, "Seed")->capture_default_str();
  diffusion->add_option("--threads", latent.threads, "Threads (0: all available)")->capture_default_str();
  diffusion->add_flag("--resume", latent.resume, "Go on with an interrupted run");
  return run_program(app, argc, argv, [&] {
    if (diffusion->parsed()) {
      pretrain_diffusion(latent);
      return;
    }
    if (options.out.empty()) options.out = options.data + "/clip";
    options.state = options.out + ".state";
    run(options);
  });
}
