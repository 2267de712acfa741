#pragma once
// finetune on a diffusion model: teaches Stable Diffusion, or the small model that ships, a subject or a style by an adapter of
// its U-Net, of its text towers, or of both; or by training their own weights, all of them (full) or the biases (bitfit).
//
// As diffusers' train_text_to_image_lora.py and train_dreambooth_lora.py: the autoencoder's latents are computed once, noise and
// timesteps are drawn anew at each step, captions are dropped now and then for guidance. With --class-data each batch is followed by
// one of pictures of the class, whose loss is weighted by --prior-weight (DreamBooth, 2208.12242).
#include <array>
#include <filesystem>
#include <iostream>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include <tenon/diffusion.hpp>
#include <tenon/models/diffusion/training.hpp>
#include <tenon/peft/bitfit.hpp>
#include <tenon/peft/intrinsic.hpp>

#include "contact_sheet.hpp"
#include "diffusion_model.hpp"
#include "plot.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "trainer.hpp"
#include "tuning_data.hpp"

namespace tenon::examples {

struct DiffusionTuneOptions {
  std::string model, data = default_data(), style = "line-art", class_data, method = "lora", train = "unet", dtype = "f32", trigger, prediction, schedule = "cosine",
              prompts, format = "kohya", cache, json, out;
  std::vector<std::string> targets;
  Index rank = 8, conv_rank = 0, bottleneck = 16, length = 8, dimension = 1000, resolution = 0, steps = 1500, epochs = 0, repeats = 1, batch = 0, accumulate = 1, warmup = 50,
        sample_every = 0, save_every = 0;
  double alpha = 8, conv_alpha = 0, learning_rate = 0, text_learning_rate = 0, weight_decay = 0.01, average = 0.99, snr_gamma = 5, noise_offset = 0,
         caption_dropout = 0.1, prior_weight = 1, guidance = 0, validation = 0;
  std::uint64_t seed = 0;
  bool buckets = false, shuffle_captions = false, checkpointing = false, narrow_saved = false, resume = false;

