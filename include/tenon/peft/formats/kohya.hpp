#pragma once
// Single files of kohya's sd-scripts and of LyCORIS: lora_unet_down_blocks_0_..._to_q.lora_down.weight and so on.
//
// Underscores stand for dots and for themselves, so names are never taken apart: the model's own layers, written as the file
// would (diffusers' names, and for SDXL the original ones), are looked up. A missing alpha is the rank.
#include <tenon/peft/formats/export.hpp>
#include <tenon/peft/formats/part.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

struct KohyaPart {
  std::string_view prefix, part;
};
/// "lycoris_" is LyCORIS' prefix for a model that is no pipeline.
inline constexpr KohyaPart kohya_parts[] = {
    {"lora_unet_", "unet"}, {"lora_te_", "text_encoder"}, {"lora_te1_", "text_encoder"}, {"lora_te2_", "text_encoder_2"}, {"lycoris_", ""}};

inline const KohyaPart* kohya_part(std::string_view name) {
  for (const auto& part : kohya_parts)
    if (name.starts_with(part.prefix)) return &part;
  return nullptr;
}
/// Whether every name begins as kohya's do.
inline bool is_kohya(const AdapterFile& file) {
  return std::all_of(file.tensors.begin(), file.tensors.end(), [](const auto& tensor) { return kohya_part(tensor.first) != nullptr; });
}

inline std::string underscored(std::string path) {
  std::replace(path.begin(), path.end(), '.', '_');
  return path;
}

/// What the original U-Net of SDXL calls a layer of diffusers' (three blocks a level: two resnets, one resampler), or nothing.
inline std::optional<std::string> original_unet_name(const std::string& path) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= path.size();) {
    const auto dot = std::min(path.find('.', begin), path.size());
    parts.push_back(path.substr(begin, dot - begin));
    begin = dot + 1;
  }
  const auto number = [&](std::size_t i) -> Index {
    if (i >= parts.size() || parts[i].empty() || parts[i].size() > 3 || parts[i].find_first_not_of("0123456789") != std::string::npos) return -1;
    return std::stoll(parts[i]);
  };
  const auto rest = [&](std::size_t from) {
    std::string out;
    for (std::size_t i = from; i < parts.size(); ++i) out += "." + parts[i];
    return out;
  };
  static const std::map<std::string, std::string> whole{
      {"conv_in", "input_blocks.0.0"}, {"conv_out", "out.2"}, {"time_embedding.linear_1", "time_embed.0"}, {"time_embedding.linear_2", "time_embed.2"},
      {"add_embedding.linear_1", "label_emb.0.0"}, {"add_embedding.linear_2", "label_emb.0.2"}};
  if (const auto at = whole.find(path); at != whole.end()) return at->second;
  static const std::map<std::string, std::string> in_resnet{
      {".conv1", ".in_layers.2"}, {".time_emb_proj", ".emb_layers.1"}, {".conv2", ".out_layers.3"}, {".conv_shortcut", ".skip_connection"}};
  const auto layer = [&](const std::string& kind, std::size_t from) -> std::optional<std::string> {
    if (kind != "resnets") return rest(from);
    const auto at = in_resnet.find(rest(from));
    return at == in_resnet.end() ? std::nullopt : std::optional(at->second);
  };
  if (parts.size() >= 4 && parts[0] == "mid_block" && number(2) >= 0) {
    const auto inner = layer(parts[1], 3);
    if (!inner) return std::nullopt;
    return join_text("middle_block.", parts[1] == "attentions" ? 1 : 2 * number(2), *inner);
  }
  if (parts.size() < 5 || number(1) < 0 || number(3) < 0) return std::nullopt;
  const Index level = number(1), j = number(3);
  const auto inner = layer(parts[2], 4);
  if (!inner) return std::nullopt;
  const Index slot = parts[2] == "attentions" ? 1 : 0;
  if (parts[0] == "down_blocks" && parts[2] == "downsamplers") return join_text("input_blocks.", 3 * level + 3, ".0.op");
  if (parts[0] == "down_blocks") return join_text("input_blocks.", 3 * level + j + 1, ".", slot, *inner);
  if (parts[0] == "up_blocks" && parts[2] != "upsamplers") return join_text("output_blocks.", 3 * level + j, ".", slot, *inner);
  return std::nullopt;
}

