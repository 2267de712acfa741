#pragma once
// CLIP as a Hugging Face folder: config.json and model.safetensors.
#include <sys/stat.h>

#include <tenon/io/checkpoint.hpp>
#include <tenon/models/clip/clip.hpp>

namespace tenon::inline TENON_ABI {

/// A frozen model from a folder. Throws FileError when a file is missing or broken, or one error that lists every name
/// that is missing, misshapen or unexpected; `*.position_ids` of old files are ignored.
template <class T>
Clip<T> load_clip(const std::string& directory) {
  Clip<T> clip(read_clip_config(Json::read(directory + "/config.json")));
  LoadOptions options;
  options.ignore = [](const std::string& name) { return name.ends_with(".position_ids"); };
  load_params(params(clip), SafetensorsFile::open(directory + "/model.safetensors"), options);
  return clip;
}

/// Writes config.json and model.safetensors, floating-point as `dtype`; makes the folder when absent. Attached adapters
/// are not part of it. Throws FileError.
template <class T>
void save_clip(Clip<T>& clip, const std::string& directory, DType dtype = DType::f32) {
  if (::mkdir(directory.c_str(), 0777) != 0)
    check<FileError>(errno == EEXIST, "save_clip", directory, ": cannot make the directory: ", std::strerror(errno));
  save_params(directory + "/model.safetensors", params(clip), {{"format", "pt"}}, dtype);
  save_json(directory + "/config.json", write_clip_config(clip.config));
}

}  // namespace tenon::inline TENON_ABI
