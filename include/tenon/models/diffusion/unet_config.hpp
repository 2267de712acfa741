#pragma once
// The configuration of a U-Net, as diffusers' config.json has it (UNet2DConditionModel, UNet2DModel, ControlNetModel).
#include <algorithm>
#include <initializer_list>
#include <optional>

#include <nlohmann/json.hpp>

#include <tenon/io/json.hpp>
#include <tenon/models/diffusion/resnet.hpp>

namespace tenon::inline TENON_ABI {

/// What follows each resnet of a block: nothing, a Transformer2d over the text, or self-attention over the pixels.
enum class UnetBlockType { plain, cross_attention, self_attention };

/// The defaults are those of Stable Diffusion 1.5. Lists have an element for each block of the way down, or one for all.
struct UnetConfig {
  Index sample_size = 64;  ///< latents' or pixels' side that the model was trained on
  Index in_channels = 4;   ///< 9 for inpainting: latents, mask, masked picture
  Index out_channels = 4;
  bool center_input_sample = false;
  bool flip_sin_to_cos = true;
  double freq_shift = 0;
  std::vector<UnetBlockType> down_block_types = {UnetBlockType::cross_attention, UnetBlockType::cross_attention, UnetBlockType::cross_attention,
                                                 UnetBlockType::plain};
  std::optional<UnetBlockType> mid_block_type = UnetBlockType::cross_attention;
  Index mid_block_layers = 1;  ///< attentions in the mid block, each with a resnet behind it
  std::vector<UnetBlockType> up_block_types = {UnetBlockType::plain, UnetBlockType::cross_attention, UnetBlockType::cross_attention,
                                               UnetBlockType::cross_attention};
  std::vector<Index> block_out_channels = {320, 640, 1280, 1280};
  std::vector<Index> layers_per_block = {2};
  std::vector<bool> only_cross_attention = {false};
  std::vector<Index> cross_attention_dim = {768};
  std::vector<std::vector<Index>> transformer_layers_per_block = {{1}};          ///< of each block's layers, or one for all
  std::vector<std::vector<Index>> reverse_transformer_layers_per_block = {};     ///< of the way up; the way down's, reversed, when empty
  std::vector<Index> attention_head_dim = {8};  ///< diffusers' name: the number of heads over a text; over pixels a head's width, 0 for all
  bool use_linear_projection = false;
  Index downsample_padding = 1;  ///< 0: one pixel right and bottom
  Index norm_num_groups = 32;
  double norm_eps = 1e-5;
  Index attn_norm_num_groups = 0;  ///< of a mid block's self-attention; norm_num_groups when 0
  TimeEmbeddingNorm resnet_time_scale_shift = TimeEmbeddingNorm::add;
  Index time_cond_proj_dim = 0;                     ///< width of a guidance embedding (LCM); 0: none
  Index num_class_embeds = 0;                       ///< classes; 0: none
  Index addition_time_embed_dim = 0;                ///< width of each of SDXL's time ids; 0: none
  Index projection_class_embeddings_input_dim = 0;  ///< width of SDXL's pooled text and time ids together

