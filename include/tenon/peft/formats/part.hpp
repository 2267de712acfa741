#pragma once
// Single files may hold adapters of several models (a U-Net, one or two text encoders). Which sites a part is about.
#include <tenon/io/checkpoint.hpp>
#include <tenon/peft/formats/patches.hpp>

namespace tenon::inline TENON_ABI::detail {

/// The tensors of a single file, and its metadata `lora_adapter_metadata` as configuration where it has one.
TENON_IN_BODY AdapterFile open_adapter_file(const std::string& path);

/// The parts that diffusers' pipelines have.
inline constexpr std::string_view pipeline_parts[] = {"unet", "text_encoder", "text_encoder_2"};

/// The part of a pipeline that a site is in, or empty where the model is one part itself.
inline std::string_view part_of(const std::string& site) {
  for (const std::string_view part : pipeline_parts)
    if (site.size() > part.size() && site.starts_with(part) && site[part.size()] == '.') return part;
  return {};
}

/// The names of a file's part, each with the site it is, for a part whose names `resolve(root, name)` finds under a root.
/// A model with `unet.`, `text_encoder.`, ... takes each part there. Any other is one part: `only` where that is given, else
/// the one that fits. Throws FileError when two parts of the file fit the same model.
struct PartResolver {
  const std::string& file;
  const std::vector<std::string>& sites;
  const std::string& only;
  std::map<std::string, std::string> claimed{};  // root and the part that took it

  /// The root for a part, or nothing when it is of another model. `hits(root)` counts what the part finds there.
  template <class Hits>
  std::optional<std::string> root(const std::string& part, Hits&& hits) {
    const bool pipeline = std::any_of(sites.begin(), sites.end(), [](const auto& site) { return !part_of(site).empty(); });
    if (pipeline && !part.empty()) {
      for (const char* inside : {".", ".text_model."})  // transformers 5 leaves text_model out of a text tower's names
        if (hits(part + inside) > 0) return part + inside;
      return std::nullopt;
    }
    if (!only.empty() && part != only) return std::nullopt;
    std::set<std::string> roots{""};
    for (const auto& site : sites)
      for (auto dot = site.find('.'); dot != std::string::npos; dot = site.find('.', dot + 1)) roots.insert(site.substr(0, dot + 1));
    std::string best;
    Index most = 0, second = 0;
    for (const auto& root : roots) {
      const Index count = hits(root);
      if (count > most)
        second = 0, most = count, best = root;
      else if (count == most)
        second = count;
    }
    if (most == 0) return std::nullopt;
    check<FileError>(second < most, "attach", file, ": fits the model in two ways; attach it to a part of the model");
    const auto [at, fresh] = claimed.emplace(best, part);
    check<FileError>(fresh, "attach", file, ": holds adapters of ", at->second, " and of ", part,
                     " that both fit this model; say which it is with `part`");
    return best;
  }
};

/// Parts whose names peft gives by the layer. LyCORIS and kohya call DoRA's magnitudes dora_scale: by output [out, 1(, 1, 1)], or
/// in older files by input [1, in(, 1, 1)]; a LoRA's by output are peft's lora_magnitude_vector; the shape decides. loralib's
/// factors of an Embedding are peft's lora_embedding_A and lora_embedding_B.
template <class T>
void settle_parts(const AdapterFile& file, const std::string& path, LayerTensors& layer, const std::vector<SiteRef<T>>& all) {
  const RawTensor* raw = tensor_of(file, layer, "dora_scale");
  const auto factor = layer.names.find("lora_A.weight");
  if (factor == layer.names.end() || (raw == nullptr && !factor->second.ends_with(".lora_A"))) return;
  const auto site = std::find_if(all.begin(), all.end(), [&](const auto& s) { return s.path == path; });
  if (site == all.end() || site->weight == nullptr) return;
  const auto rename = [&](std::string_view from, std::string_view to) {
    const auto at = layer.names.find(from);
    if (at == layer.names.end()) return;
    auto name = layer.names.extract(at);
    name.key() = to;
    layer.names.insert(std::move(name));
  };
  if (std::holds_alternative<Embedding<T>*>(site->layer)) rename("lora_A.weight", "lora_embedding_A"), rename("lora_B.weight", "lora_embedding_B");
  if (raw == nullptr || layer.names.contains("lora_mid.weight") || raw->shape.rank() == 0) return;
  const Index out = site->weight->shape()[0];
  if (raw->shape[0] == out && raw->shape.size() == out && (out != 1 || site->weight->shape()[1] == 1)) rename("dora_scale", "lora_magnitude_vector");
}

}  // namespace tenon::inline TENON_ABI::detail

#if !defined(TENON_COMPILED)
#include <tenon/peft/formats/part_body.hpp>
#endif
