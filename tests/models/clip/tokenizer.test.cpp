#include <filesystem>
#include <fstream>
#include <sstream>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include <tenon/models/clip/openai_vocab.hpp>
#include <tenon/models/clip/tokenizer_files.hpp>

#include "catch.hpp"

using namespace tenon;

namespace {

using Ids = std::vector<std::int32_t>;

// "ab" and "ab" at the end of a word, then "abab": tokens 512, 513, 514; start 515, end 516.
const std::vector<BpeMerge> small_merges{{64, 65}, {64, 256 + 65}, {512, 513}};

const Tokenizer& openai() {
  static const Tokenizer tokenizer = openai_tokenizer();
  return tokenizer;
}

struct TemporaryFolder {
  std::string path = (std::filesystem::temp_directory_path() / ("tenon-tokenizer-" + std::to_string(::getpid()))).string();
  TemporaryFolder() { std::filesystem::create_directory(path); }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path + "/" + name, std::ios::binary) << text; }
};

}  // namespace

TEST_CASE("a vocabulary of three merges, by hand") {
  const Tokenizer tokenizer(small_merges);
  REQUIRE(tokenizer.size() == 517);
  REQUIRE(tokenizer.token(0) == "!");
  REQUIRE(tokenizer.token(256) == "!</w>");
  REQUIRE(tokenizer.token(513) == "ab</w>");
  REQUIRE(tokenizer.encode("ab") == Ids{513});
  REQUIRE(tokenizer.encode(" ABAB  abc") == Ids{514, 512, 256 + 66});
  REQUIRE(tokenizer.encode("ababab") == Ids{512, 514});
  REQUIRE(tokenizer.encode("") == Ids{});
  REQUIRE(tokenizer.encode("b1") == Ids{256 + 65, 256 + 16});  // letters and numbers are pieces of their own
  REQUIRE(tokenizer.decode(Ids{515, 514, 512, 256 + 66, 516}) == "abab abc");

  const auto ids = tokenizer({"ab", "ab ab ab ab ab"}, 5);
  REQUIRE(ids == Tensor<std::int32_t>({2, 5}, {515, 513, 516, 0, 0, 515, 513, 513, 513, 516}));
  const Tokenizer hugging_face(small_merges, {.style = TokenizerStyle::hugging_face});
  REQUIRE(hugging_face({"ab"}, 4) == Tensor<std::int32_t>({1, 4}, {515, 513, 516, 516}));
  REQUIRE(Tokenizer(small_merges, {.pad = 7})({"ab"}, 4)(0, 3) == 7);
}

