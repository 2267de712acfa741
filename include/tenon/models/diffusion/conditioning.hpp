#pragma once
// From prompts to what a U-Net sees of them: one or two text towers, clip skip, weights.
//
//   auto [negative, positive] = conditioner.encode_pair("a cat", "blurry");   // states [1, L, D] each
//
// Without weights this is diffusers' encode_prompt, with them AUTOMATIC1111's. Needs utf8proc.
#include <nlohmann/json.hpp>

#include <tenon/models/clip/openai_vocab.hpp>
#include <tenon/models/clip/tokenizer_files.hpp>
#include <tenon/models/diffusion/prompt.hpp>
#include <tenon/models/diffusion/text_encoder.hpp>

namespace tenon::inline TENON_ABI {

struct PromptOptions {
  /// Layers left out at the end, as diffusers counts them: 1 is what others call clip skip 2.
  Index clip_skip = 0;
  PromptWeights weights = PromptWeights::off;
};

template <class T>
struct PromptEmbeds {
  Var<T> states;        ///< [1, L, D]
  Var<T> pooled;        ///< [1, P] of SDXL's second tower; empty elsewhere
  std::string cut_off;  ///< the words past the context; always empty with weights
};

/// The text side of a pipeline.
template <class T>
struct Conditioner {
  TextEncoder<T> text_encoder;
  std::optional<TextEncoder<T>> text_encoder_2;  ///< SDXL's, which gives the pooled state too
  PromptTokenizer tokenizer, tokenizer_2;
  bool force_zeros_for_empty_prompt = false;  ///< SDXL: no negative prompt is zeros, not the states of ""

  /// A prompt alone. `windows`: at least so many windows of weights, the rest of them empty. Throws Error on a text that is
  /// not UTF-8, and when more layers are skipped than there are.
  PromptEmbeds<T> encode(std::string_view prompt, const PromptOptions& options = {}, Index windows = 1) const {
    const bool xl = text_encoder_2.has_value();
    PromptEmbeds<T> out;
    const Tower first = run(text_encoder, tokenizer, prompt, options, windows);
    out.cut_off = first.cut_off;
    out.states = first.states;
    if (xl) {
      const Tower second = run(*text_encoder_2, tokenizer_2, prompt, options, windows);
      check<ShapeError>(first.states.extent(1) == second.states.extent(1), "encode_prompt", "the two text towers see ", first.states.extent(1), " and ",
                        second.states.extent(1), " tokens");
      out.states = concat({first.states, second.states}, 2);
      out.pooled = second.pooled;
    }
    return out;
  }

  /// The negative prompt's states and the prompt's. Absent, the negative prompt is "", or zeros where that is the rule. As in
  /// diffusers clip skip is for the prompt alone; with weights it is for both, as AUTOMATIC1111 has it, and both get as many
  /// windows.
  std::pair<PromptEmbeds<T>, PromptEmbeds<T>> encode_pair(std::string_view prompt, const std::optional<std::string>& negative,
                                                          const PromptOptions& options = {}) const {
    const std::string_view other = negative ? std::string_view(*negative) : std::string_view();
    const bool weighted = options.weights != PromptWeights::off;
    const Index context = text_encoder.text_model.config.max_position_embeddings;
    PromptEmbeds<T> positive = encode(prompt, options);
    if (!negative && force_zeros_for_empty_prompt) {
      PromptEmbeds<T> zeros{Var<T>(Tensor<T>(positive.states.shape())), Var<T>(Tensor<T>(positive.pooled.shape())), {}};
      return {std::move(zeros), std::move(positive)};
    }
    PromptEmbeds<T> unwanted = encode(other, {weighted ? options.clip_skip : 0, options.weights}, weighted ? positive.states.extent(1) / context : 1);
    if (unwanted.states.extent(1) > positive.states.extent(1)) positive = encode(prompt, options, unwanted.states.extent(1) / context);
    return {std::move(unwanted), std::move(positive)};
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("text_encoder", s.text_encoder);
    f("text_encoder_2", s.text_encoder_2);
  }

 private:
  struct Tower {
    Var<T> states, pooled;
    std::string cut_off;
  };

