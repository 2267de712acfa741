#pragma once
// Learns the merges of a Tokenizer from texts (Sennrich et al., arXiv 1508.07909, on bytes).
#include <map>
#include <set>

#include <tenon/models/clip/tokenizer.hpp>

namespace tenon::inline TENON_ABI {

struct BpeTrainerConfig {
  Index vocab_size = 1500;  ///< at most; 512 byte tokens and the two specials included
  Index min_count = 2;      ///< rarer pairs are never merged
  TokenizerStyle style = TokenizerStyle::openai;
};

/// The merges that shorten the texts most, best first: each step joins the pair that occurs most often, and of equals the one
/// whose ids are lowest. Stops at `vocab_size`, or when no pair occurs `min_count` times.
/// Throws ShapeError on a vocabulary below 514, Error when a text is not UTF-8.
TENON_ON_CALL std::vector<BpeMerge> train_bpe(std::span<const std::string> texts, const BpeTrainerConfig& config = {}) {
  constexpr Index without_merges = detail::byte_tokens + 2;
  check<ShapeError>(config.vocab_size >= without_merges, "train_bpe", "expected a vocabulary of at least ", without_merges, " tokens, got ",
                    config.vocab_size);
  const Tokenizer untrained({}, {.style = config.style});
  std::map<std::vector<std::int32_t>, Index> counts;  // words as byte tokens
  for (const auto& text : texts) {
    std::vector<std::int32_t> word;
    for (const auto id : untrained.encode(text)) {
      if (id >= detail::byte_tokens) continue;  // a special, typed in a text
      word.push_back(id);
      if (id < 256) continue;
      ++counts[word];
      word.clear();
    }
  }
  std::vector<std::pair<std::vector<std::int32_t>, Index>> words(counts.begin(), counts.end());

  using Pair = std::pair<std::int32_t, std::int32_t>;
  std::map<Pair, Index> pairs;
  const auto count_pairs = [&](const std::vector<std::int32_t>& word, Index weight) {
    for (std::size_t i = 0; i + 1 < word.size(); ++i) pairs[{word[i], word[i + 1]}] += weight;
  };
  for (const auto& [word, count] : words) count_pairs(word, count);

  std::vector<std::string> spellings;
  for (std::int32_t id = 0; id < detail::byte_tokens; ++id) spellings.push_back(untrained.token(id));
  std::set<std::string> taken(spellings.begin(), spellings.end());
  std::vector<BpeMerge> merges;
  while (static_cast<Index>(spellings.size()) + 2 < config.vocab_size) {
    const auto spelling = [&](const Pair& pair) {
      return spellings[static_cast<std::size_t>(pair.first)] + spellings[static_cast<std::size_t>(pair.second)];
    };
    const std::pair<const Pair, Index>* best = nullptr;
    for (const auto& entry : pairs)  // in order of ids, so that the first of equals stays
      if (entry.second >= config.min_count && (best == nullptr || entry.second > best->second) && !taken.contains(spelling(entry.first))) best = &entry;
    if (best == nullptr) break;

    const auto [left, right] = best->first;
    const auto merged = static_cast<std::int32_t>(spellings.size());
    merges.push_back({left, right});
    spellings.push_back(spelling({left, right}));
    taken.insert(spellings.back());
    for (auto& [word, count] : words) {
      std::size_t kept = 0;
      std::vector<std::int32_t> joined(word.size());
      for (std::size_t i = 0; i < word.size(); ++i) {
        const bool here = word[i] == left && i + 1 < word.size() && word[i + 1] == right;
        joined[kept++] = here ? merged : word[i];
        if (here) ++i;
      }
      if (kept == word.size()) continue;
      joined.resize(kept);
      count_pairs(word, -count);
      word = std::move(joined);
      count_pairs(word, count);
    }
    std::erase_if(pairs, [](const auto& entry) { return entry.second == 0; });
  }
  return merges;
}

}  // namespace tenon::inline TENON_ABI