TEST_CASE("every pair of the lowest rank is merged before what that makes possible") {
  // aaa: rank 0 joins the left two; with four letters both pairs
  const Tokenizer tokenizer(std::vector<BpeMerge>{{64, 64}, {512, 256 + 64}});
  REQUIRE(tokenizer.encode("aaa") == Ids{513});
  REQUIRE(tokenizer.encode("aaaa") == Ids{512, 64, 256 + 64});
  // a long piece takes no quadratic time
  REQUIRE(tokenizer.encode(std::string(400'000, 'a')).size() == 200'001);
}

TEST_CASE("OpenAI's vocabulary has its marks in place") {
  REQUIRE(openai().size() == 49408);
  REQUIRE(openai().token(320) == "a</w>");
  REQUIRE(openai().token(512) == "in");
  REQUIRE(openai().token(49405) == "jekyll</w>");
  REQUIRE(openai().start_id() == 49406);
  REQUIRE(openai().end_id() == 49407);
}

TEST_CASE("known texts give OpenAI's ids") {
  const std::vector<std::pair<std::string, Ids>> known{
      {"a photo of a cat", {320, 1125, 539, 320, 2368}},
      {"a photo of a cat.", {320, 1125, 539, 320, 2368, 269}},
      {"a diagram", {320, 22697}},
      {"Hello World!", {3306, 1002, 256}},
      {"a photo of a capybara", {320, 1125, 539, 320, 1289, 88, 19345}},
      {"test tokenization", {1628, 32634, 10847}},
      {"an astronaut riding a horse on Mars", {550, 18376, 6765, 320, 4558, 525, 7496}},
      {"You should've done this", {592, 1535, 1200, 1700, 589}},
      {"you're, don't, her's", {592, 982, 267, 847, 713, 267, 899, 568}},
      {"A\n'll 11p223RF\u2606ho!!to? of a cat", {320, 1342, 272, 272, 335, 273, 273, 274, 16368, 13439, 2971, 748, 531, 286, 539, 320, 2368}},
      {"r\u00e9sum\u00e9", {29106, 7054, 4166}},
      {"xa\u0303y", {87, 19339, 344}},
      {"x\u00e3y", {87, 19339, 344}},
      {"1234", {272, 273, 274, 275}},
      {"&lt;b&gt; Tom &amp;amp; Jerry", {283, 321, 285, 2435, 261, 9164}},
      {"  multiple   spaces\tand\nnewlines ", {6470, 9006, 537, 1218, 3418}},
      {"<|endoftext|>", {49407}},
      {"\u0085", {959}},
      {"\u2026", {959}},
      {"\u201ccurly\u201d quotes", {257, 20795, 257, 5808}},
      {"\ufb01ne", {3797}},
      {"\uff28\uff25\uff2c\uff2c\uff2f", {3306}},
      {"\U0001f642", {14860}},
      {"\u65e5\u672c\u8a9e", {39121, 44353, 34002, 508}},
      {"http://example.com/a_b", {15066, 12441, 6228, 269, 2464, 270, 320, 318, 321}},
      {"\u0130", {328, 16384}},
      {"antidisestablishmentarianism", {3120, 4262, 7726, 12658, 1585, 44351}},
      {"\x1b[1;31mred\x1b[0m cat", {736, 2368}},
      {"\x1b[4 cat", {314, 275, 2368}},
      {"a\vcat", {546, 536}},
      {"&EACUTE;t&EACUTE; &SZLIG; &LTIMES;", {3459, 39694, 632, 283, 47744, 282}},
      {"<&EACUTE;", {27, 261, 68, 19734, 282}},
      {"\u1fb3 a\u0345\u0345b", {157, 122, 367, 320, 321}},
      {"", {}}};
  for (const auto& [text, ids] : known) {
    INFO(text);
    CHECK(openai().encode(text) == ids);
  }
}

TEST_CASE("a thousand texts give the ids of the reference implementations") {
  for (const auto style : {TokenizerStyle::openai, TokenizerStyle::hugging_face}) {
    const auto tokenizer = openai_tokenizer({.style = style});
    const std::string name = style == TokenizerStyle::openai ? "tokenizer_openai.tsv" : "tokenizer_hugging_face.tsv";
    std::ifstream in(std::string(TENON_TEST_DATA) + "/" + name);
    int compared = 0;
    for (std::string line; std::getline(in, line); ++compared) {
      const auto tab = line.find('\t');
      std::string text;
      for (std::size_t i = 0; i < tab; i += 2) text += static_cast<char>(std::stoi(line.substr(i, 2), nullptr, 16));
      Ids expected;
      std::istringstream numbers(line.substr(tab + 1));
      for (std::int32_t id; numbers >> id;) expected.push_back(id);
      if (tokenizer.encode(text) != expected) {
        INFO(name << ", text " << text);
        CHECK(tokenizer.encode(text) == expected);
      }
    }
    REQUIRE(compared == 1000);
  }
}

TEST_CASE("what is decoded encodes to the same ids") {
  for (const std::string text : {"a photo of a capybara, smiling", "\u65e5\u672c\u8a9e \U0001f642", "it's 12"})
    REQUIRE(openai().encode(openai().decode(openai().encode(text))) == openai().encode(text));
}

TEST_CASE("a folder keeps the tokenizer") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer(small_merges);
  save_tokenizer(folder.path, tokenizer);
  const auto loaded = load_tokenizer(folder.path, tokenizer.config());
  REQUIRE(loaded.size() == 517);
  REQUIRE(loaded.merges() == tokenizer.merges());
  for (std::int32_t id = 0; id < 517; ++id) REQUIRE(loaded.token(id) == tokenizer.token(id));
  REQUIRE(loaded.encode("ababab <|endoftext|> x") == tokenizer.encode("ababab <|endoftext|> x"));
  REQUIRE(load_tokenizer(folder.path).pad_id() == 516);
}

TEST_CASE("any order of ids is taken, and bytes without a token become the end token") {
  const TemporaryFolder folder;
  folder.write("vocab.json", R"({"<|startoftext|>": 0, "lo": 4, "l": 2, "o": 3, "<|endoftext|>": 1, "lo</w>": 6, "o</w>": 5})");
  folder.write("merges.txt", "#version: 0.2\nl o\r\nl o</w>\n\n");
  const auto tokenizer = load_tokenizer(folder.path);
  REQUIRE(tokenizer.encode("lolo x") == Ids{4, 6, 1});
}

namespace {

/// A tokenizer.json as the tokenizers library writes it: merges as pairs, or, before 0.20, as words with a space between.
std::string tokenizer_json(const Tokenizer& tokenizer, bool pairs) {
  nlohmann::json vocabulary = nlohmann::json::object(), merges = nlohmann::json::array(), added = nlohmann::json::array();
  for (std::int32_t id = 0; id + 2 < tokenizer.size(); ++id) vocabulary[tokenizer.token(id)] = id;
  for (const auto id : {tokenizer.start_id(), tokenizer.end_id()})  // CLIP's are in the vocabulary too; others name them here only
    added.push_back({{"id", id}, {"content", tokenizer.token(id)}, {"special", true}});
  for (const auto& [left, right] : tokenizer.merges())
    merges.push_back(pairs ? nlohmann::json{tokenizer.token(left), tokenizer.token(right)} : nlohmann::json(tokenizer.token(left) + ' ' + tokenizer.token(right)));
  return nlohmann::json{{"version", "1.0"}, {"added_tokens", added},
                        {"model", {{"type", "BPE"}, {"end_of_word_suffix", "</w>"}, {"vocab", vocabulary}, {"merges", merges}}}}.dump();
}

}  // namespace

TEST_CASE("tokenizer.json gives the tokenizer that it was made from") {
  const TemporaryFolder folder;
  const auto wanted = openai_tokenizer({.style = TokenizerStyle::hugging_face});
  for (const bool pairs : {false, true}) {
    folder.write("tokenizer.json", tokenizer_json(wanted, pairs));
    REQUIRE(has_tokenizer(folder.path));
    const auto found = load_tokenizer(folder.path);
    REQUIRE(found.size() == wanted.size());
    REQUIRE(found.merges() == wanted.merges());
    REQUIRE((found.start_id() == 49406 && found.end_id() == 49407 && found.pad_id() == 49407));
    REQUIRE(found.encode("a photo of a capybara <|endoftext|> r\u00e9sum\u00e9") == wanted.encode("a photo of a capybara <|endoftext|> r\u00e9sum\u00e9"));
  }
  // a folder with half of the other pair: the whole file is taken
  folder.write("vocab.json", "{");
  REQUIRE(load_tokenizer(folder.path).size() == 49408);
  REQUIRE(load_tokenizer(folder.path + "/tokenizer.json").size() == 49408);
  // both whole: tokenizer.json comes first, as in transformers
  folder.write("vocab.json", R"({"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 2})");
  folder.write("merges.txt", "");
  REQUIRE(load_tokenizer(folder.path).size() == 49408);
}

