#pragma once
// The definitions of config.hpp.
#include <algorithm>

#include <nlohmann/json.hpp>

#include <tenon/models/clip/config.hpp>

namespace tenon::inline TENON_ABI {

TENON_IN_BODY ClipConfig read_clip_config(const Json& json) {
  ClipConfig c;
  c.projection_dim = json.get("projection_dim", c.projection_dim);
  c.logit_scale_init_value = json.get("logit_scale_init_value", c.logit_scale_init_value);
  // an old file's text_config_dict and vision_config_dict come in the place of the others, as in transformers
  const std::string text = json.is_null("text_config_dict") ? "text_config." : "text_config_dict.";
  const std::string vision = json.is_null("vision_config_dict") ? "vision_config." : "vision_config_dict.";
  const auto common = [&](const std::string& part, auto& tower) {
    tower.hidden_size = json.get(part + "hidden_size", tower.hidden_size);
    tower.intermediate_size = json.get(part + "intermediate_size", tower.intermediate_size);
    tower.num_hidden_layers = json.get(part + "num_hidden_layers", tower.num_hidden_layers);
    tower.num_attention_heads = json.get(part + "num_attention_heads", tower.num_attention_heads);
    tower.hidden_act = kernels::activation_from_name(json.get(part + "hidden_act", std::string(name_of(tower.hidden_act))));
    tower.layer_norm_eps = json.get(part + "layer_norm_eps", tower.layer_norm_eps);
  };
  common(text, c.text_config);
  common(vision, c.vision_config);
  c.text_config.vocab_size = json.get(text + "vocab_size", c.text_config.vocab_size);
  c.text_config.max_position_embeddings = json.get(text + "max_position_embeddings", c.text_config.max_position_embeddings);
  c.text_config.eos_token_id = json.get(text + "eos_token_id", c.text_config.eos_token_id);
  if (c.text_config.eos_token_id == 2)  // old files carry a wrong 2; transformers then takes the largest id
    c.text_config.eos_token_id = static_cast<std::int32_t>(std::min<Index>(49407, c.text_config.vocab_size - 1));
  c.vision_config.image_size = json.get(vision + "image_size", c.vision_config.image_size);
  c.vision_config.patch_size = json.get(vision + "patch_size", c.vision_config.patch_size);
  c.vision_config.num_channels = json.get(vision + "num_channels", c.vision_config.num_channels);
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
  const Activation act = model.get("quick_gelu", false) ? Activation::quick_gelu : Activation::gelu;
  c.projection_dim = model.get<Index>("embed_dim");
  ClipTextConfig& text = c.text_config;
  text.max_position_embeddings = model.get<Index>("text_cfg.context_length", 77);
  text.vocab_size = model.get<Index>("text_cfg.vocab_size", 49408);
  text.hidden_size = model.get<Index>("text_cfg.width", 512);
  text.num_attention_heads = model.get<Index>("text_cfg.heads", 8);
  text.num_hidden_layers = model.get<Index>("text_cfg.layers", 12);
  text.intermediate_size = static_cast<Index>(static_cast<double>(text.hidden_size) * model.get("text_cfg.mlp_ratio", 4.0));
  text.eos_token_id = static_cast<std::int32_t>(std::min<Index>(49407, text.vocab_size - 1));
  text.hidden_act = act;
  text.layer_norm_eps = model.get("text_cfg.norm_kwargs.eps", text.layer_norm_eps);
  const Index width = model.get<Index>("vision_cfg.width", 768), image_size = model.get<Index>("vision_cfg.image_size", 224);
  if (model.contains("vision_cfg.layers.0")) {
    const auto layers = model.get<std::vector<Index>>("vision_cfg.layers");
    check<FileError>(layers.size() == 4, "clip", model.file(), ": vision_cfg.layers: expected 4 numbers, found ", layers.size());
    ClipResNetConfig& vision = c.resnet_config.emplace();
    vision = {image_size, model.get<Index>("vision_cfg.width", 64), {layers[0], layers[1], layers[2], layers[3]}, 0};
    vision.num_attention_heads = 32 * vision.width / model.get<Index>("vision_cfg.head_width", 64);
    return c;
  }
  ClipVisionConfig& vision = c.vision_config;
  vision.image_size = image_size;
  vision.patch_size = model.get<Index>("vision_cfg.patch_size", 16);
  vision.hidden_size = width;
  vision.num_hidden_layers = model.get<Index>("vision_cfg.layers", 12);
  vision.num_attention_heads = width / model.get<Index>("vision_cfg.head_width", 64);
  vision.intermediate_size = static_cast<Index>(static_cast<double>(width) * model.get("vision_cfg.mlp_ratio", 4.0));
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
  vision.update({{"model_type", "clip_vision_model"}, {"image_size", c.vision_config.image_size}, {"patch_size", c.vision_config.patch_size},
                 {"num_channels", c.vision_config.num_channels}});
  return {{"architectures", {"CLIPModel"}}, {"model_type", "clip"}, {"projection_dim", c.projection_dim},
          {"logit_scale_init_value", c.logit_scale_init_value}, {"text_config", text}, {"vision_config", vision}};
}

}  // namespace tenon::inline TENON_ABI
