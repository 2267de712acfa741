#pragma once
// The definitions of config.hpp.
#include <algorithm>

#include <nlohmann/json.hpp>

#include <tenon/io/pixels.hpp>
#include <tenon/models/clip/config.hpp>

namespace tenon::inline TENON_ABI {

TENON_IN_BODY Index read_extent(const Json& json, const std::string& key, Index absent, Index least, Index most) {
  const Index out = json.get(key, absent);
  check<FileError>(out >= least && out <= most, "clip", json.file(), ": ", key, ": expected ", least, " to ", most, ", found ", out);
  return out;
}

TENON_IN_BODY Activation read_activation(const Json& json, const std::string& key, Activation absent) {
  if (json.is_null(key)) return absent;
  const auto name = json.get<std::string>(key);
  try {
    return kernels::activation_from_name(name);
  } catch (const Error& e) {
    fail<FileError>("clip", json.file(), ": ", key, ": ", e.what());
  }
}

TENON_IN_BODY ImageSize read_image_size(const Json& json, const std::string& key, ImageSize absent) {
  if (json.is_null(key)) return absent;
  const auto side = [&](const std::string& at) { return read_extent(json, at, 0, 1, max_image_side); };
  const Json found = json.at(key);
  if (!found.is_array()) return side(key);
  check<FileError>(found.size() == 2, "clip", json.file(), ": ", key, ": expected a number or [height, width], found ", found.size(), " numbers");
  return {side(key + ".0"), side(key + ".1")};
}

TENON_IN_BODY ClipConfig read_clip_config(const Json& json) {
  ClipConfig c;
  c.projection_dim = read_extent(json, "projection_dim", c.projection_dim);
  c.logit_scale_init_value = json.get("logit_scale_init_value", c.logit_scale_init_value);
  // an old file's text_config_dict and vision_config_dict come in the place of the others, as in transformers
  const std::string text = json.is_null("text_config_dict") ? "text_config." : "text_config_dict.";
  const std::string vision = json.is_null("vision_config_dict") ? "vision_config." : "vision_config_dict.";
  const auto common = [&](const std::string& part, auto& tower) {
    tower.hidden_size = read_extent(json, part + "hidden_size", tower.hidden_size);
    tower.intermediate_size = read_extent(json, part + "intermediate_size", tower.intermediate_size);
    tower.num_hidden_layers = read_extent(json, part + "num_hidden_layers", tower.num_hidden_layers, 0, max_layers);
    tower.num_attention_heads = read_extent(json, part + "num_attention_heads", tower.num_attention_heads);
    tower.hidden_act = read_activation(json, part + "hidden_act", tower.hidden_act);
    tower.layer_norm_eps = json.get(part + "layer_norm_eps", tower.layer_norm_eps);
  };
  common(text, c.text_config);
  common(vision, c.vision_config);
  c.text_config.vocab_size = read_extent(json, text + "vocab_size", c.text_config.vocab_size);
  c.text_config.max_position_embeddings = read_extent(json, text + "max_position_embeddings", c.text_config.max_position_embeddings);
  c.text_config.eos_token_id = json.get(text + "eos_token_id", c.text_config.eos_token_id);
  if (c.text_config.eos_token_id == 2)  // old files carry a wrong 2; transformers then takes the largest id
    c.text_config.eos_token_id = static_cast<std::int32_t>(std::min<Index>(49407, c.text_config.vocab_size - 1));
  c.vision_config.image_size = read_image_size(json, vision + "image_size", c.vision_config.image_size);
  c.vision_config.patch_size = read_extent(json, vision + "patch_size", c.vision_config.patch_size);
  c.vision_config.num_channels = read_extent(json, vision + "num_channels", c.vision_config.num_channels);
  return c;
}

TENON_IN_BODY ClipConfig read_open_clip_config(const Json& json) {
  const Json model = json.contains("model_cfg") ? json.at("model_cfg") : json;
  for (const char* key : {"vision_cfg.timm_model_name", "text_cfg.hf_model_name"})
    check<FileError>(!model.contains(key), "clip", model.file(), ": ", key, " names a tower that tenon does not have");
  const std::pair<const char*, const char*> usual[] = {{"vision_cfg.pool_type", "tok"}, {"text_cfg.pool_type", "argmax"},
                                                      {"vision_cfg.act_kwargs.approximate", "none"}, {"text_cfg.act_kwargs.approximate", "none"}};
  for (const auto& [key, value] : usual)
    check<FileError>(model.get<std::string>(key, value) == value, "clip", model.file(), ": ", key, ": expected ", value, ", found ",
                     model.get<std::string>(key, value));
  check<FileError>(!model.get("text_cfg.no_causal_mask", false), "clip", model.file(), ": text_cfg.no_causal_mask: expected false, found true");
  ClipConfig c;
  const auto inner_width = [&](const std::string& tower, Index outer) {
    const double ratio = model.get(tower + ".mlp_ratio", 4.0);
    if (!(ratio > 0 && ratio <= 1024))
      fail<FileError>("clip", model.file(), ": ", tower, ".mlp_ratio: expected above 0 and at most 1024, found ", detail::shown(model.at(tower + ".mlp_ratio").value()));
    return static_cast<Index>(static_cast<double>(outer) * ratio);
  };
  const Activation act = model.get("quick_gelu", false) ? Activation::quick_gelu : Activation::gelu;
  c.projection_dim = read_extent(model, "embed_dim", model.get<Index>("embed_dim"));
  ClipTextConfig& text = c.text_config;
  text.max_position_embeddings = read_extent(model, "text_cfg.context_length", 77);
  text.vocab_size = read_extent(model, "text_cfg.vocab_size", 49408);
  text.hidden_size = read_extent(model, "text_cfg.width", 512);
  text.num_attention_heads = read_extent(model, "text_cfg.heads", 8);
  text.num_hidden_layers = read_extent(model, "text_cfg.layers", 12, 0, max_layers);
  text.intermediate_size = inner_width("text_cfg", text.hidden_size);
  text.eos_token_id = static_cast<std::int32_t>(std::min<Index>(49407, text.vocab_size - 1));
  text.hidden_act = act;
  text.layer_norm_eps = model.get("text_cfg.norm_kwargs.eps", text.layer_norm_eps);
  const Index width = read_extent(model, "vision_cfg.width", 768);
  const ImageSize image_size = read_image_size(model, "vision_cfg.image_size", 224);
  if (model.contains("vision_cfg.layers.0")) {
    const Index stages = model.at("vision_cfg.layers").size();
    check<FileError>(stages == 4, "clip", model.file(), ": vision_cfg.layers: expected 4 numbers, found ", stages);
    ClipResNetConfig& vision = c.resnet_config.emplace();
    check<FileError>(image_size.square(), "clip", model.file(), ": vision_cfg.image_size: expected one number for a ResNet, found ", image_size);
    vision = {image_size.height, read_extent(model, "vision_cfg.width", 64), {}, 0};
    for (std::size_t i = 0; i < 4; ++i) vision.layers[i] = read_extent(model, join_text("vision_cfg.layers.", i), 0, 0, max_layers);
    vision.num_attention_heads = 32 * vision.width / read_extent(model, "vision_cfg.head_width", 64);
    return c;
  }
  ClipVisionConfig& vision = c.vision_config;
  vision.image_size = image_size;
  vision.patch_size = read_extent(model, "vision_cfg.patch_size", 16);
  vision.hidden_size = width;
  vision.num_hidden_layers = read_extent(model, "vision_cfg.layers", 12, 0, max_layers);
  vision.num_attention_heads = width / read_extent(model, "vision_cfg.head_width", 64);
  vision.intermediate_size = inner_width("vision_cfg", width);
  vision.hidden_act = act;
  vision.layer_norm_eps = model.get("vision_cfg.norm_kwargs.eps", vision.layer_norm_eps);
  return c;
}

TENON_IN_BODY nlohmann::json write_clip_config(const ClipConfig& c) {
  const auto common = [&](const auto& tower) {
    return nlohmann::json{{"hidden_size", tower.hidden_size},
                          {"intermediate_size", tower.intermediate_size},
                          {"num_hidden_layers", tower.num_hidden_layers},
                          {"num_attention_heads", tower.num_attention_heads},
                          {"hidden_act", std::string(name_of(tower.hidden_act))},
                          {"layer_norm_eps", tower.layer_norm_eps},
                          {"projection_dim", c.projection_dim}};
  };
  nlohmann::json text = common(c.text_config), vision = common(c.vision_config);
  text.update({{"model_type", "clip_text_model"}, {"vocab_size", c.text_config.vocab_size},
               {"max_position_embeddings", c.text_config.max_position_embeddings}, {"eos_token_id", c.text_config.eos_token_id}});
  vision.update({{"model_type", "clip_vision_model"}, {"patch_size", c.vision_config.patch_size},
                 {"num_channels", c.vision_config.num_channels}});
  const ImageSize& size = c.vision_config.image_size;
  vision["image_size"] = size.square() ? nlohmann::json(size.height) : nlohmann::json{size.height, size.width};
  return {{"architectures", {"CLIPModel"}}, {"model_type", "clip"}, {"projection_dim", c.projection_dim},
          {"logit_scale_init_value", c.logit_scale_init_value}, {"text_config", text}, {"vision_config", vision}};
}

}  // namespace tenon::inline TENON_ABI
