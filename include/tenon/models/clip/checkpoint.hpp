#pragma once
// CLIP from checkpoints of Hugging Face, open_clip and OpenAI, and as a Hugging Face folder: config.json, model.safetensors.
#include <sys/stat.h>

#include <tenon/io/checkpoint.hpp>
#include <tenon/models/clip/clip.hpp>
#include <tenon/models/clip/names.hpp>

namespace tenon::inline TENON_ABI {

struct ClipLoadOptions {
  /// The activation when no configuration says: OpenAI's own files and those that say so have quick_gelu, others gelu.
  std::optional<Activation> hidden_act{};
  /// How matrices are multiplied: bfloat16 or int8 (see LoadOptions), frozen for good; T when not given.
  std::optional<DType> weights{};
};

namespace detail {
inline bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }
}  // namespace detail

/// A frozen model from a folder of Hugging Face's (config.json) or open_clip's (open_clip_config.json) form, sharded or not,
/// or from one file of OpenAI's, open_clip's or Hugging Face's naming, safetensors or torch's; without a configuration the
/// shapes say what it is. Throws FileError when a file is missing, broken or another model's, or one error that lists every name that is
/// missing, misshapen or unexpected.
template <class T>
Clip<T> load_clip(const std::string& path, const ClipLoadOptions& options = {}) {
  struct ::stat status {};
  if (::stat(path.c_str(), &status) != 0) fail<FileError>("load_clip", path, ": ", std::strerror(errno));
  const bool folder = S_ISDIR(status.st_mode), open_clip = folder && detail::exists(path + "/open_clip_config.json");
  std::optional<Json> json;
  if (folder && !open_clip && detail::exists(path + "/config.json")) {
    json = Json::read(path + "/config.json");
    const auto type = json->get<std::string>("model_type", "clip");
    check<FileError>(type == "clip", "load_clip", json->file(), ": expected model_type clip (both towers), found ", type);
  }
  StateDict dict = folder ? open_checkpoint(path, {"model", "open_clip_model", "pytorch_model", "open_clip_pytorch_model"}) : open_checkpoint(path);
  const bool openai = dict.contains("input_resolution");  // OpenAI's archives carry it beside the parameters
  to_hugging_face_clip(dict);
  ClipConfig config;
  if (open_clip)
    config = read_open_clip_config(Json::read(path + "/open_clip_config.json"));
  else if (json)
    config = read_clip_config(*json);
  else
    config = infer_clip_config(dict, options.hidden_act.value_or(openai ? Activation::quick_gelu : Activation::gelu));
  Clip<T> clip(config);
  LoadOptions load;
  load.weights = options.weights;
  load_params(params(clip), dict, load);
  return clip;
}

/// Writes config.json and model.safetensors, floating-point as `dtype`; makes the folder when absent. Attached adapters
/// are not part of it. Throws FileError, and Error for a ResNet.
template <class T>
void save_clip(Clip<T>& clip, const std::string& directory, DType dtype = DType::f32) {
  check(!clip.visual, "save_clip", "Hugging Face's form has no ResNet towers");
  if (::mkdir(directory.c_str(), 0777) != 0)
    check<FileError>(errno == EEXIST, "save_clip", directory, ": cannot make the directory: ", std::strerror(errno));
  save_params(directory + "/model.safetensors", params(clip), {{"format", "pt"}}, dtype);
  save_json(directory + "/config.json", write_clip_config(clip.config));
}

TENON_COMPILED_FUNCTION(load_clip<float>)
TENON_COMPILED_FUNCTION(save_clip<float>)

}  // namespace tenon::inline TENON_ABI
