#pragma once
// The vision tower of a CLIP alone, as transformers' CLIPVisionModelWithProjection has it: what an IP-Adapter looks through.
#include <tenon/io/checkpoint.hpp>
#include <tenon/models/clip/preprocess.hpp>
#include <tenon/models/clip/vision.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
struct ClipImageEncoder {
  ClipVision<T> vision_model;
  std::optional<Linear<T>> visual_projection;  ///< D -> P, no bias
  ClipImageProcessor processor;

  ClipImageEncoder() = default;
  /// Declared: to be loaded or initialised. `projection` 0: none.
  explicit ClipImageEncoder(const ClipVisionConfig& config, Index projection = 0) : vision_model(config), processor(config.image_size) {
    if (projection > 0) visual_projection.emplace(config.hidden_size, projection, false);
  }

  /// Normalised pictures [N, H, W, 3] -> [N, P]. Throws Error without a projection.
  Var<T> image_embeds(const Var<T>& pictures) const {
    check(visual_projection.has_value(), "image_encoder", "the model has no visual_projection");
    return (*visual_projection)(vision_model(pictures).pooled);
  }
  /// What the last layer but one puts out, [N, 1 + patches, D]: transformers' hidden_states[-2].
  Var<T> penultimate(const Var<T>& pictures) const {
    check(vision_model.config.num_hidden_layers >= 1, "image_encoder", "the model has no layers");
    std::vector<Var<T>> states;
    vision_model.encoder(vision_model.pre_layernorm(vision_model.embeddings(pictures)), &states);
    return states[states.size() - 2];
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("vision_model", s.vision_model);
    f("visual_projection", s.visual_projection);
  }
};

/// The config.json of a CLIPVisionModel or of a whole CLIP. Throws FileError on another model and on wrong values.
TENON_ON_CALL ClipVisionConfig read_vision_config(const Json& json) {
  const auto type = json.get<std::string>("model_type", "clip_vision_model");
  check<FileError>(type == "clip_vision_model" || type == "clip", "image_encoder", json.file(), ": expected a CLIP vision model, found ", type);
  const std::string part = json.contains("vision_config.hidden_size") || type == "clip" ? "vision_config." : "";
  ClipVisionConfig c;
  c.image_size = read_image_size(json, part + "image_size", c.image_size);
  c.patch_size = read_extent(json, part + "patch_size", c.patch_size);
  c.num_channels = read_extent(json, part + "num_channels", c.num_channels);
  c.hidden_size = read_extent(json, part + "hidden_size", c.hidden_size);
  c.intermediate_size = read_extent(json, part + "intermediate_size", c.intermediate_size);
  c.num_hidden_layers = read_extent(json, part + "num_hidden_layers", c.num_hidden_layers, 0, max_layers);
  c.num_attention_heads = read_extent(json, part + "num_attention_heads", c.num_attention_heads);
  c.hidden_act = read_activation(json, part + "hidden_act", c.hidden_act);
  c.layer_norm_eps = json.get(part + "layer_norm_eps", c.layer_norm_eps);
  return c;
}

/// A frozen encoder from a folder with config.json and model.safetensors (or pytorch_model.bin, or shards, or the variant "fp16"),
/// and preprocessor_config.json in it or in feature_extractor/ beside it, else OpenAI's values at the model's size. The text
/// tower of a whole CLIP is passed over. Throws FileError.
template <class T>
ClipImageEncoder<T> load_image_encoder(const std::string& folder, std::optional<DType> weights = {}) {
  const ClipVisionConfig config = read_vision_config(Json::read(folder + "/config.json"));
  StateDict dict = open_checkpoint(folder, {"model", "model.fp16", "pytorch_model", "pytorch_model.fp16"});
  dict.rename([](const std::string& name) -> std::optional<std::string> {
    const bool ours = (name.starts_with("vision_model.") && !name.ends_with(".position_ids")) || name == "visual_projection.weight";
    return ours ? std::optional(name) : std::nullopt;
  });
  constexpr const char* projection = "visual_projection.weight";
  ClipImageEncoder<T> out(config, dict.contains(projection) ? dict.info(projection).shape[0] : 0);
  LoadOptions load;
  load.weights = weights;
  load_params(params(out), dict, load);
  for (const char* place : {"/preprocessor_config.json", "/../feature_extractor/preprocessor_config.json"})
    if (::access((folder + place).c_str(), F_OK) == 0) {
      out.processor = read_image_processor(Json::read(folder + place), config.image_size);
      check<FileError>(out.processor.crop_size() == config.image_size, "image_encoder", folder, place,
                       ": expected pictures of the model's ", config.image_size, " pixels, found ", out.processor.crop_size());
      break;
    }
  return out;
}

}  // namespace tenon::inline TENON_ABI