namespace {

/// A folder of the shipped vocabulary and these files.
struct AddedFolder : TemporaryFolder {
  explicit AddedFolder(const nlohmann::json& files) {
    for (const auto& entry : std::filesystem::directory_iterator(path)) std::filesystem::remove(entry);
    const std::string shipped = std::string(TENON_SOURCE_DIR) + "/examples/data/clip/";
    for (const char* name : {"vocab.json", "merges.txt"}) std::filesystem::copy_file(shipped + name, path + "/" + name);
    for (auto file = files.begin(); file != files.end(); ++file) {
      nlohmann::json content = file.value();
      if (file.key() == "tokenizer.json") {
        const Tokenizer plain = load_tokenizer(shipped);
        content["model"] = nlohmann::json::parse(tokenizer_json(plain, true))["model"];
        for (const auto id : {plain.start_id(), plain.end_id()}) content["model"]["vocab"][plain.token(id)] = id;
      }
      write(file.key(), content.dump());
    }
  }
};

}  // namespace

TEST_CASE("tokens that a folder adds, and its padding, are transformers'") {
  std::ifstream in(std::string(TENON_TEST_DATA) + "/tokenizer_added.json");
  const nlohmann::json cases = nlohmann::json::parse(in);
  REQUIRE(cases.size() == 24);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    INFO("case " << i);
    const AddedFolder folder(cases[i]["files"]);
    const Tokenizer tokenizer = load_tokenizer(folder.path);
    CHECK(tokenizer.size() == cases[i]["size"].get<Index>());
    save_tokenizer(folder.path, tokenizer);
    for (const char* name : {"tokenizer.json", "added_tokens.json", "special_tokens_map.json"}) std::filesystem::remove(folder.path + "/" + name);
    const Tokenizer again = load_tokenizer(folder.path);
    for (const auto& row : cases[i]["texts"]) {
      INFO("text " << row[0].get<std::string>());
      const Tensor<std::int32_t> expected({1, 24}, row[1].get<Ids>());
      CHECK(tokenizer({row[0].get<std::string>()}, 24) == expected);
      CHECK(again({row[0].get<std::string>()}, 24) == expected);
    }
  }
}

