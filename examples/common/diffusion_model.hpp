#pragma once
// What the diffusion programs share: the model that ships, and adapters by file or name.
#include <charconv>
#include <filesystem>
#include <iostream>
#include <set>

#include <tenon/diffusion.hpp>
#include <tenon/models/clip/checkpoint.hpp>
#include <tenon/peft/intrinsic.hpp>

#include "data.hpp"

namespace tenon::examples {

/// The folder of the small model that ships, and the guidance that suits it.
inline std::string shipped_diffusion() { return default_data() + "/diffusion"; }
inline constexpr double shipped_guidance = 3;

/// Whether a path is a folder or a file of Stable Diffusion; of CLIP otherwise.
inline bool is_diffusion(const std::string& model) {
  if (std::filesystem::is_directory(model)) return detail::exists(model + "/model_index.json");
  return detail::exists(model) && open_checkpoint(model).contains("model.diffusion_model.input_blocks.0.0.weight");
}

/// `FILE:0.8` as FILE and 0.8; a name that exists is taken whole.
inline std::pair<std::string, double> with_scale(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos || detail::exists(text)) return {text, 1.0};
  double scale = 0;
  const auto [end, error] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), scale);
  check(error == std::errc() && end == text.data() + text.size(), "scale", text, ": expected FILE or FILE:SCALE; there is no such file");
  return {text.substr(0, colon), scale};
}

/// `line-art` and `neon`, the styles that ship, are names too.
inline std::string adapter_path(const std::string& path) {
  const std::string shipped = default_data() + "/loras/" + path + ".safetensors";
  return !detail::exists(path) && path.find('/') == std::string::npos && detail::exists(shipped) ? shipped : path;
}

/// Whether a file is of save_intrinsic, which load_adapter does not read.
inline bool is_intrinsic(const std::string& path) {
  return path.ends_with(".safetensors") && detail::exists(path) && SafetensorsFile::open(path).metadata().contains("intrinsic");
}

/// Attaches `FILE_OR_DIR[:SCALE]`, says on stderr how much of it was used, and returns the adapter's name: its file's, with a + for
/// each that has it already. Throws as load_adapter and attach do.
inline std::string attach_adapter(StableDiffusion<float>& pipe, const std::string& text, bool strict, std::set<std::string>& names) {
  const auto [given, scale] = with_scale(text);
  const std::string path = adapter_path(given);
  auto file = std::filesystem::path(path);
  if (file.filename().empty()) file = file.parent_path();
  std::string name = file.stem().string();
  while (!names.insert(name).second) name += "+";
  if (is_intrinsic(path)) {
    const auto report = load_intrinsic(pipe, path, {.name = name, .scale = scale});
    std::cerr << path << ": an intrinsic vector for " << report.sites.size() << " layers\n";
    return name;
  }
  const auto report = attach(pipe, load_adapter(path), {.name = name, .scale = scale, .strict = strict});
  std::cerr << path << ": used " << report.used.size() << " of " << report.used.size() + report.unused.size();
  if (!report.unused.empty()) std::cerr << ", unread: " << report.unused.front() << (report.unused.size() > 1 ? ", ..." : "");
  std::cerr << '\n';
  return name;
}

}  // namespace tenon::examples