  /// Whether the model's own weights are trained, so that what comes out is a model.
  bool whole() const { return method == "full" || method == "bitfit"; }
};

inline std::optional<DType> frozen_dtype(const std::string& name) {
  return name == "f32" ? std::nullopt : std::optional(name == "bf16" ? DType::bf16 : DType::i8);
}

/// All digits of a number, such as 1e-05.
inline std::string in_full(double x) { return nlohmann::json(x).dump(); }

/// The text of all options that change what a run computes.
inline std::string run_name(const DiffusionTuneOptions& o) {
  std::string targets;
  for (const auto& target : o.targets) targets += " target " + target;
  return join_text("model ", o.model, " data ", o.data, " style ", o.style, " class ", o.class_data, " method ", o.method, " train ", o.train, targets, " trigger ",
                   o.trigger, " prediction ", o.prediction, " rank ", o.rank, " ", o.conv_rank, " alpha ", o.alpha, " ", o.conv_alpha, " bottleneck ", o.bottleneck,
                   " length ", o.length, " dimension ", o.dimension, " resolution ", o.resolution, o.buckets ? " buckets" : "", " steps ", o.steps, " repeats ", o.repeats, " batch ", o.batch, "x",
                   o.accumulate, " warmup ", o.warmup, " schedule ", o.schedule, " lr ", in_full(o.learning_rate), " text ", in_full(o.text_learning_rate), " decay ",
                   o.weight_decay, " average ", o.average, " gamma ", o.snr_gamma, " offset ", o.noise_offset, " dropout ",
                   o.caption_dropout, o.shuffle_captions ? " shuffled" : "", " prior ", o.prior_weight, o.validation > 0 ? join_text(" validation ", o.validation) : std::string(), " dtype ", o.dtype, o.narrow_saved ? " narrow" : "", " seed ", o.seed);
}

class DiffusionTuning {
 public:
  explicit DiffusionTuning(DiffusionTuneOptions options) : o_(std::move(options)), pipe_(StableDiffusion<float>::load(o_.model, {.weights = frozen_dtype(o_.dtype)})), generator_(o_.seed) {
    const UnetConfig& c = pipe_.unet.config;
    check(c.in_channels == pipe_.vae.config.latent_channels, "finetune", o_.model, ": a U-Net of ", c.in_channels, " channels is for inpainting and cannot be tuned here");
    if (o_.resolution == 0) o_.resolution = c.sample_size * pipe_.scale();
    const Index deepest = pipe_.scale() << (c.block_out_channels.size() - 1);
    check(o_.resolution % deepest == 0, "finetune", "--resolution: expected a multiple of ", deepest, ", got ", o_.resolution);
    if (o_.batch == 0) o_.batch = c.sample_size <= 32 ? 24 : 1;
    if (o_.guidance == 0) o_.guidance = c.sample_size <= 32 ? 3 : 7.5;
    if (o_.learning_rate == 0) o_.learning_rate = (c.sample_size <= 32 ? 2e-3 : 1e-4) * (o_.method == "full" ? 0.1 : o_.method == "intrinsic" ? 5 : 1);
    check(!o_.whole() || o_.dtype == "f32", "finetune", "--dtype: ", o_.method, " trains the weights themselves, in float32; got ", o_.dtype);
    check(!o_.whole() || o_.targets.empty(), "finetune", "--target is of no use to ", o_.method);
    if (o_.whole() && std::filesystem::is_directory(o_.model))
      check(!detail::exists(o_.out) || std::filesystem::is_empty(o_.out), "finetune", "--out: expected a new or empty folder, got ", o_.out);
    check(o_.text_learning_rate == 0 || o_.train != "unet", "finetune", "--text-lr: expected --train text or both, got ", o_.train);
    const PictureFit fit{o_.resolution, o_.buckets ? deepest : 0};
    CaptionedPictures own = pictures(fit);
    std::optional<LatentCache> cache;
    if (!o_.cache.empty())
      cache = {o_.cache, join_text("model ", o_.model, " dtype ", o_.dtype, " resolution ", o_.resolution, o_.buckets ? " buckets" : "", '\n', own.origin), o_.out.empty()};
    data_ = std::make_unique<TuningData>(pipe_.vae, std::move(own), cache);
    split();
    if (!o_.class_data.empty()) class_data_ = std::make_unique<TuningData>(pipe_.vae, load_captioned_pictures(o_.class_data, fit, ""));
    if (o_.epochs > 0) o_.steps = o_.epochs * steps_per_epoch();
    attach_method();
    pipe_.unet.set_checkpointing(o_.checkpointing);
    std::vector<Index> ids;
    for (const Index i : learnt_) ids.insert(ids.end(), static_cast<std::size_t>(o_.repeats), i);
    AdamWConfig config{.learning_rate = o_.learning_rate, .beta2 = 0.99, .weight_decay = o_.weight_decay, .clip_norm = 1.0};
    if (o_.text_learning_rate > 0) config.learning_rate_pattern = {{"text_encoder", o_.text_learning_rate}};
    trainer_ = std::make_unique<Trainer>(trainable(pipe_), std::move(config), o_.average, std::move(ids));
  }

  void run() {
    std::cerr << learnt_.size() << " pictures of " << o_.resolution << " pixels; " << trained() << (o_.whole() ? " of the model's " : " parameters are trained beside the model's ")
              << count(params(pipe_)) << (o_.whole() ? " parameters are trained\n" : "\n");
    if (o_.buckets) std::cerr << "buckets: " << data_->buckets() << (class_data_ ? "; of the class: " + class_data_->buckets() : "") << '\n';
    if (o_.whole()) before_ = tiles();
    if (!held_out_.empty()) loss_before_ = validation_loss();
    if (o_.resume) resume();
    {
      Progress progress(o_.method, o_.steps, trainer_->steps());
      train(progress);
    }
    finish();
    if (!held_out_.empty()) loss_after_ = validation_loss();
    save_as(o_.out);
    const std::string stem = beside("");
    save_png(samples(), stem + ".png");
    save_png(plot({.title = "finetune", .x = "step", .y = "loss"}, {{"loss, mean of 50 steps", smooth(losses_, 50)}}), stem + "-loss.png");
    if (!o_.json.empty()) save_json(o_.json, numbers());
    if (!held_out_.empty())
      std::cout << held_out_.size() << " pictures held out: loss " << fixed(loss_before_, 4) << " before, " << fixed(loss_after_, 4) << " after\n";
    std::cout << "wrote " << o_.out << ", " << stem << ".png (pictures of " << sample_prompts().size() << " prompts " << (o_.whole() ? "before and after" : "without it and with it") << ") and " << stem << "-loss.png\n";
  }

