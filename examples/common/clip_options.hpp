#pragma once
// What the CLIP programs share: the model, templates, features of files.
#include <charconv>
#include <filesystem>
#include <optional>

#include <tenon/io/npy.hpp>
#include <tenon/models/clip/pipeline.hpp>

#include "files.hpp"
#include "program.hpp"
#include "progress.hpp"

namespace tenon::examples {

/// "336", or "224x336": height and width. Nothing for other texts.
inline std::optional<ImageSize> parse_image_size(std::string_view text) {
  const auto side = [](std::string_view digits) {
    Index out = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, out);
    return error == std::errc{} && stop == end && out >= 1 && out <= max_image_side ? out : 0;
  };
  const auto times = text.find('x');
  const Index height = side(text.substr(0, times)), width = times == text.npos ? height : side(text.substr(times + 1));
  return height > 0 && width > 0 ? std::optional(ImageSize(height, width)) : std::nullopt;
}
/// Positions are interpolated as the checkpoint's own library has it.
inline void apply_image_size(ClipPipeline<float>& clip, const std::string& path, const std::string& text) {
  const bool transformers = std::filesystem::exists(path + "/config.json");
  set_image_size(clip, *parse_image_size(text), transformers ? PositionResize::bicubic : PositionResize::bicubic_antialias);
}
inline CLI::Option* add_image_size(CLI::App& app, std::string& to) {
  return app.add_option("--image-size", to, "Pixels of a side, or HEIGHTxWIDTH: CLIP's positions are interpolated, as in transformers, or in open_clip for its checkpoints (default: the model's size)")
      ->check([](const std::string& text) { return parse_image_size(text) ? std::string() : "expected pixels such as 336, or HEIGHTxWIDTH such as 224x336, got " + text; });
}

struct ClipOptions {
  std::string model, dtype = "f32", image_size;
  Index batch = 32;
  bool exif = true;
  int threads = 0;
  std::uint64_t seed = 0;

  void add_to(CLI::App& app) {
    app.add_option("--model", model, "Folder or file of a CLIP: Hugging Face's, open_clip's or OpenAI's (default: the small one that ships)");
    app.add_option("--dtype", dtype, "How weights are multiplied: f32, bf16 or int8")->capture_default_str()->check(CLI::IsMember({"f32", "bf16", "int8"}));
    add_image_size(app, image_size);
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
    auto clip = ClipPipeline<float>::load(path, options);
    if (!image_size.empty()) apply_image_size(clip, path, image_size);
    return clip;
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
