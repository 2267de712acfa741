#pragma once
// The configuration of a CLIP model, as a Hugging Face folder's config.json has it.
#include <algorithm>
#include <string>

#include <tenon/io/json.hpp>
#include <tenon/kernels/activation_kind.hpp>

namespace tenon::inline TENON_ABI {

using kernels::Activation;

/// A transformer over tokens. The defaults are those of ViT-B/32.
struct ClipTextConfig {
  Index vocab_size = 49408;
  Index hidden_size = 512;
  Index intermediate_size = 2048;
  Index num_hidden_layers = 12;
  Index num_attention_heads = 8;
  Index max_position_embeddings = 77;
  Activation hidden_act = Activation::quick_gelu;
  double layer_norm_eps = 1e-5;
  std::int32_t eos_token_id = 49407;
};

/// A vision transformer over square patches.
struct ClipVisionConfig {
  Index image_size = 224;
  Index patch_size = 32;
  Index num_channels = 3;
  Index hidden_size = 768;
  Index intermediate_size = 3072;
  Index num_hidden_layers = 12;
  Index num_attention_heads = 12;
  Activation hidden_act = Activation::quick_gelu;
  double layer_norm_eps = 1e-5;

  Index grid() const { return image_size / patch_size; }
};

struct ClipConfig {
  ClipTextConfig text_config;
  ClipVisionConfig vision_config;
  Index projection_dim = 512;
  double logit_scale_init_value = 2.6592;
};

/// Reads config.json as Hugging Face writes it; what is absent keeps its default. Throws FileError on a wrong value.
inline ClipConfig read_clip_config(const Json& json) {
  ClipConfig c;
  c.projection_dim = json.get("projection_dim", c.projection_dim);
  c.logit_scale_init_value = json.get("logit_scale_init_value", c.logit_scale_init_value);
  const auto common = [&](const std::string& part, auto& tower) {
    tower.hidden_size = json.get(part + "hidden_size", tower.hidden_size);
    tower.intermediate_size = json.get(part + "intermediate_size", tower.intermediate_size);
    tower.num_hidden_layers = json.get(part + "num_hidden_layers", tower.num_hidden_layers);
    tower.num_attention_heads = json.get(part + "num_attention_heads", tower.num_attention_heads);
    tower.hidden_act = kernels::activation_from_name(json.get(part + "hidden_act", std::string(name_of(tower.hidden_act))));
    tower.layer_norm_eps = json.get(part + "layer_norm_eps", tower.layer_norm_eps);
  };
  common("text_config.", c.text_config);
  common("vision_config.", c.vision_config);
  c.text_config.vocab_size = json.get("text_config.vocab_size", c.text_config.vocab_size);
  c.text_config.max_position_embeddings = json.get("text_config.max_position_embeddings", c.text_config.max_position_embeddings);
  c.text_config.eos_token_id = json.get("text_config.eos_token_id", c.text_config.eos_token_id);
  if (c.text_config.eos_token_id == 2)  // old files carry a wrong 2; transformers then takes the largest id
    c.text_config.eos_token_id = static_cast<std::int32_t>(std::min<Index>(49407, c.text_config.vocab_size - 1));
  c.vision_config.image_size = json.get("vision_config.image_size", c.vision_config.image_size);
  c.vision_config.patch_size = json.get("vision_config.patch_size", c.vision_config.patch_size);
  c.vision_config.num_channels = json.get("vision_config.num_channels", c.vision_config.num_channels);
  return c;
}

inline nlohmann::json write_clip_config(const ClipConfig& c) {
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
