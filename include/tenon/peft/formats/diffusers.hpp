#pragma once
// LoRA files of diffusers (pytorch_lora_weights.safetensors), of every age:
//   unet.down_blocks....attn1.to_q.lora_A.weight                           today's, peft's names under the pipeline's part
//   unet....attn1.to_q.lora.down.weight                                    before peft
//   [unet.]...attn1.processor.to_q_lora.down.weight                        attention processors; to_out_lora is to_out.0
//   text_encoder....self_attn.q_proj.lora_linear_layer.down.weight, and ....self_attn.to_q_lora.down.weight before that
// Names are matched with the model's layers. Alphas come from X.alpha tensors, else from the file's own metadata, else they
// are the rank of each layer.
#include <tenon/peft/formats/kohya.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

struct DiffusersEnding {
  std::string_view ending, part;
  bool processor;  ///< to_q_lora: what stands before the ending is an attention processor's name for a projection
};
inline constexpr DiffusersEnding diffusers_endings[] = {
    {".lora_A.weight", "lora_A.weight", false},
    {".lora_B.weight", "lora_B.weight", false},
    {".lora_B.bias", "lora_B.bias", false},
    {".lora_magnitude_vector", "lora_magnitude_vector", false},
    {".lora_magnitude_vector.weight", "lora_magnitude_vector", false},
    {".lora.down.weight", "lora_A.weight", false},
    {".lora.up.weight", "lora_B.weight", false},
    {".lora_linear_layer.down.weight", "lora_A.weight", false},
    {".lora_linear_layer.up.weight", "lora_B.weight", false},
    {"_lora.down.weight", "lora_A.weight", true},
    {"_lora.up.weight", "lora_B.weight", true},
    {".alpha", "alpha", false},
};

/// What the layer of a processor's name may be called: `x.attn1.processor.to_out` is x.attn1.to_out.0, or x.attn1.out_proj.
inline std::vector<std::string> processor_layers(std::string module) {
  if (const auto at = module.find(".processor."); at != std::string::npos) module.erase(at, 10);
  std::vector<std::string> out{module};
  const auto other = [&](std::string_view end, std::string_view instead) {
    if (module.ends_with(end)) out.push_back(module.substr(0, module.size() - end.size()) + std::string(instead));
  };
  other("to_out", "to_out.0");
  other("to_out", "out_proj");
  for (const char* letter : {"q", "k", "v"}) other(join_text("to_", letter), join_text(letter, "_proj"));
  return out;
}

/// Which tensors of a diffusers file belong to which site.
inline LayerMap diffusers_layers(const AdapterFile& file, const std::vector<std::string>& sites, const std::string& only) {
  struct Module {
    LayerTensors layer;
    std::vector<std::string> candidates;
  };
  std::map<std::string, std::map<std::string, Module>> groups;
  for (const auto& [name, tensor] : file.tensors) {
    std::string_view part = part_of(name), rest = name;
    if (!part.empty()) rest.remove_prefix(part.size() + 1);
    for (const auto& [ending, canonical, processor] : diffusers_endings) {
      if (!rest.ends_with(ending) || rest.size() == ending.size()) continue;
      const std::string module(rest.substr(0, rest.size() - ending.size()));
      Module& made = groups[std::string(part)][module];
      made.layer.module = part.empty() ? module : std::string(part) + "." + module;
      made.layer.names.emplace(canonical, name);
      made.candidates = processor ? processor_layers(module) : std::vector<std::string>{module};
    }
  }
  const std::set<std::string> known(sites.begin(), sites.end());
  PartResolver resolver{file.path, sites, only};
  LayerMap out;
  for (auto& [part, modules] : groups) {
    const auto site_of = [&](const std::string& root, const Module& module) -> std::optional<std::string> {
      for (const auto& candidate : module.candidates)
        if (known.contains(root + candidate)) return root + candidate;
      return std::nullopt;
    };
    const auto root = resolver.root(part, [&, &found = modules](const std::string& candidate) {
      return std::count_if(found.begin(), found.end(), [&](const auto& m) { return site_of(candidate, m.second).has_value(); });
    });
    if (!root) continue;
    for (auto& [name, module] : modules) {
      const auto site = site_of(*root, module);
      if (!site) continue;
      LayerTensors& layer = module.layer;
      const std::string prefix = part.empty() ? "" : part + ".";
      if (file.config && file.config->value().is_object() && file.config->value().contains(prefix + "r")) {
        nlohmann::json own;  // the part's own settings, without its prefix
        for (const auto& [key, value] : file.config->value().items())
          if (key.starts_with(prefix)) own[key.substr(prefix.size())] = value;
        const Json config = Json::parse(own.dump(), file.config->file());
        layer.alpha = pattern_value(config, "alpha_pattern", name, config.get<double>("lora_alpha", 8.0));
        layer.rslora = config.get<bool>("use_rslora", false);
      }
      if (const RawTensor* alpha = tensor_of(file, layer, "alpha")) {
        check<FileError>(alpha->shape.size() == 1, "load_adapter", file.path, ": ", layer.module, ".alpha: expected one number, found shape ", alpha->shape);
        layer.alpha = cast<double>(*alpha).data()[0];
      }
      out.emplace(*site, std::move(layer));
    }
  }
  return out;
}

}  // namespace detail