/// The sites by every name that kohya's files may give them, below one root.
inline std::map<std::string, std::string> kohya_names(const std::vector<std::string>& sites, const std::string& root, bool unet) {
  std::map<std::string, std::string> out;
  std::set<std::string> twice;
  const auto add = [&](const std::string& name, const std::string& site) {
    const auto [at, fresh] = out.emplace(name, site);
    if (!fresh && at->second != site) twice.insert(name);
  };
  std::set<Index> with_attention;  // levels of up_blocks
  for (const auto& site : sites)
    if (site.starts_with(root + "up_blocks.") && site.find(".attentions.") != std::string::npos)
      with_attention.insert(std::atoll(site.c_str() + root.size() + 10));
  for (const auto& site : sites) {
    if (!site.starts_with(root)) continue;
    const std::string path = site.substr(root.size());
    add(underscored(path), site);
    if (!unet) continue;
    if (const auto original = original_unet_name(path)) add(underscored(*original), site);
    if (path.starts_with("up_blocks.") && path.ends_with(".upsamplers.0.conv")) {
      const Index level = std::atoll(path.c_str() + 10);
      add(underscored(join_text("output_blocks.", 3 * level + 2, ".", with_attention.contains(level) ? 2 : 1, ".conv")), site);
    }
  }
  for (const auto& name : twice) out.erase(name);  // two layers of one name: neither is guessed
  return out;
}

/// peft's name for a part of kohya's, or nothing.
inline std::optional<std::string> part_from_kohya(std::string_view part) {
  if (part == "lora_down.weight") return "lora_A.weight";
  if (part == "lora_up.weight") return "lora_B.weight";
  for (const std::string_view same : {"lora_mid.weight", "alpha", "dora_scale", "diff", "diff_b", "w_norm", "b_norm", "hada_w1_a", "hada_w1_b", "hada_w2_a",
                                      "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a",
                                      "lokr_w2_b", "lokr_t2"})
    if (part == same) return std::string(same);
  return std::nullopt;
}

/// Which tensors of a kohya file belong to which site.
inline LayerMap kohya_layers(const AdapterFile& file, const std::vector<std::string>& sites, const std::string& only) {
  std::map<std::string, std::map<std::string, LayerTensors>> groups;  // prefix, then the file's name for the layer
  std::map<std::string, std::string> part_names;
  for (const auto& [name, tensor] : file.tensors) {
    const KohyaPart& part = *kohya_part(name);
    const auto dot = name.find('.');
    if (dot == std::string::npos || dot < part.prefix.size()) continue;
    const auto canonical = part_from_kohya(std::string_view(name).substr(dot + 1));
    if (!canonical) continue;
    const std::string prefix(part.prefix);
    part_names[prefix] = part.part;
    LayerTensors& layer = groups[prefix][name.substr(prefix.size(), dot - prefix.size())];
    layer.module = name.substr(0, dot);
    layer.names.emplace(*canonical, name);
  }
  PartResolver resolver{file.path, sites, only};
  LayerMap out;
  for (auto& [prefix, layers] : groups) {
    const bool unet = part_names[prefix] == "unet";
    std::map<std::string, std::map<std::string, std::string>> known;
    const auto names_under = [&](const std::string& root) -> const std::map<std::string, std::string>& {
      auto at = known.find(root);
      if (at == known.end()) at = known.emplace(root, kohya_names(sites, root, unet)).first;
      return at->second;
    };
    const auto root = resolver.root(part_names[prefix], [&, &found = layers](const std::string& candidate) {
      const auto& names = names_under(candidate);
      return std::count_if(found.begin(), found.end(), [&](const auto& layer) { return names.contains(layer.first); });
    });
    if (!root) continue;
    for (auto& [name, layer] : layers) {
      const auto site = names_under(*root).find(name);
      if (site == names_under(*root).end()) continue;
      if (const RawTensor* alpha = tensor_of(file, layer, "alpha")) {
        check<FileError>(alpha->shape.size() == 1, "load_adapter", file.path, ": ", layer.module, ".alpha: expected one number, found shape ", alpha->shape);
        const double value = cast<double>(*alpha).data()[0];
        check<FileError>(std::isfinite(value), "load_adapter", file.path, ": ", layer.module, ".alpha: expected a finite number");
        if (value != 0) layer.alpha = value;  // kohya: 0 means the rank
      }
      out.emplace(site->second, std::move(layer));
    }
  }
  return out;
}

}  // namespace detail

