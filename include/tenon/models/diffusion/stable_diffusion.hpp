#pragma once
// Stable Diffusion 1, 2 and XL from a folder of diffusers or a single file: words to pictures. Needs utf8proc.
//
//   auto pipe = tenon::StableDiffusion<float>::load("sd15");
//   auto image = pipe("an astronaut riding a horse", {.steps = 20, .seed = 42});
//
// A picture in the options makes it image to image, a mask too makes it inpainting. `params(pipe)` and `sites(pipe)` are those
// of the U-Net and the text towers, under the names unet., text_encoder. and text_encoder_2. that adapter files use; the
// autoencoder is reached as `pipe.vae`.
#include <functional>
#include <sstream>

#include <tenon/core/nearest.hpp>
#include <tenon/models/diffusion/conditioning.hpp>
#include <tenon/models/diffusion/control_net.hpp>
#include <tenon/models/diffusion/ip_adapter.hpp>
#include <tenon/models/diffusion/load_components.hpp>
#include <tenon/models/diffusion/pictures.hpp>
#include <tenon/models/diffusion/pipeline.hpp>
#include <tenon/models/diffusion/tiny_autoencoder.hpp>

namespace tenon::inline TENON_ABI {

/// A ControlNet and the picture that it reads.
template <class T>
struct ControlInput {
  const ControlNet<T>* net = nullptr;
  Image image;  ///< RGB, resized (Lanczos) where it has another size
  ControlNetOptions options = {};
  double start = 0, end = 1;  ///< the share of the steps after which it begins to count, and up to which it does
};

template <class T>
struct GenerationOptions {
  Index steps = 0;                                   ///< 0: 50, or 4 for a latent consistency model
  std::optional<double> guidance_scale = {};         ///< absent: as diffusers, 7.5, SDXL 5 (7.5 with a mask and no control), LCM 8.5; at most 1: none
  double guidance_rescale = 0;                       ///< Lin et al. 2023, section 3.4
  double eta = 0;                                    ///< DDIM and TCD
  std::uint64_t seed = 0;                            ///< of torch's CPU generator
  std::optional<std::string> negative_prompt = {};
  Index width = 0, height = 0;                       ///< 0: what the model was trained on; image to image: the picture's; text to image with controls: the first one's
  Index count = 1;                                   ///< pictures of the seeds seed, seed + 1, ..., for `images`
  std::string scheduler = {};                        ///< a name of `scheduler_names()`; empty: the checkpoint's own
  PromptOptions prompt = {};
  std::optional<Image> image = {};                   ///< RGB: what to begin from
  std::optional<Image> mask = {};                    ///< white where the picture is made anew
  std::optional<double> strength = {};               ///< share of the steps run on a picture; absent: as diffusers, 0.8, with a mask 1, SDXL 0.3 (0.8 with controls) and 0.9999
  std::vector<ControlInput<T>> controls = {};        ///< what they say is added up
  std::vector<ImagePrompt<T>> image_prompts = {};    ///< one for each attached IP-Adapter
  std::optional<Tensor<T>> latents = {};             ///< [1, 4, h, w] unit noise in the place of the generator's
  std::optional<PromptEmbeds<T>> prompt_embeds = {}, negative_prompt_embeds = {};  ///< in the place of the prompts
  std::optional<std::array<Index, 2>> original_size = {}, target_size = {};        ///< SDXL: height, width; absent: the picture's
  std::array<Index, 2> crop = {0, 0};                                              ///< SDXL: top, left
  /// After each step: may read and change the state; false ends the run.
  std::function<bool(Denoising<T>&)> on_step = {};
};

/// What came of a run.
template <class T>
struct Generated {
  Image image;           ///< empty when the run was ended early
  Tensor<T> latents;     ///< [1, 4, h, w], as diffusers holds them
  std::string cut_off;   ///< words of the prompt that the model did not see
  /// Prompt, seed, steps, scheduler, adapters, ...: what save_png writes as texts.
  std::vector<std::pair<std::string, std::string>> metadata;
  bool finished = true;  ///< false when on_step ended it
};

template <class T = float>
struct StableDiffusion {
  DiffusionFamily family = DiffusionFamily::sd1;
  bool latent_consistency = false;
  Unet2d<T> unet;
  AutoencoderKl<T> vae;
  std::optional<AutoencoderTiny<T>> tiny_vae;  ///< decodes in the autoencoder's place when present
  Conditioner<T> conditioner;
  SchedulerChoice scheduler;
  bool tiling = false;     ///< the autoencoder works tile by tile, in less memory
  bool free_text = false;  ///< a run frees the packed text towers after the prompt, in less memory; the next run packs them again

