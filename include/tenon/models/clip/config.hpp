#pragma once
// The configuration of a CLIP model, as a Hugging Face folder's config.json has it.
#include <array>
#include <optional>
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

/// OpenAI's ModifiedResNet, in the place of the vision transformer. The defaults are those of RN50.
struct ClipResNetConfig {
  Index image_size = 224;
  Index width = 64;                           ///< channels after the stem
  std::array<Index, 4> layers = {3, 4, 6, 3};  ///< blocks of each stage
  Index num_attention_heads = 32;             ///< of the pooling at the end
};

struct ClipConfig {
  ClipTextConfig text_config;
  ClipVisionConfig vision_config;
  std::optional<ClipResNetConfig> resnet_config;  ///< when present, `vision_config` is not used
  Index projection_dim = 512;
  double logit_scale_init_value = 2.6592;

  Index image_size() const { return resnet_config ? resnet_config->image_size : vision_config.image_size; }
};

/// Reads config.json as Hugging Face writes it; what is absent keeps its default. Throws FileError on a wrong value.
TENON_IN_BODY ClipConfig read_clip_config(const Json& json);

/// Reads the `model_cfg` of open_clip's open_clip_config.json. Throws FileError on a wrong value or another family of towers.
TENON_IN_BODY ClipConfig read_open_clip_config(const Json& json);

TENON_IN_BODY nlohmann::json write_clip_config(const ClipConfig& c);

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/models/clip/config_body.hpp>
#endif
