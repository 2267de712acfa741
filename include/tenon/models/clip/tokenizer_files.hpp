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

/// The tokenizer in a folder: tokenizer.json, else vocab.json and merges.txt, else bpe_simple_vocab_16e6.txt.gz, OpenAI's list
/// of merges; or in one file of the first and last kind, told apart by the ending .gz. In transformers' style with the tokens that
/// the folder's files add, and their start, end and padding in the place of the configuration's; a padding id that is given stays,
/// and its token is then not sought in texts. Throws FileError on a file that is not there or not of that form, NameError when
/// merges and vocabulary do not fit.
TENON_ON_CALL Tokenizer load_tokenizer(const std::string& path, TokenizerConfig config = {.style = TokenizerStyle::hugging_face}) {
  const auto finish = [&](detail::BpeFile read, const std::string& folder) {
    if (config.style == TokenizerStyle::hugging_face || !read.listed.empty()) {
      detail::read_added_tokens(config.style == TokenizerStyle::hugging_face ? folder : "", read);
      if (!read.start.empty()) config.start = read.start;
      if (!read.end.empty()) config.end = read.end;
      const auto pad = std::find(read.tokens.begin(), read.tokens.end(), read.pad);
      if (config.pad && *config.pad >= 0 && *config.pad < static_cast<std::int32_t>(read.tokens.size()))
        std::erase_if(read.added, [&](const AddedToken& token) {
          return token.content == read.tokens[static_cast<std::size_t>(*config.pad)] && token.content != config.end;
        });
      else if (!config.pad && pad != read.tokens.end())
        config.pad = static_cast<std::int32_t>(pad - read.tokens.begin());
      config.added = std::move(read.added);
    }
    return Tokenizer(std::move(read.tokens), read.merges, std::move(config));
  };
  if (path.ends_with(".gz")) return Tokenizer(detail::read_openai_merges(path), std::move(config));
  if (path.ends_with(".json")) return finish(detail::read_tokenizer_json(path), "");
  if (detail::has_file(path, "tokenizer.json")) return finish(detail::read_tokenizer_json(path + "/tokenizer.json"), path);
  const bool vocabulary = detail::has_file(path, "vocab.json");
  if (const std::string merges = join_text(path, '/', detail::openai_merges_name); detail::has_file(merges) && !(vocabulary && detail::has_file(path, "merges.txt")))
    return Tokenizer(detail::read_openai_merges(merges), std::move(config));
  check<FileError>(vocabulary || !detail::has_file(path), "load_tokenizer", path, ": expected vocab.json and merges.txt, tokenizer.json or ",
                   detail::openai_merges_name);
  return finish(detail::read_vocabulary_and_merges(path), path);
}

/// Writes vocab.json and merges.txt into a folder, as transformers' CLIPTokenizer reads them, and tokenizer_config.json when there
/// are added tokens. Throws FileError.
TENON_ON_CALL void save_tokenizer(const std::string& folder, const Tokenizer& tokenizer) {
  std::vector<std::string> tokens;
  for (std::int32_t id = 0; id < tokenizer.size(); ++id) tokens.push_back(tokenizer.token(id));
  detail::save_vocabulary_and_merges(folder, tokens, tokenizer.merges());
  const auto& config = tokenizer.config();
  if (config.style == TokenizerStyle::hugging_face && !config.added.empty())
    detail::save_added_tokens(folder, tokens, config.added, config.start, config.end, tokenizer.token(tokenizer.pad_id()));
}

}  // namespace tenon::inline TENON_ABI
