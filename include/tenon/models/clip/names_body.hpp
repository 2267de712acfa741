#pragma once
// The definitions of names.hpp.
#include <array>
#include <cmath>

#include <tenon/models/clip/names.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

inline bool replace_prefix(std::string& name, std::string_view from, std::string_view to) {
  if (!name.starts_with(from)) return false;
  name.replace(0, from.size(), to);
  return true;
}

/// The name without what wrappers put before it; nothing for a tensor that is no parameter.
inline std::optional<std::string> unwrapped_clip_name(std::string name) {
  for (std::string_view wrapper : {"module.", "_orig_mod.", "clip_model.", "model.", "clip."}) replace_prefix(name, wrapper, "");
  for (std::string_view extra : {"input_resolution", "context_length", "vocab_size", "attn_mask", "text.attn_mask"})
    if (name == extra) return std::nullopt;
  if (name.ends_with(".position_ids") || name.ends_with(".num_batches_tracked")) return std::nullopt;
  // open_clip's CustomTextCLIP keeps the text tower apart
  for (std::string_view part : {"token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection"})
    replace_prefix(name, join_text("text.", part), part);
  return name;
}

/// Hugging Face's name for OpenAI's; a ResNet keeps its names under `visual.`.
inline std::string hugging_face_clip_name(std::string name) {
  struct Rename {
    std::string_view from, to;
  };
  constexpr Rename prefixes[] = {{"visual.transformer.resblocks.", "vision_model.encoder.layers."},
                                 {"transformer.resblocks.", "text_model.encoder.layers."},
                                 {"visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"},
                                 {"visual.class_embedding", "vision_model.embeddings.class_embedding"},
                                 {"visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"},
                                 {"visual.ln_pre.", "vision_model.pre_layrnorm."},
                                 {"visual.ln_post.", "vision_model.post_layernorm."},
                                 {"visual.proj", "visual_projection.weight"},
                                 {"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
                                 {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
                                 {"ln_final.", "text_model.final_layer_norm."}};
  for (const auto& [from, to] : prefixes)
    if (replace_prefix(name, from, to)) break;
  if (name == "text_projection") name = "text_projection.weight";
  constexpr Rename inner[] = {{".attn.out_proj.", ".self_attn.out_proj."}, {".attn.in_proj_", ".self_attn.in_proj_"},
                              {".ln_1.", ".layer_norm1."},                 {".ln_2.", ".layer_norm2."},
                              {".mlp.c_fc.", ".mlp.fc1."},                 {".mlp.c_proj.", ".mlp.fc2."}};
  for (const auto& [from, to] : inner)
    if (const auto at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
  return name;
}

/// Folds y = (x - mean) / sqrt(variance + 1e-5) * weight + bias into the convolution before it: names `bnK` follow
/// `convK`, `downsample.1` follows `downsample.0`.
TENON_ON_CALL void fold_batch_norms(StateDict& dict) {
  for (const std::string& name : dict.names()) {
    if (!name.ends_with(".running_var")) continue;
    const std::string norm = name.substr(0, name.size() - 12);
    const auto dot = norm.rfind('.') + 1;
    std::string conv = norm;
    if (norm.compare(dot, 2, "bn") == 0)
      conv.replace(dot, 2, "conv");
    else
      conv.replace(dot, std::string::npos, "0");
    const auto scale_of = [variance = dict.info(name).read, weight = dict.info(norm + ".weight").read] {
      Tensor<double> v = cast<double>(variance()), scale = cast<double>(weight());
      check<ShapeError>(v.shape() == scale.shape(), "clip", "a batch norm's weight and variance have shapes ", scale.shape(), " and ", v.shape());
      for (Index i = 0; i < scale.size(); ++i) scale.data()[i] /= std::sqrt(v.data()[i] + 1e-5);
      return scale;
    };
    const StoredTensor kernel = dict.info(conv + ".weight"), shift = dict.info(norm + ".bias"), center = dict.info(norm + ".running_mean");
    check<FileError>(kernel.shape.rank() == 4 && shift.shape == Shape{kernel.shape[0]} && center.shape == shift.shape &&
                         dict.info(name).shape == shift.shape,
                     "clip", dict.source(), ": ", norm, " does not fit ", conv, " of shape ", kernel.shape);
    for (const char* part : {".running_var", ".running_mean", ".weight", ".bias"}) dict.erase(norm + part);
    dict.erase(conv + ".weight");
    dict.insert(conv + ".weight", {DType::f32, "F32", kernel.shape, [scale_of, read = kernel.read] {
                  const Tensor<double> scale = scale_of(), w = cast<double>(read());
                  auto out = Tensor<float>::uninitialized(w.shape());
                  const Index each = w.size() / scale.size();
                  for (Index i = 0; i < w.size(); ++i) out.data()[i] = static_cast<float>(w.data()[i] * scale.data()[i / each]);
                  return raw_copy(out);
                }});
    dict.insert(conv + ".bias", {DType::f32, "F32", shift.shape, [scale_of, shift = shift.read, center = center.read] {
                  const Tensor<double> scale = scale_of(), b = cast<double>(shift()), m = cast<double>(center());
                  auto out = Tensor<float>::uninitialized(b.shape());
                  for (Index i = 0; i < b.size(); ++i) out.data()[i] = static_cast<float>(b.data()[i] - m.data()[i] * scale.data()[i]);
                  return raw_copy(out);
                }});
  }
  dict.rename([](const std::string& name) -> std::optional<std::string> {
    std::string out = name;
    if (const auto at = out.find(".downsample.0."); at != std::string::npos) out.replace(at, 14, ".downsample.");
    return out;
  });
}

}  // namespace detail

TENON_IN_BODY bool is_clip_resnet(const StateDict& dict) { return dict.contains("visual.layer1.0.conv1.weight"); }

TENON_IN_BODY void to_hugging_face_clip(StateDict& dict) {
  dict.rename([](const std::string& name) { return detail::unwrapped_clip_name(name); });
  if (dict.contains("logit_scale") && dict.info("logit_scale").shape == Shape{1}) dict.reshape("logit_scale", {});
  if (!dict.contains("positional_embedding") && !dict.contains("visual.conv1.weight")) return;  // Hugging Face's own
  const bool resnet = is_clip_resnet(dict);
  if (dict.contains("text_projection")) dict.transpose("text_projection");
  if (dict.contains("visual.proj")) dict.transpose("visual.proj");
  dict.rename([&](const std::string& name) -> std::optional<std::string> {
    return resnet && name.starts_with("visual.") ? name : detail::hugging_face_clip_name(name);
  });
  for (const std::string& name : dict.names())
    for (std::string_view kind : {"weight", "bias"}) {
      const std::string suffix = join_text(".in_proj_", kind);
      if (!name.ends_with(suffix)) continue;
      const std::string stem = name.substr(0, name.size() - suffix.size());
      dict.split(name, std::array{join_text(stem, ".q_proj.", kind), join_text(stem, ".k_proj.", kind), join_text(stem, ".v_proj.", kind)});
    }
  if (resnet) detail::fold_batch_norms(dict);
}

TENON_IN_BODY ClipConfig infer_clip_config(const StateDict& dict, Activation act) {
  const auto shape = [&](const std::string& name, Index rank) {
    const Shape& out = dict.info(name).shape;
    check<FileError>(out.rank() == rank, "clip", dict.source(), ": ", name, ": expected rank ", rank, ", found shape ", out);
    return out;
  };
  const auto depth = [&](const std::string& prefix) {
    Index count = 0;
    while (dict.contains(join_text(prefix, count, ".layer_norm1.weight")) || dict.contains(join_text(prefix, count, ".conv1.weight"))) ++count;
    return count;
  };
  const auto side = [&](Index places) {
    const auto out = static_cast<Index>(std::llround(std::sqrt(static_cast<double>(places))));
    check<FileError>(out > 0 && out * out == places, "clip", dict.source(), ": expected a square number of patches, found ", places);
    return out;
  };
  ClipConfig c;
  ClipTextConfig& text = c.text_config;
  const Shape tokens = shape("text_model.embeddings.token_embedding.weight", 2);
  text.vocab_size = tokens[0];
  text.hidden_size = tokens[1];
  text.intermediate_size = shape("text_model.encoder.layers.0.mlp.fc1.weight", 2)[0];
  text.num_hidden_layers = depth("text_model.encoder.layers.");
  text.num_attention_heads = std::max<Index>(1, text.hidden_size / 64);
  text.max_position_embeddings = shape("text_model.embeddings.position_embedding.weight", 2)[0];
  text.eos_token_id = static_cast<std::int32_t>(std::min<Index>(49407, text.vocab_size - 1));
  text.hidden_act = act;
  c.projection_dim = shape("text_projection.weight", 2)[0];
  if (is_clip_resnet(dict)) {
    ClipResNetConfig& vision = c.resnet_config.emplace();
    vision.width = shape("visual.conv3.weight", 4)[0];
    for (std::size_t i = 0; i < 4; ++i) vision.layers[i] = depth(join_text("visual.layer", i + 1, '.'));
    vision.image_size = 32 * side(shape("visual.attnpool.positional_embedding", 2)[0] - 1);
    vision.num_attention_heads = std::max<Index>(1, vision.width / 2);
    return c;
  }
  ClipVisionConfig& vision = c.vision_config;
  const Shape patch = shape("vision_model.embeddings.patch_embedding.weight", 4);
  vision.hidden_size = patch[0];
  vision.num_channels = patch[1];
  vision.patch_size = patch[2];
  vision.image_size = vision.patch_size * side(shape("vision_model.embeddings.position_embedding.weight", 2)[0] - 1);
  vision.intermediate_size = shape("vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0];
  vision.num_hidden_layers = depth("vision_model.encoder.layers.");
  const Index width = vision.hidden_size, head = width == 1280 ? 80 : width == 1408 ? 88 : width == 1664 ? 104 : 64;
  vision.num_attention_heads = std::max<Index>(1, width / head);
  vision.hidden_act = act;
  return c;
}

}  // namespace tenon::inline TENON_ABI
