#pragma once
// Prompts to token ids: one window of the model's context as diffusers cuts it, or AUTOMATIC1111's weights and windows of 75
// tokens. Needs utf8proc.
#include <charconv>
#include <cmath>

#include <tenon/models/clip/tokenizer.hpp>

namespace tenon::inline TENON_ABI {

/// How a prompt is read.
enum class PromptWeights {
  off,    ///< parentheses are text; what is past the context is cut off
  a1111,  ///< (word), (word:1.3), [word] and BREAK; long prompts become several windows of 75 tokens
};

/// A part of a prompt and how strongly it counts; `is_break` ends a window, and has no text.
struct WeightedText {
  std::string text;
  double weight = 1;
  bool is_break = false;
  friend bool operator==(const WeightedText&, const WeightedText&) = default;
};

/// AUTOMATIC1111's grammar (stable-diffusion-webui, modules/prompt_parser.py): (a) counts 1.1 times, [a] 1/1.1 times, (a:1.3)
/// 1.3 times, nested they multiply; \( \) \[ \] \\ are plain characters; what is never closed reaches to the end; a
/// closing bracket alone is text; BREAK between words ends a window.
inline std::vector<WeightedText> parse_weighted_prompt(std::string_view prompt) {
  std::vector<WeightedText> out;
  std::vector<std::size_t> round, square;  // where brackets opened
  const auto multiply = [&](std::vector<std::size_t>& open, double factor) {
    for (std::size_t i = open.back(); i < out.size(); ++i) out[i].weight *= factor;
    open.pop_back();
  };
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  const auto is_word = [](char c) { return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80) != 0; };
  const auto add_text = [&](std::string_view text) {
    constexpr std::string_view word = "BREAK";
    std::size_t begin = 0;
    for (std::size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) {
      std::size_t end = at + word.size();
      if ((at > 0 && is_word(text[at - 1])) || (end < text.size() && is_word(text[end]))) continue;
      std::size_t before = at;
      while (before > begin && is_space(text[before - 1])) --before;
      while (end < text.size() && is_space(text[end])) ++end;
      out.push_back({std::string(text.substr(begin, before - begin))});
      out.push_back({"", 1, true});
      begin = end;
      at = end - 1;
    }
    out.push_back({std::string(text.substr(begin))});
  };
  /// The number in `: 1.3 )` that begins here, and its length.
  const auto weight_at = [&](std::string_view rest) -> std::optional<std::pair<double, std::size_t>> {
    std::size_t i = 1;
    while (i < rest.size() && is_space(rest[i])) ++i;
    const std::size_t begin = i + (i < rest.size() && rest[i] == '+' ? 1 : 0);
    if (i < rest.size() && (rest[i] == '+' || rest[i] == '-')) ++i;
    while (i < rest.size() && (rest[i] == '.' || (rest[i] >= '0' && rest[i] <= '9'))) ++i;
    double value = 0;
    const auto [end, error] = std::from_chars(rest.data() + begin, rest.data() + i, value);
    if (error != std::errc() || end != rest.data() + i) return std::nullopt;
    while (i < rest.size() && is_space(rest[i])) ++i;
    if (i == rest.size() || rest[i] != ')') return std::nullopt;
    return std::pair(value, i + 1);
  };
  while (!prompt.empty()) {
    std::size_t length = 1;
    const char c = prompt[0];
    if (c == '\\') {
      length = prompt.size() > 1 && std::string_view("()[]\\").find(prompt[1]) != std::string_view::npos ? 2 : 1;
      out.push_back({std::string(prompt.substr(1, length - 1))});
    } else if (c == '(') {
      round.push_back(out.size());
    } else if (c == '[') {
      square.push_back(out.size());
    } else if (const auto weight = c == ':' && !round.empty() ? weight_at(prompt) : std::nullopt) {
      multiply(round, weight->first);
      length = weight->second;
    } else if (c == ')' && !round.empty()) {
      multiply(round, 1.1);
    } else if (c == ']' && !square.empty()) {
      multiply(square, 1 / 1.1);
    } else if (c == ':' || c == ')' || c == ']') {
      out.push_back({std::string(1, c)});
    } else {
      length = std::min(prompt.find_first_of("\\()[]:"), prompt.size());
      add_text(prompt.substr(0, length));
    }
    prompt.remove_prefix(length);
  }
  while (!round.empty()) multiply(round, 1.1);
  while (!square.empty()) multiply(square, 1 / 1.1);
  std::vector<WeightedText> joined;
  for (auto& part : out) {
    if (part.is_break)
      part.weight = 1;
    else if (!joined.empty() && !joined.back().is_break && joined.back().weight == part.weight) {
      joined.back().text += part.text;
      continue;
    }
    joined.push_back(std::move(part));
  }
  if (joined.empty()) joined.push_back({""});
  return joined;
}