/// Writes one attached LoRA or DoRA as diffusers does today, its alphas and ranks in the metadata that diffusers reads. Throws as save_kohya.
template <class M>
void save_diffusers(M& model, const std::string& path, const SaveFileOptions& options = {}) {
  std::vector<NamedTensor> tensors;
  nlohmann::json settings = nlohmann::json::object();
  detail::for_each_named(model, "save_diffusers", options.name, [&](const auto& site, auto& entry) {
    const auto layer = detail::export_layer(site, *entry.patch, options.dtype);
    check(layer.kind == "lora" || layer.kind == "dora", "save_diffusers", "diffusers' format has no '", layer.kind, "', which adapter '", options.name,
          "' is at ", site.path);
    const std::string_view inside = detail::part_of(site.path);
    const std::string part(inside.empty() ? std::string_view(options.part) : inside);
    const std::string module = inside.empty() ? site.path : site.path.substr(inside.size() + 1);
    for (const auto& [name, tensor] : layer.parts) {
      check(!name.starts_with("base_layer") && !name.starts_with("lora_embedding"), "save_diffusers", "diffusers' format has no place for ", name, " at ", site.path);
      tensors.push_back({part + "." + module + "." + name, tensor});
    }
    const auto one_value = [&](const char* key, const auto& value) {
      auto& slot = settings[part + "." + key];
      check(slot.is_null() || slot == value, "save_diffusers", "adapter '", options.name, "' has more than one value of ", key, ", and the format holds one");
      slot = value;
    };
    one_value("use_rslora", layer.rslora);
    one_value("use_dora", layer.kind == "dora");
    if (!settings.contains(part + ".r")) {
      settings[part + ".r"] = layer.rank;
      settings[part + ".lora_alpha"] = layer.alpha;
      settings[part + ".rank_pattern"] = settings[part + ".alpha_pattern"] = nlohmann::json::object();
      settings[part + ".target_modules"] = nlohmann::json::array();
    }
    settings[part + ".target_modules"].push_back(module);
    if (settings[part + ".r"] != layer.rank) settings[part + ".rank_pattern"]["^" + module] = layer.rank;
    if (settings[part + ".lora_alpha"] != layer.alpha) settings[part + ".alpha_pattern"]["^" + module] = layer.alpha;
  });
  auto metadata = options.metadata;
  metadata["format"] = "pt";
  metadata["lora_adapter_metadata"] = settings.dump();
  save_safetensors(path, tensors, metadata);
}

}  // namespace tenon::inline TENON_ABI