  /// How many numbers are trained, and how many pictures are held out.
  Index trained() const { return count(trainer_->optimizer.params()); }
  Index held_out() const { return static_cast<Index>(held_out_.size()); }
  /// Trains, from where a resumed run stands on, and leaves the last weights in place; `progress` is told of the steps before
  /// these too. Where there is an --out, the state and pictures on the way are written beside it.
  void train(Progress& progress, Index before = 0, const std::string& label = "") {
    const auto scheduler = make_scheduler<float>("ddpm", pipe_.scheduler.config);
    const Schedule schedule{schedule_from_name(o_.schedule), std::min(o_.warmup, o_.steps / 2), o_.steps, 0.0};
    trainer_->optimizer.guard.report = [&](const std::string& text) { progress.note(text); };
    auto start = std::chrono::steady_clock::now();
    const auto clock = [&] {
      const auto now = std::chrono::steady_clock::now();
      seconds_ += std::chrono::duration<double>(now - start).count();
      start = now;
    };
    while (trainer_->steps() < o_.steps) {
      for (Index part = 1; part < o_.accumulate; ++part) backward(loss(scheduler->schedule(), objective()));
      losses_.push_back(static_cast<double>(o_.accumulate) * trainer_->step(loss(scheduler->schedule(), objective()), schedule(trainer_->steps()), [] {}));
      const Index done = trainer_->steps();
      progress.update(before + done, join_text(label, label.empty() ? "" : "  ", "loss ", fixed(losses_.back(), 4)));
      clock();
      if (!o_.out.empty() && done % std::max<Index>(1, o_.steps / 10) == 0) keep();
      if (o_.save_every > 0 && done % o_.save_every == 0 && done < o_.steps)
        trainer_->averaged([&] { save_as(beside(join_text("-", done)) + std::filesystem::path(o_.out).extension().string()); });
      if (o_.sample_every > 0 && done % o_.sample_every == 0 && done < o_.steps) {
        trainer_->averaged([&] { save_png(samples(), beside(join_text("-", done)) + ".png"); });
        progress.note(join_text("step ", done, ": ", beside(join_text("-", done)), ".png"));
      }
      start = std::chrono::steady_clock::now();
    }
  }
  /// The loss of the held-out pictures at four timesteps each; pictures, captions, latents and noise are the same at each call and
  /// for every seed.
  double validation_loss() {
    const NoGrad no_grad;
    const auto scheduler = make_scheduler<float>("ddpm", pipe_.scheduler.config);
    constexpr std::size_t times = 4;
    std::vector<float> timesteps;
    for (std::size_t k = 0; k < times; ++k)
      timesteps.push_back(std::floor(static_cast<float>(scheduler->schedule().steps()) * (static_cast<float>(k) + 0.5f) / static_cast<float>(times)));
    Generator generator(1);
    LateProgress progress("held-out pictures", static_cast<Index>(held_out_.size()));
    double sum = 0;
    for (std::size_t i = 0; i < held_out_.size(); ++i) {
      const Var<float> latents(data_->latents(held_out_[i], generator));
      const Tensor<float> samples = concat<float>(std::vector<Var<float>>(times, latents), 0).value();
      const Tensor<float> noise = channels_last(draw_noise<float>(channels_first(samples).shape(), generator));
      const Batch batch{{}, std::vector<std::string>(times, data_->caption(held_out_[i], generator)),
                        std::vector<std::array<float, 6>>(times, data_->time_ids(held_out_[i]))};
      const auto noisy = noisy_batch<float>(scheduler->schedule(), samples, noise, timesteps, objective());
      sum += static_cast<double>(diffusion_loss(pipe_.unet(Var<float>(noisy.noisy), noisy.timesteps, conditions(batch)), noisy).item());
      progress.add(1);
    }
    return sum / static_cast<double>(held_out_.size());
  }
  /// Puts the averaged weights in the place of the last ones.
  void finish() { trainer_->average.swap(); }

