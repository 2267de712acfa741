#pragma once
// The definitions of bpe.hpp.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>
#include <unordered_set>

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

  explicit Vocabulary(const Json& json) : file(json.file()) {
    check<FileError>(json.is_object(), "load_tokenizer", file, ": expected an object of tokens and ids");
    const auto& known = json.value().get_ref<const nlohmann::json::object_t&>();
    tokens.resize(known.size());
    for (const auto& [token, id] : known) {
      const std::uint64_t place = id.is_number_unsigned() ? id.get<std::uint64_t>() : tokens.size();
      check<FileError>(place < tokens.size() && tokens[place].empty() && !token.empty(), "load_tokenizer", file, ": expected each of the ids 0..",
                       tokens.size() - 1, " once, found ", shown(id), " for token \"", token, '"');
      tokens[place] = token;
      ids.emplace(token, static_cast<std::int32_t>(place));
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

/// A token written as a text, which is special, or as an object.
inline AddedToken read_added_token(const nlohmann::json& value, const std::string& path, bool special = false) {
  if (value.is_string()) return {.content = value.get<std::string>()};
  const bool named = value.is_object() && value.contains("content") && value.at("content").is_string();
  check<FileError>(named, "load_tokenizer", path, ": expected a token, a text or an object with its content, found ", shown(value));
  const auto flag = [&](const char* key, bool otherwise) {
    const auto found = value.find(key);
    return found != value.end() && found->is_boolean() ? found->get<bool>() : otherwise;
  };
  return {.content = value.at("content").get<std::string>(), .single_word = flag("single_word", false), .lstrip = flag("lstrip", false),
          .rstrip = flag("rstrip", false), .normalized = flag("normalized", !(special || flag("special", false)))};
}

TENON_IN_BODY void read_added_tokens(const std::string& folder, BpeFile& file) {
  using Members = nlohmann::json::object_t;
  const auto read = [&](const char* name, std::string& path) {
    path = folder + '/' + name;
    if (folder.empty() || ::access(path.c_str(), F_OK) != 0) return nlohmann::json::object();
    const Json json = Json::read(path);
    check<FileError>(json.is_object(), "load_tokenizer", path, ": expected an object");
    return json.value();
  };
  std::string config_path, special_path, added_path;
  const nlohmann::json config = read("tokenizer_config.json", config_path);
  const bool whole = config.contains("added_tokens_decoder") && config.at("added_tokens_decoder").is_object();
  const nlohmann::json special = whole ? nlohmann::json::object() : read("special_tokens_map.json", special_path);
  const nlohmann::json added = whole ? nlohmann::json::object() : read("added_tokens.json", added_path);

  // the special map's word comes before the configuration's
  struct Named {
    std::string key;
    AddedToken token;
    bool is_text, is_default, in_map;
  };
  std::vector<Named> named;
  for (const auto& [key, usual] : {std::pair("bos_token", "<|startoftext|>"), std::pair("eos_token", "<|endoftext|>"), std::pair("unk_token", "<|endoftext|>"),
                                   std::pair("sep_token", ""), std::pair("pad_token", "<|endoftext|>"), std::pair("cls_token", ""), std::pair("mask_token", "")}) {
    const bool in_map = special.contains(key), in_config = config.contains(key);
    const nlohmann::json value = in_map ? special.at(key) : in_config ? config.at(key) : nlohmann::json(usual);
    if (!value.is_null()) named.push_back({key, read_added_token(value, in_map ? special_path : config_path, true), value.is_string(), !in_map && !in_config, in_map});
  }
  std::vector<AddedToken> extra;
  const auto add_extra = [&](const nlohmann::json& json, const char* key, const std::string& path) {
    if (!json.contains(key) || !json.at(key).is_structured()) return;
    for (const auto& token : json.at(key)) extra.push_back(read_added_token(token, path));
  };
  add_extra(config, "extra_special_tokens", config_path);
  if (extra.empty()) add_extra(config, "additional_special_tokens", config_path);
  add_extra(special, "extra_special_tokens", special_path);

  std::unordered_set<std::string> names;
  for (const auto& entry : named) names.insert(entry.token.content);
  std::map<std::int64_t, AddedToken> listed;
  if (whole) {
    for (const auto& [id, token] : config.at("added_tokens_decoder").get_ref<const Members&>()) {
      std::int64_t number = -1;
      const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
      check<FileError>(error == std::errc() && end == id.data() + id.size(), "load_tokenizer", config_path,
                       ": added_tokens_decoder: expected ids, found \"", id, '"');
      const std::string content = read_added_token(token, config_path).content;
      listed.insert_or_assign(number, read_added_token(token, config_path, names.contains(content)));
    }
  } else {
    names.clear();  // what the files name, but for objects in the configuration, which transformers does not compare
    for (const auto& entry : named)
      if (entry.in_map || (entry.is_text && !entry.is_default)) names.insert(entry.token.content);
    for (const auto& token : extra) names.insert(token.content);
    for (const Members::value_type& entry : added.get_ref<const Members&>()) {
      const std::string& token = entry.first;
      const nlohmann::json& id = entry.second;
      check<FileError>(id.is_number_integer(), "load_tokenizer", added_path, ": expected an id for \"", token, "\", found ", shown(id));
      listed.insert_or_assign(id.get<std::int64_t>(), AddedToken{.content = token, .normalized = !names.contains(token)});
    }
    for (const auto& [id, token] : file.listed) listed.insert_or_assign(id, token);
  }

  std::unordered_set<std::string> known(file.tokens.begin(), file.tokens.end()), settled, texts;
  const auto add = [&](const AddedToken& token) {
    if (token.content.empty()) return;
    if (known.insert(token.content).second) file.tokens.push_back(token.content);
    const auto same = std::find_if(file.added.begin(), file.added.end(), [&](const AddedToken& other) { return other.content == token.content; });
    if (same == file.added.end())
      file.added.push_back(token);
    else
      *same = token;
  };
  for (const auto& [id, token] : listed)
    if (settled.insert(token.content).second) add(token);
  for (const auto& [key, token, is_text, is_default, in_map] : named) {
    if (is_default && !known.contains(token.content)) continue;  // for the tokenizer to say
    // of several names for one token the last one's flags count, but a text that was there before says nothing new
    if (!settled.contains(token.content) && !(is_text && !texts.insert(token.content).second)) add(token);
    if (is_default) continue;
    if (key == "bos_token") file.start = token.content;
    if (key == "eos_token") file.end = token.content;
    if (key == "pad_token") file.pad = token.content;
  }
  if (extra.empty()) add_extra(special, "additional_special_tokens", special_path);
  for (const auto& token : extra)
    if (std::none_of(file.added.begin(), file.added.end(), [&](const AddedToken& other) { return other.content == token.content; })) add(token);
}

TENON_IN_BODY BpeFile read_tokenizer_json(const std::string& path) {
  const auto json = Json::read(path);
  const auto type = json.get<std::string>("model.type", "BPE"), suffix = json.get<std::string>("model.end_of_word_suffix", "");
  check<FileError>(type == "BPE" && suffix == end_of_word, "load_tokenizer", path, ": expected a BPE model with the suffix </w>, as CLIP has, found ",
                   type, " with \"", suffix, '"');
  Vocabulary vocabulary(json.at("model.vocab"));
  std::vector<BpeMerge> merges;
  const auto list = json.at("model.merges");
  check<FileError>(list.is_array(), "load_tokenizer", path, ": model.merges: expected an array");
  for (const auto& merge : list.value().get_ref<const nlohmann::json::array_t&>()) {  // "a b", or ["a", "b"] since tokenizers 0.20
    const bool pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    check<FileError>(pair || merge.is_string(), "load_tokenizer", path, ": model.merges: expected two tokens, found ", shown(merge));
    const std::string line = pair ? merge[0].get_ref<const std::string&>() + ' ' + merge[1].get_ref<const std::string&>() : merge.get_ref<const std::string&>();
    merges.push_back(vocabulary.merge(line, path, static_cast<Index>(merges.size()) + 1));
  }
  BpeFile out{std::move(vocabulary.tokens), std::move(merges)};
  if (!json.is_null("added_tokens")) {
    const Json added = json.at("added_tokens");
    for (const auto& token : added.value()) {
      const auto id = token.is_object() ? token.find("id") : token.end();
      check<FileError>(id != token.end() && id->is_number_integer(), "load_tokenizer", path, ": added_tokens: expected an object with an id, found ", shown(token));
      out.listed.insert_or_assign(id->get<std::int64_t>(), read_added_token(token, path));
    }
  }
  return out;
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

TENON_IN_BODY void save_added_tokens(const std::string& folder, std::span<const std::string> tokens, std::span<const AddedToken> added,
                                     const std::string& start, const std::string& end, const std::string& pad) {
  nlohmann::json decoder = nlohmann::json::object();
  for (const auto& token : added) {
    const auto id = std::find(tokens.begin(), tokens.end(), token.content) - tokens.begin();
    const bool special = token.content == start || token.content == end || token.content == pad;
    decoder[std::to_string(id)] = {{"content", token.content}, {"lstrip", token.lstrip}, {"rstrip", token.rstrip},
                                   {"single_word", token.single_word}, {"normalized", token.normalized}, {"special", special}};
  }
  save_json(folder + "/tokenizer_config.json", {{"tokenizer_class", "CLIPTokenizer"}, {"bos_token", start}, {"eos_token", end}, {"unk_token", end},
                                                {"pad_token", pad}, {"added_tokens_decoder", decoder}});
}

}  // namespace detail

}  // namespace tenon::inline TENON_ABI