  /// From a folder of diffusers (model_index.json, safetensors or torch's, sharded, fp16 variants) or a single file. Parameters
  /// are frozen. Throws FileError on a checkpoint of another family, a missing component, and names or shapes that do not fit.
  static StableDiffusion load(const std::string& path, const DiffusionLoadOptions& options = {}) {
    StableDiffusion out;
    DiffusionComponents<T> parts = load_components<T>(path, options);
    out.family = parts.family;
    out.latent_consistency = parts.latent_consistency;
    out.unet = std::move(parts.unet);
    out.vae = std::move(parts.vae);
    out.conditioner = std::move(parts.conditioner);
    out.scheduler = std::move(parts.scheduler);
    return out;
  }

  /// Pixels for each latent.
  Index scale() const { return vae.config.scale(); }
  /// One picture; an empty one when `on_step` ended the run. Throws as `generate`.
  Image operator()(std::string_view prompt, const GenerationOptions<T>& options = {}) const {
    check(options.count == 1, "stable_diffusion", "expected a count of 1 for one picture, got ", options.count, "; `images` makes several");
    return generate(prompt, options).image;
  }
  /// `count` pictures, each as `generate` makes it alone, of the seeds seed, seed + 1, ...
  std::vector<Image> images(std::string_view prompt, GenerationOptions<T> options = {}) const {
    check(options.count >= 1, "stable_diffusion", "expected a count of at least 1, got ", options.count);
    std::vector<Image> out;
    for (Index i = 0; i < options.count; ++i, ++options.seed) out.push_back(generate(prompt, options).image);
    return out;
  }

  /// One picture with what belongs to it. Throws ShapeError on sizes that are not multiples of 8 and on latents of another shape,
  /// NameError on an unknown scheduler, Error on options that do not go together.
  Generated<T> generate(std::string_view prompt, const GenerationOptions<T>& options = {}) const {
    const NoGrad no_grad;
    const Plan plan = make_plan(options);
    Generated<T> out;
    const Predictor predict = condition(prompt, options, plan, out.cut_off);
    if (free_text) {
      for (const auto& ref : params(const_cast<Conditioner<T>&>(conditioner))) ref.weight->drop_packed();
      trim_memory();
    }
    Denoising<T> state = begin(options, plan, predict);
    out.metadata = metadata(prompt, options, plan);
    const Index first = state.step, steps = static_cast<Index>(state.scheduler->timesteps().size()) - first;
    const auto model = [&](const Tensor<T>& latents, float t) { return predict(latents, t, state.step - first, steps); };
    out.finished = options.on_step ? denoise(state, model, options.on_step) : denoise(state, model, [](const Denoising<T>&) { return true; });
    out.latents = std::move(state.latents);
    if (out.finished) out.image = decode(out.latents);
    trim_memory(std::size_t{64} << 20);  // the autoencoder's blocks are of no use to the U-Net
    return out;
  }

  /// The picture of latents [1, 4, h, w].
  Image decode(const Tensor<T>& latents) const {
    const NoGrad no_grad;
    const Var<T> x(channels_last(latents));
    return picture_of((tiny_vae ? tiny_vae->decode(tiny_vae->unscale_latents(x)) : vae.decode(vae.unscale_latents(x), tiling)).value());
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("unet", s.unet);
    f("", s.conditioner);
  }

 private:
  /// Options with every default filled in.
  struct Plan {
    Index steps, height, width;
    double guidance_scale, strength;
    bool nine_channels;
    std::string scheduler;
    Shape latents{0};
  };

  /// The U-Net as the sampling loop calls it.
  struct Predictor {
    const StableDiffusion* pipe;
    UnetConditions<T> pair, alone;          ///< of [negative, positive], and of the positive prompt
    std::shared_ptr<Tensor<T>> extra{};     ///< [1, h, w, 5]: mask and masked picture, for 9 channels
    struct Control {
      const ControlNet<T>* net;
      Var<T> picture, pictures;  ///< [1, H, W, 3] in 0..1, and twice
      ControlNetOptions options;
      double start, end;
    };
    std::vector<Control> controls{};