 private:
  CaptionedPictures pictures(const PictureFit& fit) const {
    if (!detail::exists(o_.data + "/emoji.tsv")) return load_captioned_pictures(o_.data, fit, o_.trigger);
    check(o_.resolution == EmojiSet::side, "finetune", "--resolution: the emoji have ", EmojiSet::side, " pixels, got ", o_.resolution);
    CaptionedPictures out = emoji_in_style(EmojiSet(o_.data), o_.style, o_.trigger);
    out.origin += " in " + o_.data;
    return out;
  }
  Index pictures_per_round() const { return static_cast<Index>(learnt_.size()) * o_.repeats; }
  Index steps_per_epoch() const {
    const Index step = o_.batch * o_.accumulate;
    return (pictures_per_round() + step - 1) / step;
  }

  template <class Config>
  void attach_to(Config config, std::initializer_list<const char*> layers) {
    config.targets = o_.targets;
    if (config.targets.empty())
      for (const char* layer : layers) {
        if (o_.train != "text" && std::string_view(layer).starts_with("unet.")) config.targets.push_back(layer);
        if (o_.train != "unet" && std::string_view(layer).starts_with("text_encoder")) config.targets.push_back(layer);
      }
    attach(pipe_, config, generator_, {.name = adapter});
  }
  /// Calls `f(model)` for the parts that --train names.
  template <class F>
  void for_each_part(F&& f) {
    Conditioner<float>& text = pipe_.conditioner;
    if (o_.train != "text") f(pipe_.unet);
    if (o_.train != "unet") f(text.text_encoder);
    if (o_.train != "unet" && text.text_encoder_2) f(*text.text_encoder_2);
  }
  void attach_method() {
    if (o_.method == "full") return for_each_part([](auto& model) { unfreeze(model); });
    if (o_.method == "bitfit") return for_each_part([](auto& model) { train_biases(model); });
    // Layers by their names in diffusers and transformers; text_encoder* is SDXL's second tower too.
    std::initializer_list<const char*> projections{"unet.*.to_q", "unet.*.to_k", "unet.*.to_v", "unet.*.to_out.0", "unet.*.ff.net.0.proj", "unet.*.ff.net.2",
                                                   "text_encoder*.q_proj", "text_encoder*.k_proj", "text_encoder*.v_proj", "text_encoder*.out_proj"};
    std::initializer_list<const char*> and_convolutions{"unet.*.to_q", "unet.*.to_k", "unet.*.to_v", "unet.*.to_out.0", "unet.*.ff.net.0.proj", "unet.*.ff.net.2",
                                                        "unet.*.conv1", "unet.*.conv2", "unet.*.conv", "unet.conv_in", "unet.conv_out",
                                                        "text_encoder*.q_proj", "text_encoder*.k_proj", "text_encoder*.v_proj", "text_encoder*.out_proj"};
    const auto& layers = o_.conv_rank > 0 ? and_convolutions : projections;
    if (o_.method == "lora") {
      LoraConfig config{.rank = o_.rank, .alpha = o_.alpha};
      const auto tunes = [&, all = sites(pipe_)](const char* layer) {
        return std::any_of(all.begin(), all.end(), [&](const auto& site) {
          return target_matches(layer, site.path) && (o_.targets.empty() ? o_.train != "text" : any_target_matches(o_.targets, site.path));
        });
      };
      if (o_.conv_rank > 0)
        for (const char* layer : {"unet.*.conv1", "unet.*.conv2", "unet.*.conv", "unet.conv_in", "unet.conv_out"}) {
          if (!tunes(layer)) continue;
          config.rank_pattern.emplace_back(layer, o_.conv_rank);
          config.alpha_pattern.emplace_back(layer, o_.conv_alpha > 0 ? o_.conv_alpha : static_cast<double>(o_.conv_rank));
        }
      check(o_.conv_rank <= 0 || !config.rank_pattern.empty(), "finetune", "--conv-rank: no convolution is among the layers to tune");
      attach_to(config, layers);
    } else if (o_.method == "dora") {
      attach_to(DoraConfig{.rank = o_.rank, .alpha = o_.alpha}, layers);
    } else if (o_.method == "loha") {
      attach_to(LohaConfig{.rank = o_.rank, .alpha = o_.alpha}, layers);
    } else if (o_.method == "lokr") {
      attach_to(LokrConfig{.rank = o_.rank, .alpha = o_.alpha}, layers);
    } else if (o_.method == "intrinsic") {
      attach_to(IntrinsicConfig{.dimension = o_.dimension, .seed = o_.seed}, layers);
    } else if (o_.method == "ia3") {
      Ia3Config config;
      config.feedforward = {"unet.*.ff.net.2", "text_encoder*.fc2"};
      attach_to(config, {"unet.*.to_k", "unet.*.to_v", "unet.*.ff.net.2", "text_encoder*.k_proj", "text_encoder*.v_proj", "text_encoder*.fc2"});
    } else if (o_.method == "adapter") {
      attach_to(BottleneckConfig{.bottleneck = o_.bottleneck}, {"unet.*.ff", "unet.*.attn1", "unet.*.attn2", "text_encoder*.mlp", "text_encoder*.self_attn"});
    } else {
      check(o_.method == "prefix", "finetune", "--method: expected lora, dora, loha, lokr, ia3, adapter, prefix, intrinsic, bitfit or full, got ", o_.method);
      attach_to(PrefixConfig{.length = o_.length}, {"unet.*.attn2", "text_encoder*.self_attn"});
    }
  }

