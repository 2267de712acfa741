#pragma once
// CLIP's tokenizer: byte-level BPE with an end-of-word mark, after OpenAI's simple_tokenizer.py. Needs utf8proc (the
// component tenon::tokenizer).
//
// The vocabulary: 256 bytes, the same 256 at the end of a word, one token a merge, then the start and end of a text.
#include <algorithm>
#include <array>
#include <optional>
#include <queue>
#include <span>
#include <unordered_map>
#include <vector>

#include <tenon/models/clip/bpe.hpp>
#include <tenon/models/clip/clean_text.hpp>
#include <tenon/tensor/tensor.hpp>

namespace tenon::inline TENON_ABI {

/// Whose rules a tokenizer follows where the two differ.
enum class TokenizerStyle {
  openai,        ///< repairs characters, resolves HTML references, finds specials in any case; pads with token 0
  hugging_face,  ///< NFC only, finds specials as written, before cleaning; pads with the end token
};

struct TokenizerConfig {
  TokenizerStyle style = TokenizerStyle::openai;
  std::string start = "<|startoftext|>", end = "<|endoftext|>";
  std::optional<std::int32_t> pad{};  ///< the id after a text's end, when it is not the style's
  /// Tokens found whole in a text, in transformers' style; start and end always are.
  std::vector<AddedToken> added{};
};

namespace detail {

/// The pieces of a cleaned text: contractions, runs of letters, single numbers, runs of anything else but white space.
/// A special that begins a piece is one piece in OpenAI's pattern, pieces of its own in transformers'. OpenAI's pattern
/// ignores case: a long s contracts as an s does, and the iota subscript, which folds to a letter, belongs to no piece.
inline std::vector<std::u32string_view> split_pieces(std::u32string_view text, TokenizerStyle style, std::span<const std::u32string> specials) {
  const bool openai = style == TokenizerStyle::openai;
  std::vector<std::u32string_view> pieces;
  const auto is_between = [&](char32_t c) { return is_space(c) || (openai && c == U'\u0345'); };
  const auto is_other = [&](char32_t c) { return !is_between(c) && !is_letter(c) && !is_number(c); };
  for (std::size_t at = 0; at < text.size();) {
    if (is_between(text[at])) {
      ++at;
      continue;
    }
    const auto rest = text.substr(at);
    std::size_t length = 0;
    const auto whole = [&](std::u32string_view word) {
      if (length == 0 && rest.starts_with(word)) length = word.size();
    };
    const auto run = [&](auto&& belongs) {
      while (length < rest.size() && belongs(rest[length])) ++length;
    };
    for (const auto& special : specials) whole(special);
    if (length > 0 && !openai) {
      const auto parts = split_pieces(rest.substr(0, length), style, {});
      pieces.insert(pieces.end(), parts.begin(), parts.end());
      at += length;
      continue;
    }
    if (rest[0] == U'\'')
      for (const std::u32string_view contraction : {U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"}) whole(contraction);
    if (openai) whole(U"'\u017f");
    if (length == 0 && is_letter(rest[0])) run(is_letter);
    if (length == 0 && is_number(rest[0])) length = 1;
    if (length == 0) run(is_other);
    pieces.push_back(rest.substr(0, length));
    at += length;
  }
  return pieces;
}

}  // namespace detail

/// Texts to token ids and back. Const calls are safe from several threads.
class Tokenizer {
 public:
  /// OpenAI's layout: token 512 + i is what merge i makes, then come start and end.
  /// Throws NameError on a merge of tokens that are not there yet, and on two tokens of one spelling.
  explicit Tokenizer(std::span<const BpeMerge> merges, TokenizerConfig config = {})
      : Tokenizer(detail::vocabulary_of(merges, config.start, config.end), merges, config) {}

  /// Any vocabulary, spelt as in vocab.json; the token of a merge is the one spelt as its two together. Bytes without a
  /// token become the end token. Throws NameError on a spelling that is missing or there twice, an added token's too.
  Tokenizer(std::vector<std::string> tokens, std::span<const BpeMerge> merges, TokenizerConfig config = {})
      : tokens_(std::move(tokens)), merges_(merges.begin(), merges.end()), config_(std::move(config)) {
    for (std::size_t i = 0; i < tokens_.size(); ++i)
      check<NameError>(ids_.emplace(tokens_[i], static_cast<std::int32_t>(i)).second, "Tokenizer", "two tokens are spelt \"", tokens_[i], '"');
    start_ = required(config_.start);
    end_ = required(config_.end);
    pad_ = config_.pad.value_or(config_.style == TokenizerStyle::openai ? 0 : end_);
    check<NameError>(pad_ >= 0 && pad_ < size(), "Tokenizer", "expected a padding id below ", size(), ", got ", pad_);
    for (const auto* special : {&config_.start, &config_.end}) specials_.push_back(detail::to_code_points(*special));
    for (const auto& token : config_.added) add(token);
    for (const auto* special : {&config_.start, &config_.end}) add({.content = *special});
    for (std::size_t n = 0; n < 256; ++n) {
      std::string symbol;
      detail::append_utf8(symbol, detail::byte_character(n));
      const auto byte = detail::bytes_in_order()[n];
      bytes_[detail::byte_character(n)] = byte;
      byte_ids_[byte] = find(symbol).value_or(end_);
      last_byte_ids_[byte] = find(symbol += detail::end_of_word).value_or(end_);
    }
    for (std::size_t rank = 0; rank < merges_.size(); ++rank) {
      const auto [left, right] = merges_[rank];
      check<NameError>(left >= 0 && left < size() && right >= 0 && right < size(), "Tokenizer", "merge ", rank, " names a token past ", size());
      ranks_.emplace(key(left, right), Merged{static_cast<std::int32_t>(rank), required(token(left) + token(right))});
    }
  }

  /// The number of tokens.
  Index size() const { return static_cast<Index>(tokens_.size()); }
  std::int32_t start_id() const { return start_; }
  std::int32_t end_id() const { return end_; }
  std::int32_t pad_id() const { return pad_; }
  const TokenizerConfig& config() const { return config_; }
  const std::vector<BpeMerge>& merges() const { return merges_; }
  /// A token as vocab.json spells it. Throws NameError on an id that is not there.
  const std::string& token(std::int32_t id) const {
    check<NameError>(id >= 0 && id < size(), "Tokenizer", "expected an id below ", size(), ", got ", id);
    return tokens_[static_cast<std::size_t>(id)];
  }
  /// The id of a token as vocab.json spells it.
  std::optional<std::int32_t> find(std::string_view spelling) const {
    const auto found = ids_.find(std::string(spelling));
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  /// The ids of a text, without start and end. Throws Error when it is not UTF-8.
  std::vector<std::int32_t> encode(std::string_view text) const {
    std::vector<std::int32_t> ids;
    if (config_.style == TokenizerStyle::openai) {
      encode_cleaned(detail::clean_openai(text), ids);
      return ids;
    }
    split_added(detail::to_code_points(text), false, ids, [&](std::u32string_view written) {
      split_added(detail::clean_hugging_face(written), true, ids, [&](std::u32string_view cleaned) { encode_cleaned(cleaned, ids); });
    });
    return ids;
  }

  /// [texts, context]: start, ids, end, padding. A text that is too long loses its last ids; the end stays.
  /// Throws Error when a text is not UTF-8, ShapeError on a context below 2.
  Tensor<std::int32_t> operator()(std::span<const std::string> texts, Index context = 77) const {
    check<ShapeError>(context >= 2, "Tokenizer", "expected a context of at least 2, got ", context);
    auto out = Tensor<std::int32_t>::full({static_cast<Index>(texts.size()), context}, pad_);
    for (std::size_t n = 0; n < texts.size(); ++n) {
      const auto ids = encode(texts[n]);
      std::int32_t* row = out.data() + static_cast<Index>(n) * context;
      const auto kept = std::min<std::size_t>(ids.size(), static_cast<std::size_t>(context - 2));
      *row++ = start_;
      row = std::copy_n(ids.begin(), kept, row);
      *row = end_;
    }
    return out;
  }
  Tensor<std::int32_t> operator()(std::initializer_list<std::string> texts, Index context = 77) const {
    return (*this)(std::span(texts.begin(), texts.size()), context);
  }

  /// The bytes of the ids, a space after each word but the last, starts and ends left out. Bytes that a cut left without
  /// their neighbours are no UTF-8. Throws NameError on an id that is not there.
  std::string decode(std::span<const std::int32_t> ids) const {
    std::string out;
    for (const auto id : ids) {
      std::string_view spelling = token(id);
      if (id == start_ || id == end_) continue;
      if (is_added(id)) {
        out += spelling;
        continue;
      }
      const bool last = spelling.ends_with(detail::end_of_word);
      if (last) spelling.remove_suffix(detail::end_of_word.size());
      for (const char32_t c : detail::to_code_points(spelling)) {
        const auto byte = bytes_.find(c);
        if (byte == bytes_.end())
          detail::append_utf8(out, c);  // a vocabulary that is not in bytes
        else
          out += static_cast<char>(byte->second);
      }
      if (last) out += ' ';
    }
    if (!out.empty() && out.back() == ' ') out.pop_back();
    return out;
  }

 private:
  struct Merged {
    std::int32_t rank, id;
  };
  struct Added {
    std::u32string content;  // cleaned when it is sought in the cleaned text
    std::int32_t id;
    AddedToken token;
  };
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  }

  std::int32_t required(const std::string& spelling) const {
    const auto id = find(spelling);
    check<NameError>(id.has_value(), "Tokenizer", "the vocabulary has no token \"", spelling, '"');
    return *id;
  }

  void add(const AddedToken& token) {
    const auto id = required(token.content);
    if (is_added(id)) return;
    std::u32string content = detail::to_code_points(token.content);
    if (token.normalized) content = detail::clean_hugging_face(content);
    added_.push_back({std::move(content), id, token});
  }

  bool is_added(std::int32_t id) const {
    return std::any_of(added_.begin(), added_.end(), [&](const Added& token) { return token.id == id; });
  }

  /// Appends the ids of the added tokens in a text, the first and then the longest before others, and calls `between` with
  /// what is left, in order. As the tokenizers library: its AddedVocabulary::find_matches.
  template <class F>
  void split_added(std::u32string_view text, bool normalized, std::vector<std::int32_t>& ids, F&& between) const {
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      const Added* match = nullptr;
      for (const auto& one : added_)
        if (one.token.normalized == normalized && one.content.size() > (match != nullptr ? match->content.size() : 0) && text.substr(at).starts_with(one.content))
          match = &one;
      if (match == nullptr) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = at += match->content.size();
      if (match->token.single_word && ((begin > 0 && detail::is_word_character(text[begin - 1])) ||
                                       (end < text.size() && detail::is_word_character(text[end]))))
        continue;
      while (match->token.lstrip && begin > done && detail::is_space(text[begin - 1])) --begin;
      while (match->token.rstrip && end < text.size() && detail::is_space(text[end])) ++end;
      if (begin > done) between(text.substr(done, begin - done));
      ids.push_back(match->id);
      done = end;
    }
    if (done < text.size()) between(text.substr(done));
  }

  void encode_cleaned(std::u32string_view text, std::vector<std::int32_t>& ids) const {
    for (const auto piece : detail::split_pieces(text, config_.style, specials_)) {
      if (config_.style == TokenizerStyle::openai && (piece == specials_[0] || piece == specials_[1])) {
        ids.push_back(piece == specials_[0] ? start_ : end_);
        continue;
      }
      const auto bytes = detail::to_utf8(piece);
      std::vector<std::int32_t> symbols;
      for (const char byte : bytes) symbols.push_back(byte_ids_[static_cast<std::uint8_t>(byte)]);
      symbols.back() = last_byte_ids_[static_cast<std::uint8_t>(bytes.back())];
      merge(symbols);
      ids.insert(ids.end(), symbols.begin(), symbols.end());
    }
  }

  /// Merges the pair of lowest rank wherever it stands, left to right, until no pair has a rank: O(n log n).
  void merge(std::vector<std::int32_t>& symbols) const {
    const auto count = static_cast<std::int32_t>(symbols.size());
    std::vector<std::int32_t> before(symbols.size()), after(symbols.size());  // neighbours that are left; -1 after a merge
    for (std::int32_t i = 0; i < count; ++i) {
      before[static_cast<std::size_t>(i)] = i - 1;
      after[static_cast<std::size_t>(i)] = i + 1;
    }
    const auto pair_at = [&](std::int32_t i) -> const Merged* {
      if (i < 0 || after[static_cast<std::size_t>(i)] < 0 || after[static_cast<std::size_t>(i)] >= count) return nullptr;
      const auto found = ranks_.find(key(symbols[static_cast<std::size_t>(i)], symbols[static_cast<std::size_t>(after[static_cast<std::size_t>(i)])]));
      return found == ranks_.end() ? nullptr : &found->second;
    };
    using Candidate = std::pair<std::int32_t, std::int32_t>;  // rank, position
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto propose = [&](std::int32_t i) {
      if (const auto* pair = pair_at(i)) queue.emplace(pair->rank, i);
    };
    for (std::int32_t i = 0; i < count; ++i) propose(i);
    std::vector<std::int32_t> touched;
    while (!queue.empty()) {
      const auto rank = queue.top().first;
      touched.clear();
      for (; !queue.empty() && queue.top().first == rank; queue.pop()) {
        const auto i = queue.top().second;
        const auto* pair = pair_at(i);
        if (pair == nullptr || pair->rank != rank) continue;
        const auto gone = static_cast<std::size_t>(after[static_cast<std::size_t>(i)]);
        const auto next = after[gone];
        symbols[static_cast<std::size_t>(i)] = pair->id;
        after[static_cast<std::size_t>(i)] = next;
        after[gone] = -1;
        if (next < count) before[static_cast<std::size_t>(next)] = i;
        touched.push_back(i);
      }
      for (const auto i : touched) {
        propose(i);
        propose(before[static_cast<std::size_t>(i)]);
      }
    }
    std::size_t kept = 0;
    for (std::size_t i = 0; i < symbols.size(); ++i)
      if (after[i] >= 0) symbols[kept++] = symbols[i];
    symbols.resize(kept);
  }

  std::vector<std::string> tokens_;
  std::vector<BpeMerge> merges_;
  TokenizerConfig config_;
  std::unordered_map<std::string, std::int32_t> ids_;
  std::unordered_map<std::uint64_t, Merged> ranks_;
  std::unordered_map<char32_t, std::uint8_t> bytes_;
  std::array<std::int32_t, 256> byte_ids_{}, last_byte_ids_{};
  std::vector<std::u32string> specials_;
  std::vector<Added> added_;
  std::int32_t start_ = 0, end_ = 0, pad_ = 0;
};

}  // namespace tenon::inline TENON_ABI
