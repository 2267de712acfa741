#pragma once
// Adapters in Hugging Face peft's directory format: adapter_config.json and adapter_model.safetensors (or .bin). And
// load_adapter, which tells every format apart, and attach for what it read.
//
// LoRA, DoRA, LoHa, LoKr, IA3, prefix- and prompt-tuning are written as peft reads them (a reparametrised prefix as the keys and
// values that it has come to, as peft does). peft has neither bottleneck adapters nor gated prefixes: those are written in the
// same layout under peft_type BOTTLENECK and GATED_PREFIX, which only tenon reads.
#include <tenon/peft/formats/diffusers.hpp>
#include <tenon/peft/formats/kohya.hpp>
#include <tenon/peft/token_rows.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

inline constexpr std::string_view peft_prefix = "base_model.model.";

/// The part names of peft's files.
inline constexpr std::string_view peft_parts[] = {
    "lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "base_layer.bias",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a",
    "lokr_w2_b", "lokr_t2", "ia3_l", "adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias", "prefix_keys",
    "prefix_values", "prefix_gate", "bias"};  // the last is of layers without other parts, and the end of some of those

/// Which tensors of a peft directory belong to which site.
TENON_IN_BODY LayerMap peft_layers(const AdapterFile& file, const std::vector<std::string>& sites);

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

template <class T>
void save_adapter(const std::vector<SiteRef<T>>& all_sites, const std::string& directory, const std::string& name, DType dtype);
template <class T>
std::vector<std::string> save_adapter_parts(const std::vector<SiteRef<T>>& all_sites, const std::string& directory, const std::string& name, DType dtype);

}  // namespace detail

/// Reads an adapter: a peft directory, or a single file of kohya's scripts, LyCORIS or diffusers. Throws FileError on broken
/// or unsupported files.
TENON_IN_BODY AdapterFile load_adapter(const std::string& path);

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
  for (auto& [path, layer] : layers) detail::settle_parts<T>(file, path, layer, all);
  return detail::attach_layers(file, all, layers, std::move(placements), std::move(used), options);
}

/// Writes one attached adapter as a peft directory, which is made when absent; `dtype` float32 unless said.
/// Throws NameError when no adapter has that name, Error when it mixes what the format cannot (methods, rsLoRA and plain LoRA,
/// activations, prefix lengths) or does not have, FileError when it cannot be written.
template <class M>
void save_adapter(M& model, const std::string& directory, const std::string& name = "default", DType dtype = DType::f32) {
  detail::save_adapter(sites(model), directory, name, dtype);
}

/// As save_adapter, of a pipeline as peft has it, one model to a directory with names of its own: `directory` where the adapter
/// is in one part, else unet, text_encoder and text_encoder_2 in it. Returns the directories.
template <class M>
std::vector<std::string> save_adapter_parts(M& pipeline, const std::string& directory, const std::string& name = "default", DType dtype = DType::f32) {
  return detail::save_adapter_parts(sites(pipeline), directory, name, dtype);
}

TENON_COMPILED_FUNCTION(detail::save_adapter<float>)
TENON_COMPILED_FUNCTION(detail::save_adapter<double>)
TENON_COMPILED_FUNCTION(detail::save_adapter_parts<float>)
TENON_COMPILED_FUNCTION(detail::save_adapter_parts<double>)

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/peft/formats/peft_body.hpp>
#endif
