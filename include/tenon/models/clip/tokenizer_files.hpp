#pragma once
// A Tokenizer from and to a Hugging Face folder: vocab.json and merges.txt, or tokenizer.json.
#include <tenon/io/atomic.hpp>
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

inline bool has_file(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace detail

/// Whether a folder brings a tokenizer that load_tokenizer reads.
inline bool has_tokenizer(const std::string& folder) {
  return detail::has_file(folder + "/vocab.json") || detail::has_file(folder + "/tokenizer.json");
}

/// The tokenizer in a folder's vocab.json and merges.txt, or, without them, in its tokenizer.json. Throws FileError on a file
/// that is not there or not of that form, NameError when merges and vocabulary do not fit.
inline Tokenizer load_tokenizer(const std::string& folder, TokenizerConfig config = {.style = TokenizerStyle::hugging_face}) {
  if (!detail::has_file(folder + "/vocab.json") && detail::has_file(folder + "/tokenizer.json"))
    return detail::read_tokenizer_json(folder + "/tokenizer.json", std::move(config));
  const detail::Vocabulary vocabulary(Json::read(folder + "/vocab.json"));
  const std::string path = folder + "/merges.txt", text = read_file(path, Json::max_bytes);
  std::vector<BpeMerge> merges;
  Index line_number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const auto newline = rest.find('\n');
    std::string_view line = rest.substr(0, newline);
    rest.remove_prefix(newline == rest.npos ? rest.size() : newline + 1);
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (line_number == 1 && line.starts_with("#version"))) continue;
    merges.push_back(vocabulary.merge(line, path, line_number));
  }
  return Tokenizer(vocabulary.tokens, merges, std::move(config));
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
