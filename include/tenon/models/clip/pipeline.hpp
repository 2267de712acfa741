#pragma once
// CLIP from files to answers: model, tokenizer and image processor of one checkpoint. Needs utf8proc, libpng and libjpeg.
//
//   const auto clip = tenon::ClipPipeline<float>::load("clip-vit-base-patch32");
//   const auto pictures = clip.embed_images(std::vector{tenon::load_image("cat.jpg")});
//   const auto probabilities = clip.zero_shot(pictures, {"a cat", "a dog"});
#include <functional>
#include <memory>
#include <mutex>

#include <fcntl.h>
#include <unistd.h>

#include <tenon/io/image.hpp>
#include <tenon/models/clip/checkpoint.hpp>
#include <tenon/models/clip/openai_vocab.hpp>
#include <tenon/models/clip/positions.hpp>
#include <tenon/models/clip/preprocess.hpp>
#include <tenon/models/clip/templates.hpp>
#include <tenon/models/clip/tokenizer_files.hpp>
#include <tenon/models/clip/zero_shot.hpp>

namespace tenon::inline TENON_ABI {

struct EmbedFilesOptions {
  Index batch = 32;
  bool normalize = true;
  ImageOptions image{.on_white = true};
  /// Called after each batch with the number of files that are behind us.
  std::function<void(Index)> progress{};
};

/// What came of a list of picture files.
template <class T>
struct EmbeddedFiles {
  Tensor<T> features;               ///< [read, E]
  std::vector<std::size_t> read;    ///< which file each row is of
  std::vector<std::string> errors;  ///< one for each file that could not be read
};

template <class T>
struct ClipPipeline {
  Clip<T> model;
  ClipImageProcessor processor;

  /// Model, tokenizer and processor from whatever load_clip reads. The folder's own vocabulary, else OpenAI's merges when the
  /// model has as many tokens; the image processor of processor_config.json or preprocessor_config.json, else open_clip's
  /// configuration, else OpenAI's values at the model's size. Throws as load_clip, and FileError when processor and model do not fit.
  static ClipPipeline load(const std::string& path, const ClipLoadOptions& options = {}) {
    ClipPipeline out;
    out.model = load_clip<T>(path, options);
    const ImageSize size = out.model.config.image_size();
    const Index vocabulary = out.model.config.text_config.vocab_size;
    out.processor = ClipImageProcessor(size);
    out.processor.even_crop = !detail::exists(path + "/config.json");  // one file: OpenAI's or open_clip's
    for (const char* name : {"/processor_config.json", "/preprocessor_config.json", "/open_clip_config.json"}) {
      if (!detail::exists(path + name)) continue;
      const Json json = Json::read(path + name);
      if (name == std::string_view("/processor_config.json") && !json.contains("image_processor")) continue;  // before transformers 5
      out.processor = read_image_processor(json, size);
      check<FileError>(out.processor.crop_size() == size, "ClipPipeline", path, name,
                       ": expected pictures of the model's ", size, " pixels, found ", out.processor.crop_size());
      break;
    }
    // read when first asked for: pictures alone need none
    out.tokenizer_ = std::make_shared<LateTokenizer>();
    out.tokenizer_->read = [path, vocabulary] {
      const bool own = has_tokenizer(path);
      check<FileError>(own || vocabulary == 49408, "ClipPipeline", path,
                       ": expected a tokenizer (vocab.json and merges.txt, or tokenizer.json): the model has ", vocabulary,
                       " tokens, so OpenAI's 49408 do not fit");
      Tokenizer tokenizer = own ? load_tokenizer(path) : openai_tokenizer();
      check<FileError>(tokenizer.size() <= vocabulary, "ClipPipeline", path, ": the tokenizer has ", tokenizer.size(),
                       " tokens, the model only ", vocabulary);
      return tokenizer;
    };
    return out;
  }

  /// Throws as load_tokenizer, each time when the checkpoint's is broken or absent.
  const Tokenizer& tokenizer() const {
    const std::lock_guard lock(tokenizer_->mutex);
    if (!tokenizer_->value) tokenizer_->value.emplace(tokenizer_->read());
    return *tokenizer_->value;
  }