struct SaveFileOptions {
  std::string name = "default";  ///< the adapter's
  DType dtype = DType::f32;
  /// What the model is, where its layers' paths do not begin with a pipeline's part: "unet", "text_encoder", "text_encoder_2".
  std::string part = "unet";
  std::map<std::string, std::string> metadata{};
};

/// Writes one attached adapter as a single file of kohya's names, alphas as they are. LoRA, DoRA, LoHa, LoKr, Tucker, full
/// deltas and those of norms have a place there. rsLoRA is written with alpha sqrt(R), which gives the same scale to readers that divide by R.
/// Throws NameError when no adapter has that name, Error when a layer has what the format cannot hold, FileError when it cannot
/// be written.
template <class M>
void save_kohya(M& model, const std::string& path, const SaveFileOptions& options = {}) {
  std::vector<NamedTensor> tensors;
  std::map<std::string, std::string> taken;
  bool two_encoders = options.part == "text_encoder_2";
  for (const auto& site : sites(model)) two_encoders = two_encoders || detail::part_of(site.path) == "text_encoder_2";
  detail::for_each_named(model, "save_kohya", options.name, [&](const auto& site, auto& entry) {
    const auto layer = detail::export_layer(site, *entry.patch, options.dtype);
    const auto holds = [&](bool good, std::string_view what) {
      check(good, "save_kohya", "the format has no place for ", what, " of adapter '", options.name, "' at ", site.path);
    };
    constexpr std::string_view kinds[] = {"lora", "dora", "decomposed", "loha", "lokr", "tucker", "full", "norm"};
    holds(std::find(std::begin(kinds), std::end(kinds), layer.kind) != std::end(kinds), layer.kind);
    const std::string_view inside = detail::part_of(site.path);
    const std::string_view part = inside.empty() ? std::string_view(options.part) : inside;
    const std::string_view prefix = part == "unet" ? "lora_unet_" : part == "text_encoder_2" ? "lora_te2_" : two_encoders ? "lora_te1_" : "lora_te_";
    check<NameError>(part == "unet" || part == "text_encoder" || part == "text_encoder_2", "save_kohya",
                     "expected part unet, text_encoder or text_encoder_2, got ", part);
    const std::string module = std::string(prefix) + detail::underscored(inside.empty() ? site.path : site.path.substr(inside.size() + 1));
    const auto [at, fresh] = taken.emplace(module, site.path);
    check<NameError>(fresh, "save_kohya", at->second, " and ", site.path, " would both be ", module);
    for (auto [name, tensor] : layer.parts) {
      if (name == "lora_A.weight") name = "lora_down.weight";
      if (name == "lora_B.weight") name = "lora_up.weight";
      if (name == "lora_magnitude_vector") {
        name = "dora_scale";
        tensor.shape = tensor.shape.rank() == 4 ? Shape{tensor.shape.size(), 1, 1, 1} : Shape{tensor.shape.size(), 1};
      }
      holds(detail::part_from_kohya(name).has_value(), name);
      tensors.push_back({module + "." + name, tensor});
    }
    if (layer.rank == 0) return;
    const double alpha = layer.rslora ? layer.alpha * std::sqrt(static_cast<double>(layer.rank)) : layer.alpha;
    bool factored = true;
    for (const auto& [name, tensor] : layer.parts) factored = factored && name != "lokr_w1" && name != "lokr_w2";
    for (const auto& [name, tensor] : layer.parts) factored = factored || name == "lokr_w1_b" || name == "lokr_w2_b";
    holds(factored || alpha == static_cast<double>(layer.rank), "a scale other than 1 of two full Kronecker factors");
    tensors.push_back({module + ".alpha", raw_copy(Tensor<float>::scalar(static_cast<float>(alpha)))});
  });
  save_safetensors(path, tensors, options.metadata);
}

}  // namespace tenon::inline TENON_ABI
