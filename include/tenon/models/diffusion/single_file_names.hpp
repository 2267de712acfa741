#pragma once
// Single files of Stable Diffusion: the names of the latent diffusion and generative-models repositories, brought to those
// of diffusers and transformers (diffusers: loaders/single_file_utils.py, rewritten from its tables of names).
#include <tenon/models/clip/names.hpp>

namespace tenon::inline TENON_ABI {

/// What a checkpoint of Stable Diffusion is one of.
enum class DiffusionFamily { sd1, sd2, sdxl };

constexpr std::string_view name_of(DiffusionFamily family) {
  constexpr std::string_view names[] = {"Stable Diffusion 1", "Stable Diffusion 2", "Stable Diffusion XL"};
  return names[static_cast<std::size_t>(family)];
}

namespace detail {

/// A name taken apart at its dots.
class DottedName {
 public:
  explicit DottedName(std::string_view name) {
    for (std::size_t begin = 0; begin <= name.size();) {
      const auto dot = std::min(name.find('.', begin), name.size());
      parts_.push_back(name.substr(begin, dot - begin));
      begin = dot + 1;
    }
  }
  std::size_t size() const { return parts_.size(); }
  std::string_view operator[](std::size_t i) const { return i < parts_.size() ? parts_[i] : std::string_view(); }
  /// A number of at most three digits, or -1.
  Index number(std::size_t i) const {
    const auto part = (*this)[i];
    if (part.empty() || part.size() > 3 || part.find_first_not_of("0123456789") != part.npos) return -1;
    return std::stoll(std::string(part));
  }
  /// `.` and what stands from the i-th part on.
  std::string rest(std::size_t i) const {
    std::string out;
    for (; i < parts_.size(); ++i) out.append(".").append(parts_[i]);
    return out;
  }

