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

/// Height and width of pictures in pixels; one number is a square.
struct ImageSize {
  Index height, width;

  constexpr ImageSize(Index side) : height(side), width(side) {}
  constexpr ImageSize(Index h, Index w) : height(h), width(w) {}
  constexpr bool operator==(const ImageSize&) const = default;
  constexpr bool square() const { return height == width; }
  /// "224", or "224 x 336" (height x width).
  std::string text() const { return square() ? join_text(height) : join_text(height, " x ", width); }
};

/// A vision transformer over square patches.
struct ClipVisionConfig {
  ImageSize image_size = 224;
  Index patch_size = 32;
  Index num_channels = 3;
  Index hidden_size = 768;
  Index intermediate_size = 3072;
  Index num_hidden_layers = 12;
  Index num_attention_heads = 12;
  Activation hidden_act = Activation::quick_gelu;
  double layer_norm_eps = 1e-5;

  Index grid_height() const { return image_size.height / patch_size; }
  Index grid_width() const { return image_size.width / patch_size; }
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

  ImageSize image_size() const { return resnet_config ? resnet_config->image_size : vision_config.image_size; }
};

/// The number at `key`; `absent` without it. Throws FileError outside the limits, which keep what is made of it in memory.
TENON_IN_BODY Index read_extent(const Json& json, const std::string& key, Index absent, Index least = 1, Index most = Index{1} << 24);

/// The activation that `key` names; `absent` without it. Throws FileError on another name.
TENON_IN_BODY Activation read_activation(const Json& json, const std::string& key, Activation absent);

/// The number or the pair [height, width] at `key`; `absent` without it. Throws FileError for anything else.
TENON_IN_BODY ImageSize read_image_size(const Json& json, const std::string& key, ImageSize absent);

/// Reads config.json as Hugging Face writes it; what is absent keeps its default. Throws FileError on a wrong value.
TENON_IN_BODY ClipConfig read_clip_config(const Json& json);

/// Reads the `model_cfg` of open_clip's open_clip_config.json. Throws FileError on a wrong value or another family of towers.
TENON_IN_BODY ClipConfig read_open_clip_config(const Json& json);

/// One number for a square picture, else [height, width]. transformers reads such a pair and builds no tower of it; tenon does.
TENON_IN_BODY nlohmann::json write_clip_config(const ClipConfig& c);

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/models/clip/config_body.hpp>
#endif
