#pragma once
// Adapters in Hugging Face peft's directory format: adapter_config.json and adapter_model.safetensors (or .bin). And
// load_adapter, which tells every format apart, and attach for what it read.
//
// LoRA, DoRA, LoHa, LoKr, IA3, prefix- and prompt-tuning are written as peft reads them (a reparametrised prefix as the keys and
// values that it has come to, as peft does). peft has neither bottleneck adapters nor gated prefixes: those are written in the
// same layout under peft_type BOTTLENECK and GATED_PREFIX, which only tenon reads.
#include <sys/stat.h>

#include <tenon/peft/formats/diffusers.hpp>
#include <tenon/peft/formats/kohya.hpp>
#include <tenon/peft/token_rows.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

inline constexpr std::string_view peft_prefix = "base_model.model.";

/// Refuses what this reader would otherwise misread.
inline void check_supported(const Json& config) {
  const auto refuse = [&](std::string_view key, bool bad) {
    check<FileError>(!bad, "load_adapter", config.file(), ": ", key, " is not supported yet");
  };
  for (const char* flag : {"fan_in_fan_out", "use_qalora", "use_bdlora"}) refuse(flag, config.get<bool>(flag, false));
  for (const char* part : {"modules_to_save", "layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens"})
    refuse(part, config.contains(part) && !config.at(part).value().is_null() && config.at(part).size() > 0);
  // An adapter that was trained on what these take off the base; peft's own conversion writes init_lora_weights true.
  for (const char* init : {"pissa", "olora", "corda", "loftq", "lora_ga", "eva", "mica"})
    if (config.contains("init_lora_weights") && config.at("init_lora_weights").value().is_string())
      refuse(join_text("init_lora_weights ", init), std::string_view(init) != "eva" && config.get<std::string>("init_lora_weights").starts_with(init));
}

/// The part names of peft's files.
inline constexpr std::string_view peft_parts[] = {
    "lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "base_layer.bias",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a",
    "lokr_w2_b", "lokr_t2", "ia3_l", "adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias", "prefix_keys",
    "prefix_values", "prefix_gate"};

/// peft's rule for a list of names: the whole path or its end after a dot. (A string is a regular expression.)
inline bool peft_names(const Json& config, const std::string& key, const std::string& path) {
  if (!config.contains(key)) return false;
  const auto& value = config.at(key).value();
  try {
    if (value.is_string()) return std::regex_match(path, std::regex(value.template get<std::string>()));
  } catch (const std::regex_error&) {
    fail<FileError>("load_adapter", config.file(), ": ", key, ": expected a regular expression");
  }
  const auto list = config.get<std::vector<std::string>>(key, std::vector<std::string>{});
  return std::any_of(list.begin(), list.end(), [&](const auto& name) { return path == name || path.ends_with("." + name); });
}

/// Which tensors of a peft directory belong to which site.
inline LayerMap peft_layers(const AdapterFile& file, const std::vector<std::string>& sites) {
  std::map<std::string, LayerTensors> modules;
  std::set<std::string> names;
  for (const auto& [name, tensor] : file.tensors)
    for (const std::string_view part : peft_parts) {
      const std::string_view bare = name.ends_with(".lora_magnitude_vector.weight") ? std::string_view(name).substr(0, name.size() - 7) : std::string_view(name);
      if (bare != part && !(bare.ends_with(part) && bare[bare.size() - part.size() - 1] == '.')) continue;
      const std::string module(bare.substr(0, bare == part ? 0 : bare.size() - part.size() - 1));
      modules[module].names.emplace(part, name);
      names.insert(module);
    }
  const Root root = find_root(file.path, names, sites);
  const Json& config = *file.config;
  const bool lora = file.peft_type == "LORA";
  LayerMap out;
  for (auto& [module, layer] : modules) {
    const auto site = root.site(module);
    if (!site) continue;
    layer.module = module;
    if (file.peft_type == "LORA" || file.peft_type == "LOHA" || file.peft_type == "LOKR") {
      layer.alpha = pattern_value(config, "alpha_pattern", module, config.get<double>(lora ? "lora_alpha" : "alpha", 8.0));
      layer.rank = pattern_value(config, "rank_pattern", module, config.get<Index>("r", 8));
    }
    check<FileError>(!config.get<bool>("use_dora", false) || layer.names.contains("lora_magnitude_vector") || !layer.names.contains("lora_A.weight"),
                     "load_adapter", file.path, ": missing ", module, ".lora_magnitude_vector, which use_dora promises");
    layer.rslora = config.get<bool>("use_rslora", false);
    layer.dropout = lora ? config.get<double>("lora_dropout", 0.0) : 0.0;
    layer.feedforward = file.peft_type == "IA3" && peft_names(config, "feedforward_modules", module);
    layer.factor = config.get<Index>("decompose_factor", -1);
    layer.activation = kernels::activation_from_name(config.get<std::string>("non_linearity", "relu"));
    out.emplace(*site, std::move(layer));
  }
  return out;
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
    auto patch = std::make_unique<Prefix<T>>(shape[0], width, false);
    patch->keys->set(copy(values.view().sliced(1, column, column + width)));
    patch->values->set(copy(values.view().sliced(1, column + width, column + 2 * width)));
    column += 2 * width;
    out.push_back({site, {nullptr, std::move(patch)}});
  }
  used.insert("prompt_embeddings");
  return out;
}

