#pragma once
// The definitions of kohya.hpp.
#include <tenon/peft/formats/kohya.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

TENON_IN_BODY const KohyaPart* kohya_part(std::string_view name) {
  for (const auto& part : kohya_parts)
    if (name.starts_with(part.prefix)) return &part;
  return nullptr;
}

TENON_IN_BODY bool is_kohya(const AdapterFile& file) {
  return std::any_of(file.tensors.begin(), file.tensors.end(), [](const auto& tensor) { return kohya_part(tensor.first) != nullptr; });
}

TENON_IN_BODY std::string underscored(std::string path) {
  std::replace(path.begin(), path.end(), '.', '_');
  return path;
}

TENON_IN_BODY std::optional<std::string> original_unet_name(const std::string& path) {
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
      {"conv_in", "input_blocks.0.0"}, {"conv_norm_out", "out.0"}, {"conv_out", "out.2"},
      {"time_embedding.linear_1", "time_embed.0"}, {"time_embedding.linear_2", "time_embed.2"},
      {"add_embedding.linear_1", "label_emb.0.0"}, {"add_embedding.linear_2", "label_emb.0.2"}};
  if (const auto at = whole.find(path); at != whole.end()) return at->second;
  static const std::map<std::string, std::string> in_resnet{
      {".norm1", ".in_layers.0"}, {".conv1", ".in_layers.2"}, {".time_emb_proj", ".emb_layers.1"}, {".norm2", ".out_layers.0"},
      {".conv2", ".out_layers.3"}, {".conv_shortcut", ".skip_connection"}};
  const auto layer = [&](const std::string& kind, std::size_t from) -> std::optional<std::string> {
    if (kind != "resnets") return rest(from);
    const auto at = in_resnet.find(rest(from));
    return at == in_resnet.end() ? std::nullopt : std::optional(at->second);
  };
  if (parts.size() >= 4 && parts[0] == "mid_block" && number(2) >= 0) {
    const auto inner = layer(parts[1], 3);
    if (!inner || number(2) > (parts[1] == "attentions" ? 0 : 1)) return std::nullopt;
    return join_text("middle_block.", parts[1] == "attentions" ? 1 : 2 * number(2), *inner);
  }
  if (parts.size() < 5 || number(1) < 0 || number(3) < 0) return std::nullopt;
  const Index level = number(1), j = number(3);
  const auto inner = layer(parts[2], 4);
  if (!inner) return std::nullopt;
  if (j > (parts[0] == "down_blocks" ? 1 : 2)) return std::nullopt;  // the next level's name
  const Index slot = parts[2] == "attentions" ? 1 : 0;
  if (parts[0] == "down_blocks" && parts[2] == "downsamplers") return join_text("input_blocks.", 3 * level + 3, ".0.op");
  if (parts[0] == "down_blocks") return join_text("input_blocks.", 3 * level + j + 1, ".", slot, *inner);
  if (parts[0] == "up_blocks" && parts[2] != "upsamplers") return join_text("output_blocks.", 3 * level + j, ".", slot, *inner);
  return std::nullopt;
}

TENON_IN_BODY std::map<std::string, std::string> kohya_names(const std::vector<std::string>& sites, const std::string& root, bool unet) {
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

TENON_IN_BODY std::optional<std::string> part_from_kohya(std::string_view part) {
  if (part == "lora_down.weight") return "lora_A.weight";
  if (part == "lora_up.weight") return "lora_B.weight";
  for (const std::string_view same : {"lora_mid.weight", "alpha", "dora_scale", "diff", "diff_b", "w_norm", "b_norm", "hada_w1_a", "hada_w1_b", "hada_w2_a",
                                      "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a",
                                      "lokr_w2_b", "lokr_t2"})
    if (part == same) return std::string(same);
  return std::nullopt;
}

TENON_IN_BODY LayerMap kohya_layers(const AdapterFile& file, const std::vector<std::string>& sites, const std::string& only) {
  std::map<std::string, std::map<std::string, LayerTensors>> groups;  // prefix, then the file's name for the layer
  std::map<std::string, std::string> part_names;
  for (const auto& [name, tensor] : file.tensors) {
    const KohyaPart* part = kohya_part(name);
    const auto dot = name.find('.');
    if (part == nullptr || dot == std::string::npos || dot < part->prefix.size()) continue;
    const auto canonical = part_from_kohya(std::string_view(name).substr(dot + 1));
    if (!canonical) continue;
    const std::string prefix(part->prefix);
    part_names[prefix] = part->part;
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
      layer.alpha = alpha_of(file, layer);
      if (layer.alpha == 0.0) layer.alpha.reset();  // kohya: 0 means the rank
      out.emplace(site->second, std::move(layer));
    }
  }
  return out;
}

}  // namespace detail

}  // namespace tenon::inline TENON_ABI