    /// Latents [N, C, h, w] at timestep t, the run's step `step` of `steps`.
    Tensor<T> operator()(const Tensor<T>& latents, float t, Index step, Index steps) const {
      const Index n = latents.extent(0);
      check(n == alone.states.extent(0) || pair.states.size() > 0, "stable_diffusion", "guidance was turned on in a run that began without it");
      Var<T> x(channels_last(latents));
      const auto times = Tensor<float>::of({t});
      UnetConditions<T> conditions = n == 1 ? alone : pair;
      for (const auto& [net, picture, pictures, options, start, end] : controls) {
        const auto share = [steps](Index of) { return static_cast<double>(of) / static_cast<double>(steps); };
        if (share(step) < start || share(step + 1) > end) continue;
        const bool half = n > 1 && options.guess;  // the negative prompt goes without control
        auto residuals = half ? (*net)(slice(x, 0, 1, 2), times, alone, picture, options) : (*net)(x, times, conditions, n == 1 ? picture : pictures, options);
        const auto with_none = [](const Var<T>& y) { return concat({Var<T>(Tensor<T>(y.shape())), y}, 0); };
        if (half) {
          for (auto& y : residuals.down) y = with_none(y);
          residuals.mid = with_none(*residuals.mid);
        }
        conditions.control = conditions.control ? *conditions.control + residuals : std::move(residuals);
      }
      if (extra) {
        const Var<T> more(*extra);
        x = concat({x, n == 1 ? more : concat({more, more}, 0)}, 3);
      }
      return channels_first(pipe->unet(x, times, conditions).value());
    }
  };

  Plan make_plan(const GenerationOptions<T>& o) const {
    Plan p;
    const UnetConfig& c = unet.config;
    p.nine_channels = c.in_channels == 9;
    check(c.in_channels == 4 || p.nine_channels, "stable_diffusion", "expected a U-Net of 4 or 9 channels, found ", c.in_channels);
    check(!o.mask || o.image, "stable_diffusion", "a mask needs the picture that it is for");
    check(o.mask || !p.nine_channels, "stable_diffusion", "this checkpoint is for inpainting: it needs a picture and a mask");
    const Image* const like = o.mask ? nullptr : o.image ? &*o.image : !o.controls.empty() ? &o.controls.front().image : nullptr;
    const auto side = [&](Index asked, Index Image::* of) { return asked != 0 ? asked : like != nullptr ? like->*of - like->*of % scale() : c.sample_size * scale(); };
    p.width = side(o.width, &Image::width);
    p.height = side(o.height, &Image::height);
    check<ShapeError>(o.width % 8 == 0 && o.height % 8 == 0 && o.width >= 0 && o.height >= 0, "stable_diffusion",
                      "expected a width and a height that are multiples of 8, got ", o.width, " x ", o.height);
    check<ShapeError>(p.width >= scale() && p.height >= scale() && p.width % scale() == 0 && p.height % scale() == 0, "stable_diffusion",
                      "expected sides that are multiples of ", scale(), ", got ", p.width, " x ", p.height);
    check(o.steps >= 0, "stable_diffusion", "expected at least one step, got ", o.steps);
    p.steps = o.steps > 0 ? o.steps : latent_consistency ? 4 : 50;
    const bool xl = family == DiffusionFamily::sdxl;
    const bool controlled = !o.controls.empty();
    p.guidance_scale = o.guidance_scale.value_or(latent_consistency ? 8.5 : xl && (!o.mask || controlled) ? 5.0 : 7.5);
    p.strength = o.strength.value_or(o.mask ? (xl ? 0.9999 : 1.0) : xl && !controlled ? 0.3 : 0.8);
    p.scheduler = o.scheduler.empty() ? scheduler.name : o.scheduler;
    check<NameError>(!p.scheduler.empty(), "stable_diffusion", "tenon does not have the checkpoint's scheduler; name one of ", nearest_names("", scheduler_names(), 100));
    p.latents = Shape{1, vae.config.latent_channels, p.height / scale(), p.width / scale()};
    return p;
  }

