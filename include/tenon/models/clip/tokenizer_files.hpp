#pragma once
// A Tokenizer from files: a Hugging Face folder's vocab.json and merges.txt, or tokenizer.json, or OpenAI's list of merges.
#include <tenon/io/atomic.hpp>
#include <tenon/io/gzip.hpp>
#include <tenon/io/json.hpp>
#include <tenon/models/clip/tokenizer.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// Tokens by id and ids by token, out of {"token": id, ...}.
struct Vocabulary {
  const std::string file;
  std::vector<std::string> tokens;
  std::unordered_map<std::string, std::int32_t> ids;

  explicit Vocabulary(const Json& json, const nlohmann::json& added = nlohmann::json::array()) : file(json.file()) {
    check<FileError>(json.value().is_object(), "load_tokenizer", file, ": expected an object of tokens and ids");
    std::vector<std::pair<std::string, nlohmann::json>> entries;
    for (const auto& [token, id] : json.value().items()) entries.emplace_back(token, id);
    for (const auto& entry : added)
      if (entry.is_object() && entry.contains("content") && entry.contains("id") && entry["content"].is_string() &&
          !json.value().contains(entry["content"].get<std::string>()))
        entries.emplace_back(entry["content"].get<std::string>(), entry["id"]);
    tokens.resize(entries.size());
    for (const auto& [token, id] : entries) {
      const bool fits = id.is_number_unsigned() && id.get<std::uint64_t>() < tokens.size();
      check<FileError>(fits && tokens[id.get<std::size_t>()].empty() && !token.empty(), "load_tokenizer", file, ": expected each of the ids 0..",
                       tokens.size() - 1, " once, found ", id.dump(), " for token \"", token, '"');
      tokens[id.get<std::size_t>()] = token;
      ids.emplace(token, id.get<std::int32_t>());
    }
  }
  /// The merge that a line of two tokens names.
  BpeMerge merge(std::string_view line, const std::string& path, Index line_number) const {
    const auto space = line.find(' ');
    const auto id = [&](std::string_view token) {
      const auto found = ids.find(std::string(token));
      check<FileError>(space != line.npos && found != ids.end(), "load_tokenizer", path, ':', line_number,
                       ": expected two tokens of the vocabulary, found \"", line, '"');
      return found->second;
    };
    return {id(line.substr(0, space)), id(space == line.npos ? line : line.substr(space + 1))};
  }
};

/// A tokenizer.json of the tokenizers library, of CLIP's kind: byte-level BPE with </w> at the end of words.
inline Tokenizer read_tokenizer_json(const std::string& path, TokenizerConfig config) {
  const auto json = Json::read(path);
  const auto type = json.get<std::string>("model.type", "BPE"), suffix = json.get<std::string>("model.end_of_word_suffix", "");
  check<FileError>(type == "BPE" && suffix == end_of_word, "load_tokenizer", path, ": expected a BPE model with the suffix </w>, as CLIP has, found ",
                   type, " with \"", suffix, '"');
  const auto added = json.value().find("added_tokens");
  const Vocabulary vocabulary(json.at("model.vocab"), added == json.value().end() ? nlohmann::json::array() : *added);
  std::vector<BpeMerge> merges;
  const auto list = json.at("model.merges");
  check<FileError>(list.value().is_array(), "load_tokenizer", path, ": model.merges: expected an array");
  for (const auto& merge : list.value()) {  // "a b", or ["a", "b"] since tokenizers 0.20
    const bool pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    check<FileError>(pair || merge.is_string(), "load_tokenizer", path, ": model.merges: expected two tokens, found ", merge.dump());
    const std::string line = pair ? merge[0].get<std::string>() + ' ' + merge[1].get<std::string>() : merge.get<std::string>();
    merges.push_back(vocabulary.merge(line, path, static_cast<Index>(merges.size()) + 1));
  }
  return Tokenizer(vocabulary.tokens, merges, std::move(config));
}

/// The lines of a text, without their ends, and the number of each.
template <class F>
void for_each_line(std::string_view text, F&& f) {
  for (Index number = 1; !text.empty(); ++number) {
    const auto newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == text.npos ? text.size() : newline + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    f(line, number);
  }
}

