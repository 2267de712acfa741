#pragma once
// A text tower of a diffusion pipeline, as a folder of transformers (CLIPTextModel, CLIPTextModelWithProjection) or a single
// file has it.
#include <tenon/io/checkpoint.hpp>
#include <tenon/models/clip/text.hpp>
#include <tenon/models/diffusion/single_file_names.hpp>
#include <tenon/nn/linear.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
struct TextEncoder {
  ClipText<T> text_model;
  std::optional<Linear<T>> text_projection;  ///< D -> P, no bias

  TextEncoder() = default;
  /// Declared: to be loaded or initialised. `projection` 0: none.
  explicit TextEncoder(const ClipTextConfig& config, Index projection = 0) : text_model(config) {
    if (projection > 0) text_projection.emplace(config.hidden_size, projection, false);
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("text_model", s.text_model);
    f("text_projection", s.text_projection);
  }
};

/// The config.json of a CLIPTextModel. Throws FileError on another model and on wrong values.
inline ClipTextConfig read_text_config(const Json& json) {
  const auto type = json.get<std::string>("model_type", "clip_text_model");
  check<FileError>(type == "clip_text_model" || type == "clip", "text_encoder", json.file(), ": expected a CLIP text model, found ", type);
  const std::string part = json.contains("text_config.hidden_size") ? "text_config." : "";
  ClipTextConfig c;
  c.vocab_size = read_extent(json, part + "vocab_size", c.vocab_size);
  c.hidden_size = read_extent(json, part + "hidden_size", c.hidden_size);
  c.intermediate_size = read_extent(json, part + "intermediate_size", c.intermediate_size);
  c.num_hidden_layers = read_extent(json, part + "num_hidden_layers", c.num_hidden_layers, 0, max_layers);
  c.num_attention_heads = read_extent(json, part + "num_attention_heads", c.num_attention_heads);
  c.max_position_embeddings = read_extent(json, part + "max_position_embeddings", c.max_position_embeddings);
  c.hidden_act = read_activation(json, part + "hidden_act", c.hidden_act);
  c.layer_norm_eps = json.get(part + "layer_norm_eps", c.layer_norm_eps);
  c.eos_token_id = json.get(part + "eos_token_id", c.eos_token_id);
  if (c.eos_token_id == 2)  // old files carry a wrong 2; transformers then takes the largest id
    c.eos_token_id = static_cast<std::int32_t>(std::min<Index>(49407, c.vocab_size - 1));
  return c;
}

/// A frozen tower from a state dict under transformers' names. Throws one FileError that lists all that does not fit.
template <class T>
TextEncoder<T> make_text_encoder(const ClipTextConfig& config, const StateDict& dict, std::optional<DType> weights = {}) {
  constexpr const char* projection = "text_projection.weight";
  TextEncoder<T> out(config, dict.contains(projection) ? dict.info(projection).shape[0] : 0);
  LoadOptions load;
  load.weights = weights;
  load_params(params(out), dict, load);
  return out;
}

/// A frozen tower from a folder with config.json and model.safetensors (or pytorch_model.bin, or shards, or the `variant`
/// "fp16"). Throws FileError.
template <class T>
TextEncoder<T> load_text_encoder(const std::string& folder, std::optional<DType> weights = {}) {
  const ClipTextConfig config = read_text_config(Json::read(folder + "/config.json"));
  StateDict dict = open_checkpoint(folder, {"model", "model.fp16", "pytorch_model", "pytorch_model.fp16"});
  detail::to_hugging_face_text(dict);
  return make_text_encoder<T>(config, dict, weights);
}

}  // namespace tenon::inline TENON_ABI