  Tower run(const TextEncoder<T>& tower, const PromptTokenizer& prompts, std::string_view prompt, const PromptOptions& options, Index windows) const {
    PromptTokens tokens = tokenize_prompt(prompts, prompt, options.weights);
    while (tokens.ids.extent(0) < windows) {
      const PromptTokens empty = tokenize_prompt(prompts, "", options.weights);
      auto longer = Tensor<std::int32_t>::uninitialized(tokens.ids.shape().with(0, tokens.ids.extent(0) + 1));
      std::copy(empty.ids.begin(), empty.ids.end(), std::copy(tokens.ids.begin(), tokens.ids.end(), longer.begin()));
      tokens.ids = std::move(longer);
      tokens.weights.insert(tokens.weights.end(), empty.weights.begin(), empty.weights.end());
    }
    const Index layers = tower.text_model.config.num_hidden_layers, skipped = options.clip_skip + (text_encoder_2 ? 1 : 0);
    check(options.clip_skip >= 0 && skipped <= layers, "encode_prompt", "a clip skip of ", options.clip_skip, " leaves nothing of ", layers, " layers");
    std::vector<Var<T>> hidden;
    const ClipTextOutput<T> output = tower.text_model(tokens.ids, &hidden);
    Tower out;
    // SDXL takes its states without the final norm
    const Var<T>& chosen = hidden[static_cast<std::size_t>(layers - skipped)];
    out.states = text_encoder_2 ? chosen : skipped == 0 ? output.last_hidden_state : tower.text_model.final_layer_norm(chosen);
    if (options.weights != PromptWeights::off) out.states = weighted(out.states, tokens.weights);
    out.states = reshape(out.states, {1, tokens.ids.size(), out.states.extent(2)});
    if (tower.text_projection) out.pooled = (*tower.text_projection)(slice(output.pooled, 0, 0, 1));
    out.cut_off = std::move(tokens.cut_off);
    return out;
  }

  /// z times the weights, window by window brought back to its mean (modules/sd_emphasis.py, EmphasisOriginal).
  static Var<T> weighted(const Var<T>& z, const std::vector<float>& weights) {
    const Index windows = z.extent(0), length = z.extent(1), width = z.extent(2);
    Tensor<T> factors({windows, length, 1});
    for (Index w = 0; w < windows; ++w) {
      double before = 0, after = 0;
      bool plain = true;
      for (Index i = 0; i < length; ++i) {
        const float weight = weights[static_cast<std::size_t>(w * length + i)];
        plain = plain && weight == 1.0f;
        const T* row = z.value().data() + (w * length + i) * width;
        double sum = 0;
        for (Index d = 0; d < width; ++d) sum += static_cast<double>(row[d]);
        before += sum;
        after += sum * static_cast<double>(weight);
      }
      const double ratio = plain ? 1.0 : before / after;
      for (Index i = 0; i < length; ++i)
        factors.data()[w * length + i] = static_cast<T>(static_cast<double>(weights[static_cast<std::size_t>(w * length + i)]) * ratio);
    }
    return z * Var<T>(std::move(factors));
  }
};

/// The tokenizer in a folder of a pipeline, its padding and length as tokenizer_config.json says. Throws as load_tokenizer.
inline PromptTokenizer load_prompt_tokenizer(const std::string& folder, Index context) {
  TokenizerConfig config{.style = TokenizerStyle::hugging_face};
  std::optional<std::string> pad;
  for (const char* name : {"/special_tokens_map.json", "/tokenizer_config.json"}) {
    if (!detail::has_file(folder + name)) continue;
    const Json json = Json::read(folder + name);
    const auto token = [&](const std::string& key) -> std::optional<std::string> {
      if (json.contains(key + ".content")) return json.get<std::string>(key + ".content");
      return json.contains(key) && json.at(key).is_string() ? std::optional(json.get<std::string>(key)) : std::nullopt;
    };
    if (auto found = token("pad_token")) pad = std::move(found);
    if (auto found = token("bos_token")) config.start = std::move(*found);
    if (auto found = token("eos_token")) config.end = std::move(*found);
    if (json.contains("model_max_length") && json.at("model_max_length").value().is_number_unsigned()) {
      const auto length = json.at("model_max_length").value().get<std::uint64_t>();
      if (length < static_cast<std::uint64_t>(context)) context = static_cast<Index>(length);
    }
  }
  if (pad && *pad != config.end) {
    const Tokenizer plain = load_tokenizer(folder, config);
    const auto id = plain.find(*pad);
    check<FileError>(id.has_value(), "tokenizer", folder, ": the padding token '", *pad, "' is not in the vocabulary");
    config.pad = *id;
  }
  return PromptTokenizer(load_tokenizer(folder, config), context);
}

}  // namespace tenon::inline TENON_ABI