/// A tokenizer, and words that stand for tokens of their own: textual inversions.
class PromptTokenizer {
 public:
  PromptTokenizer() = default;
  /// `context`: tokens in a window of the model, start and end included. Throws ShapeError when it is below 3.
  PromptTokenizer(Tokenizer tokenizer, Index context) : tokenizer_(std::move(tokenizer)), context_(context) {
    check<ShapeError>(context >= 3, "PromptTokenizer", "expected a context of at least 3, got ", context);
  }

  const Tokenizer& tokenizer() const {
    check(tokenizer_.has_value(), "PromptTokenizer", "no tokenizer was loaded");
    return *tokenizer_;
  }
  Index context() const { return context_; }
  /// `word`, wherever it stands, becomes these ids. Throws NameError when it is empty or taken.
  void add(const std::string& word, std::vector<std::int32_t> ids) {
    check<NameError>(!word.empty() && !has(word), "PromptTokenizer", "the word '", word, word.empty() ? "' is empty" : "' is taken");
    words_.emplace_back(word, std::move(ids));
    std::stable_sort(words_.begin(), words_.end(), [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  }
  bool has(std::string_view word) const {
    return std::any_of(words_.begin(), words_.end(), [&](const auto& known) { return known.first == word; });
  }

  /// Groups of ids that must not be torn apart: single tokens, and whole inversions. With `padding` the padding token is found
  /// as it is written, as transformers finds all its special tokens: where "!" pads, as in SD 2 and in SDXL's second tower, it is
  /// that token in a prompt too. Throws Error when the text is not UTF-8.
  std::vector<std::vector<std::int32_t>> encode(std::string_view text, bool padding = false) const {
    std::vector<std::vector<std::int32_t>> out;
    const std::vector<std::int32_t> pad_ids{tokenizer().pad_id()};
    const std::string& pad = tokenizer().token(pad_ids[0]);
    while (!text.empty()) {
      std::size_t at = text.size(), length = 0;
      const std::vector<std::int32_t>* ids = nullptr;
      for (const auto& [word, word_ids] : words_)  // the longest come first
        if (const auto found = text.find(word); found < at) at = found, length = word.size(), ids = &word_ids;
      if (const auto found = padding ? text.find(pad) : text.npos; found < at) at = found, length = pad.size(), ids = &pad_ids;
      for (const auto id : tokenizer().encode(text.substr(0, at))) out.push_back({id});
      if (ids != nullptr) out.push_back(*ids);
      text.remove_prefix(at + length);
    }
    return out;
  }

 private:
  std::optional<Tokenizer> tokenizer_;
  Index context_ = 77;
  std::vector<std::pair<std::string, std::vector<std::int32_t>>> words_;
};

/// A prompt as the text tower takes it.
struct PromptTokens {
  Tensor<std::int32_t> ids;    ///< [windows, context]
  std::vector<float> weights;  ///< one for each id
  std::string cut_off;         ///< the words past the context
};

namespace detail {

/// One window: the start, the ids, the end, padding.
inline PromptTokens cut_prompt(const PromptTokenizer& prompts, std::string_view text) {
  const Tokenizer& tokenizer = prompts.tokenizer();
  std::vector<std::int32_t> ids;
  for (const auto& group : prompts.encode(text, tokenizer.config().style == TokenizerStyle::hugging_face)) ids.insert(ids.end(), group.begin(), group.end());
  const auto kept = std::min(ids.size(), static_cast<std::size_t>(prompts.context() - 2));
  PromptTokens out{Tensor<std::int32_t>::full({1, prompts.context()}, tokenizer.pad_id()), {}, {}};
  std::int32_t* to = out.ids.data();
  *to++ = tokenizer.start_id();
  to = std::copy_n(ids.begin(), kept, to);
  *to = tokenizer.end_id();
  out.weights.assign(static_cast<std::size_t>(prompts.context()), 1.0f);
  std::vector<std::int32_t> rest(ids.begin() + static_cast<std::ptrdiff_t>(kept), ids.end());
  std::erase_if(rest, [&](std::int32_t id) { return id >= tokenizer.size(); });  // vectors of an inversion have no spelling
  out.cut_off = tokenizer.decode(rest);
  return out;
}

/// AUTOMATIC1111's windows (modules/sd_hijack_clip.py): a window that is full ends at a comma of its last 20 tokens where there
/// is one; an inversion is never torn apart.
inline PromptTokens window_prompt(const PromptTokenizer& prompts, std::string_view text) {
  constexpr std::size_t backtrack = 20;
  const Tokenizer& tokenizer = prompts.tokenizer();
  const auto length = static_cast<std::size_t>(prompts.context() - 2);
  const auto comma = tokenizer.find(",</w>");
  struct Window {
    std::vector<std::int32_t> ids;
    std::vector<float> weights;
  };
  std::vector<Window> windows;
  Window window;
  std::optional<std::size_t> after_comma;
  const auto close = [&] {
    windows.push_back(std::move(window));
    window = {};
    after_comma.reset();
  };
  for (const auto& part : parse_weighted_prompt(text)) {
    if (part.is_break) {
      close();
      continue;
    }
    for (const auto& group : prompts.encode(part.text)) {
      check(group.size() <= length, "prompt", "an inversion of ", group.size(), " tokens does not fit a window of ", length);
      if (group.size() == 1 && group[0] == comma) {
        after_comma = window.ids.size() + 1;
      } else if (window.ids.size() == length && after_comma && window.ids.size() + 1 - *after_comma <= backtrack) {
        const auto cut = static_cast<std::ptrdiff_t>(*after_comma);
        Window moved{{window.ids.begin() + cut, window.ids.end()}, {window.weights.begin() + cut, window.weights.end()}};
        window.ids.resize(*after_comma);
        window.weights.resize(*after_comma);
        close();
        window = std::move(moved);
      }
      if (window.ids.size() + group.size() > length) close();
      window.ids.insert(window.ids.end(), group.begin(), group.end());
      window.weights.insert(window.weights.end(), group.size(), static_cast<float>(part.weight));
    }
  }
  if (!window.ids.empty() || windows.empty()) close();
  PromptTokens out;
  const auto count = static_cast<Index>(windows.size());
  out.ids = Tensor<std::int32_t>::full({count, prompts.context()}, tokenizer.pad_id());
  out.weights.assign(static_cast<std::size_t>(out.ids.size()), 1.0f);
  for (Index w = 0; w < count; ++w) {
    const auto& [ids, weights] = windows[static_cast<std::size_t>(w)];
    std::int32_t* to = out.ids.data() + w * prompts.context();
    *to++ = tokenizer.start_id();
    *std::copy(ids.begin(), ids.end(), to) = tokenizer.end_id();
    std::copy(weights.begin(), weights.end(), out.weights.begin() + w * prompts.context() + 1);
  }
  return out;
}

}  // namespace detail

/// The tokens of a prompt. Throws Error when it is not UTF-8.
inline PromptTokens tokenize_prompt(const PromptTokenizer& tokenizer, std::string_view prompt, PromptWeights weights = PromptWeights::off) {
  return weights == PromptWeights::off ? detail::cut_prompt(tokenizer, prompt) : detail::window_prompt(tokenizer, prompt);
}

}  // namespace tenon::inline TENON_ABI
