#pragma once
// The definitions of peft.hpp.
#include <cerrno>
#include <cstring>
#include <regex>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include <tenon/io/checkpoint.hpp>
#include <tenon/peft/formats/peft.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// Refuses what this reader would otherwise misread.
TENON_ON_CALL void check_supported(const Json& config) {
  const auto refuse = [&](std::string_view key, bool bad) {
    check<FileError>(!bad, "load_adapter", config.file(), ": ", key, " is not supported yet");
  };
  for (const char* flag : {"fan_in_fan_out", "use_qalora"}) refuse(flag, config.get<bool>(flag, false));
  for (const char* variant : {"use_bdlora", "kasa_config", "monteclora_config", "arrow_config"}) refuse(variant, config.contains(variant) && config.at(variant).is_object());
  for (const char* part : {"modules_to_save", "layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens"})
    refuse(part, !config.is_null(part) && config.at(part).size() > 0);
  // An adapter that was trained on what these take off the base; peft's own conversion writes init_lora_weights true.
  for (const char* init : {"pissa", "olora", "corda", "loftq", "lora_ga"})
    if (config.contains("init_lora_weights") && config.at("init_lora_weights").is_string())
      refuse(join_text("init_lora_weights ", init), config.get<std::string>("init_lora_weights").starts_with(init));
}

/// peft's rule for feedforward_modules: any end of the path, inside a name too. (A string is a regular expression.)
TENON_ON_CALL bool is_feedforward(const Json& config, const std::string& path) {
  const std::string key = "feedforward_modules";
  if (config.is_null(key)) return false;
  try {
    if (config.at(key).is_string()) return std::regex_match(path, std::regex(config.get<std::string>(key)));
  } catch (const std::regex_error&) {
    fail<FileError>("load_adapter", config.file(), ": ", key, ": expected a regular expression");
  }
  const auto list = config.get<std::vector<std::string>>(key, std::vector<std::string>{});
  return std::any_of(list.begin(), list.end(), [&](const auto& name) { return path.ends_with(name); });
}

TENON_IN_BODY LayerMap peft_layers(const AdapterFile& file, const std::vector<std::string>& sites) {
  std::map<std::string, LayerTensors> modules;
  std::set<std::string> names;
  for (const auto& [name, tensor] : file.tensors)
    for (const std::string_view part : peft_parts) {
      const std::string_view bare = name.ends_with(".lora_magnitude_vector.weight") ? std::string_view(name).substr(0, name.size() - 7) : std::string_view(name);
      if (bare != part && !(bare.ends_with(part) && bare[bare.size() - part.size() - 1] == '.')) continue;
      const std::string module(bare.substr(0, bare == part ? 0 : bare.size() - part.size() - 1));
      modules[module].names.emplace(part, name);
      names.insert(module);
      break;
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
      layer.alpha = pattern_value(config, "alpha_pattern", module).value_or(config.get<double>(lora ? "lora_alpha" : "alpha", 8.0));
      const auto rank = pattern_value(config, "rank_pattern", module);
      layer.rank = rank ? static_cast<Index>(*rank) : config.get<Index>("r", 8);
    }
    check<FileError>(!config.get<bool>("use_dora", false) || layer.names.contains("lora_magnitude_vector") || !layer.names.contains("lora_A.weight"),
                     "load_adapter", file.path, ": missing ", module, ".lora_magnitude_vector, which use_dora promises");
    layer.rslora = config.get<bool>("use_rslora", false);
    layer.dropout = lora ? config.get<double>("lora_dropout", 0.0) : 0.0;
    layer.drops = {config.get<double>("rank_dropout", 0.0), file.peft_type == "LOHA" || config.get<bool>("rank_dropout_scale", false), config.get<double>("module_dropout", 0.0)};
    check_dropout(join_text("load_adapter: ", config.file()), {layer.drops.rows, layer.drops.module});
    layer.feedforward = file.peft_type == "IA3" && is_feedforward(config, module);
    layer.factor = config.get<Index>("decompose_factor", -1);
    layer.activation = kernels::activation_from_name(config.get<std::string>("non_linearity", "relu"));
    out.emplace(*site, std::move(layer));
  }
  return out;
}

