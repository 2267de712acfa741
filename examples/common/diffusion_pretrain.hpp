#pragma once
// pretrain diffusion: trains the small latent diffusion model that ships, from the emoji and the text tower of the CLIP that
// ships, and writes it as a diffusers folder.
//
// First an autoencoder, then, on its latents, a U-Net (Rombach et al. 2021, 2112.10752) that predicts v on a schedule that ends
// in pure noise (Lin et al. 2023, 2305.08891), with min-SNR weights and captions dropped for guidance. A share of the pictures is
// painted in one colour, which stands before their names, so that colours are learnt apart from things. Latents and text states are
// computed once.
#include <filesystem>
#include <iostream>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include <tenon/clip.hpp>
#include <tenon/models/diffusion/autoencoder_kl.hpp>
#include <tenon/models/diffusion/pipeline.hpp>
#include <tenon/models/diffusion/training.hpp>
#include <tenon/models/diffusion/unet.hpp>

#include "contact_sheet.hpp"
#include "plot.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "trainer.hpp"

namespace tenon::examples {

struct DiffusionPretrainOptions {
  std::string data = default_data(), clip, from, out, state;
  Index vae_steps = 2500, vae_batch = 12, steps = 6000, batch = 48, width = 32, views = 4;
  double vae_learning_rate = 2e-3, learning_rate = 1e-3, ema = 0.9995, caption_dropout = 0.1, painted = 0.2, snr_gamma = 5, guidance = 3;
  int threads = 0;
  std::uint64_t seed = 0;
  bool resume = false;

  std::string text() const {
    return join_text("vae steps ", vae_steps, " batch ", vae_batch, " lr ", vae_learning_rate, "; steps ", steps, " batch ", batch, " width ", width, " views ",
                     views, " lr ", learning_rate, " ema ", ema, " dropout ", caption_dropout, " painted ", painted, " from ", from, " gamma ", snr_gamma, " seed ", seed);
  }
};

/// 64x64 pixels to 16x16 latents of 4 channels.
inline AutoencoderKlConfig small_autoencoder() {
  AutoencoderKlConfig c;
  c.block_out_channels = {24, 48, 64};
  c.layers_per_block = 1;
  c.norm_num_groups = 8;
  c.sample_size = EmojiSet::side;
  return c;
}
/// Attention to itself and to the text at 16x16, 8x8 and 4x4.
inline UnetConfig small_unet(Index width, Index text_width) {
  UnetConfig c;
  c.sample_size = EmojiSet::side / small_autoencoder().scale();
  c.block_out_channels = {width, 2 * width, 3 * width};
  c.down_block_types.assign(3, UnetBlockType::cross_attention);
  c.up_block_types.assign(3, UnetBlockType::cross_attention);
  c.layers_per_block = {1};
  c.attention_head_dim = {2, 4, 6};
  c.cross_attention_dim = {text_width};
  c.norm_num_groups = 8;
  c.use_linear_projection = true;
  return c;
}
/// The schedule of training, and how the pipeline samples unless it is told otherwise.
inline nlohmann::json small_scheduler() {
  return {{"_class_name", "DDIMScheduler"},    {"num_train_timesteps", 1000},   {"beta_schedule", "scaled_linear"}, {"beta_start", 0.00085},
          {"beta_end", 0.012},                 {"prediction_type", "v_prediction"}, {"rescale_betas_zero_snr", true},   {"timestep_spacing", "trailing"},
          {"clip_sample", false},              {"set_alpha_to_one", true},          {"steps_offset", 1}};
}

/// The states of captions by the frozen text tower, each computed once.
class TextStates {
 public:
  TextStates(const Clip<float>& clip, const Tokenizer& tokenizer) : clip_(clip), tokenizer_(tokenizer) {}
  Index width() const { return clip_.config.text_config.hidden_size; }
  /// [N, context, D], padded as a pipeline pads.
  Tensor<float> operator()(std::span<const std::string> captions) {
    const NoGrad no_grad;
    std::vector<std::string> unknown;
    for (const auto& caption : captions)
      if (states_.emplace(caption, Tensor<float>()).second) unknown.push_back(caption);
    const Index context = clip_.config.text_config.max_position_embeddings, each = context * width();
    if (!unknown.empty()) {
      const Tensor<float> made = clip_.text_model(tokenizer_(unknown, context)).last_hidden_state.value();
      for (std::size_t i = 0; i < unknown.size(); ++i)
        states_[unknown[i]] = Tensor<float>(Shape{context, width()}, std::span<const float>(made.data() + static_cast<Index>(i) * each, static_cast<std::size_t>(each)));
    }
    auto out = Tensor<float>::uninitialized({static_cast<Index>(captions.size()), context, width()});
    for (std::size_t i = 0; i < captions.size(); ++i) std::copy_n(states_[captions[i]].data(), each, out.data() + static_cast<Index>(i) * each);
    return out;
  }