 private:
  std::vector<std::string_view> parts_;
};

struct NamePair {
  std::string_view from, to;
};
/// `name` with the first pair's beginning replaced that fits at a dot's end, or nothing.
inline std::optional<std::string> renamed_beginning(std::string_view name, std::span<const NamePair> pairs) {
  for (const auto& [from, to] : pairs)
    if (name.starts_with(from) && (name.size() == from.size() || name[from.size()] == '.')) return join_text(to, name.substr(from.size()));
  return std::nullopt;
}

inline std::string ldm_resnet_part(const std::string& rest) {
  static constexpr NamePair parts[] = {{".in_layers.0", ".norm1"},   {".in_layers.2", ".conv1"},  {".emb_layers.1", ".time_emb_proj"},
                                       {".out_layers.0", ".norm2"},  {".out_layers.3", ".conv2"}, {".skip_connection", ".conv_shortcut"}};
  return renamed_beginning(rest, parts).value_or(rest);
}

/// Brings a U-Net's names (input_blocks, ...) to diffusers'. Blocks are counted, so any depth will do.
inline void to_diffusers_unet(StateDict& dict) {
  if (!dict.contains("input_blocks.0.0.weight")) return;  // diffusers' own
  struct Place {
    std::size_t level;
    Index resnet;  // -1: the downsampler
  };
  std::map<Index, Place> input;
  std::vector<Index> per_level(1, 0);
  for (Index i = 1;; ++i) {
    const bool down = dict.contains(join_text("input_blocks.", i, ".0.op.weight"));
    if (!down && !dict.contains(join_text("input_blocks.", i, ".0.in_layers.2.weight"))) break;
    input[i] = {per_level.size() - 1, down ? -1 : per_level.back()++};
    if (down) per_level.push_back(0);
  }
  const Index each = per_level.front() + 1;  // an up block has one resnet more
  dict.rename([&](const std::string& name) -> std::optional<std::string> {
    static constexpr NamePair whole[] = {{"time_embed.0", "time_embedding.linear_1"}, {"time_embed.2", "time_embedding.linear_2"},
                                         {"time_embed.cond_proj", "time_embedding.cond_proj"},
                                         {"label_emb.0.0", "add_embedding.linear_1"}, {"label_emb.0.2", "add_embedding.linear_2"},
                                         {"input_blocks.0.0", "conv_in"},             {"out.0", "conv_norm_out"},
                                         {"out.2", "conv_out"}};
    if (auto to = renamed_beginning(name, whole)) return to;
    const DottedName parts(name);
    const Index block = parts.number(1), slot = parts.number(2);
    const auto layer = [&](std::string_view stem, Index place, std::size_t from) {
      return slot == 0 ? join_text(stem, "resnets.", place, ldm_resnet_part(parts.rest(from))) : join_text(stem, "attentions.", place, parts.rest(from));
    };
    if (parts[0] == "middle_block" && block >= 0)
      return block == 1 ? "mid_block.attentions.0" + parts.rest(2) : join_text("mid_block.resnets.", block / 2, ldm_resnet_part(parts.rest(2)));
    if (parts[0] == "input_blocks" && slot >= 0)
      if (const auto at = input.find(block); at != input.end()) {
        const std::string stem = join_text("down_blocks.", at->second.level, ".");
        return at->second.resnet < 0 ? stem + "downsamplers.0.conv" + parts.rest(4) : layer(stem, at->second.resnet, 3);
      }
    if (parts[0] == "output_blocks" && block >= 0 && slot >= 0) {
      const std::string stem = join_text("up_blocks.", block / each, ".");
      return parts[3] == "conv" ? stem + "upsamplers.0" + parts.rest(3) : layer(stem, block % each, 3);
    }
    return name;
  });
}

/// Brings an autoencoder's names to diffusers'; attention of one head kept as 1x1 kernels becomes matrices. Old diffusers
/// folders (query, key, value, proj_attn) are brought to today's names too.
inline void to_diffusers_vae(StateDict& dict) {
  Index levels = 0;
  while (dict.contains(join_text("decoder.up.", levels, ".block.0.conv1.weight"))) ++levels;
  dict.rename([&](const std::string& name) -> std::optional<std::string> {
    const DottedName parts(name);
    const std::string_view side = parts[0];
    if (side != "encoder" && side != "decoder") return name;
    const bool encoder = side == "encoder";
    const auto resnet = [](std::string rest) {
      static constexpr NamePair shortcut[] = {{".nin_shortcut", ".conv_shortcut"}};
      return renamed_beginning(rest, shortcut).value_or(rest);
    };
    if (parts[1] == "norm_out") return join_text(side, ".conv_norm_out", parts.rest(2));
    if (parts[1] == (encoder ? "down" : "up") && parts.number(2) >= 0 && levels > 0) {
      const std::string stem = join_text(side, encoder ? ".down_blocks." : ".up_blocks.", encoder ? parts.number(2) : levels - 1 - parts.number(2));
      if (parts[3] == "block" && parts.number(4) >= 0) return join_text(stem, ".resnets.", parts.number(4), resnet(parts.rest(5)));
      if (parts[3] == "downsample") return stem + ".downsamplers.0" + parts.rest(4);
      if (parts[3] == "upsample") return stem + ".upsamplers.0" + parts.rest(4);
    }
    if (parts[1] == "mid" && parts[2].starts_with("block_")) return join_text(side, ".mid_block.resnets.", parts[2] == "block_1" ? 0 : 1, resnet(parts.rest(3)));
    static constexpr NamePair attention[] = {{".norm", ".group_norm"}, {".q", ".to_q"},         {".k", ".to_k"},         {".v", ".to_v"},
                                             {".proj_out", ".to_out.0"}, {".query", ".to_q"},      {".key", ".to_k"},
                                             {".value", ".to_v"},        {".proj_attn", ".to_out.0"}};
    if (parts[1] == "mid" && parts[2] == "attn_1") return join_text(side, ".mid_block.attentions.0", renamed_beginning(parts.rest(3), attention).value_or(parts.rest(3)));
    if (parts[1] == "mid_block" && parts[2] == "attentions")
      return join_text(side, ".mid_block.attentions.", parts[3], renamed_beginning(parts.rest(4), attention).value_or(parts.rest(4)));
    return name;
  });
  for (const std::string& name : dict.names())
    if (const Shape& shape = dict.info(name).shape;
        name.find(".mid_block.attentions.") != name.npos && shape.rank() == 4 && shape[2] == 1 && shape[3] == 1)
      dict.reshape(name, {shape[0], shape[1]});
}

/// Brings a text tower's names to `text_model.` and, where there is one, `text_projection.weight`.
inline void to_hugging_face_text(StateDict& dict) {
  dict.rename([](const std::string& name) -> std::optional<std::string> {
    if (name.ends_with("position_ids") || name == "logit_scale" || name == "attn_mask") return std::nullopt;
    if (name.starts_with("embeddings.") || name.starts_with("encoder.") || name.starts_with("final_layer_norm.")) return "text_model." + name;
    return name;
  });
  to_hugging_face_clip(dict);
}

inline Index layer_count(const StateDict& dict, std::string_view prefix, std::string_view ending) {
  Index count = 0;
  while (dict.contains(join_text(prefix, count, ending))) ++count;
  return count;
}

}  // namespace detail

/// The parts of a single file, each under diffusers' names.
struct SingleFile {
  DiffusionFamily family = DiffusionFamily::sd1;
  bool v_prediction = false;       ///< the file's key v_pred, or what the family's own checkpoint predicts
  bool zero_terminal_snr = false;  ///< the file's key ztsnr
  StateDict unet{""}, vae{""}, text_encoder{""};
  std::optional<StateDict> text_encoder_2;
};

/// Takes a single file apart. What training left beside the model (model_ema, betas, ...) is not read. A file of SD2 does not
/// say whether it predicts noise or v: `v_prediction` is set for it unless it is for inpainting (the 768 checkpoint's habit,
/// wrong for the 512 base), and StableDiffusion's load takes another word. Throws FileError on a checkpoint of another
/// family, on the refiner of SDXL, and when a part is missing.
inline SingleFile split_single_file(const StateDict& file) {
  const std::string& source = file.source();
  constexpr std::string_view unet_prefix = "model.diffusion_model.", vae_prefixes[] = {"first_stage_model.", "vae."};
  const auto has = [&](std::string_view prefix) {
    const auto names = file.names();
    const auto at = std::lower_bound(names.begin(), names.end(), prefix);
    return at != names.end() && at->starts_with(prefix);
  };
  const auto part = [&](std::string_view prefix, std::string_view what) {
    StateDict out(join_text(source, " (", what, ")"));
    for (const auto& name : file.names())
      if (name.starts_with(prefix)) out.insert(name.substr(prefix.size()), file.info(name));
    check<FileError>(out.size() > 0, "single_file", source, ": expected the ", what, " under ", prefix, ", found nothing there");
    return out;
  };
  for (const auto& [prefix, what] : {std::pair<std::string_view, std::string_view>{"model.diffusion_model.joint_blocks.", "Stable Diffusion 3"},
                                     {"model.diffusion_model.double_blocks.", "Flux"},
                                     {"double_blocks.", "Flux"},
                                     {"control_model.", "a ControlNet"},
                                     {"edm_", "Playground 2.5"},
                                     {"lora_unet_", "a LoRA"},
                                     {"lora_te", "a LoRA"},
                                     {"conditioner.embedders.0.model.", "the refiner of Stable Diffusion XL"}})
    check<FileError>(!has(prefix), "single_file", source, ": expected a checkpoint of Stable Diffusion 1, 2 or XL, found ", what);
  check<FileError>(file.contains("model.diffusion_model.input_blocks.0.0.weight"), "single_file", source,
                   ": expected a checkpoint of Stable Diffusion 1, 2 or XL, with model.diffusion_model.input_blocks.0.0.weight; found ", file.size(),
                   " tensors, such as ", file.size() > 0 ? file.names().front() : std::string("none"));
  SingleFile out;
  const bool xl = has("conditioner.embedders."), open_clip = has("cond_stage_model.model.");
  out.family = xl ? DiffusionFamily::sdxl : open_clip ? DiffusionFamily::sd2 : DiffusionFamily::sd1;
  out.unet = part(unet_prefix, "U-Net");
  const bool eight_or_nine = out.unet.info("input_blocks.0.0.weight").shape.rank() == 4 && out.unet.info("input_blocks.0.0.weight").shape[1] > 4;
  out.v_prediction = file.contains("v_pred") || (out.family == DiffusionFamily::sd2 && !eight_or_nine);
  out.zero_terminal_snr = file.contains("ztsnr");
  detail::to_diffusers_unet(out.unet);
  out.vae = part(has(vae_prefixes[1]) && !has(vae_prefixes[0]) ? vae_prefixes[1] : vae_prefixes[0], "autoencoder");
  out.vae.rename([](const std::string& name) { return name.starts_with("loss.") || name.starts_with("model_ema.") ? std::nullopt : std::optional(name); });
  detail::to_diffusers_vae(out.vae);
  if (xl) {
    out.text_encoder = part("conditioner.embedders.0.transformer.", "first text encoder");
    out.text_encoder_2 = part("conditioner.embedders.1.model.", "second text encoder");
    detail::to_hugging_face_text(*out.text_encoder_2);
  } else {
    out.text_encoder = part(open_clip ? "cond_stage_model.model." : "cond_stage_model.transformer.", "text encoder");
  }
  detail::to_hugging_face_text(out.text_encoder);
  if (open_clip) {  // SD2 takes the last layer but one: diffusers leaves the last out
    const Index last = detail::layer_count(out.text_encoder, "text_model.encoder.layers.", ".layer_norm1.weight") - 1;
    const std::string dropped = join_text("text_model.encoder.layers.", last, ".");
    out.text_encoder.rename([&](const std::string& name) {
      return name.starts_with(dropped) || name.starts_with("text_projection") ? std::nullopt : std::optional(name);
    });
  }
  return out;
}

/// The configuration of a text tower that its shapes imply, heads 64 wide. Throws NameError or FileError when they imply none.
inline ClipTextConfig infer_text_config(const StateDict& dict, Activation act) {
  const auto matrix = [&](const char* name) {
    const Shape& shape = dict.info(name).shape;
    check<FileError>(shape.rank() == 2, "text_encoder", dict.source(), ": ", name, ": expected a matrix, found shape ", shape);
    return shape;
  };
  ClipTextConfig c;
  const Shape tokens = matrix("text_model.embeddings.token_embedding.weight");
  c.vocab_size = tokens[0];
  c.hidden_size = tokens[1];
  c.intermediate_size = matrix("text_model.encoder.layers.0.mlp.fc1.weight")[0];
  c.num_hidden_layers = detail::layer_count(dict, "text_model.encoder.layers.", ".layer_norm1.weight");
  c.num_attention_heads = std::max<Index>(1, c.hidden_size / 64);
  c.max_position_embeddings = matrix("text_model.embeddings.position_embedding.weight")[0];
  c.eos_token_id = static_cast<std::int32_t>(std::min<Index>(49407, c.vocab_size - 1));
  c.hidden_act = act;
  return c;
}

}  // namespace tenon::inline TENON_ABI