TEST_CASE("a padding id that is given is not sought in texts") {
  const AddedFolder folder(nlohmann::json::parse(R"({"special_tokens_map.json": {"pad_token": "!"}})"));
  const auto own = load_tokenizer(folder.path), given = load_tokenizer(folder.path, {.style = TokenizerStyle::hugging_face, .pad = 0});
  REQUIRE((own.pad_id() == 0 && given.pad_id() == 0));
  REQUIRE(own.encode("a!!") == Ids{own.find("a</w>").value(), 0, 0});
  REQUIRE(given.encode("a!") == Ids{own.find("a</w>").value(), own.find("!</w>").value()});
}

TEST_CASE("an added token by hand") {
  const AddedFolder folder(nlohmann::json::parse(
      R"({"tokenizer_config.json": {"added_tokens_decoder": {"1777": {"content": "<caf\u00e9>", "lstrip": true, "normalized": false}}}})"));
  const Tokenizer tokenizer = load_tokenizer(folder.path);
  const auto id = tokenizer.find("<caf\u00e9>").value();
  REQUIRE(id == tokenizer.size() - 1);
  const auto a = tokenizer.find("a</w>").value();
  REQUIRE(tokenizer.encode("a <caf\u00e9>a") == Ids{a, id, a});
  REQUIRE(tokenizer.encode("<CAF\u00c9>") != Ids{id});
  REQUIRE(tokenizer.decode(Ids{a, id, a}) == "a <caf\u00e9>a");
  folder.write("added_tokens.json", R"({"x": "y"})");
  folder.write("tokenizer_config.json", "{}");
  REQUIRE_THROWS_WITH(load_tokenizer(folder.path), contains("added_tokens.json: expected an id for \"x\", found \"y\""));
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"x": "y"}})");
  REQUIRE_THROWS_WITH(load_tokenizer(folder.path), contains("added_tokens_decoder: expected ids, found \"x\""));
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"1": 2}})");
  REQUIRE_THROWS_WITH(load_tokenizer(folder.path), contains("tokenizer_config.json: expected a token, a text or an object with its content, found 2"));
}