 private:
  const Clip<float>& clip_;
  const Tokenizer& tokenizer_;
  std::unordered_map<std::string, Tensor<float>> states_;
};

class DiffusionPretraining {
 public:
  explicit DiffusionPretraining(const DiffusionPretrainOptions& o)
      : o_(o), set_(o.data), clip_(load_clip<float>(o.clip)), tokenizer_(load_tokenizer(o.clip)), texts_(clip_, tokenizer_), generator_(o.seed),
        vae_(small_autoencoder(), generator_), unet_(small_unet(o.width, texts_.width()), generator_),
        vae_trainer_(trainable(vae_), {.learning_rate = o.vae_learning_rate, .beta2 = 0.99, .clip_norm = 1.0}, 0.998, set_.split(false)),
        trainer_(trainable(unet_), {.learning_rate = o.learning_rate, .beta2 = 0.99, .decay_vectors = false, .clip_norm = 1.0}, o.ema, set_.split(false)) {
    if (o.from.empty()) {
      vae_.quant_conv->bias->update([](Tensor<float>& bias) {  // small variances: at first the draws' noise would drown the means
        std::fill(bias.begin() + bias.size() / 2, bias.end(), -6.0f);
      });
    } else {
      start_from(vae_, load_autoencoder_kl<float>(o.from + "/vae"));
      start_from(unet_, load_unet<float>(o.from + "/unet"));
    }
    for (Trainer* trainer : {&vae_trainer_, &trainer_}) trainer->optimizer.guard.report = [](const std::string& text) { std::cerr << text << '\n'; };
  }

  void run() {
    std::cerr << set_.split(false).size() << " training pictures; autoencoder " << count(params(vae_)) << " parameters, U-Net " << count(params(unet_)) << '\n';
    if (o_.resume) resume();
    if (!vae_done_) train_autoencoder();
    cache_latents();
    train_unet();
    trainer_.averaged([&] { save(); });
    std::cout << "wrote " << o_.out << " (model_index.json and the folders that it names, loss_autoencoder.png, loss_unet.png, samples.png)\n";
  }

