#pragma once
// The components of Stable Diffusion from a folder of diffusers or a single file.
#include <tenon/models/diffusion/autoencoder_kl.hpp>
#include <tenon/models/diffusion/conditioning.hpp>
#include <tenon/models/diffusion/pipeline_files.hpp>
#include <tenon/models/diffusion/unet.hpp>
#include <tenon/models/diffusion/unet_infer.hpp>

namespace tenon::inline TENON_ABI {

struct DiffusionLoadOptions {
  /// How matrices are multiplied: bfloat16 or int8 (see LoadOptions), frozen for good; T when not given.
  std::optional<DType> weights{};
  /// Another autoencoder: a folder of diffusers (AutoencoderKL), or a single file of one.
  std::string vae{};
  /// A folder with another tokenizer, for single files whose vocabulary is not OpenAI's.
  std::string tokenizer{};
  /// What a single file predicts, when it is neither said by its keys v_pred and ztsnr nor what its family usually does.
  std::optional<PredictionType> prediction{};
};

template <class T>
struct DiffusionComponents {
  DiffusionFamily family = DiffusionFamily::sd1;
  bool latent_consistency = false;
  Unet2d<T> unet;
  AutoencoderKl<T> vae;
  Conditioner<T> conditioner;
  SchedulerChoice scheduler;
};

/// The configuration of an autoencoder that its shapes imply; `scaling_factor` they do not tell. Throws NameError or FileError.
inline AutoencoderKlConfig infer_autoencoder_kl_config(const StateDict& dict, double scaling_factor) {
  const auto kernel = [&](const std::string& name) {
    const Shape& shape = dict.info(name).shape;
    check<FileError>(shape.rank() == 4, "autoencoder", dict.source(), ": ", name, ": expected a kernel, found shape ", shape);
    return shape;
  };
  AutoencoderKlConfig c;
  c.in_channels = kernel("encoder.conv_in.weight")[1];
  c.out_channels = kernel("decoder.conv_out.weight")[0];
  c.latent_channels = kernel("decoder.conv_in.weight")[1];
  c.block_out_channels.clear();
  const Index levels = detail::layer_count(dict, "encoder.down_blocks.", ".resnets.0.conv1.weight");
  for (Index i = 0; i < levels; ++i) c.block_out_channels.push_back(kernel(join_text("encoder.down_blocks.", i, ".resnets.0.conv1.weight"))[0]);
  check<FileError>(levels > 0, "autoencoder", dict.source(), ": expected encoder.down_blocks, found none");
  c.layers_per_block = detail::layer_count(dict, "encoder.down_blocks.0.resnets.", ".conv1.weight");
  c.scaling_factor = scaling_factor;
  c.use_quant_conv = dict.contains("quant_conv.weight");
  c.use_post_quant_conv = dict.contains("post_quant_conv.weight");
  c.mid_block_add_attention = dict.contains("encoder.mid_block.attentions.0.to_q.weight");
  return c;
}

namespace detail {

/// A family's scaling factor, which the files of an autoencoder alone do not tell.
inline double usual_scaling_factor(DiffusionFamily family) { return family == DiffusionFamily::sdxl ? 0.13025 : 0.18215; }

/// An autoencoder from a folder of diffusers, or a file of it alone.
template <class T>
AutoencoderKl<T> load_vae(const std::string& path, DiffusionFamily family, const AutoencoderLoadOptions& options) {
  if (is_folder(path)) return load_autoencoder_kl<T>(path, options);
  StateDict dict = open_checkpoint(path);
  dict.rename([](const std::string& name) -> std::optional<std::string> {
    static constexpr NamePair prefixes[] = {{"first_stage_model", ""}, {"vae", ""}};
    if (name.starts_with("loss.") || name.starts_with("model_ema.")) return std::nullopt;
    const auto bare = renamed_beginning(name, prefixes);
    return bare ? bare->substr(1) : name;
  });
  to_diffusers_vae(dict);
  return load_autoencoder_kl<T>(dict, infer_autoencoder_kl_config(dict, usual_scaling_factor(family)), options);
}

template <class T>
void check_widths(const std::string& path, const DiffusionComponents<T>& parts) {
  const Index first = parts.conditioner.text_encoder.text_model.config.hidden_size;
  const Index second = parts.conditioner.text_encoder_2 ? parts.conditioner.text_encoder_2->text_model.config.hidden_size : 0;
  for (const Index width : parts.unet.config.cross_attention_dim)
    check<FileError>(width == first + second, "stable_diffusion", path, ": the U-Net attends to states of width ", width, ", and the text encoders give ", first + second);
  check<FileError>(parts.unet.config.out_channels == parts.vae.config.latent_channels, "stable_diffusion", path, ": the U-Net makes ", parts.unet.config.out_channels,
                   " channels, and the autoencoder has ", parts.vae.config.latent_channels);
  check<FileError>(second == 0 || parts.conditioner.text_encoder_2->text_projection, "stable_diffusion", path, ": the second text encoder has no projection");
}

template <class T>
DiffusionComponents<T> load_folder(const std::string& path, const DiffusionLoadOptions& options) {
  const PipelineIndex index = read_pipeline_index(path);
  check<FileError>(!index.requires_aesthetics_score, "stable_diffusion", path, ": a model with aesthetic scores is not supported");
  DiffusionComponents<T> out;
  out.latent_consistency = index.class_name.starts_with("Latent");
  out.scheduler = read_scheduler_choice(path);
  if (!index.xl && !out.latent_consistency) out.scheduler.outdated = out.scheduler.config;
  Conditioner<T>& text = out.conditioner;
  text.text_encoder = load_text_encoder<T>(path + "/text_encoder", options.weights);
  const auto tokenizer = [&](const std::string& folder, const TextEncoder<T>& tower) {
    const std::string from = options.tokenizer.empty() ? path + folder : options.tokenizer;
    PromptTokenizer made = load_prompt_tokenizer(from, tower.text_model.config.max_position_embeddings);
    check<FileError>(made.tokenizer().size() <= tower.text_model.config.vocab_size, "stable_diffusion", from, ": the tokenizer has ",
                     made.tokenizer().size(), " tokens, the text encoder only ", tower.text_model.config.vocab_size);
    return made;
  };
  text.tokenizer = tokenizer("/tokenizer", text.text_encoder);
  if (index.xl) {
    text.text_encoder_2 = load_text_encoder<T>(path + "/text_encoder_2", options.weights);
    text.tokenizer_2 = tokenizer("/tokenizer_2", *text.text_encoder_2);
    text.force_zeros_for_empty_prompt = index.force_zeros_for_empty_prompt;
  }
  out.unet = load_unet<T>(path + "/unet", {.weights = options.weights});
  const bool sd2 = !index.xl && text.text_encoder.text_model.config.hidden_act == Activation::gelu && out.unet.config.use_linear_projection;
  out.family = index.xl ? DiffusionFamily::sdxl : sd2 ? DiffusionFamily::sd2 : DiffusionFamily::sd1;
  out.vae = load_vae<T>(options.vae.empty() ? path + "/vae" : options.vae, out.family, {.weights = options.weights});
  return out;
}

template <class T>
DiffusionComponents<T> load_single_file(const std::string& path, const DiffusionLoadOptions& options) {
  SingleFile file = split_single_file(open_checkpoint(path));
  DiffusionComponents<T> out;
  out.family = file.family;
  Conditioner<T>& text = out.conditioner;
  const bool xl = file.family == DiffusionFamily::sdxl;
  text.text_encoder = make_text_encoder<T>(
      infer_text_config(file.text_encoder, file.family == DiffusionFamily::sd2 ? Activation::gelu : Activation::quick_gelu), file.text_encoder, options.weights);
  if (xl) text.text_encoder_2 = make_text_encoder<T>(infer_text_config(*file.text_encoder_2, Activation::gelu), *file.text_encoder_2, options.weights);
  const auto tokenizer = [&](const TextEncoder<T>& tower, bool open_clip) {
    const ClipTextConfig& c = tower.text_model.config;
    TokenizerConfig config{.style = TokenizerStyle::hugging_face};
    if (open_clip) config.pad = 0;
    check<FileError>(!options.tokenizer.empty() || c.vocab_size == 49408, "stable_diffusion", path, ": the text encoder has ", c.vocab_size,
                     " tokens, so OpenAI's 49408 do not fit: name a folder with its tokenizer");
    return PromptTokenizer(options.tokenizer.empty() ? openai_tokenizer(config) : load_tokenizer(options.tokenizer, config), c.max_position_embeddings);
  };
  text.tokenizer = tokenizer(text.text_encoder, file.family == DiffusionFamily::sd2);
  if (xl) {
    text.tokenizer_2 = tokenizer(*text.text_encoder_2, true);
    text.force_zeros_for_empty_prompt = true;
  }
  const Index pooled = xl && text.text_encoder_2->text_projection ? text.text_encoder_2->text_projection->out() : 0;
  const bool v = options.prediction ? *options.prediction == PredictionType::v_prediction : file.v_prediction;
  UnetConfig config = infer_unet_config(file.unet);
  config.sample_size = xl ? 128 : file.family == DiffusionFamily::sd2 && v ? 96 : 64;
  if (pooled > 0) config.addition_time_embed_dim = (config.projection_class_embeddings_input_dim - pooled) / 6;
  out.unet = Unet2d<T>(config);
  LoadOptions load;
  load.weights = options.weights;
  load_params(params(out.unet), file.unet, load);
  out.vae = options.vae.empty() ? load_autoencoder_kl<T>(file.vae, infer_autoencoder_kl_config(file.vae, usual_scaling_factor(file.family)), {.weights = options.weights})
                                : load_vae<T>(options.vae, file.family, {.weights = options.weights});
  out.scheduler = usual_scheduler(file.family, v, file.zero_terminal_snr);
  if (options.prediction) out.scheduler.config.prediction_type = options.prediction;
  out.latent_consistency = config.time_cond_proj_dim > 0;
  if (out.latent_consistency) out.scheduler.name = "lcm";
  return out;
}

}  // namespace detail

/// Throws FileError on a checkpoint of another family, a missing component, and parts that do not fit together.
template <class T>
DiffusionComponents<T> load_components(const std::string& path, const DiffusionLoadOptions& options = {}) {
  DiffusionComponents<T> out = detail::is_folder(path) ? detail::load_folder<T>(path, options) : detail::load_single_file<T>(path, options);
  detail::check_widths(path, out);
  out.vae.config.shift_factor = 0;  // diffusers' pipelines of Stable Diffusion do not read it
  if (out.family != DiffusionFamily::sdxl) out.vae.config.latents_mean.clear(), out.vae.config.latents_std.clear();  // XL alone reads them
  return out;
}

}  // namespace tenon::inline TENON_ABI