TEST_CASE("a bad tokenizer.json is named") {
  const TemporaryFolder folder;
  const auto load = [&](const std::string& text) {
    folder.write("tokenizer.json", text);
    return load_tokenizer(folder.path);
  };
  const auto model = [](const std::string& rest) { return R"({"model": {"type": "BPE", "end_of_word_suffix": "</w>", )" + rest + "}}"; };
  const std::string vocabulary = R"("vocab": {"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 2})";
  REQUIRE(load(model(vocabulary + R"(, "merges": [])")).size() == 3);
  REQUIRE_THROWS_WITH(load("{}"), contains("expected a BPE model with the suffix </w>"));
  REQUIRE_THROWS_WITH(load(R"({"model": {"type": "WordPiece", "vocab": {}}})"), contains("found WordPiece"));
  REQUIRE_THROWS_WITH(load(R"({"model": {"type": "BPE", "vocab": {}, "merges": []}})"), contains("found BPE with \"\""));
  REQUIRE_THROWS_WITH(load(model(vocabulary)), contains("model.merges"));
  REQUIRE_THROWS_WITH(load(model(vocabulary + R"(, "merges": 3)")), contains("model.merges: expected an array"));
  REQUIRE_THROWS_WITH(load(model(vocabulary + R"(, "merges": [["a"]])")), contains("expected two tokens, found array"));
  REQUIRE_THROWS_WITH(load(model(vocabulary + R"(, "merges": ["a b"])")), contains("tokenizer.json:1: expected two tokens of the vocabulary, found \"a b\""));
  REQUIRE_THROWS_WITH(load(model(R"("vocab": {"a": 5}, "merges": [])")), contains("each of the ids 0..0 once, found 5"));
  REQUIRE_THROWS_WITH(load("[1, 2"), contains("tokenizer.json:1:"));
}

TEST_CASE("OpenAI's list of merges") {
  const TemporaryFolder folder;
  REQUIRE_THROWS_WITH(load_tokenizer(folder.path), contains("expected vocab.json and merges.txt, tokenizer.json or bpe_simple_vocab_16e6.txt.gz"));
  std::string text = "#version: 0.2 - 49152\n";
  for (const auto& [left, right] : openai().merges()) text += openai().token(left) + ' ' + openai().token(right) + '\n';
  const auto packed = [](const std::string& content) {
    std::string out("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", 10);
    const auto number = [&](std::uint32_t value, int bytes) {
      for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> 8 * i & 0xff);
    };
    for (std::size_t at = 0; at < content.size(); at += 65535) {
      const auto part = content.substr(at, 65535);
      out += static_cast<char>(at + 65535 >= content.size());
      number(static_cast<std::uint32_t>(part.size()), 2);
      number(~static_cast<std::uint32_t>(part.size()) & 0xffff, 2);
      out += part;
    }
    std::uint32_t sum = ~0u;
    for (const char c : content) {
      sum ^= static_cast<unsigned char>(c);
      for (int k = 0; k < 8; ++k) sum = sum >> 1 ^ (sum & 1 ? 0xedb88320u : 0u);
    }
    number(~sum, 4);
    number(static_cast<std::uint32_t>(content.size()), 4);
    return out;
  };
  folder.write("bpe_simple_vocab_16e6.txt.gz", packed(text + "more merges\nthat are\nnot used\n"));
  REQUIRE(has_tokenizer(folder.path));
  const auto found = load_tokenizer(folder.path, {.style = TokenizerStyle::openai});
  REQUIRE(found.size() == 49408);
  REQUIRE(found.merges() == openai().merges());
  REQUIRE(load_tokenizer(folder.path + "/bpe_simple_vocab_16e6.txt.gz").encode("a photo of a cat") == Ids{320, 1125, 539, 320, 2368});

  folder.write("bpe_simple_vocab_16e6.txt.gz", packed("#version\ni n\nt h\n"));
  REQUIRE_THROWS_WITH(load_tokenizer(folder.path), contains("expected 48894 merges, found 2"));
  folder.write("bpe_simple_vocab_16e6.txt.gz", packed("#version\ni n\nin gx\n"));
  REQUIRE_THROWS_WITH(load_tokenizer(folder.path), contains(":3: expected two tokens of bytes or of merges before it, found \"in gx\""));
}

