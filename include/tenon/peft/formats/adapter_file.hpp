#pragma once
// An adapter as a file holds it, and its tensors by layer. Each format says which of its tensors belong to which layer, by
// the names of peft's parts (formats/peft.hpp, kohya.hpp, diffusers.hpp); formats/patches.hpp makes patches of them.
#include <map>
#include <set>

#include <tenon/io/json.hpp>
#include <tenon/io/safetensors.hpp>
#include <tenon/peft/layer.hpp>

namespace tenon::inline TENON_ABI {

/// An adapter as a file holds it, not yet part of a model.
struct AdapterFile {
  enum class Format { peft, kohya, diffusers } format = Format::peft;
  std::string path;
  std::string peft_type;       ///< LORA, LOHA, LOKR, IA3, PREFIX_TUNING, PROMPT_TUNING, or tenon's own BOTTLENECK and GATED_PREFIX; of a peft directory only
  std::optional<Json> config;  ///< peft's adapter_config.json, or what a diffusers file says of its adapters
  std::map<std::string, RawTensor> tensors;  ///< by the file's names, without peft's base_model.model
  std::map<std::string, std::string> metadata{};  ///< of a single .safetensors file
};

/// What attaching a file did.
struct AdapterReport : AttachReport {
  std::vector<std::string> used;     ///< names in the file that a layer took
  std::vector<std::string> unused;   ///< names in the file that no layer took
  /// Layers of the same kind and name as tuned ones that the file leaves alone: with q_proj tuned in some blocks, the q_proj
  /// of the others.
  std::vector<std::string> missing;
};

struct AttachFileOptions {
  std::string name = "default";  ///< as in AttachOptions
  double scale = 1.0;
  /// Names in the file that no layer takes are an error; otherwise they are reported.
  bool strict = true;
  /// Which part of a file of several models this model is: "unet", "text_encoder" or "text_encoder_2". Found from the names
  /// when it is not given.
  std::string part{};
};

namespace detail {

/// One layer's part of an adapter file.
struct LayerTensors {
  std::string module;  ///< what the file calls the layer
  std::map<std::string, std::string, std::less<>> names;  ///< the file's name for each of peft's parts, as lora_A.weight
  std::optional<double> alpha;  ///< the rank when absent
  std::optional<Index> rank;    ///< as the configuration says, where there is one
  bool rslora = false;
  double dropout = 0;
  DeltaDropout drops{};
  bool feedforward = false;
  Activation activation = Activation::relu;
  Index factor = -1;
};
/// By the path of the site.
using LayerMap = std::map<std::string, LayerTensors>;

/// peft's pattern rule: the first key that matches `(.*\.)?(key)$` decides; nothing when none does. Throws FileError on a broken expression.
TENON_IN_BODY std::optional<double> pattern_value(const Json& config, const std::string& table, const std::string& path);

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
TENON_IN_BODY Root find_root(const std::string& file, const std::set<std::string>& modules, const std::vector<std::string>& site_paths);

TENON_IN_BODY const RawTensor* tensor_of(const AdapterFile& file, const LayerTensors& layer, std::string_view part);

/// The layer's own alpha tensor, where it has one. Throws FileError unless it is one finite number.
TENON_IN_BODY std::optional<double> alpha_of(const AdapterFile& file, const LayerTensors& layer);

/// Whether two shapes hold the same elements once ones at the end are left out: a 1x1 kernel and a matrix.
TENON_IN_BODY bool same_but_ones(const Shape& a, const Shape& b);

/// Fills a patch's parameters from the file and freezes them. Throws FileError on a missing name, another shape, and numbers
/// that are not finite.
template <class T>
void fill(Patch<T>& patch, const AdapterFile& file, const LayerTensors& layer, std::set<std::string>& used) {
  for (const auto& [part, named] : patch.params()) {
    Weight<T>& weight = **named;
    const auto at = layer.names.find(part);
    check<FileError>(at != layer.names.end(), "load_adapter", file.path, ": missing ", layer.module, ".", part);
    const RawTensor& raw = file.tensors.at(at->second);
    // kohya's magnitudes [out, 1, 1, 1] are peft's [1, out, 1, 1]
    const bool vector = part == "lora_magnitude_vector" && raw.shape.size() == weight.shape().size();
    check<FileError>(vector || same_but_ones(raw.shape, weight.shape()), "load_adapter", file.path, ": ", at->second, ": expected shape ",
                     weight.shape(), ", found ", raw.shape);
    Tensor<T> value = cast<T>(raw).reshape(weight.shape());
    check<FileError>(std::all_of(value.begin(), value.end(), [](T v) { return std::isfinite(v); }), "load_adapter", file.path, ": ", at->second,
                     ": expected finite numbers, found NaN or infinity");
    weight.set(std::move(value));
    weight.set_trainable(false);
    used.insert(at->second);
  }
}

}  // namespace detail

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/peft/formats/adapter_file_body.hpp>
#endif