inline Tokenizer read_vocabulary_and_merges(const std::string& folder, TokenizerConfig config) {
  const Vocabulary vocabulary(Json::read(folder + "/vocab.json"));
  const std::string path = folder + "/merges.txt", text = read_file(path, Json::max_bytes);
  std::vector<BpeMerge> merges;
  for_each_line(text, [&](std::string_view line, Index number) {
    if (!line.empty() && !(number == 1 && line.starts_with("#version"))) merges.push_back(vocabulary.merge(line, path, number));
  });
  return Tokenizer(vocabulary.tokens, merges, std::move(config));
}

/// OpenAI's bpe_simple_vocab_16e6.txt.gz: its first 48,894 merges make the vocabulary of 49,408, the others are not used.
inline Tokenizer read_openai_merges(const std::string& path, TokenizerConfig config) {
  constexpr std::size_t used = 49152 - 256 - 2;
  const std::string text = gunzip(read_file(path, Json::max_bytes), Json::max_bytes, path);
  std::unordered_map<std::string, std::int32_t> ids;
  for (const std::string_view ending : {std::string_view(), end_of_word})
    for (std::size_t n = 0; n < 256; ++n) {
      std::string symbol;
      append_utf8(symbol, byte_character(n));
      ids.emplace(symbol += ending, static_cast<std::int32_t>(ids.size()));
    }
  std::vector<BpeMerge> merges;
  for_each_line(text, [&](std::string_view line, Index number) {
    if (number == 1 || merges.size() == used) return;  // the first line names the version
    const auto space = line.find(' ');
    const auto left = ids.find(std::string(line.substr(0, space))), right = ids.find(std::string(space == line.npos ? "" : line.substr(space + 1)));
    check<FileError>(left != ids.end() && right != ids.end(), "load_tokenizer", path, ':', number,
                     ": expected two tokens of bytes or of merges before it, found \"", line, '"');
    merges.push_back({left->second, right->second});
    ids.emplace(left->first + right->first, static_cast<std::int32_t>(ids.size()));
  });
  check<FileError>(merges.size() == used, "load_tokenizer", path, ": expected ", used, " merges, found ", merges.size());
  return Tokenizer(merges, std::move(config));
}

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
inline Tokenizer load_tokenizer(const std::string& path, TokenizerConfig config = {.style = TokenizerStyle::hugging_face}) {
  const auto read_one = [&](const std::string& file) {
    return file.ends_with(".gz") ? detail::read_openai_merges(file, std::move(config)) : detail::read_tokenizer_json(file, std::move(config));
  };
  if (path.ends_with(".gz") || path.ends_with(".json")) return read_one(path);
  const bool vocabulary = detail::has_file(path, "vocab.json");
  if (!(vocabulary && detail::has_file(path, "merges.txt")))
    for (const std::string_view name : {std::string_view("tokenizer.json"), detail::openai_merges_name})
      if (detail::has_file(path, name)) return read_one(join_text(path, '/', name));
  check<FileError>(vocabulary || !detail::has_file(path), "load_tokenizer", path, ": expected vocab.json and merges.txt, tokenizer.json or ",
                   detail::openai_merges_name);
  return detail::read_vocabulary_and_merges(path, std::move(config));
}

/// Writes vocab.json and merges.txt into a folder, as transformers' CLIPTokenizer reads them. Throws FileError.
inline void save_tokenizer(const std::string& folder, const Tokenizer& tokenizer) {
  std::string vocabulary = "{", merges = "#version: 0.2\n";
  for (std::int32_t id = 0; id < tokenizer.size(); ++id)
    vocabulary += (id > 0 ? ",\n" : "\n") + nlohmann::json(tokenizer.token(id)).dump() + ": " + std::to_string(id);
  for (const auto& [left, right] : tokenizer.merges()) merges += tokenizer.token(left) + ' ' + tokenizer.token(right) + '\n';
  atomic_write(folder + "/vocab.json", [&](FileSink& out) { out.write(vocabulary + "\n}\n"); });
  atomic_write(folder + "/merges.txt", [&](FileSink& out) { out.write(merges); });
}

}  // namespace tenon::inline TENON_ABI