TEST_CASE("bad vocabularies and texts are named") {
  const TemporaryFolder folder;
  REQUIRE_THROWS_AS(load_tokenizer(folder.path), FileError);
  const auto load = [&](const std::string& vocabulary, const std::string& merges) {
    folder.write("vocab.json", vocabulary);
    folder.write("merges.txt", merges);
    return load_tokenizer(folder.path);
  };
  const std::string whole = R"({"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 2})";
  REQUIRE_THROWS_WITH(load("[]", ""), contains("vocab.json: expected an object"));
  REQUIRE_THROWS_WITH(load("{\"a\": 0", ""), contains("vocab.json"));
  REQUIRE_THROWS_WITH(load(R"({"a": 0, "b": 0})", ""), contains("each of the ids 0..1 once, found 0 for token \"b\""));
  REQUIRE_THROWS_WITH(load(R"({"a": -1})", ""), contains("found -1"));
  REQUIRE_THROWS_WITH(load(R"({"a": 0.5})", ""), contains("found 0.5"));
  REQUIRE_THROWS_WITH(load(R"({"a": 0})", ""), contains("no token \"<|startoftext|>\""));
  REQUIRE_THROWS_WITH(load(whole, "a b\n"), contains("merges.txt:1: expected two tokens of the vocabulary, found \"a b\""));
  REQUIRE_THROWS_WITH(load(whole, "#version\na\n"), contains("merges.txt:2"));
  REQUIRE_THROWS_WITH(load(whole, "a a\n"), contains("no token \"aa\""));

  REQUIRE_THROWS_WITH(Tokenizer(std::vector<BpeMerge>{{0, 512}}), contains("merge 0 expected two of the 512 tokens before it"));
  REQUIRE_THROWS_WITH(Tokenizer(std::vector<BpeMerge>{{0, 1}, {0, 1}}), contains("two tokens are spelt"));
  REQUIRE_THROWS_WITH(Tokenizer(small_merges, {.pad = 517}), contains("padding id"));
  REQUIRE_THROWS_WITH(openai().encode("caf\xe9"), contains("expected UTF-8 text, found another byte at position 3"));
  REQUIRE_THROWS_AS(openai().encode("\xed\xa0\x80"), Error);
  REQUIRE_THROWS_AS(openai()({"x"}, 1), ShapeError);
  REQUIRE_THROWS_AS(openai().decode(Ids{49408}), NameError);
  REQUIRE_THROWS_AS(openai().decode(Ids{-1}), NameError);
}

TEST_CASE("any bytes give ids or an error") {
  std::uint32_t state = 1;
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (int j = 0; j < i % 40; ++j) {
      state = state * 1664525u + 1013904223u;
      constexpr std::string_view spice = "&#;xX<|'\xce\xa3\xcc\x81\xf0\x9f\x99\x82";
      const auto byte = static_cast<unsigned char>(state >> 24);
      text += (state >> 10) % 2 == 0 ? spice[byte % spice.size()] : static_cast<char>(i % 2 == 0 ? byte & 0x7f : byte);
    }
    try {
      for (const auto id : openai().encode(text)) REQUIRE((id >= 0 && id < openai().size()));
    } catch (const Error&) {
      REQUIRE(i % 40 > 0);
    }
  }
}