  /// Which pictures are held out.
  void split() {
    const Index n = data_->size();
    if (o_.validation > 0) {
      check(n >= 2, "finetune", "--validation: expected at least 2 pictures, got ", n);
      Generator generator(0);
      const auto order = permutation(n, generator);
      const auto held = std::clamp<Index>(std::llround(o_.validation * static_cast<double>(n)), 1, n / 2);
      held_out_.assign(order.begin(), order.begin() + held);
    }
    for (Index i = 0; i < n; ++i)
      if (std::find(held_out_.begin(), held_out_.end(), i) == held_out_.end()) learnt_.push_back(i);
  }
  DiffusionObjective objective() const { return {prediction(), o_.snr_gamma > 0 ? std::optional(o_.snr_gamma) : std::nullopt, o_.noise_offset}; }
  PredictionType prediction() const {
    if (o_.prediction.empty()) return pipe_.scheduler.config.prediction_type.value_or(PredictionType::epsilon);
    return o_.prediction == "epsilon" ? PredictionType::epsilon : o_.prediction == "v_prediction" ? PredictionType::v_prediction : PredictionType::sample;
  }

  /// Pictures of one size.
  struct Batch {
    std::vector<Var<float>> latents;
    std::vector<std::string> captions;
    std::vector<std::array<float, 6>> time_ids;
  };
  void take(const TuningData& data, Index i, Batch& to) {
    to.latents.emplace_back(data.latents(i, generator_));
    std::string caption = data.caption(i, generator_);
    if (o_.shuffle_captions) caption = shuffled_caption(caption, o_.trigger, generator_);
    if (generator_.uniform<double>() < o_.caption_dropout) caption.clear();
    to.captions.push_back(std::move(caption));
    to.time_ids.push_back(data.time_ids(i));
  }

  /// The loss of a batch of its own, with one of the class beside it, over the number of batches to a step.
  Var<float> loss(const NoiseSchedule& schedule, const DiffusionObjective& objective) {
    const NarrowSaved narrow(o_.narrow_saved);
    Batch own;
    trainer_->rounds.batch(o_.batch, generator_, [&](Index a, Index b) { return data_->alike(a, b); }, [&](Index i) { take(*data_, i, own); });
    seen_ += static_cast<Index>(own.captions.size());
    Var<float> out = loss_of(own, schedule, objective);
    if (class_data_) {
      const Index first = generator_.integer(0, class_data_->size());
      std::vector<Index> others;
      for (Index i = 0; i < class_data_->size(); ++i)
        if (class_data_->alike(first, i)) others.push_back(i);
      Batch prior;
      take(*class_data_, first, prior);
      for (Index i = 1; i < o_.batch; ++i) take(*class_data_, others[static_cast<std::size_t>(generator_.integer(0, static_cast<std::int64_t>(others.size())))], prior);
      out = out + loss_of(prior, schedule, objective) * static_cast<float>(o_.prior_weight);
    }
    return out * (1.0f / static_cast<float>(o_.accumulate));
  }
  Var<float> loss_of(const Batch& drawn, const NoiseSchedule& schedule, const DiffusionObjective& objective) {
    const auto batch = noisy_batch<float>(schedule, concat<float>(drawn.latents, 0).value(), generator_, objective);
    return diffusion_loss(pipe_.unet(Var<float>(batch.noisy), batch.timesteps, conditions(drawn)), batch);
  }

