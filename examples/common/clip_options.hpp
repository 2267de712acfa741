#pragma once
// What the CLIP programs share: the model, the pictures of files and folders, lists of lines, templates.
#include <filesystem>
#include <optional>

#include <tenon/io/npy.hpp>
#include <tenon/models/clip/pipeline.hpp>

#include "program.hpp"
#include "progress.hpp"

namespace tenon::examples {

struct ClipOptions {
  std::string model, dtype = "f32";
  Index batch = 32;
  bool exif = true;
  int threads = 0;
  std::uint64_t seed = 0;

  void add_to(CLI::App& app) {
    app.add_option("--model", model, "Folder or file of a CLIP: Hugging Face's, open_clip's or OpenAI's (default: the small one that ships)");
    app.add_option("--dtype", dtype, "How weights are multiplied: f32, bf16 or int8")->capture_default_str()->check(CLI::IsMember({"f32", "bf16", "int8"}));
    app.add_option("--batch", batch, "Pictures at a time")->capture_default_str()->check(CLI::Range(1, 4096));
    app.add_flag("!--no-exif", exif, "Do not turn pictures as their EXIF orientation says (OpenAI's and open_clip's habit)");
    app.add_option("--threads", threads, "Threads (0: all available)")->capture_default_str()->check(CLI::NonNegativeNumber);
    app.add_option("--seed", seed, "Seed of anything random")->capture_default_str();
  }
  bool ships() const { return model.empty(); }
  /// The first line, and the model. Throws Error when the model cannot fit in memory.
  ClipPipeline<float> load(const std::string& program) const {
    print_first_line(program, dtype == "f32" ? "float32" : dtype == "bf16" ? "bfloat16" : "int8");
    const std::string path = ships() ? default_data() + "/clip" : model;
    check_memory(path);
    ClipLoadOptions options;
    if (dtype != "f32") options.weights = dtype == "bf16" ? DType::bf16 : DType::i8;
    return ClipPipeline<float>::load(path, options);
  }

 private:
  static void check_memory(const std::string& path) {
    std::uintmax_t largest = 0;
    std::error_code error;
    if (std::filesystem::is_regular_file(path, error)) largest = std::filesystem::file_size(path, error);
    if (std::filesystem::is_directory(path, error))
      for (const auto& entry : std::filesystem::directory_iterator(path, error))
        if (entry.path().extension() == ".safetensors" && entry.is_regular_file(error)) largest = std::max(largest, entry.file_size(error));
    const std::uint64_t memory = available_memory();
    check(memory == 0 || largest < memory, "memory", path, ": the weights have ", largest / 1'000'000, " MB, and ", memory / 1'000'000, " MB are free");
  }
};

inline bool is_picture_name(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  for (const char* known : {".png", ".jpg", ".jpeg", ".jpe", ".ppm", ".pgm", ".pnm"})
    if (extension == known) return true;
  return false;
}

/// The pictures in a folder and the folders in it, sorted; names that begin with a dot are passed over. Throws FileError.
inline std::vector<std::string> pictures_in(const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<std::string> out;
  std::error_code error;
  fs::recursive_directory_iterator at(folder, fs::directory_options::skip_permission_denied, error);
  check<FileError>(!error, "pictures", folder, ": ", error.message());
  for (const fs::recursive_directory_iterator end; at != end; at.increment(error)) {
    check<FileError>(!error, "pictures", folder, ": ", error.message());
    std::error_code ignored;
    const bool hidden = at->path().filename().string().starts_with('.'), directory = at->is_directory(ignored);
    if (hidden && directory) at.disable_recursion_pending();
    if (!hidden && !directory && is_picture_name(at->path())) out.push_back(at->path().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// Files as they are given, folders as the pictures in them. Throws FileError when there is none.
inline std::vector<std::string> list_pictures(const std::vector<std::string>& paths) {
  std::vector<std::string> out;
  for (const auto& path : paths) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
      out.push_back(path);
      continue;
    }
    const auto inside = pictures_in(path);
    check<FileError>(!inside.empty(), "pictures", path, ": no PNG, JPEG or PNM files in this folder");
    out.insert(out.end(), inside.begin(), inside.end());
  }
  return out;
}

/// The lines of a file that are neither empty nor begin with #. Throws FileError when there is none.
inline std::vector<std::string> read_lines(const std::string& path) {
  std::vector<std::string> out;
  std::stringstream text(read_file(path, 64u << 20));
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && line[0] != '#') out.push_back(line);
  }
  check<FileError>(!out.empty(), "lines", path, ": expected lines of text, found none");
  return out;
}

/// `openai80`, `openai7` or a file of templates with {}.
inline std::vector<std::string> named_templates(const std::string& name) {
  if (name == "openai80") return openai80_templates();
  if (name == "openai7") return openai7_templates();
  return read_lines(name);
}

/// Features of picture files with a progress bar, a line on stderr for each broken one, and their count at the end.
/// Throws FileError, which tells of the first, when none could be read.
inline EmbeddedFiles<float> embed_pictures(const ClipPipeline<float>& clip, const std::vector<std::string>& files, const ClipOptions& o, bool normalize) {
  EmbeddedFiles<float> out;
  {
    std::optional<Progress> progress;
    const auto start = std::chrono::steady_clock::now();
    out = clip.embed_files(files, {.batch = o.batch, .normalize = normalize, .image = {.orient = o.exif, .on_white = true}, .progress = [&](Index done) {
                             if (!progress && std::chrono::steady_clock::now() - start > std::chrono::seconds(1) && done < static_cast<Index>(files.size()))
                               progress.emplace("pictures", static_cast<std::int64_t>(files.size()), done);
                             if (progress) progress->update(done);
                           }});
  }
  check<FileError>(out.errors.empty() || !out.read.empty(), "pictures", "expected at least one picture that can be read; the first: ",
                   out.errors.empty() ? "" : out.errors.front());
  for (const auto& error : out.errors) std::cerr << error << '\n';
  if (!out.errors.empty()) std::cerr << out.errors.size() << " of " << files.size() << " pictures could not be read and were left out\n";
  return out;
}

}  // namespace tenon::examples
