#pragma once
// The vocabulary and merges of byte-level BPE, and their files: what of CLIP's tokenizer needs no Unicode tables.
#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tenon/core/error.hpp>

namespace tenon::inline TENON_ABI {

/// Two tokens that, next to each other, become one.
struct BpeMerge {
  std::int32_t left, right;
  friend bool operator==(const BpeMerge&, const BpeMerge&) = default;
};

/// A token that is found whole wherever a text has it (the tokenizers library's AddedToken).
struct AddedToken {
  std::string content;
  bool single_word = false;             ///< only where no word character stands before or after it
  bool lstrip = false, rstrip = false;  ///< takes the white space before or after it
  bool normalized = false;              ///< sought, itself cleaned, in the cleaned text; else as it is written
};

namespace detail {

inline constexpr std::string_view end_of_word = "</w>";
inline constexpr std::int32_t byte_tokens = 512;

/// The 256 bytes in the vocabulary's order, printable Latin first.
inline const std::array<std::uint8_t, 256>& bytes_in_order() {
  static const auto order = [] {
    std::array<std::uint8_t, 256> out{};
    const auto printable = [](int b) { return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae; };
    std::size_t n = 0;
    for (const bool wanted : {true, false})
      for (int b = 0; b < 256; ++b)
        if (printable(b) == wanted) out[n++] = static_cast<std::uint8_t>(b);
    return out;
  }();
  return order;
}

/// The character that stands for the n-th byte of the order: itself when printable, else U+0100 and up.
inline char32_t byte_character(std::size_t n) {
  constexpr std::size_t printable = 188;
  return n < printable ? bytes_in_order()[n] : static_cast<char32_t>(256 + n - printable);
}

/// Vocabulary in OpenAI's order, in files' spelling.
TENON_IN_BODY std::vector<std::string> vocabulary_of(std::span<const BpeMerge> merges, const std::string& start, const std::string& end);

struct BpeFile {
  std::vector<std::string> tokens;
  std::vector<BpeMerge> merges;
  std::map<std::int64_t, AddedToken> listed{};  ///< what tokenizer.json lists as added, by the id that it says
  std::vector<AddedToken> added{};
  std::string start{}, end{}, pad{};  ///< empty: the files do not say
};
/// A tokenizer.json of the tokenizers library, of CLIP's kind: byte-level BPE with </w> at the end of words.
TENON_IN_BODY BpeFile read_tokenizer_json(const std::string& path);
TENON_IN_BODY BpeFile read_vocabulary_and_merges(const std::string& folder);
/// What `folder` (none: only the file already read) adds: tokenizer_config.json's added_tokens_decoder; without one, added_tokens.json,
/// special_tokens_map.json and tokenizer.json's own; and the special tokens that they name. As in transformers, those that are not
/// in the vocabulary follow it in the order of their ids, whatever these are. Throws FileError on what is no token.
TENON_IN_BODY void read_added_tokens(const std::string& folder, BpeFile& file);
/// OpenAI's bpe_simple_vocab_16e6.txt.gz: its first 48,894 merges make the vocabulary of 49,408, the others are not used.
TENON_IN_BODY std::vector<BpeMerge> read_openai_merges(const std::string& path);
TENON_IN_BODY void save_vocabulary_and_merges(const std::string& folder, std::span<const std::string> tokens, std::span<const BpeMerge> merges);
/// tokenizer_config.json, as read_added_tokens reads it.
TENON_IN_BODY void save_added_tokens(const std::string& folder, std::span<const std::string> tokens, std::span<const AddedToken> added,
                                     const std::string& start, const std::string& end, const std::string& pad);

}  // namespace detail

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/models/clip/bpe_body.hpp>
#endif