 private:
  /// The elements of an earlier model in the place of random ones.
  template <class M>
  static void start_from(M& model, M earlier) {
    const auto source = params(earlier), target = params(model);
    check<NameError>(source.size() == target.size(), "pretrain", "expected a model of ", target.size(), " parameters, as the options say, got ", source.size());
    for (std::size_t i = 0; i < source.size(); ++i) {
      check<ShapeError>(source[i].weight->shape() == target[i].weight->shape(), "pretrain", target[i].path, ": expected shape ", target[i].weight->shape(),
                        ", as the options say, got ", source[i].weight->shape());
      target[i].weight->set(source[i].weight->values());
    }
  }
  /// Pictures [N, 64, 64, 3] in -1..1 of some rows, painted in a colour if one is given, a share of them as line art, a share light on
  /// dark.
  Tensor<float> pictures(std::span<const Index> ids, double line_art, double inverted, const Augment& how, const NamedColour* colour = nullptr) {
    Tensor<float> out = pick(set_.colour, ids);
    if (colour) out = painted(out, colour->rgb);
    const Tensor<float> drawn = pick(set_.line_art, ids);
    const Index each = out.size() / out.extent(0);
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (generator_.uniform<double>() < line_art && set_.rows[static_cast<std::size_t>(ids[i])].has_line_art)
        std::copy_n(drawn.data() + static_cast<Index>(i) * each, each, out.data() + static_cast<Index>(i) * each);
    out = augment(out, how, generator_);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const float sign = generator_.uniform<double>() < inverted ? -1.0f : 1.0f;
      float* picture = out.data() + static_cast<Index>(i) * each;
      for (Index k = 0; k < each; ++k) picture[k] = sign * (2 * picture[k] - 1);
    }
    return out;
  }
  static constexpr Augment gentle{.rotation = 4, .smallest = 0.85, .largest = 1.05, .aspect = 0.04, .mirror = 0, .shift = 0.05, .ink = 0, .hue = 0};

  void train_autoencoder() {
    Progress progress("autoencoder", o_.vae_steps, vae_trainer_.steps());
    while (vae_trainer_.steps() < o_.vae_steps) {
      std::vector<Index> ids;
      for (Index i = 0; i < o_.vae_batch; ++i) ids.push_back(vae_trainer_.rounds.next(generator_));
      const Tensor<float> batch = pictures(ids, 0.25, 0.1, {.ink = 0.3, .hue = 60});
      const auto posterior = vae_.encode(Var<float>(batch));
      const Var<float> loss = autoencoder_loss(vae_.decode(posterior.sample(generator_)), batch, posterior, {.squared_weight = 1});
      const Schedule schedule{Schedule::Kind::cosine, std::min<Index>(100, o_.vae_steps / 10), o_.vae_steps, 0.01};
      vae_losses_.push_back(vae_trainer_.step(loss, schedule(vae_trainer_.steps()), [] {}));
      progress.update(vae_trainer_.steps(), join_text("loss ", fixed(vae_losses_.back(), 4)));
      if (due(vae_trainer_.steps(), o_.vae_steps)) keep();
    }
    progress.finish();
    vae_trainer_.average.swap();  // from here on the average is the autoencoder
    vae_done_ = true;
  }