  /// RGB pictures -> [N, E], of length 1 unless `normalize` is false.
  Tensor<T> embed_images(std::span<const Image> images, bool normalize = true) const { return embed_values(processor(images), normalize); }
  /// Texts -> [N, E], of length 1 unless `normalize` is false. Texts past the model's context lose their end.
  Tensor<T> embed_texts(std::span<const std::string> texts, bool normalize = true) const {
    const NoGrad no_grad;
    std::vector<Var<T>> parts;
    constexpr std::size_t batch = 64;
    for (std::size_t begin = 0; begin < texts.size(); begin += batch)
      parts.push_back(model.text_features(tokenize(model, tokenizer(), texts.subspan(begin, std::min(batch, texts.size() - begin)))));
    if (parts.empty()) return Tensor<T>({0, model.config.projection_dim});
    const Var<T> features = concat(parts, 0);
    return (normalize ? l2_normalize(features) : features).value();
  }
  /// Picture files -> features, those that cannot be read left out and named. A batch is decoded and preprocessed by all
  /// threads, then goes through the network on all of them while the disk reads ahead.
  EmbeddedFiles<T> embed_files(std::span<const std::string> paths, const EmbedFilesOptions& options = {}) const {
    check(options.batch > 0, "embed_files", "expected a batch of at least 1, got ", options.batch);
    EmbeddedFiles<T> out;
    std::vector<Tensor<T>> parts;
    const auto step = static_cast<std::size_t>(options.batch);
    const Index size = processor.crop_height * processor.crop_width * 3;
    for (std::size_t begin = 0; begin < paths.size(); begin += step) {
      const auto batch = paths.subspan(begin, std::min(step, paths.size() - begin));
      auto values = Tensor<float>::uninitialized({static_cast<Index>(batch.size()), processor.crop_height, processor.crop_width, 3});
      std::vector<std::string> errors(batch.size());
      parallel_for(static_cast<Index>(batch.size()), [&](Index i) {
        const auto n = static_cast<std::size_t>(i);
        try {
          processor.write(load_image(batch[n], options.image), values.data() + i * size);
        } catch (const FileError& e) {
          errors[n] = e.what();
        } catch (const std::exception& e) {
          errors[n] = join_text(batch[n], ": ", e.what());
        }
      });
      if (begin + step < paths.size()) read_ahead(paths.subspan(begin + step, std::min(step, paths.size() - begin - step)));
      Index kept = 0;
      for (std::size_t n = 0; n < batch.size(); ++n) {
        if (!errors[n].empty()) {
          out.errors.push_back(errors[n]);
          continue;
        }
        if (kept != static_cast<Index>(n)) std::copy_n(values.data() + static_cast<Index>(n) * size, size, values.data() + kept * size);
        ++kept;
        out.read.push_back(begin + n);
      }
      if (kept > 0) parts.push_back(embed_values(copy(values.view().sliced(0, 0, kept)), options.normalize));
      if (options.progress) options.progress(static_cast<Index>(std::min(paths.size(), begin + step)));
    }
    out.features = Tensor<T>({static_cast<Index>(out.read.size()), model.config.projection_dim});
    T* to = out.features.data();
    for (const auto& part : parts) to = std::copy_n(part.data(), part.size(), to);
    return out;
  }

  /// Probabilities [N, labels] of picture features [N, E] for labels put into templates. Throws Error on a template without "{}".
  Tensor<T> zero_shot(const Tensor<T>& image_features, const std::vector<std::string>& labels,
                      const std::vector<std::string>& templates = {"a photo of a {}."}) const {
    return zero_shot_probabilities(model, Var<T>(image_features), zero_shot_directions(model, tokenizer(), labels, templates));
  }

 private:
  Tensor<T> embed_values(Tensor<float> values, bool normalize) const {
    const NoGrad no_grad;
    const Var<T> features = model.image_features(Var<T>(cast<T>(values)));
    return (normalize ? l2_normalize(features) : features).value();
  }
  static void read_ahead(std::span<const std::string> paths) {
#if defined(POSIX_FADV_WILLNEED)
    for (const auto& path : paths)
      if (const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); file >= 0) {
        ::posix_fadvise(file, 0, 0, POSIX_FADV_WILLNEED);
        ::close(file);
      }
#else
    (void)paths;
#endif
  }

  struct LateTokenizer {
    std::function<Tokenizer()> read;
    std::mutex mutex;
    std::optional<Tokenizer> value;
  };
  std::shared_ptr<LateTokenizer> tokenizer_;
};

/// As for the model alone, and the processor makes pictures of the new size.
template <class T>
void set_image_size(ClipPipeline<T>& clip, const ImageSize& size, PositionResize rule = PositionResize::bicubic) {
  set_image_size(clip.model, size, rule);
  clip.processor = clip.processor.at_size(size);
}

}  // namespace tenon::inline TENON_ABI