  std::size_t levels() const { return block_out_channels.size(); }
  Index time_width() const { return 4 * block_out_channels.front(); }
  /// Whether a block attends to a text.
  bool conditional() const {
    const auto cross = [](const auto& types) { return std::find(types.begin(), types.end(), UnetBlockType::cross_attention) != types.end(); };
    return cross(down_block_types) || cross(up_block_types) || mid_block_type == UnetBlockType::cross_attention;
  }
  /// The element for one block.
  template <class List>
  static auto of(const List& list, std::size_t block) {
    return list.size() == 1 ? list.front() : list.at(block);
  }
};

/// Throws Error that names the first value that does not fit the others.
inline void check_unet_config(const UnetConfig& c) {
  const auto expect = [](bool condition, const auto&... parts) { check(condition, "unet", parts...); };
  const std::size_t levels = c.levels();
  expect(levels > 0 && c.down_block_types.size() == levels && c.up_block_types.size() == levels, "expected as many down_block_types and ",
         "up_block_types as block_out_channels, got ", c.down_block_types.size(), ", ", c.up_block_types.size(), " and ", levels);
  const auto length = [&](std::string_view name, std::size_t size) {
    expect(size == 1 || size == levels, "expected one element in ", name, " or one for each of ", levels, " blocks, got ", size);
  };
  length("layers_per_block", c.layers_per_block.size());
  length("only_cross_attention", c.only_cross_attention.size());
  length("cross_attention_dim", c.cross_attention_dim.size());
  length("transformer_layers_per_block", c.transformer_layers_per_block.size());
  length("attention_head_dim", c.attention_head_dim.size());
  if (!c.reverse_transformer_layers_per_block.empty()) length("reverse_transformer_layers_per_block", c.reverse_transformer_layers_per_block.size());
  expect(!c.mid_block_type || c.mid_block_layers >= 0, "expected mid_block_layers of at least 0, got ", c.mid_block_layers);
  expect(c.norm_num_groups > 0, "expected norm_num_groups of at least 1, got ", c.norm_num_groups);
  for (const Index channels : c.block_out_channels)
    expect(channels > 0 && channels % c.norm_num_groups == 0, "expected block_out_channels that ", c.norm_num_groups,
           " groups divide, got ", channels);
}

namespace detail {

inline std::string_view name_of_block(UnetBlockType type, bool down) {
  if (type == UnetBlockType::plain) return down ? "DownBlock2D" : "UpBlock2D";
  if (type == UnetBlockType::cross_attention) return down ? "CrossAttnDownBlock2D" : "CrossAttnUpBlock2D";
  return down ? "AttnDownBlock2D" : "AttnUpBlock2D";
}
inline UnetBlockType block_named(const Json& json, const std::string& key, std::string_view name, bool down) {
  for (const auto type : {UnetBlockType::plain, UnetBlockType::cross_attention, UnetBlockType::self_attention})
    if (name == name_of_block(type, down)) return type;
  fail<FileError>("unet", json.file(), ": ", key, ": tenon does not have \"", name, "\"");
}

/// Throws FileError unless a value is absent, null or one of those that this U-Net does.
inline void only_known(const Json& json, const std::string& key, std::initializer_list<nlohmann::json> known) {
  if (!json.contains(key)) return;
  const Json entry = json.at(key);
  const nlohmann::json& value = entry.value();
  bool found = value.is_null();
  for (const auto& one : known) found = found || value == one;
  check<FileError>(found, "unet", json.file(), ": ", key, ": tenon does not have ",
                   value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

/// A list, or one value as a list of one.
template <class T>
std::vector<T> read_list(const Json& json, const std::string& key, std::vector<T> fallback) {
  if (json.is_null(key)) return fallback;
  if (!json.at(key).is_array()) return {json.get<T>(key)};
  const auto out = json.get<std::vector<T>>(key);
  check<FileError>(!out.empty(), "unet", json.file(), ": ", key, ": expected at least one element");
  return out;
}
/// Elements of which each may be a list.
inline std::vector<std::vector<Index>> read_lists(const Json& json, const std::string& key, std::vector<std::vector<Index>> fallback) {
  if (json.is_null(key)) return fallback;
  if (!json.at(key).is_array()) return {{json.get<Index>(key)}};
  std::vector<std::vector<Index>> out;
  for (Index i = 0; i < json.at(key).size(); ++i) out.push_back(read_list<Index>(json, join_text(key, '.', i), {}));
  return out;
}

}  // namespace detail

/// Reads config.json as diffusers writes it for a UNet2DConditionModel, a UNet2DModel or a ControlNetModel; what is absent has
/// that class's default. Throws FileError on a wrong value, and on one that asks for what tenon does not have.
inline UnetConfig read_unet_config(const Json& json) {
  const bool conditional = json.get<std::string>("_class_name", "UNet2DConditionModel") != "UNet2DModel";
  detail::only_known(json, "_class_name", {"UNet2DConditionModel", "UNet2DModel", "ControlNetModel"});
  detail::only_known(json, "act_fn", {"silu", "swish"});
  detail::only_known(json, "time_embedding_type", {"positional"});
  detail::only_known(json, "addition_embed_type", {"text_time"});
  detail::only_known(json, "attention_type", {"default"});
  for (const char* key : {"conv_in_kernel", "conv_out_kernel"}) detail::only_known(json, key, {3});
  for (const char* key : {"mid_block_scale_factor", "resnet_out_scale_factor"}) detail::only_known(json, key, {1});
  for (const char* key : {"downsample_type", "upsample_type"}) detail::only_known(json, key, {"conv"});
  for (const char* key : {"dual_cross_attention", "class_embeddings_concat", "resnet_skip_time_act", "mid_block_only_cross_attention"})
    detail::only_known(json, key, {false});
  for (const char* key : {"class_embed_type", "encoder_hid_dim", "encoder_hid_dim_type", "time_embedding_act_fn", "timestep_post_act",
                          "cross_attention_norm", "num_attention_heads", "time_embedding_dim"})
    detail::only_known(json, key, {});

  check_extents(json, {"in_channels", "out_channels", "block_out_channels", "cross_attention_dim", "attention_head_dim", "norm_num_groups", "attn_norm_num_groups", "sample_size"}, 1);
  check_extents(json, {"time_cond_proj_dim", "num_class_embeds", "addition_time_embed_dim", "projection_class_embeddings_input_dim"}, 0);
  check_extents(json, {"layers_per_block", "transformer_layers_per_block", "reverse_transformer_layers_per_block"}, 0, max_layers);

  UnetConfig c;
  if (!conditional) {
    using enum UnetBlockType;
    c.in_channels = c.out_channels = 3;
    c.down_block_types = {plain, self_attention, self_attention, self_attention};
    c.mid_block_type = json.get("add_attention", true) ? self_attention : plain;
    c.up_block_types = {self_attention, self_attention, self_attention, plain};
    c.block_out_channels = {224, 448, 672, 896};
    if (json.contains("attention_head_dim") && json.is_null("attention_head_dim")) c.attention_head_dim = {0};
  } else {
    c.cross_attention_dim = {1280};
  }
  if (!json.is_null("sample_size"))
    c.sample_size = detail::read_list<Index>(json, "sample_size", {}).front();
  c.in_channels = json.get("in_channels", c.in_channels);
  c.out_channels = json.get("out_channels", c.out_channels);
  c.center_input_sample = json.get("center_input_sample", c.center_input_sample);
  c.flip_sin_to_cos = json.get("flip_sin_to_cos", c.flip_sin_to_cos);
  c.freq_shift = json.get("freq_shift", c.freq_shift);
  for (const bool down : {true, false}) {
    const std::string key = down ? "down_block_types" : "up_block_types";
    auto& types = down ? c.down_block_types : c.up_block_types;
    if (!json.contains(key)) continue;
    types.clear();
    for (const auto& name : json.get<std::vector<std::string>>(key)) types.push_back(detail::block_named(json, key, name, down));
  }
  if (json.get<std::string>("_class_name", "") == "ControlNetModel") c.up_block_types.assign(c.down_block_types.size(), UnetBlockType::plain);
  if (json.contains("mid_block_type")) {
    detail::only_known(json, "mid_block_type", {"UNetMidBlock2DCrossAttn", "UNetMidBlock2D"});
    const std::string name = json.get<std::string>("mid_block_type", "");
    if (name.empty()) {
      c.mid_block_type.reset();
    } else if (conditional) {
      c.mid_block_type = name == "UNetMidBlock2D" ? UnetBlockType::plain : UnetBlockType::cross_attention;
      c.mid_block_layers = name == "UNetMidBlock2D" ? 0 : 1;
    }
  }
  c.block_out_channels = json.get("block_out_channels", c.block_out_channels);
  c.layers_per_block = detail::read_list(json, "layers_per_block", c.layers_per_block);
  c.only_cross_attention = detail::read_list(json, "only_cross_attention", c.only_cross_attention);
  c.cross_attention_dim = detail::read_list(json, "cross_attention_dim", c.cross_attention_dim);
  c.transformer_layers_per_block = detail::read_lists(json, "transformer_layers_per_block", c.transformer_layers_per_block);
  c.reverse_transformer_layers_per_block = detail::read_lists(json, "reverse_transformer_layers_per_block", {});
  c.attention_head_dim = detail::read_list(json, "attention_head_dim", c.attention_head_dim);
  c.use_linear_projection = json.get("use_linear_projection", c.use_linear_projection);
  c.downsample_padding = json.get("downsample_padding", c.downsample_padding);
  check<FileError>(c.downsample_padding == 0 || c.downsample_padding == 1, "unet", json.file(), ": downsample_padding: expected 0 or 1, found ",
                   c.downsample_padding);
  c.norm_num_groups = json.get("norm_num_groups", c.norm_num_groups);
  c.norm_eps = json.get("norm_eps", c.norm_eps);
  c.attn_norm_num_groups = json.get("attn_norm_num_groups", c.attn_norm_num_groups);
  detail::only_known(json, "resnet_time_scale_shift", {"default", "scale_shift"});
  if (json.get<std::string>("resnet_time_scale_shift", "default") == "scale_shift") c.resnet_time_scale_shift = TimeEmbeddingNorm::scale_shift;
  c.time_cond_proj_dim = json.get("time_cond_proj_dim", c.time_cond_proj_dim);
  c.num_class_embeds = json.get("num_class_embeds", c.num_class_embeds);
  if (!json.get<std::string>("addition_embed_type", "").empty()) {
    c.addition_time_embed_dim = json.get<Index>("addition_time_embed_dim");
    c.projection_class_embeddings_input_dim = json.get<Index>("projection_class_embeddings_input_dim");
  }
  check_unet_config(c);
  return c;
}
/// As above, from the file of a folder: `path`/config.json, or the file itself.
inline UnetConfig read_unet_config(const std::string& path) {
  return read_unet_config(Json::read(path.ends_with(".json") ? path : path + "/config.json"));
}

/// As diffusers reads it: a UNet2DConditionModel, or a UNet2DModel where nothing attends to a text.
inline nlohmann::json write_unet_config(const UnetConfig& c) {
  const auto types = [](const std::vector<UnetBlockType>& list, bool down) {
    nlohmann::json out = nlohmann::json::array();
    for (const auto type : list) out.push_back(std::string(detail::name_of_block(type, down)));
    return out;
  };
  const auto single = [](const auto& list) { return list.size() == 1 ? nlohmann::json(list.front()) : nlohmann::json(list); };
  const auto nested = [&](const std::vector<std::vector<Index>>& lists) {
    std::vector<nlohmann::json> out;
    for (const auto& list : lists) out.push_back(single(list));
    return single(out);
  };
  const auto optional = [](Index value) { return value > 0 ? nlohmann::json(value) : nlohmann::json(); };
  const bool conditional = c.conditional();
  nlohmann::json out{{"_class_name", conditional ? "UNet2DConditionModel" : "UNet2DModel"},
                     {"act_fn", "silu"},
                     {"sample_size", c.sample_size},
                     {"in_channels", c.in_channels},
                     {"out_channels", c.out_channels},
                     {"center_input_sample", c.center_input_sample},
                     {"flip_sin_to_cos", c.flip_sin_to_cos},
                     {"freq_shift", c.freq_shift},
                     {"down_block_types", types(c.down_block_types, true)},
                     {"up_block_types", types(c.up_block_types, false)},
                     {"block_out_channels", c.block_out_channels},
                     {"layers_per_block", single(c.layers_per_block)},
                     {"downsample_padding", c.downsample_padding},
                     {"norm_num_groups", c.norm_num_groups},
                     {"norm_eps", c.norm_eps},
                     {"attention_head_dim", single(c.attention_head_dim)},
                     {"resnet_time_scale_shift", c.resnet_time_scale_shift == TimeEmbeddingNorm::add ? "default" : "scale_shift"},
                     {"num_class_embeds", optional(c.num_class_embeds)}};
  const bool bare = c.mid_block_type == UnetBlockType::plain;
  out["mid_block_type"] = !c.mid_block_type ? nlohmann::json() : nlohmann::json(conditional && !bare ? "UNetMidBlock2DCrossAttn" : "UNetMidBlock2D");
  if (!conditional) {
    out["add_attention"] = !bare;
    out["attn_norm_num_groups"] = optional(c.attn_norm_num_groups);
    if (c.attention_head_dim == std::vector<Index>{0}) out["attention_head_dim"] = nlohmann::json();
    return out;
  }
  out.update({{"only_cross_attention", single(c.only_cross_attention)},
              {"cross_attention_dim", single(c.cross_attention_dim)},
              {"transformer_layers_per_block", nested(c.transformer_layers_per_block)},
              {"reverse_transformer_layers_per_block",
               c.reverse_transformer_layers_per_block.empty() ? nlohmann::json() : nested(c.reverse_transformer_layers_per_block)},
              {"use_linear_projection", c.use_linear_projection},
              {"time_cond_proj_dim", optional(c.time_cond_proj_dim)},
              {"addition_embed_type", c.addition_time_embed_dim > 0 ? nlohmann::json("text_time") : nlohmann::json()},
              {"addition_time_embed_dim", optional(c.addition_time_embed_dim)},
              {"projection_class_embeddings_input_dim", optional(c.projection_class_embeddings_input_dim)}});
  return out;
}

}  // namespace tenon::inline TENON_ABI
