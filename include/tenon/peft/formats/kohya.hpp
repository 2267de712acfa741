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

TENON_IN_BODY const KohyaPart* kohya_part(std::string_view name);
/// Whether a name begins as kohya's do: no other format's does. (Files may hold more, as embeddings beside the adapter.)
TENON_IN_BODY bool is_kohya(const AdapterFile& file);

TENON_IN_BODY std::string underscored(std::string path);

/// What the original U-Net of SDXL calls a layer of diffusers' (three blocks a level: two resnets, one resampler), or nothing.
TENON_IN_BODY std::optional<std::string> original_unet_name(const std::string& path);

/// The sites by every name that kohya's files may give them, below one root.
TENON_IN_BODY std::map<std::string, std::string> kohya_names(const std::vector<std::string>& sites, const std::string& root, bool unet);

/// peft's name for a part of kohya's, or nothing.
TENON_IN_BODY std::optional<std::string> part_from_kohya(std::string_view part);

/// Which tensors of a kohya file belong to which site.
TENON_IN_BODY LayerMap kohya_layers(const AdapterFile& file, const std::vector<std::string>& sites, const std::string& only);

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

#if !defined(TENON_COMPILED)
#include <tenon/peft/formats/kohya_body.hpp>
#endif