  /// What the U-Net is told of a batch. Of captions it is computed once where the text towers and the order of words stay as they are.
  UnetConditions<float> conditions(const Batch& batch) {
    std::vector<Var<float>> states, pooled;
    for (const auto& caption : batch.captions) {
      PromptEmbeds<float> embeds;
      if (o_.train != "unet") {
        embeds = pipe_.conditioner.encode(caption);
      } else if (o_.shuffle_captions) {
        const NoGrad no_grad;
        embeds = pipe_.conditioner.encode(caption);
      } else {
        auto [at, fresh] = texts_.try_emplace(caption);
        if (fresh) {
          const NoGrad no_grad;
          at->second = pipe_.conditioner.encode(caption);
        }
        embeds = at->second;
      }
      states.push_back(embeds.states);
      pooled.push_back(embeds.pooled);
    }
    UnetConditions<float> out{.states = concat<float>(states, 0)};
    if (pipe_.unet.config.addition_time_embed_dim > 0) {
      out.text_embeds = concat<float>(pooled, 0);
      out.time_ids.emplace(Shape{static_cast<Index>(batch.time_ids.size()), 6});
      float* to = out.time_ids->data();
      for (const auto& ids : batch.time_ids) to = std::copy(ids.begin(), ids.end(), to);
    }
    return out;
  }

  std::vector<std::string> sample_prompts() const {
    if (!o_.prompts.empty()) return read_lines(o_.prompts);
    if (!detail::exists(o_.data + "/emoji.tsv")) {
      Generator generator(0);
      std::vector<std::string> out;
      for (Index i = 0; i < std::min<Index>(6, data_->size()); ++i) out.push_back(data_->caption(i, generator));
      return out;
    }
    return {"red apple", "grinning face", "house", "cat face", "crescent moon", "sailboat"};
  }
  std::vector<Tile> tiles() {
    std::vector<Tile> out;
    const GenerationOptions<float> options{.steps = 20, .guidance_scale = o_.guidance, .seed = o_.seed, .width = o_.resolution, .height = o_.resolution};
    for (const auto& prompt : sample_prompts()) out.push_back({pipe_(prompt, options), {{prompt}}});
    return out;
  }
  /// Each prompt without the adapter, and with it; or before training, and now.
  Image samples() {
    std::vector<Tile> all = before_;
    if (!o_.whole()) {
      enable(pipe_, adapter, false);
      all = tiles();
      enable(pipe_, adapter, true);
    }
    const Index columns = static_cast<Index>(sample_prompts().size());
    for (auto& tile : tiles()) all.push_back(std::move(tile));
    return contact_sheet(all, {.title = o_.whole() ? "before, and after" : "without the adapter, and with it", .columns = columns, .zoom = o_.resolution < 128 ? 2 : 1});
  }