/// peft's soft prompt [P, D]: the rows of the Embedding that the configuration names or, as peft does, of the one with the
/// largest table among those of that width.
template <class T>
std::vector<Placement<T>> prompt_from_file(const AdapterFile& file, const std::vector<SiteRef<T>>& all, std::set<std::string>& used) {
  const auto at = file.tensors.find("prompt_embeddings");
  check<FileError>(at != file.tensors.end() && at->second.shape.rank() == 2 && at->second.shape.size() > 0, "load_adapter", file.path,
                   ": expected prompt_embeddings [P, D]");
  const Shape& shape = at->second.shape;
  const auto wanted = file.config->template get<std::vector<std::string>>("target_modules", std::vector<std::string>{});
  const SiteRef<T>* best = nullptr;
  for (const auto& site : all) {
    if (!std::holds_alternative<Embedding<T>*>(site.layer) || site.weight->shape()[1] != shape[1]) continue;
    if (!wanted.empty() && !any_target_matches(wanted, site.path)) continue;
    if (best == nullptr || site.weight->shape()[0] > best->weight->shape()[0]) best = &site;
  }
  check<FileError>(best != nullptr, "attach", file.path, ": prompt_embeddings ", shape, ": the model has no Embedding of that width",
                   wanted.empty() ? std::string() : " by the name " + wanted.front());
  auto patch = std::make_unique<TokenRows<T>>(shape[0], shape[1], next_token_id(*best));
  LayerTensors layer;
  layer.module = "prompt";
  layer.names.emplace("token_rows", "prompt_embeddings");
  fill(*patch, file, layer, used);
  std::vector<Placement<T>> out;
  out.push_back({*best, {std::move(patch), nullptr}});
  return out;
}

}  // namespace detail

/// Reads an adapter: a peft directory, or a single file of kohya's scripts, LyCORIS or diffusers. Throws FileError on broken
/// or unsupported files.
inline AdapterFile load_adapter(const std::string& path) {
  struct stat status {};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  if (exists && !S_ISDIR(status.st_mode)) {
    AdapterFile out = detail::open_adapter_file(path);
    out.format = detail::is_kohya(out) ? AdapterFile::Format::kohya : AdapterFile::Format::diffusers;
    return out;
  }
  check<FileError>(exists, "load_adapter", path, ": no such file or directory");
  AdapterFile out;
  out.path = path;
  out.config = Json::read(path + "/adapter_config.json");
  out.peft_type = out.config->get<std::string>("peft_type");
  constexpr std::string_view known[] = {"LORA", "LOHA", "LOKR", "IA3", "PREFIX_TUNING", "PROMPT_TUNING", "BOTTLENECK", "GATED_PREFIX"};
  check<FileError>(std::find(std::begin(known), std::end(known), out.peft_type) != std::end(known), "load_adapter", out.config->file(),
                   ": expected peft_type LORA, LOHA, LOKR, IA3, PREFIX_TUNING, PROMPT_TUNING, BOTTLENECK or GATED_PREFIX, found ", out.peft_type);
  detail::check_supported(*out.config);
  const StateDict file = open_checkpoint(path, {"adapter_model"});
  for (const auto& name : file.names())
    out.tensors.emplace(name.starts_with(detail::peft_prefix) ? name.substr(detail::peft_prefix.size()) : name, file.raw(name));
  check<FileError>(!out.tensors.empty(), "load_adapter", path, ": ", file.source(), " holds no tensors");
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
  detail::LayerMap layers;
  if (file.peft_type == "PREFIX_TUNING")
    placements = detail::prefix_from_file(file, all, used);
  else if (file.peft_type == "PROMPT_TUNING")
    placements = detail::prompt_from_file(file, all, used);
  else if (file.format == AdapterFile::Format::peft)
    layers = detail::peft_layers(file, detail::paths_of(all));
  else if (file.format == AdapterFile::Format::kohya)
    layers = detail::kohya_layers(file, detail::paths_of(all), options.part);
  else
    layers = detail::diffusers_layers(file, detail::paths_of(all), options.part);
  for (auto& [path, layer] : layers) detail::settle_magnitude<T>(file, path, layer, all);
  return detail::attach_layers(file, all, layers, std::move(placements), std::move(used), options);
}

