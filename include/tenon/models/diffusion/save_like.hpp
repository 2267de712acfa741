#pragma once
// A tuned Stable Diffusion in the form of the checkpoint that it came from.
//
//   auto pipe = StableDiffusion<float>::load("sd15");
//   attach(pipe, load_adapter("style.safetensors"));
//   merge_and_unload(pipe);
//   save_like(pipe, "sd15", "sd15-style");
#include <filesystem>

#include <tenon/io/checkpoint_edit.hpp>
#include <tenon/models/diffusion/stable_diffusion.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

template <class T>
void save_unet_like(Unet2d<T>& unet, const std::string& source, const std::string& out) {
  CheckpointEdit edit(open_checkpoint(source, {"diffusion_pytorch_model", "diffusion_pytorch_model.fp16"}));
  StateDict names = edit.tensors();
  to_current_attention_names(names);
  edit.replace(params(unet), names);
  edit.save(out + "/diffusion_pytorch_model.safetensors");
}
template <class T>
void save_text_encoder_like(TextEncoder<T>& tower, const std::string& source, const std::string& out) {
  CheckpointEdit edit(open_checkpoint(source, {"model", "model.fp16", "pytorch_model", "pytorch_model.fp16"}));
  StateDict names = edit.tensors();
  to_hugging_face_text(names);
  edit.replace(params(tower), names);
  edit.save(out + "/model.safetensors");
}

/// Whether a file holds weights, or the index of their shards.
inline bool is_weights_file(const std::filesystem::path& path) {
  const std::string name = path.filename().string(), extension = path.extension().string();
  constexpr std::string_view known[] = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".pb", ".gguf"};
  return std::find(std::begin(known), std::end(known), extension) != std::end(known) || (extension == ".json" && name.find(".index.") != std::string::npos);
}

/// Copies the files of a folder, and of the folders in it, that `wanted(relative path)`; what is hidden is passed over.
template <class F>
void copy_folder(const std::string& from, const std::string& to, F&& wanted) {
  namespace fs = std::filesystem;
  for (auto at = fs::recursive_directory_iterator(from, fs::directory_options::follow_directory_symlink); at != fs::recursive_directory_iterator(); ++at) {
    if (at->path().filename().string().starts_with('.')) {
      if (at->is_directory()) at.disable_recursion_pending();
      continue;
    }
    const fs::path relative = at->path().lexically_relative(from);
    if (at->is_directory() || !wanted(relative)) continue;
    fs::create_directories((to / relative).parent_path());
    fs::copy_file(at->path(), to / relative);
  }
}

/// Fills a folder by `fill(path)` elsewhere and gives it its name when it is whole. Throws FileError when there is something in it.
template <class F>
void make_folder(const std::string& out, F&& fill) {
  namespace fs = std::filesystem;
  std::string target = out;
  while (target.size() > 1 && target.ends_with('/')) target.pop_back();
  const std::string part = join_text(target, ".part-", ::getpid());
  try {
    check<FileError>(!fs::exists(target) || (fs::is_directory(target) && fs::is_empty(target)), "save_like", out, ": expected a new or empty folder");
    fs::create_directories(part);
    fill(part);
    fs::rename(part, target);
  } catch (const fs::filesystem_error& e) {
    std::error_code ignored;
    fs::remove_all(part, ignored);
    fail<FileError>("save_like", out, ": ", e.what());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(part, ignored);
    throw;
  }
}

}  // namespace detail

/// Writes the checkpoint `source` to `out` with a pipeline's U-Net and text towers in the place of its own, in the types of its
/// tensors. A folder of diffusers becomes a new folder: weights of these parts as one safetensors file each, every other file
/// copied except for weights beside model_index.json. A single file becomes a safetensors file, names and metadata as they were.
/// Attached adapters are not part of it: merge them first. Throws FileError when `source` does not fit the pipeline, `out` is
/// not new, or the disk is full; then nothing is left behind.
template <class T>
void save_like(StableDiffusion<T>& pipe, const std::string& source, const std::string& out) {
  Conditioner<T>& text = pipe.conditioner;
  if (!detail::is_folder(source)) {
    check<FileError>(out.ends_with(".safetensors"), "save_like", out, ": expected a name that ends with .safetensors");
    CheckpointEdit edit(open_checkpoint(source));
    const SingleFile file = split_single_file(edit.tensors());
    edit.replace(params(pipe.unet), file.unet);
    edit.replace(params(text.text_encoder), file.text_encoder);
    check<FileError>(file.text_encoder_2.has_value() == text.text_encoder_2.has_value(), "save_like", source, ": expected ", name_of(pipe.family), ", found ", name_of(file.family));
    if (text.text_encoder_2) edit.replace(params(*text.text_encoder_2), *file.text_encoder_2);
    edit.save(out, source.ends_with(".safetensors") ? SafetensorsFile::open(source).metadata() : std::map<std::string, std::string>{{"format", "pt"}});
    return;
  }
  read_pipeline_index(source);
  detail::make_folder(out, [&](const std::string& part) {
    detail::copy_folder(source, part, [](const std::filesystem::path& file) {
      const std::string top = file.has_parent_path() ? file.begin()->string() : "";
      const bool rewritten = top.empty() || top == "unet" || top == "text_encoder" || top == "text_encoder_2";
      return !rewritten || !detail::is_weights_file(file);
    });
    detail::save_unet_like(pipe.unet, source + "/unet", part + "/unet");
    detail::save_text_encoder_like(text.text_encoder, source + "/text_encoder", part + "/text_encoder");
    if (text.text_encoder_2) detail::save_text_encoder_like(*text.text_encoder_2, source + "/text_encoder_2", part + "/text_encoder_2");
  });
}

/// The same of a U-Net alone, from and to a folder with config.json.
template <class T>
void save_like(Unet2d<T>& unet, const std::string& source, const std::string& out) {
  detail::make_folder(out, [&](const std::string& part) {
    detail::copy_folder(source, part, [](const std::filesystem::path& file) { return !detail::is_weights_file(file); });
    detail::save_unet_like(unet, source, part);
  });
}

}  // namespace tenon::inline TENON_ABI
