#pragma once
// Adapters in Hugging Face peft's directory format: adapter_config.json and adapter_model.safetensors.
//
// LoRA and prefix-tuning are written as peft reads them. peft has no bottleneck adapters: those are written in the same
// layout under peft_type BOTTLENECK, which only tenon reads.
#include <map>
#include <regex>

#include <sys/stat.h>

#include <tenon/io/json.hpp>
#include <tenon/io/safetensors.hpp>
#include <tenon/peft/bottleneck.hpp>
#include <tenon/peft/lora.hpp>
#include <tenon/peft/prefix.hpp>

namespace tenon::inline TENON_ABI {

/// An adapter as a file holds it, not yet part of a model.
struct AdapterFile {
  std::string path;
  std::string peft_type;  ///< LORA, PREFIX_TUNING or BOTTLENECK
  std::optional<Json> config;
  std::map<std::string, RawTensor> tensors;  ///< by module path and parameter name
};

/// What attaching a file did.
struct AdapterReport : AttachReport {
  std::vector<std::string> unused;  ///< names in the file that no layer took
};

struct AttachFileOptions {
  std::string name = "default";  ///< as in AttachOptions
  double scale = 1.0;
  /// Names in the file that no layer takes are an error; otherwise they are reported.
  bool strict = true;
};

namespace detail {

inline constexpr std::string_view peft_prefix = "base_model.model.";

/// Refuses what this reader would otherwise misread.
inline void check_supported(const Json& config) {
  const auto refuse = [&](std::string_view key, bool bad) {
    check<FileError>(!bad, "load_adapter", config.file(), ": ", key, " is not supported yet");
  };
  for (const char* flag : {"use_dora", "lora_bias", "fan_in_fan_out", "use_qalora", "use_bdlora"}) refuse(flag, config.get<bool>(flag, false));
  refuse("bias other than none", config.get<std::string>("bias", "none") != "none");
  for (const char* part : {"modules_to_save", "layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens"})
    refuse(part, config.contains(part) && !config.at(part).value().is_null() && config.at(part).size() > 0);
}

/// peft's pattern rule: the first key that matches `(.*\.)?(key)$` decides. Throws FileError on a broken expression.
template <class V>
V pattern_value(const Json& config, const std::string& table, const std::string& path, V fallback) {
  if (!config.contains(table) || !config.at(table).value().is_object()) return fallback;
  const Json patterns = config.at(table);
  for (const auto& [key, value] : patterns.value().items()) {
    try {
      if (!std::regex_match(path, std::regex("(.*\\.)?(" + key + ")"))) continue;
    } catch (const std::regex_error&) {
      fail<FileError>("load_adapter", config.file(), ": ", table, ": expected a regular expression, found '", key, "'");
    }
    check<FileError>(value.is_number(), "load_adapter", config.file(), ": ", table, ": expected a number for '", key, "'");
    return value.template get<V>();
  }
  return fallback;
}

/// How the file's module paths become the model's: a leading part to drop and one to add.
struct Root {
  std::string drop, add;
  std::optional<std::string> site(const std::string& module) const {
    if (!module.starts_with(drop)) return std::nullopt;
    return add + module.substr(drop.size());
  }
};

/// The root under which most modules are sites: a file may have been made from a larger or a smaller model.
/// Throws FileError when two fit equally well, as the layers of CLIP's text tower fit its vision tower.
inline Root find_root(const std::string& file, const std::set<std::string>& modules, const std::vector<std::string>& site_paths) {
  const std::set<std::string> known(site_paths.begin(), site_paths.end());
  std::set<std::string> drops{""}, adds;
  for (const auto& module : modules) {
    for (auto dot = module.find('.'); dot != std::string::npos; dot = module.find('.', dot + 1)) drops.insert(module.substr(0, dot + 1));
    for (const auto& path : site_paths)
      if (path.size() > module.size() && path.ends_with("." + module)) adds.insert(path.substr(0, path.size() - module.size()));
  }
  Root best{"", ""}, rival;
  Index most = 0, second = 0;
  const auto weigh = [&](const Root& root) {
    const Index hits = std::count_if(modules.begin(), modules.end(), [&](const auto& module) {
      const auto site = root.site(module);
      return site && known.contains(*site);
    });
    if (hits > most) {
      second = 0;
      most = hits;
      best = root;
    } else if (hits == most) {
      second = hits;
      rival = root;
    }
  };
  for (const auto& drop : drops) weigh({drop, ""});
  for (const auto& add : adds) weigh({"", add});
  check<FileError>(most == 0 || second < most, "attach", file, ": fits the model in two ways, ", best.drop.empty() ? "under " : "less ",
                   best.drop + best.add, " and ", rival.drop.empty() ? "under " : "less ", rival.drop + rival.add,
                   "; attach it to a part of the model, or to the model that it was made from");
  return best;
}

/// Fills a patch's parameters from the file and freezes them. Throws FileError on a missing name or another shape.
template <class T>
void fill(Patch<T>& patch, const AdapterFile& file, const std::string& module, std::set<std::string>& used) {
  patch.params([&](std::string_view name, Param<T>& param) {
    const std::string key = module + "." + std::string(name);
    const auto at = file.tensors.find(key);
    check<FileError>(at != file.tensors.end(), "load_adapter", file.path, ": missing ", key);
    check<FileError>(at->second.shape == param->shape(), "load_adapter", file.path, ": ", key, ": expected shape ", param->shape(),
                     ", found ", at->second.shape);
    param->set(cast<T>(at->second));
    param->set_trainable(false);
    used.insert(key);
  });
}

inline const Shape* shape_in(const AdapterFile& file, const std::string& key) {
  const auto at = file.tensors.find(key);
  return at == file.tensors.end() ? nullptr : &at->second.shape;
}

/// peft's A of a grouped convolution reads every input [R, in, kh, kw]; ours may read its own group's [R, in / groups, kh, kw].
/// Ours as peft's, with zeros where a row does not read.
template <class T>
Tensor<T> reading_every_input(const Tensor<T>& a, Index groups) {
  const Index rank = a.extent(0), each = a.size() / rank;
  Tensor<T> out(a.shape().with(1, a.extent(1) * groups));
  for (Index r = 0; r < rank; ++r) std::copy_n(a.data() + r * each, each, out.data() + (r * groups + r / (rank / groups)) * each);
  return out;
}
/// peft's as ours; nothing when a row does read another group.
template <class T>
std::optional<Tensor<T>> reading_own_group(const Tensor<T>& a, Index groups) {
  const Index rank = a.extent(0), each = a.size() / rank / groups;
  auto out = Tensor<T>::uninitialized(a.shape().with(1, a.extent(1) / groups));
  for (Index r = 0; r < rank; ++r) std::copy_n(a.data() + (r * groups + r / (rank / groups)) * each, each, out.data() + r * each);
  if (!(reading_every_input(out, groups) == a)) return std::nullopt;
  return out;
}
/// The groups of a convolution, 1 for any other layer.
template <class T>
Index groups_of(const SiteRef<T>& site) {
  const auto* const* conv = std::get_if<Conv2d<T>*>(&site.layer);
  return conv != nullptr ? (*conv)->groups : 1;
}

template <class T>
NewPatch<T> lora_from_file(const AdapterFile& file, const SiteRef<T>& site, const std::string& module, std::set<std::string>& used) {
  const bool table = std::holds_alternative<Embedding<T>*>(site.layer);
  const std::string key = module + (table ? ".lora_embedding_A" : ".lora_A.weight");
  const Shape* found = shape_in(file, key);
  if (found == nullptr) return {};
  check<FileError>(found->rank() >= 2 && (*found)[0] > 0, "load_adapter", file.path, ": ", key, ": expected a matrix, found shape ", *found);
  LoraConfig config;
  config.rank = (*found)[0];
  config.alpha = pattern_value(*file.config, "alpha_pattern", module, file.config->template get<double>("lora_alpha", 8.0));
  config.rslora = file.config->template get<bool>("use_rslora", false);
  config.dropout = file.config->template get<double>("lora_dropout", 0.0);
  Generator unused;
  NewPatch<T> made = make_patch(config, site, unused);
  check<FileError>(static_cast<bool>(made), "load_adapter", file.path, ": ", key, " is for a ", kind_of(site), ", which LoRA does not fit");
  auto& lora = static_cast<Lora<T>&>(*made.output);
  const Index groups = groups_of(site);
  const bool every = groups > 1 && *found == lora.a->shape().with(1, lora.a->shape()[1] * groups);
  if (every) lora.a = Param<T>(*found);
  fill(lora, file, module, used);
  if (every)
    if (auto own = reading_own_group(lora.a->value(), groups)) lora.a = Param<T>(std::move(*own), false);
  return made;
}

template <class T>
NewPatch<T> bottleneck_from_file(const AdapterFile& file, const SiteRef<T>& site, const std::string& module, std::set<std::string>& used) {
  const std::string key = module + ".adapter_down.0.weight";
  const Shape* found = shape_in(file, key);
  if (found == nullptr) return {};
  check<FileError>(found->rank() == 2 && (*found)[0] > 0, "load_adapter", file.path, ": ", key, ": expected a matrix, found shape ", *found);
  BottleneckConfig config;
  config.bottleneck = (*found)[0];
  config.activation = kernels::activation_from_name(file.config->template get<std::string>("non_linearity", "relu"));
  Generator unused;
  NewPatch<T> made = make_patch(config, site, unused);
  fill(made.patch(), file, module, used);
  return made;
}

/// peft keeps all layers in one tensor [P, layers * 2 * D]: for each layer its keys, then its values.
template <class T>
std::vector<Placement<T>> prefix_from_file(const AdapterFile& file, const std::vector<SiteRef<T>>& all, std::set<std::string>& used) {
  const auto at = file.tensors.find("prompt_embeddings");
  check<FileError>(at != file.tensors.end(), "load_adapter", file.path, ": missing prompt_embeddings");
  std::vector<SiteRef<T>> layers;
  for (const auto& site : all) {
    if (!std::holds_alternative<Attention<T>*>(site.layer)) continue;
    const auto wanted = file.config->template get<std::vector<std::string>>("target_modules", std::vector<std::string>{});
    if (wanted.empty() || any_target_matches(wanted, site.path)) layers.push_back(site);
  }
  const Shape& shape = at->second.shape;
  const Index count = static_cast<Index>(layers.size());
  Index total = 0;
  for (const auto& site : layers) total += 2 * std::get<Attention<T>*>(site.layer)->k_proj.out();
  check<FileError>(shape.rank() == 2 && shape[0] > 0 && shape[1] == total, "load_adapter", file.path, ": prompt_embeddings: expected [P, ",
                   total, "] for ", count, " attention layers, found ", shape);
  const Tensor<T> values = cast<T>(at->second);
  std::vector<Placement<T>> out;
  Index column = 0;
  for (const auto& site : layers) {
    const Index width = std::get<Attention<T>*>(site.layer)->k_proj.out();
    auto patch = std::make_unique<Prefix<T>>(shape[0], width);
    patch->keys->set(copy(values.view().sliced(1, column, column + width)));
    patch->values->set(copy(values.view().sliced(1, column + width, column + 2 * width)));
    column += 2 * width;
    out.push_back({site, {nullptr, std::move(patch)}});
  }
  used.insert("prompt_embeddings");
  return out;
}

}  // namespace detail

/// Reads a peft directory. Throws FileError on broken or unsupported files.
inline AdapterFile load_adapter(const std::string& directory) {
  AdapterFile out;
  out.path = directory;
  out.config = Json::read(directory + "/adapter_config.json");
  out.peft_type = out.config->get<std::string>("peft_type");
  check<FileError>(out.peft_type == "LORA" || out.peft_type == "PREFIX_TUNING" || out.peft_type == "BOTTLENECK", "load_adapter",
                   out.config->file(), ": expected peft_type LORA, PREFIX_TUNING or BOTTLENECK, found ", out.peft_type);
  detail::check_supported(*out.config);
  const auto file = SafetensorsFile::open(directory + "/adapter_model.safetensors");
  for (const auto& name : file.names())
    out.tensors.emplace(name.starts_with(detail::peft_prefix) ? name.substr(detail::peft_prefix.size()) : name, file.raw(name));
  check<FileError>(!out.tensors.empty(), "load_adapter", directory, ": adapter_model.safetensors holds no tensors");
  return out;
}

/// Attaches an adapter that was read from a file; its parameters are frozen. The model may be the one it was made from, a part
/// of it, or one that holds it. Throws FileError when nothing fits, a shape differs, or (when strict) a name is left over;
/// then nothing is attached.
template <class M>
AdapterReport attach(M& model, const AdapterFile& file, const AttachFileOptions& options = {}) {
  using T = scalar_of<M>;
  const auto all = sites(model);
  std::set<std::string> used;
  std::vector<detail::Placement<T>> placements;
  if (file.peft_type == "PREFIX_TUNING") {
    placements = detail::prefix_from_file(file, all, used);
  } else {
    std::set<std::string> modules;
    for (const auto& [name, tensor] : file.tensors)
      for (std::string_view end : {".lora_A.weight", ".lora_embedding_A", ".adapter_down.0.weight"})
        if (name.ends_with(end)) modules.insert(name.substr(0, name.size() - end.size()));
    const detail::Root root = detail::find_root(file.path, modules, detail::paths_of(all));
    std::map<std::string, std::string> module_of;
    for (const auto& module : modules)
      if (const auto site = root.site(module)) module_of.emplace(*site, module);
    for (const auto& site : all) {
      const auto module = module_of.find(site.path);
      if (module == module_of.end()) continue;
      NewPatch<T> made = file.peft_type == "LORA" ? detail::lora_from_file(file, site, module->second, used)
                                                  : detail::bottleneck_from_file(file, site, module->second, used);
      if (made) placements.push_back({site, std::move(made)});
    }
  }
  std::vector<std::string> unused;
  for (const auto& [name, tensor] : file.tensors)
    if (!used.contains(name)) unused.push_back(name);
  if (placements.empty())
    fail<FileError>("attach", file.path, ": no layer of this model takes anything from it, for example ", file.tensors.begin()->first,
                    "; nearest layer: ", nearest_names(file.tensors.begin()->first, detail::paths_of(all), 1));
  check<FileError>(!options.strict || unused.empty(), "attach", file.path, ": used ", used.size(), " of ", file.tensors.size(),
                   " names; no layer takes ", unused.empty() ? std::string() : unused.front());
  AdapterReport report;
  static_cast<AttachReport&>(report) = detail::place(std::move(placements), AttachOptions{options.name, options.scale});
  report.unused = std::move(unused);
  return report;
}

/// Writes one attached adapter as a peft directory, which is made when absent; `dtype` float32 unless said.
/// Throws NameError when no adapter has that name, Error when it mixes what the format cannot (methods, rsLoRA and plain LoRA,
/// activations, prefix lengths), FileError when it cannot be written.
template <class M>
void save_adapter(M& model, const std::string& directory, const std::string& name = "default", DType dtype = DType::f32) {
  using T = scalar_of<M>;
  nlohmann::json config = {{"base_model_name_or_path", nullptr}, {"inference_mode", true}, {"revision", nullptr}, {"task_type", nullptr}};
  std::vector<NamedTensor> tensors;
  std::string kind;
  std::vector<std::string> targets;
  std::map<Index, Index> rank_votes;
  std::map<double, Index> alpha_votes;
  std::vector<std::pair<std::string, const Lora<T>*>> loras;
  std::vector<const Prefix<T>*> prefixes;
  const auto raw = [&](const Tensor<T>& value) {
    return visit_dtype(dtype, [&]<class To>() { return raw_copy(cast<To>(value)); });
  };
  const auto one_value = [&](const char* key, const auto& value) {
    check(!config.contains(key) || config[key] == value, "save_adapter", "adapter '", name, "' has more than one value of ", key,
          ", and the format holds one");
    config[key] = value;
  };
  detail::for_each_named(model, "save_adapter", name, [&](const auto& site, auto& entry) {
    check(kind.empty() || kind == entry.patch->kind(), "save_adapter", "adapter '", name, "' mixes ", kind, " and ", entry.patch->kind());
    kind = entry.patch->kind();
    targets.push_back(site.path);
    Patch<T>* const patch = entry.patch.get();
    if (const auto* lora = dynamic_cast<const Lora<T>*>(patch)) {
      loras.emplace_back(site.path, lora);
      ++rank_votes[lora->rank()];
      ++alpha_votes[lora->alpha];
      one_value("use_rslora", lora->rslora);
      one_value("lora_dropout", lora->dropout);
    }
    if (const auto* prefix = dynamic_cast<const Prefix<T>*>(patch)) return prefixes.push_back(prefix);
    if (const auto* bottleneck = dynamic_cast<const Bottleneck<T>*>(patch)) one_value("non_linearity", std::string(name_of(bottleneck->act)));
    const Index groups = detail::groups_of(site);
    patch->params([&](std::string_view param, Param<T>& value) {
      const bool own_group = groups > 1 && param == "lora_A.weight" && value->shape()[1] == site.weight->shape()[1];
      tensors.push_back({std::string(detail::peft_prefix) + site.path + "." + std::string(param),
                         raw(own_group ? detail::reading_every_input(value->value(), groups) : value->value())});
    });
  });
  config["target_modules"] = targets;
  const auto most_common = [](const auto& votes) {
    return std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
  };
  if (kind == "lora") {
    const Index rank = most_common(rank_votes);
    const double alpha = most_common(alpha_votes);
    config.update({{"peft_type", "LORA"}, {"r", rank}, {"lora_alpha", alpha}, {"bias", "none"}, {"fan_in_fan_out", false},
                   {"init_lora_weights", true}, {"modules_to_save", nullptr}, {"use_dora", false}});
    config["rank_pattern"] = nlohmann::json::object();
    config["alpha_pattern"] = nlohmann::json::object();
    for (const auto& [path, lora] : loras) {
      if (lora->rank() != rank) config["rank_pattern"]["^" + path] = lora->rank();  // peft takes any suffix for a match
      if (lora->alpha != alpha) config["alpha_pattern"]["^" + path] = lora->alpha;
    }
  } else if (kind == "prefix") {
    const Index length = prefixes.front()->keys->shape()[0], width = prefixes.front()->keys->shape()[1];
    Index total = 0;
    for (const auto* prefix : prefixes) {
      check(prefix->keys->shape()[0] == length, "save_adapter", "peft's format holds prefixes of one length only");
      total += 2 * prefix->keys->shape()[1];
    }
    auto all = Tensor<T>::uninitialized({length, total});
    Index column = 0;
    for (const auto* prefix : prefixes)
      for (const Tensor<T>* part : {&prefix->keys->value(), &prefix->values->value()}) {
        for (Index p = 0; p < length; ++p) std::copy_n(part->data() + p * part->extent(1), part->extent(1), all.data() + p * total + column);
        column += part->extent(1);
      }
    tensors.push_back({"prompt_embeddings", raw(all)});
    config.update({{"peft_type", "PREFIX_TUNING"}, {"num_virtual_tokens", length}, {"token_dim", width}, {"num_transformer_submodules", 1},
                   {"num_layers", prefixes.size()}, {"encoder_hidden_size", width}, {"prefix_projection", false}});
    const auto all_sites = sites(model);
    const auto attentions = std::count_if(all_sites.begin(), all_sites.end(), [](const auto& site) { return site.key_values != nullptr; });
    if (static_cast<std::size_t>(attentions) == prefixes.size()) config.erase("target_modules");  // peft's prefixes know no targets
  } else {
    config["peft_type"] = "BOTTLENECK";
  }
  if (::mkdir(directory.c_str(), 0777) != 0)
    check<FileError>(errno == EEXIST, "save_adapter", directory, ": cannot make the directory: ", std::strerror(errno));
  save_safetensors(directory + "/adapter_model.safetensors", tensors, {{"format", "pt"}});
  save_json(directory + "/adapter_config.json", config);
}

}  // namespace tenon::inline TENON_ABI