/// Writes one attached adapter as a peft directory, which is made when absent; `dtype` float32 unless said.
/// Throws NameError when no adapter has that name, Error when it mixes what the format cannot (methods, rsLoRA and plain LoRA,
/// activations, prefix lengths) or does not have, FileError when it cannot be written.
template <class M>
void save_adapter(M& model, const std::string& directory, const std::string& name = "default", DType dtype = DType::f32) {
  using T = scalar_of<M>;
  nlohmann::json config = {{"base_model_name_or_path", nullptr}, {"inference_mode", true}, {"revision", nullptr}, {"task_type", nullptr}};
  std::vector<NamedTensor> tensors;
  std::string kind;
  std::vector<std::string> targets;
  std::map<Index, Index> rank_votes;
  std::map<double, Index> alpha_votes;
  std::vector<detail::LayerExport> layers;
  std::vector<std::pair<Tensor<T>, Tensor<T>>> prefixes;  // keys and values
  bool gated = false;
  std::vector<std::string> feedforward;
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
    if (const auto* prefix = dynamic_cast<const Prefix<T>*>(patch)) {
      const NoGrad none;
      const auto made = prefix->keys_values();
      prefixes.emplace_back(made.keys.value(), made.values.value());
      check(prefixes.size() == 1 || gated == made.gate.has_value(), "save_adapter", "adapter '", name, "' mixes prefixes with a gate and without");
      gated = made.gate.has_value();
      if (!gated) return;
      for (const auto& [part, value] : {std::pair("keys", made.keys), std::pair("values", made.values), std::pair("gate", *made.gate)})
        tensors.push_back({join_text(detail::peft_prefix, site.path, ".prefix_", part), raw(value.value())});
      return;
    }
    if (const auto* rows = dynamic_cast<const TokenRows<T>*>(patch)) {
      check(targets.size() == 1, "save_adapter", "peft's format holds the prompt of one Embedding");
      tensors.push_back({"prompt_embeddings", raw(rows->rows->value())});
      config.update({{"peft_type", "PROMPT_TUNING"}, {"num_virtual_tokens", rows->rows->shape()[0]}, {"token_dim", rows->rows->shape()[1]},
                     {"num_transformer_submodules", 1}, {"prompt_tuning_init", "RANDOM"}});
      return;
    }
    if (const auto* bottleneck = dynamic_cast<const Bottleneck<T>*>(patch)) one_value("non_linearity", std::string(name_of(bottleneck->act)));
    if (dynamic_cast<const Ia3Input<T>*>(patch) != nullptr) feedforward.push_back(site.path);
    auto layer = detail::export_layer(site, *patch, dtype);
    if (kind == "lora" || kind == "dora") {
      const auto* lora = dynamic_cast<const Lora<T>*>(patch);
      one_value("use_rslora", layer.rslora);
      one_value("lora_dropout", layer.dropout);
      one_value("lora_bias", lora != nullptr && static_cast<bool>(lora->bias));
      if (detail::bias_of(site) != nullptr) one_value("bias", lora != nullptr && lora->layer_bias ? "lora_only" : "none");
    }
    if (const auto* loha = dynamic_cast<const Loha<T>*>(patch); loha != nullptr && loha->layer.is_conv() && loha->layer.shape()[2] * loha->layer.shape()[3] > 1)
      one_value("use_effective_conv2d", static_cast<bool>(loha->t1));
    if (const auto* lokr = dynamic_cast<const Lokr<T>*>(patch)) {
      one_value("decompose_factor", lokr->factor);
      if (lokr->w2_a && lokr->layer.is_conv() && lokr->layer.shape()[2] * lokr->layer.shape()[3] > 1) one_value("use_effective_conv2d", static_cast<bool>(lokr->t2));
      if (lokr->w1_a) config["decompose_both"] = true;
    }
    ++rank_votes[layer.rank];
    ++alpha_votes[layer.alpha];
    for (auto& [part, tensor] : layer.parts) tensors.push_back({std::string(detail::peft_prefix) + site.path + "." + part, tensor});
    layers.push_back(std::move(layer));
  });
  config["target_modules"] = targets;
  const auto most_common = [](const auto& votes) {
    return std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
  };
  if (kind == "lora" || kind == "dora" || kind == "loha" || kind == "lokr") {
    const bool low_rank = kind == "lora" || kind == "dora";
    const Index rank = most_common(rank_votes);
    const double alpha = most_common(alpha_votes);
    config.update({{"peft_type", low_rank ? "LORA" : kind == "loha" ? "LOHA" : "LOKR"}, {"r", rank}, {low_rank ? "lora_alpha" : "alpha", alpha},
                   {"modules_to_save", nullptr}});
    if (low_rank)
      config.update({{"fan_in_fan_out", false}, {"init_lora_weights", true}, {"use_dora", kind == "dora"}});
    else
      config.update({{"init_weights", true}, {"rank_dropout", 0.0}, {"module_dropout", 0.0}});
    if (low_rank && !config.contains("bias")) config["bias"] = "none";
    config["rank_pattern"] = nlohmann::json::object();
    config["alpha_pattern"] = nlohmann::json::object();
    for (const auto& layer : layers) {
      if (layer.rank != rank) config["rank_pattern"]["^" + layer.path] = layer.rank;  // peft takes any suffix for a match
      if (layer.alpha != alpha) config["alpha_pattern"]["^" + layer.path] = layer.alpha;
    }
  } else if (kind == "ia3") {
    config.update({{"peft_type", "IA3"}, {"feedforward_modules", feedforward}, {"fan_in_fan_out", false}, {"init_ia3_weights", true}, {"modules_to_save", nullptr}});
  } else if (kind == "prefix" && gated) {
    config["peft_type"] = "GATED_PREFIX";
  } else if (kind == "prefix") {
    const Index length = prefixes.front().first.extent(0), width = prefixes.front().first.extent(1);
    Index total = 0;
    for (const auto& [keys, values] : prefixes) {
      check(keys.extent(0) == length, "save_adapter", "peft's format holds prefixes of one length only");
      total += 2 * keys.extent(1);
    }
    auto all = Tensor<T>::uninitialized({length, total});
    Index column = 0;
    for (const auto& [keys, values] : prefixes)
      for (const Tensor<T>* part : {&keys, &values}) {
        for (Index p = 0; p < length; ++p) std::copy_n(part->data() + p * part->extent(1), part->extent(1), all.data() + p * total + column);
        column += part->extent(1);
      }
    tensors.push_back({"prompt_embeddings", raw(all)});
    config.update({{"peft_type", "PREFIX_TUNING"}, {"num_virtual_tokens", length}, {"token_dim", width}, {"num_transformer_submodules", 1},
                   {"num_layers", prefixes.size()}, {"encoder_hidden_size", width}, {"prefix_projection", false}});
    const auto all_sites = sites(model);
    const auto attentions = std::count_if(all_sites.begin(), all_sites.end(), [](const auto& site) { return site.key_values != nullptr; });
    if (static_cast<std::size_t>(attentions) == prefixes.size()) config.erase("target_modules");  // peft's prefixes know no targets
  } else if (kind != "token_rows") {
    check(kind == "bottleneck", "save_adapter", "peft's format has no '", kind, "', which adapter '", name, "' is");
    config["peft_type"] = "BOTTLENECK";
  }
  if (::mkdir(directory.c_str(), 0777) != 0)
    check<FileError>(errno == EEXIST, "save_adapter", directory, ": cannot make the directory: ", std::strerror(errno));
  save_safetensors(directory + "/adapter_model.safetensors", tensors, {{"format", "pt"}});
  save_json(directory + "/adapter_config.json", config);
}

}  // namespace tenon::inline TENON_ABI
