#pragma once
// A Tokenizer from and to a Hugging Face folder: vocab.json and merges.txt.
#include <tenon/io/atomic.hpp>
#include <tenon/io/json.hpp>
#include <tenon/models/clip/tokenizer.hpp>

namespace tenon::inline TENON_ABI {

/// The tokenizer in a folder's vocab.json and merges.txt. Throws FileError on a file that is not there or not of that form,
/// NameError when merges and vocabulary do not fit.
inline Tokenizer load_tokenizer(const std::string& folder, TokenizerConfig config = {.style = TokenizerStyle::hugging_face}) {
  const auto vocabulary = Json::read(folder + "/vocab.json");
  check<FileError>(vocabulary.value().is_object(), "load_tokenizer", vocabulary.file(), ": expected an object of tokens and ids");
  std::unordered_map<std::string, std::int32_t> ids;
  std::vector<std::string> tokens(vocabulary.value().size());
  for (const auto& [token, id] : vocabulary.value().items()) {
    const bool fits = id.is_number_unsigned() && id.get<std::uint64_t>() < tokens.size();
    check<FileError>(fits && tokens[id.get<std::size_t>()].empty() && !token.empty(), "load_tokenizer", vocabulary.file(),
                     ": expected each of the ids 0..", tokens.size() - 1, " once, found ", id.dump(), " for token \"", token, '"');
    tokens[id.get<std::size_t>()] = token;
    ids.emplace(token, id.get<std::int32_t>());
  }

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
    const auto space = line.find(' ');
    const auto id = [&](std::string_view token) {
      const auto found = ids.find(std::string(token));
      check<FileError>(space != line.npos && found != ids.end(), "load_tokenizer", path, ':', line_number,
                       ": expected two tokens of the vocabulary, found \"", line, '"');
      return found->second;
    };
    merges.push_back({id(line.substr(0, space)), id(space == line.npos ? line : line.substr(space + 1))});
  }
  return Tokenizer(std::move(tokens), merges, std::move(config));
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