  /// Moments of every training picture, as it is and in further views, then painted in each colour; the factor that gives the draws
  /// of the first unit variance.
  void cache_latents() {
    const NoGrad no_grad;
    freeze(vae_);
    const Generator before = generator_;
    generator_ = Generator(o_.seed + 1);  // the same views after a resume
    const auto ids = set_.split(false);
    row_of_.assign(set_.rows.size(), 0);
    for (std::size_t i = 0; i < ids.size(); ++i) row_of_[static_cast<std::size_t>(ids[i])] = static_cast<Index>(i);
    double sum = 0, squares = 0, total = 0;
    const Index colours = o_.painted > 0 ? static_cast<Index>(plain_colours.size()) : 0;
    Progress progress("latents", o_.views + colours);
    means_.clear();
    logvars_.clear();
    for (Index view = 0; view < o_.views + colours; ++view) {
      std::vector<Var<float>> means, logvars;
      const NamedColour* colour = view < o_.views ? nullptr : &plain_colours[static_cast<std::size_t>(view - o_.views)];
      for (std::size_t i = 0; i < ids.size(); i += 64) {
        const std::span<const Index> some(ids.data() + i, std::min<std::size_t>(64, ids.size() - i));
        const Augment none{.rotation = 0, .smallest = 1, .largest = 1, .aspect = 0, .mirror = 0, .shift = 0, .ink = 0, .hue = 0};
        const auto posterior = vae_.encode(Var<float>(pictures(some, 0, 0, view == 0 ? none : gentle, colour)));
        means.push_back(posterior.mean);
        logvars.push_back(posterior.logvar);
        if (colour) continue;
        const Tensor<float> drawn = posterior.sample(generator_).value();
        for (const float z : drawn) sum += static_cast<double>(z), squares += static_cast<double>(z) * static_cast<double>(z), ++total;
      }
      means_.push_back(concat<float>(means, 0).value());
      logvars_.push_back(concat<float>(logvars, 0).value());
      progress.update(view + 1);
    }
    progress.finish();
    vae_.config.scaling_factor = 1 / std::sqrt(squares / total - sum / total * (sum / total));
    generator_ = before;
  }
  /// A draw of the latents of some rows in some views, scaled for the U-Net.
  Tensor<float> latents(std::span<const Index> ids, std::span<const Index> views) {
    const Index each = means_[0].size() / means_[0].extent(0);
    const Shape shape = means_[0].shape().with(0, static_cast<Index>(ids.size()));
    auto mean = Tensor<float>::uninitialized(shape), logvar = Tensor<float>::uninitialized(shape);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto view = static_cast<std::size_t>(views[i]);
      const Index from = row_of_[static_cast<std::size_t>(ids[i])] * each, to = static_cast<Index>(i) * each;
      std::copy_n(means_[view].data() + from, each, mean.data() + to);
      std::copy_n(logvars_[view].data() + from, each, logvar.data() + to);
    }
    return vae_.scale_latents(DiagonalGaussian<float>(concat<float>({Var<float>(mean), Var<float>(logvar)}, 3)).sample(generator_)).value();
  }

  void train_unet() {
    const auto scheduler = make_scheduler("ddim", scheduler_config());
    const DiffusionObjective objective{.prediction = PredictionType::v_prediction, .snr_gamma = o_.snr_gamma};
    std::vector<std::size_t> naming;
    for (std::size_t t = 0; t < set_.captions.size(); ++t)
      if (set_.level(t) == 2) naming.push_back(t);
    const auto any = [&](auto& list) { return list[static_cast<std::size_t>(generator_.integer(0, static_cast<std::int64_t>(std::size(list))))]; };
    const std::vector<bool> paintable = paintable_rows();
    Progress progress("U-Net", o_.steps, trainer_.steps());
    while (trainer_.steps() < o_.steps) {
      Pairs pairs = draw_pairs(set_, trainer_.rounds, o_.batch, generator_);
      std::vector<Index> views;
      for (std::size_t i = 0; i < pairs.ids.size(); ++i) {  // four captions in five name the character
        views.push_back(generator_.integer(0, o_.views));
        if (generator_.uniform<double>() < 0.8) pairs.captions[i] = set_.caption(pairs.ids[i], any(naming));
        if (generator_.uniform<double>() < o_.painted && paintable[static_cast<std::size_t>(pairs.ids[i])]) {
          const auto colour = static_cast<std::size_t>(generator_.integer(0, static_cast<std::int64_t>(plain_colours.size())));
          views.back() = o_.views + static_cast<Index>(colour);
          pairs.captions[i] = set_.caption(pairs.ids[i], any(naming), std::string(plain_colours[colour].name) + " ");
        }
        if (generator_.uniform<double>() < o_.caption_dropout) pairs.captions[i].clear();
      }
      const auto batch = noisy_batch<float>(scheduler->schedule(), latents(pairs.ids, views), generator_, objective);
      const Var<float> loss = diffusion_loss(unet_(Var<float>(batch.noisy), batch.timesteps, {.states = Var<float>(texts_(pairs.captions))}), batch);
      const Schedule schedule{Schedule::Kind::cosine, std::min<Index>(200, o_.steps / 10), o_.steps, 0.0};
      losses_.push_back(trainer_.step(loss, schedule(trainer_.steps()), [] {}));
      progress.update(trainer_.steps(), join_text("loss ", fixed(losses_.back(), 4)));
      if (due(trainer_.steps(), o_.steps)) keep();
      if (trainer_.steps() % std::max<Index>(1, o_.steps / 10) == 0 || trainer_.steps() == o_.steps) {
        trainer_.averaged([&] { save_png(samples(), o_.out + "/samples.png"); });
        progress.note(join_text("step ", trainer_.steps(), ": ", o_.out, "/samples.png"));
      }
    }
    progress.finish();
  }
  /// Rows that may be painted: no name that has a colour already, and none that a colour makes one of the gallery's combinations, which
  /// are never to be seen.
  std::vector<bool> paintable_rows() const {
    const std::vector<std::string> things = coloured_things(set_);
    std::vector<bool> out;
    for (const Emoji& row : set_.rows) {
      const std::string name = in_words(row.name), padded = " " + name + " ";
      bool fits = std::find(things.begin(), things.end(), name) == things.end();
      for (const NamedColour& colour : plain_colours) fits = fits && padded.find(" " + std::string(colour.name) + " ") == std::string::npos;
      out.push_back(fits);
    }
    return out;
  }
  static bool due(Index done, Index steps) { return done == steps || done % std::max<Index>(1, steps / 20) == 0; }

  static SchedulerConfig scheduler_config() { return read_scheduler_config(Json::parse(small_scheduler().dump(), "scheduler_config.json")); }

  /// What the U-Net makes of some captions, seen and unseen.
  Image samples() {
    const NoGrad no_grad;
    const std::vector<std::string> captions{"red apple", "grinning face", "red heart", "house", "cat face", "blue book", "sun", "green apple",
                                            "blue heart", "dog face", "crescent moon", "yellow car"};
    const Index n = static_cast<Index>(captions.size());
    std::vector<std::string> both(captions.size());
    both.insert(both.end(), captions.begin(), captions.end());
    const UnetConditions<float> conditions{.states = Var<float>(texts_(both))};
    auto state = text_to_image<float>(make_scheduler("ddim", scheduler_config()), {n, 4, 16, 16}, Generator(0), {.steps = 20, .guidance_scale = o_.guidance});
    denoise(state, [&](const Tensor<float>& x, float t) {
      return channels_first(unet_(Var<float>(channels_last(x)), Tensor<float>::of({t}), conditions).value());
    });
    const Var<float> made = vae_.decode(vae_.unscale_latents(Var<float>(channels_last(state.latents))));
    std::vector<Tile> tiles;
    for (Index i = 0; i < n; ++i) tiles.push_back({picture_of(slice(made, 0, i, i + 1).value()), {{captions[static_cast<std::size_t>(i)]}}});
    return contact_sheet(tiles, {.columns = 6, .zoom = 2});
  }

  void keep() {
    State out;
    (vae_done_ ? trainer_ : vae_trainer_).save(out, generator_);
    if (vae_done_)
      for (const auto& ref : params(vae_)) out.tensors["vae." + ref.path] = raw_copy(ref.weight->value());
    const auto list = [](const std::vector<double>& x) { return raw_copy(Tensor<double>(Shape{static_cast<Index>(x.size())}, x)); };
    out.tensors["losses.autoencoder"] = list(vae_losses_);
    out.tensors["losses.unet"] = list(losses_);
    out.values["run"] = o_.text();
    save_state(o_.state, out);
  }
  void resume() {
    const auto state = resumed(o_.state, o_.text());
    if (!state) return;
    const auto list = [&](const char* name) {
      const Tensor<double> x = Trainer::saved<double>(*state, name);
      return std::vector<double>(x.begin(), x.end());
    };
    vae_losses_ = list("losses.autoencoder");
    losses_ = list("losses.unet");
    vae_done_ = state->tensors.contains("vae.encoder.conv_in.weight");
    (vae_done_ ? trainer_ : vae_trainer_).restore(*state, generator_);
    if (vae_done_)
      for (const auto& ref : params(vae_)) ref.weight->set(Trainer::saved<float>(*state, "vae." + ref.path));
    std::cerr << "resumed at step " << (vae_done_ ? trainer_ : vae_trainer_).steps() << " of the " << (vae_done_ ? "U-Net" : "autoencoder") << '\n';
  }

  void save() {
    constexpr DType dtype = DType::f16;
    const auto folder = [&](const char* name) {
      std::filesystem::create_directories(o_.out + "/" + name);
      return o_.out + "/" + name;
    };
    save_unet(unet_, folder("unet"), dtype);
    save_autoencoder_kl(vae_, folder("vae"), dtype);
    auto tower = params(clip_.text_model);
    for (auto& ref : tower) ref.path = "text_model." + ref.path;
    save_params(folder("text_encoder") + "/model.safetensors", tower, {{"format", "pt"}}, dtype);
    nlohmann::json text = write_clip_config(clip_.config)["text_config"];
    text["architectures"] = {"CLIPTextModel"};
    save_json(o_.out + "/text_encoder/config.json", text);
    save_tokenizer(folder("tokenizer"), tokenizer_);
    save_json(o_.out + "/tokenizer/tokenizer_config.json",
              {{"tokenizer_class", "CLIPTokenizer"}, {"model_max_length", clip_.config.text_config.max_position_embeddings},
               {"bos_token", "<|startoftext|>"}, {"eos_token", "<|endoftext|>"}, {"pad_token", "<|endoftext|>"}, {"unk_token", "<|endoftext|>"}});
    save_json(folder("scheduler") + "/scheduler_config.json", small_scheduler());
    const nlohmann::json none{nullptr, nullptr};
    save_json(o_.out + "/model_index.json",
              {{"_class_name", "StableDiffusionPipeline"}, {"_diffusers_version", "0.42.1"}, {"feature_extractor", none}, {"image_encoder", none},
               {"requires_safety_checker", false}, {"safety_checker", none}, {"scheduler", {"diffusers", "DDIMScheduler"}},
               {"text_encoder", {"transformers", "CLIPTextModel"}}, {"tokenizer", {"transformers", "CLIPTokenizer"}},
               {"unet", {"diffusers", "UNet2DConditionModel"}}, {"vae", {"diffusers", "AutoencoderKL"}}});
    const auto curve = [&](const char* title, const std::vector<double>& losses) {
      return plot({.title = title, .x = "step", .y = "loss"}, {{"loss, mean of 50 steps", smooth(losses, 50)}});
    };
    save_png(curve("pretrain diffusion: autoencoder", vae_losses_), o_.out + "/loss_autoencoder.png");
    save_png(curve("pretrain diffusion: U-Net", losses_), o_.out + "/loss_unet.png");
  }

  DiffusionPretrainOptions o_;
  EmojiSet set_;
  Clip<float> clip_;
  Tokenizer tokenizer_;
  TextStates texts_;
  Generator generator_;
  AutoencoderKl<float> vae_;
  Unet2d<float> unet_;
  Trainer vae_trainer_, trainer_;
  bool vae_done_ = false;
  std::vector<double> vae_losses_, losses_;
  std::vector<Tensor<float>> means_, logvars_;  // of each view
  std::vector<Index> row_of_;                   // where a row's latents lie
};

inline void pretrain_diffusion(DiffusionPretrainOptions options) {
  const ThreadScope threads(options.threads);
  print_first_line("pretrain diffusion", "float32");
  if (options.clip.empty()) options.clip = options.data + "/clip";
  if (options.out.empty()) options.out = options.data + "/diffusion";
  options.state = options.out + ".state";
  std::filesystem::create_directories(options.out);
  DiffusionPretraining(options).run();
}

}  // namespace tenon::examples