/// Whether the model is transformers' CLIPTextModel, whose modules are named without text_model since transformers 5.
template <class T>
bool is_text_model(const std::vector<SiteRef<T>>& all) {
  bool whole = false;  // not only some of its layers, as they are in a skeleton
  for (const auto& site : all) {
    if (!site.path.starts_with("text_model.")) return false;
    whole = whole || site.path == "text_model.final_layer_norm";
  }
  return whole;
}

template <class T>
void save_adapter(const std::vector<SiteRef<T>>& all_sites, const std::string& directory, const std::string& name, DType dtype) {
  const std::size_t dropped = is_text_model(all_sites) ? std::string_view("text_model.").size() : 0;
  nlohmann::json config = {{"base_model_name_or_path", nullptr}, {"inference_mode", true}, {"revision", nullptr}, {"task_type", nullptr}};
  std::vector<NamedTensor> tensors;
  std::string kind;
  std::vector<std::string> targets;
  std::map<Index, Index> rank_votes;
  std::map<double, Index> alpha_votes;
  std::vector<LayerExport> layers;
  std::vector<std::pair<Tensor<T>, Tensor<T>>> prefixes;  // keys and values
  bool gated = false;
  std::vector<std::string> feedforward;
  const auto raw = [&](const Tensor<T>& value) { return raw_as(value, dtype, name); };
  const auto one_value = [&](const char* key, const auto& value) {
    check(!config.contains(key) || config[key] == value, "save_adapter", "adapter '", name, "' has more than one value of ", key,
          ", and the format holds one");
    config[key] = value;
  };
  bool every_bias = false;
  for_each_named(all_sites, "save_adapter", name, [&](const auto&, auto& entry) { every_bias = every_bias || entry.patch->kind() == "bias"; });
  for_each_named(all_sites, "save_adapter", name, [&](const auto& site, auto& entry) {
    if (const auto* delta = dynamic_cast<const BiasDelta<T>*>(static_cast<Patch<T>*>(entry.patch.get()))) {
      tensors.push_back({join_text(peft_prefix, site.path.substr(dropped), ".bias"), raw(delta->bias->value())});
      return;
    }
    check(kind.empty() || kind == entry.patch->kind(), "save_adapter", "adapter '", name, "' mixes ", kind, " and ", entry.patch->kind());
    kind = entry.patch->kind();
    const std::string path = site.path.substr(dropped);
    targets.push_back(path);
    Patch<T>* const patch = entry.patch.get();
    if (const auto* prefix = dynamic_cast<const Prefix<T>*>(patch)) {
      const NoGrad none;
      const auto made = prefix->keys_values();
      prefixes.emplace_back(made.keys.value(), made.values.value());
      check(prefixes.size() == 1 || gated == made.gate.has_value(), "save_adapter", "adapter '", name, "' mixes prefixes with a gate and without");
      gated = made.gate.has_value();
      if (!gated) return;
      for (const auto& [part, value] : {std::pair("keys", made.keys), std::pair("values", made.values), std::pair("gate", *made.gate)})
        tensors.push_back({join_text(peft_prefix, path, ".prefix_", part), raw(value.value())});
      return;
    }
    if (const auto* rows = dynamic_cast<const TokenRows<T>*>(patch)) {
      check(targets.size() == 1, "save_adapter", "peft's format holds the prompt of one Embedding");
      tensors.push_back({"prompt_embeddings", raw(rows->rows->value())});
      config.update({{"peft_type", "PROMPT_TUNING"}, {"task_type", "FEATURE_EXTRACTION"}, {"num_virtual_tokens", rows->rows->shape()[0]},
                     {"token_dim", rows->rows->shape()[1]}, {"num_transformer_submodules", 1}, {"prompt_tuning_init", "RANDOM"}});
      return;
    }
    if (const auto* bottleneck = dynamic_cast<const Bottleneck<T>*>(patch)) one_value("non_linearity", std::string(name_of(bottleneck->act)));
    if (dynamic_cast<const Ia3Input<T>*>(patch) != nullptr) feedforward.push_back(path);
    auto layer = export_layer(site, *patch, dtype);
    layer.path = path;
    if (kind == "lora" || kind == "dora") {
      const auto* lora = dynamic_cast<const Lora<T>*>(patch);
      one_value("use_rslora", layer.rslora);
      one_value("lora_dropout", layer.dropout);
      one_value("lora_bias", lora != nullptr && static_cast<bool>(lora->bias));
      if (bias_of(site) != nullptr) one_value("bias", lora != nullptr && lora->layer_bias ? every_bias ? "all" : "lora_only" : "none");
    }
    if (const auto* loha = dynamic_cast<const Loha<T>*>(patch); loha != nullptr && loha->layer.is_conv() && loha->layer.shape()[2] * loha->layer.shape()[3] > 1)
      one_value("use_effective_conv2d", static_cast<bool>(loha->t1));
    if (const auto* lokr = dynamic_cast<const Lokr<T>*>(patch)) {
      one_value("decompose_factor", lokr->factor);
      if (lokr->w2_a && lokr->layer.is_conv() && lokr->layer.shape()[2] * lokr->layer.shape()[3] > 1) one_value("use_effective_conv2d", static_cast<bool>(lokr->t2));
      if (lokr->w1_a) config["decompose_both"] = true;
      one_value("rank_dropout_scale", lokr->drops.rescaled);
    }
    if (kind == "loha" || kind == "lokr") {
      const DeltaDropout& drops = static_cast<const WeightDelta<T>*>(patch)->drops;
      one_value("rank_dropout", drops.rows);
      one_value("module_dropout", drops.module);
    }
    ++rank_votes[layer.rank];
    ++alpha_votes[layer.alpha];
    for (auto& [part, tensor] : layer.parts) tensors.push_back({std::string(peft_prefix) + path + "." + part, tensor});
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
      config["init_weights"] = true;
    if (low_rank && !config.contains("bias")) config["bias"] = every_bias ? "all" : "none";
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
    // without a task peft's model runs past its prefix and says nothing
    config.update({{"peft_type", "PREFIX_TUNING"}, {"task_type", "FEATURE_EXTRACTION"}, {"num_virtual_tokens", length}, {"token_dim", width},
                   {"num_transformer_submodules", 1}, {"num_layers", prefixes.size()}, {"encoder_hidden_size", width}, {"prefix_projection", false}});
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

template <class T>
std::vector<std::string> save_adapter_parts(const std::vector<SiteRef<T>>& all_sites, const std::string& directory, const std::string& name, DType dtype) {
  std::set<std::string> tuned;
  for_each_named(all_sites, "save_adapter", name, [&](const auto& site, auto&) { tuned.emplace(part_of(site.path)); });
  std::vector<std::string> out;
  for (const auto& part : tuned) {
    std::vector<SiteRef<T>> own;
    for (SiteRef<T> site : all_sites) {
      if (part_of(site.path) != part) continue;
      if (!part.empty()) site.path.erase(0, part.size() + 1);
      if (part == "text_encoder" && site.path.starts_with("text_model.")) site.path.erase(0, std::string_view("text_model.").size());  // a CLIPTextModel
      own.push_back(std::move(site));
    }
    if (tuned.size() > 1) std::filesystem::create_directories(directory);
    out.push_back(tuned.size() > 1 ? directory + "/" + part : directory);
    detail::save_adapter(own, out.back(), name, dtype);
  }
  return out;
}

}  // namespace detail

TENON_IN_BODY AdapterFile load_adapter(const std::string& path) {
  struct stat status {};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  if (exists && !S_ISDIR(status.st_mode)) {
    const auto slash = path.rfind('/') + 1;  // the tensors of a peft directory, whose configuration stands beside them
    const std::string directory = slash == 0 ? "." : path.substr(0, slash), name = path.substr(slash);
    if ((name == "adapter_model.safetensors" || name == "adapter_model.bin") && ::stat((directory + "/adapter_config.json").c_str(), &status) == 0)
      return load_adapter(directory);
    AdapterFile out = detail::open_adapter_file(path);
    out.format = detail::is_kohya(out) ? AdapterFile::Format::kohya : AdapterFile::Format::diffusers;
    return out;
  }
  check<FileError>(exists, "load_adapter", path, ": no such file or directory");
  const auto holds = [&](std::string_view part) { return ::stat(join_text(path, part, "/adapter_config.json").c_str(), &status) == 0; };
  std::string parts;
  for (const std::string_view part : detail::pipeline_parts)
    if (holds(join_text('/', part))) parts += join_text(parts.empty() ? "" : ", ", part);
  check<FileError>(parts.empty() || holds(""), "load_adapter", path, ": expected adapter_config.json, found it for each of ", parts, ": load these");
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

}  // namespace tenon::inline TENON_ABI
