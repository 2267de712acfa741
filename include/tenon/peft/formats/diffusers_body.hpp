#pragma once
// The definitions of diffusers.hpp.
#include <nlohmann/json.hpp>

#include <tenon/peft/formats/diffusers.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

TENON_IN_BODY std::vector<std::string> processor_layers(std::string module) {
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

TENON_IN_BODY LayerMap diffusers_layers(const AdapterFile& file, const std::vector<std::string>& sites, const std::string& only) {
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
      if (file.config && file.config->is_object() && file.config->value().contains(prefix + "r")) {
        nlohmann::json own;  // the part's own settings, without its prefix
        for (const auto& [key, value] : file.config->value().items())
          if (key.starts_with(prefix)) own[key.substr(prefix.size())] = value;
        const Json config = Json::parse(own.dump(), file.config->file());
        layer.alpha = pattern_value(config, "alpha_pattern", name).value_or(config.get<double>("lora_alpha", 8.0));
        layer.rslora = config.get<bool>("use_rslora", false);
      }
      if (const auto alpha = alpha_of(file, layer)) layer.alpha = alpha;
      out.emplace(*site, std::move(layer));
    }
  }
  return out;
}

template <class T>
void save_diffusers(const std::vector<SiteRef<T>>& all, const std::string& path, const SaveFileOptions& options) {
  std::vector<NamedTensor> tensors;
  nlohmann::json settings = nlohmann::json::object();
  for_each_named(all, "save_diffusers", options.name, [&](const auto& site, auto& entry) {
    const auto layer = export_layer(site, *entry.patch, options.dtype);
    check(layer.kind == "lora" || layer.kind == "dora", "save_diffusers", "diffusers' format has no '", layer.kind, "', which adapter '", options.name,
          "' is at ", site.path);
    const std::string_view inside = part_of(site.path);
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
    one_value("lora_bias", std::any_of(layer.parts.begin(), layer.parts.end(), [](const auto& named) { return named.first == "lora_B.bias"; }));
    if (!settings.contains(part + ".r")) {
      settings[part + ".r"] = layer.rank;
      settings[part + ".lora_alpha"] = layer.alpha;
      settings[part + ".rank_pattern"] = settings[part + ".alpha_pattern"] = nlohmann::json::object();
      settings[part + ".target_modules"] = nlohmann::json::array();
    }
    const bool text_model = module.starts_with("text_model.");  // transformers 5 leaves it out: what follows fits both
    const std::string target = text_model ? module.substr(11) : module, pattern = text_model ? target : "^" + module;
    settings[part + ".target_modules"].push_back(target);
    if (settings[part + ".r"] != layer.rank) settings[part + ".rank_pattern"][pattern] = layer.rank;
    if (settings[part + ".lora_alpha"] != layer.alpha) settings[part + ".alpha_pattern"][pattern] = layer.alpha;
  });
  auto metadata = options.metadata;
  metadata["format"] = "pt";
  metadata["lora_adapter_metadata"] = settings.dump();
  save_safetensors(path, tensors, metadata);
}

}  // namespace detail

}  // namespace tenon::inline TENON_ABI
