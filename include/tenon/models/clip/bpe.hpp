#pragma once
// The vocabulary and merges of byte-level BPE, and their files: what of CLIP's tokenizer needs no Unicode tables.
#include <array>
#include <cstdint>
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
};
/// A tokenizer.json of the tokenizers library, of CLIP's kind: byte-level BPE with </w> at the end of words.
TENON_IN_BODY BpeFile read_tokenizer_json(const std::string& path);
TENON_IN_BODY BpeFile read_vocabulary_and_merges(const std::string& folder);
/// OpenAI's bpe_simple_vocab_16e6.txt.gz: its first 48,894 merges make the vocabulary of 49,408, the others are not used.
TENON_IN_BODY std::vector<BpeMerge> read_openai_merges(const std::string& path);
TENON_IN_BODY void save_vocabulary_and_merges(const std::string& folder, std::span<const std::string> tokens, std::span<const BpeMerge> merges);

}  // namespace detail

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/models/clip/bpe_body.hpp>
#endif