  Predictor condition(std::string_view prompt, const GenerationOptions<T>& o, const Plan& plan, std::string& cut_off) const {
    // diffusers' ControlNet pipelines that begin from a picture know nothing of LCM's embedded guidance
    const bool embeds_guidance = unet.config.time_cond_proj_dim > 0 && (o.controls.empty() || !o.image), guide = plan.guidance_scale > 1 && !embeds_guidance;
    Predictor out{this, {}, {}};
    if (plan.nine_channels) out.extra = std::make_shared<Tensor<T>>();
    PromptEmbeds<T> positive, negative;
    if (o.prompt_embeds) {
      positive = *o.prompt_embeds;
      if (guide) negative = o.negative_prompt_embeds ? *o.negative_prompt_embeds : conditioner.encode(o.negative_prompt.value_or(""), {0, o.prompt.weights});
    } else if (guide && !o.negative_prompt_embeds) {
      std::tie(negative, positive) = conditioner.encode_pair(prompt, o.negative_prompt, o.prompt);
    } else {
      positive = conditioner.encode(prompt, o.prompt);
      if (guide) negative = *o.negative_prompt_embeds;
    }
    cut_off = positive.cut_off;
    out.alone.states = positive.states;
    check<ShapeError>(!guide || negative.states.shape() == positive.states.shape(), "stable_diffusion", "expected states of the negative prompt of shape ",
                      positive.states.shape(), ", got ", negative.states.shape());
    if (guide) out.pair.states = concat({negative.states, positive.states}, 0);
    if (unet.config.addition_time_embed_dim > 0) {
      const auto original = o.original_size.value_or(std::array{plan.height, plan.width}), target = o.target_size.value_or(std::array{plan.height, plan.width});
      Tensor<float> ids({1, 6});
      std::size_t i = 0;
      for (const auto& size : {original, o.crop, target})
        for (const Index side : size) ids.data()[i++] = static_cast<float>(side);
      out.alone.text_embeds = positive.pooled;
      if (guide) {
        out.pair.text_embeds = concat({negative.pooled, positive.pooled}, 0);
        out.pair.time_ids = doubled(ids);
      }
      out.alone.time_ids = std::move(ids);
    }
    for (const auto& looked_at : o.image_prompts) {
      check(looked_at.adapter != nullptr && (looked_at.encoder != nullptr || looked_at.features), "stable_diffusion", "an image prompt without an adapter, or without an encoder");
      const auto [seen, none] = looked_at.features ? *looked_at.features : looked_at.adapter->features(*looked_at.encoder, looked_at.images);
      const Var<T> tokens = looked_at.adapter->tokens(seen);
      out.alone.image_tokens[looked_at.adapter->name] = tokens;
      if (guide) out.pair.image_tokens[looked_at.adapter->name] = concat({looked_at.adapter->tokens(none), tokens}, 0);
    }
    const auto pools = [](const ControlInput<T>& control) { return control.net != nullptr && control.net->config.global_pool_conditions; };
    // a first ControlNet that pools puts all in guess mode, but not where SDXL inpaints
    const bool guess = !o.controls.empty() && pools(o.controls.front()) && !(o.mask && family == DiffusionFamily::sdxl);
    for (const auto& control : o.controls) {
      check(control.net != nullptr, "stable_diffusion", "a control input without a ControlNet");
      check(0 <= control.start && control.start < control.end && control.end <= 1, "stable_diffusion", "expected a control from 0 or later to a later end of at most 1, got ",
            control.start, " to ", control.end);
      const Var<T> picture(picture_values<T>(control.image, plan.height, plan.width, 1, 0));
      out.controls.push_back({control.net, picture, concat({picture, picture}, 0), control.options, control.start, control.end});
      out.controls.back().options.guess |= guess;
    }
    if (embeds_guidance) {
      const auto scale = Tensor<float>::full({1}, static_cast<float>(plan.guidance_scale - 1));
      out.alone.guidance = Var<T>(guidance_embedding<T>(scale, unet.config.time_cond_proj_dim));
    }
    return out;
  }

