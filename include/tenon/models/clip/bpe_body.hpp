#pragma once
// The definitions of bpe.hpp.
#include <optional>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include <tenon/io/atomic.hpp>
#include <tenon/io/gzip.hpp>
#include <tenon/io/json.hpp>
#include <tenon/io/mapped_file.hpp>
#include <tenon/io/utf8.hpp>
#include <tenon/models/clip/bpe.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

TENON_IN_BODY std::vector<std::string> vocabulary_of(std::span<const BpeMerge> merges, const std::string& start, const std::string& end) {
  std::vector<std::string> tokens;
  for (const std::string_view ending : {std::string_view(), end_of_word})
    for (std::size_t n = 0; n < 256; ++n) {
      append_utf8(tokens.emplace_back(), std::uint32_t{byte_character(n)});
      tokens.back() += ending;
    }
  for (const auto& [left, right] : merges) {
    const auto count = static_cast<std::int32_t>(tokens.size());
    check<NameError>(left >= 0 && left < count && right >= 0 && right < count, "Tokenizer", "merge ", count - byte_tokens,
                     " expected two of the ", count, " tokens before it, got ", left, " and ", right);
    tokens.push_back(tokens[static_cast<std::size_t>(left)] + tokens[static_cast<std::size_t>(right)]);
  }
  tokens.push_back(start);
  tokens.push_back(end);
  return tokens;
}

/// Tokens by id and ids by token, out of {"token": id, ...}.
struct Vocabulary {
  const std::string file;
  std::vector<std::string> tokens;
  std::unordered_map<std::string, std::int32_t> ids;

  explicit Vocabulary(const Json& json, const nlohmann::json* added = nullptr) : file(json.file()) {
    check<FileError>(json.is_object(), "load_tokenizer", file, ": expected an object of tokens and ids");
    std::vector<std::pair<const std::string*, const nlohmann::json*>> entries;
    const auto& known = json.value().get_ref<const nlohmann::json::object_t&>();
    for (const auto& [token, id] : known) entries.emplace_back(&token, &id);
    if (added != nullptr && added->is_array())
      for (const auto& entry : added->get_ref<const nlohmann::json::array_t&>()) {
        if (!entry.is_object()) continue;
        const auto content = entry.find("content"), id = entry.find("id");
        if (content == entry.end() || id == entry.end() || !content->is_string()) continue;
        const auto& token = content->get_ref<const std::string&>();
        if (!known.contains(token)) entries.emplace_back(&token, &*id);
      }
    tokens.resize(entries.size());
    for (const auto& [token, id] : entries) {
      const std::uint64_t place = id->is_number_unsigned() ? id->get<std::uint64_t>() : tokens.size();
      check<FileError>(place < tokens.size() && tokens[place].empty() && !token->empty(), "load_tokenizer", file, ": expected each of the ids 0..",
                       tokens.size() - 1, " once, found ", shown(*id), " for token \"", *token, '"');
      tokens[place] = *token;
      ids.emplace(*token, static_cast<std::int32_t>(place));
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

TENON_IN_BODY BpeFile read_tokenizer_json(const std::string& path) {
  const auto json = Json::read(path);
  const auto type = json.get<std::string>("model.type", "BPE"), suffix = json.get<std::string>("model.end_of_word_suffix", "");
  check<FileError>(type == "BPE" && suffix == end_of_word, "load_tokenizer", path, ": expected a BPE model with the suffix </w>, as CLIP has, found ",
                   type, " with \"", suffix, '"');
  const std::optional<Json> added = json.contains("added_tokens") ? std::optional(json.at("added_tokens")) : std::nullopt;
  Vocabulary vocabulary(json.at("model.vocab"), added ? &added->value() : nullptr);
  std::vector<BpeMerge> merges;
  const auto list = json.at("model.merges");
  check<FileError>(list.is_array(), "load_tokenizer", path, ": model.merges: expected an array");
  for (const auto& merge : list.value().get_ref<const nlohmann::json::array_t&>()) {  // "a b", or ["a", "b"] since tokenizers 0.20
    const bool pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    check<FileError>(pair || merge.is_string(), "load_tokenizer", path, ": model.merges: expected two tokens, found ", shown(merge));
    const std::string line = pair ? merge[0].get_ref<const std::string&>() + ' ' + merge[1].get_ref<const std::string&>() : merge.get_ref<const std::string&>();
    merges.push_back(vocabulary.merge(line, path, static_cast<Index>(merges.size()) + 1));
  }
  return {std::move(vocabulary.tokens), std::move(merges)};
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

TENON_IN_BODY BpeFile read_vocabulary_and_merges(const std::string& folder) {
  Vocabulary vocabulary(Json::read(folder + "/vocab.json"));
  const std::string path = folder + "/merges.txt", text = read_file(path, Json::max_bytes);
  std::vector<BpeMerge> merges;
  for_each_line(text, [&](std::string_view line, Index number) {
    if (!line.empty() && !(number == 1 && line.starts_with("#version"))) merges.push_back(vocabulary.merge(line, path, number));
  });
  return {std::move(vocabulary.tokens), std::move(merges)};
}

TENON_IN_BODY std::vector<BpeMerge> read_openai_merges(const std::string& path) {
  constexpr std::size_t used = 49152 - 256 - 2;
  const std::string text = gunzip(read_file(path, Json::max_bytes), Json::max_bytes, path);
  std::unordered_map<std::string, std::int32_t> ids;
  for (const std::string_view ending : {std::string_view(), end_of_word})
    for (std::size_t n = 0; n < 256; ++n) {
      std::string symbol;
      append_utf8(symbol, std::uint32_t{byte_character(n)});
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
  return merges;
}

TENON_IN_BODY void save_vocabulary_and_merges(const std::string& folder, std::span<const std::string> tokens, std::span<const BpeMerge> merges) {
  std::string vocabulary = "{", lines = "#version: 0.2\n";
  for (std::size_t id = 0; id < tokens.size(); ++id)
    vocabulary += (id > 0 ? ",\n" : "\n") + nlohmann::json(tokens[id]).dump() + ": " + std::to_string(id);
  for (const auto& [left, right] : merges) lines += tokens[static_cast<std::size_t>(left)] + ' ' + tokens[static_cast<std::size_t>(right)] + '\n';
  atomic_write(folder + "/vocab.json", [&](FileSink& out) { out.write(vocabulary + "\n}\n"); });
  atomic_write(folder + "/merges.txt", [&](FileSink& out) { out.write(lines); });
}

}  // namespace detail

}  // namespace tenon::inline TENON_ABI