  void save_as(const std::string& path) {
    if (o_.whole()) return save_like(pipe_, o_.model, path);
    if (o_.method == "intrinsic") return save_intrinsic(pipe_, path, adapter);
    if (o_.format == "peft") {
      save_adapter_parts(pipe_, path, adapter, DType::f16);
      return;
    }
    const auto flag = [](bool on) { return std::string(on ? "True" : "False"); };
    SaveFileOptions options{adapter, DType::f16, "unet",
                            {{"modelspec.architecture", "stable-diffusion/lora"}, {"ss_network_dim", std::to_string(o_.rank)},
                             {"ss_network_alpha", join_text(o_.alpha)}, {"ss_steps", std::to_string(trainer_->steps())},
                             {"ss_num_epochs", std::to_string((o_.steps + steps_per_epoch() - 1) / steps_per_epoch())},
                             {"ss_learning_rate", in_full(o_.learning_rate)}, {"ss_lr_scheduler", o_.schedule}, {"ss_resolution", std::to_string(o_.resolution)},
                             {"ss_enable_bucket", flag(o_.buckets)}, {"ss_shuffle_caption", flag(o_.shuffle_captions)},
                             {"ss_num_train_images", std::to_string(pictures_per_round())}, {"ss_seed", std::to_string(o_.seed)}, {"ss_trigger", o_.trigger}}};
    if (o_.train != "text") options.metadata["ss_unet_lr"] = in_full(o_.learning_rate);
    if (o_.train != "unet") options.metadata["ss_text_encoder_lr"] = in_full(o_.text_learning_rate > 0 ? o_.text_learning_rate : o_.learning_rate);
    o_.format == "kohya" ? save_kohya(pipe_, path, options) : save_diffusers(pipe_, path, options);
  }
  /// Of the adapter's file, or of the model's weights.
  std::uintmax_t bytes_written() const {
    namespace fs = std::filesystem;
    if (!fs::is_directory(o_.out)) return fs::file_size(o_.out);
    std::uintmax_t sum = 0;
    for (const char* part : {"", "/unet", "/text_encoder", "/text_encoder_2"})
      for (const char* file : {"/adapter_model.safetensors", "/diffusion_pytorch_model.safetensors", "/model.safetensors"})
        if (detail::exists(o_.out + part + file)) sum += fs::file_size(o_.out + part + file);
    return sum;
  }
  /// What --json writes.
  nlohmann::json numbers() {
    const auto means = smooth(losses_, 50);
    nlohmann::json out = {{"method", o_.method},
            {"adapter_parameters", trained()},
            {"model_parameters", count(params(pipe_))},
            {"adapter_bytes", bytes_written()},
            {"seconds", seconds_},
            {"steps", trainer_->steps()},
            {"epochs", static_cast<double>(seen_) / static_cast<double>(pictures_per_round())},
            {"first_loss", means[std::min<std::size_t>(means.size(), 50) - 1]},
            {"last_loss", means.back()},
            {"losses", losses_}};
    if (!held_out_.empty()) out.update({{"held_out_pictures", held_out_.size()}, {"validation_loss_before", loss_before_}, {"validation_loss_after", loss_after_}});
    return out;
  }
  /// The output's path with `more` in the place of its extension.
  std::string beside(const std::string& more) const { return std::filesystem::path(o_.out).replace_extension().string() + more; }

  void keep() {
    State out;
    trainer_->save(out, generator_);
    out.tensors["losses"] = raw_copy(Tensor<double>(Shape{static_cast<Index>(losses_.size())}, losses_));
    out.set("seen", seen_);
    out.set("seconds", seconds_);
    out.values["run"] = run_name(o_);
    save_state(beside(".state"), out);
  }
  void resume() {
    const auto state = resumed(beside(".state"), run_name(o_));
    if (!state) return;
    trainer_->restore(*state, generator_);
    const Tensor<double> losses = Trainer::saved<double>(*state, "losses");
    losses_.assign(losses.begin(), losses.end());
    seen_ = state->get<Index>("seen");
    seconds_ = state->get<double>("seconds");
    std::cerr << "resumed at step " << trainer_->steps() << " of " << o_.steps << '\n';
  }

  static constexpr const char* adapter = "default";
  DiffusionTuneOptions o_;
  StableDiffusion<float> pipe_;
  Generator generator_;
  std::unique_ptr<TuningData> data_, class_data_;
  std::unique_ptr<Trainer> trainer_;
  std::unordered_map<std::string, PromptEmbeds<float>> texts_;
  std::vector<Index> held_out_, learnt_;  // of the pictures
  double loss_before_ = 0, loss_after_ = 0;  // validation_loss()
  std::vector<double> losses_;
  std::vector<Tile> before_;  // pictures of the model as it was, where its own weights are trained
  Index seen_ = 0;      // pictures, each as often as it came
  double seconds_ = 0;  // of training
};

}  // namespace tenon::examples