  /// The run's first state. Noise is drawn in diffusers' order: of the picture's latents, of the run, of the masked picture's.
  Denoising<T> begin(const GenerationOptions<T>& o, const Plan& plan, const Predictor& predict) const {
    DenoisingOptions<T> run;
    run.steps = plan.steps;
    run.guidance_scale = predict.pair.states.size() > 0 ? plan.guidance_scale : 1.0;
    run.guidance_rescale = o.guidance_rescale;
    run.eta = o.eta;
    run.strength = plan.strength;
    run.latents = o.latents;
    AnyScheduler<T> steps = make_scheduler<T>(plan.scheduler, scheduler.for_run(plan.scheduler, o.mask.has_value(), !o.controls.empty()));
    Generator generator(o.seed);
    if (!o.image) return text_to_image(std::move(steps), plan.latents, generator, run);
    const Tensor<T> pixels = picture_values<T>(*o.image, plan.height, plan.width);
    const auto encode = [&](const Tensor<T>& values, Generator& from) {
      const Var<T> z = vae.encode(Var<T>(values), tiling).sample(from);
      // diffusers' inpainting reads latents_mean and latents_std in decoding alone
      return channels_first((o.mask ? z * static_cast<T>(vae.config.scaling_factor) : vae.scale_latents(z)).value());
    };
    if (!o.mask) {
      const Tensor<T> picture = encode(pixels, generator);
      run.distilled = latent_consistency && plan.scheduler == "lcm" && o.controls.empty();  // as LatentConsistencyModelImg2ImgPipeline
      return image_to_image(std::move(steps), picture, generator, run);
    }
    const Tensor<T> mask = mask_values<T>(*o.mask, plan.height, plan.width);
    const Index h = plan.latents[2], w = plan.latents[3], channels = plan.latents[1];
    Tensor<T> coarse(plan.latents);
    for (Index c = 0; c < channels; ++c)
      for (Index y = 0; y < h; ++y)
        for (Index x = 0; x < w; ++x) coarse.data()[(c * h + y) * w + x] = mask.data()[y * scale() * plan.width + x * scale()];
    const bool needs_picture = !plan.nine_channels || plan.strength < 1;
    const Tensor<T> picture = needs_picture ? encode(pixels, generator) : Tensor<T>(plan.latents);
    Denoising<T> state = inpaint(std::move(steps), picture, coarse, generator, run);
    if (!plan.nine_channels) {
      draw_noise<T>(plan.latents, state.generator);  // diffusers samples the masked picture here too
      return state;
    }
    state.inpainting.reset();
    Tensor<T> masked = pixels;
    for (Index i = 0; i < mask.size(); ++i)
      if (mask.data()[i] != 0) std::fill_n(masked.data() + 3 * i, 3, T(0));
    const Tensor<T> latents = channels_last(encode(masked, state.generator));
    *predict.extra = Tensor<T>({1, h, w, channels + 1});
    for (Index i = 0; i < h * w; ++i) {
      predict.extra->data()[i * (channels + 1)] = coarse.data()[i];
      std::copy_n(latents.data() + i * channels, channels, predict.extra->data() + i * (channels + 1) + 1);
    }
    return state;
  }

  std::vector<std::pair<std::string, std::string>> metadata(std::string_view prompt, const GenerationOptions<T>& o, const Plan& plan) const {
    std::vector<std::pair<std::string, std::string>> out{{"prompt", std::string(prompt)}};
    const auto number = [](double x) {
      std::ostringstream text;
      text << x;
      return text.str();
    };
    if (o.negative_prompt) out.emplace_back("negative_prompt", *o.negative_prompt);
    out.emplace_back("seed", std::to_string(o.seed));
    out.emplace_back("steps", std::to_string(plan.steps));
    out.emplace_back("guidance_scale", number(plan.guidance_scale));
    if (o.guidance_rescale > 0) out.emplace_back("guidance_rescale", number(o.guidance_rescale));
    out.emplace_back("scheduler", plan.scheduler);
    out.emplace_back("size", join_text(plan.width, 'x', plan.height));
    if (o.image) out.emplace_back("strength", number(plan.strength));
    if (o.prompt.clip_skip > 0) out.emplace_back("clip_skip", join_text(o.prompt.clip_skip, " (as others count: ", o.prompt.clip_skip + 1, ")"));
    if (o.prompt.weights == PromptWeights::a1111) out.emplace_back("weights", "a1111");
    std::map<std::string, double> adapters;
    for (const auto& site : sites(const_cast<StableDiffusion&>(*this)))
      for_each_patch(site, [&](const auto& entry) {
        if (entry.enabled) adapters.emplace(entry.adapter, static_cast<double>(entry.scale));
      });
    std::string list;
    for (const auto& [name, scale] : adapters) list += (list.empty() ? "" : ", ") + name + ":" + number(scale);
    if (!list.empty()) out.emplace_back("adapters", list);
    return out;
  }
};

}  // namespace tenon::inline TENON_ABI
