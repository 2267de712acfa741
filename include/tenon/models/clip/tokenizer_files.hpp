#pragma once
// A Tokenizer from files: a Hugging Face folder's vocab.json and merges.txt, or tokenizer.json, or OpenAI's list of merges.
#include <unistd.h>

#include <tenon/models/clip/tokenizer.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

inline constexpr std::string_view openai_merges_name = "bpe_simple_vocab_16e6.txt.gz";
inline bool has_file(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }
inline bool has_file(const std::string& folder, std::string_view name) { return has_file(join_text(folder, '/', name)); }

}  // namespace detail

/// Whether a folder brings a tokenizer that load_tokenizer reads.
inline bool has_tokenizer(const std::string& folder) {
  return detail::has_file(folder, "vocab.json") || detail::has_file(folder, "tokenizer.json") || detail::has_file(folder, detail::openai_merges_name);
}

/// The tokenizer in a folder: vocab.json and merges.txt, else tokenizer.json, else bpe_simple_vocab_16e6.txt.gz, OpenAI's list
/// of merges; or in one file of the latter two kinds, told apart by the ending .gz. Throws FileError on a file that is not
/// there or not of that form, NameError when merges and vocabulary do not fit.
TENON_ON_CALL Tokenizer load_tokenizer(const std::string& path, TokenizerConfig config = {.style = TokenizerStyle::hugging_face}) {
  const auto read_one = [&](const std::string& file) {
    if (file.ends_with(".gz")) return Tokenizer(detail::read_openai_merges(file), std::move(config));
    const detail::BpeFile read = detail::read_tokenizer_json(file);
    return Tokenizer(read.tokens, read.merges, std::move(config));
  };
  if (path.ends_with(".gz") || path.ends_with(".json")) return read_one(path);
  const bool vocabulary = detail::has_file(path, "vocab.json");
  if (!(vocabulary && detail::has_file(path, "merges.txt")))
    for (const std::string_view name : {std::string_view("tokenizer.json"), detail::openai_merges_name})
      if (detail::has_file(path, name)) return read_one(join_text(path, '/', name));
  check<FileError>(vocabulary || !detail::has_file(path), "load_tokenizer", path, ": expected vocab.json and merges.txt, tokenizer.json or ",
                   detail::openai_merges_name);
  const detail::BpeFile read = detail::read_vocabulary_and_merges(path);
  return Tokenizer(read.tokens, read.merges, std::move(config));
}

/// Writes vocab.json and merges.txt into a folder, as transformers' CLIPTokenizer reads them. Throws FileError.
TENON_ON_CALL void save_tokenizer(const std::string& folder, const Tokenizer& tokenizer) {
  std::vector<std::string> tokens;
  for (std::int32_t id = 0; id < tokenizer.size(); ++id) tokens.push_back(tokenizer.token(id));
  detail::save_vocabulary_and_merges(folder, tokens, tokenizer.merges());
}

}  // namespace tenon::inline TENON_ABI
