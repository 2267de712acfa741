#include <tenon/models/diffusion/prompt.hpp>
#include <tenon/models/clip/tokenizer_files.hpp>

#include "catch.hpp"

using namespace tenon;

namespace {

PromptTokenizer tokenizer(Index context = 12, std::optional<std::int32_t> pad = {}) {
  return {load_tokenizer(std::string(TENON_SOURCE_DIR) + "/examples/data/clip", {.style = TokenizerStyle::hugging_face, .pad = pad}), context};
}
/// `text*weight` for each part, `|` for a break.
std::string parsed(std::string_view prompt) {
  std::string out;
  for (const auto& part : parse_weighted_prompt(prompt)) {
    char weight[32];
    std::snprintf(weight, sizeof weight, "*%.4g", part.weight);
    out += part.is_break ? "|" : "{" + part.text + "}" + weight;
  }
  return out;
}
std::vector<std::int32_t> row(const PromptTokens& tokens, Index n) {
  const Index length = tokens.ids.extent(1);
  return {tokens.ids.data() + n * length, tokens.ids.data() + (n + 1) * length};
}
std::vector<float> weights(const PromptTokens& tokens, Index n) {
  const auto begin = tokens.weights.begin() + n * tokens.ids.extent(1);
  return {begin, begin + tokens.ids.extent(1)};
}

}  // namespace

TEST_CASE("the grammar of weights, by AUTOMATIC1111's own examples") {
  CHECK(parsed("normal text") == "{normal text}*1");
  CHECK(parsed("an (important) word") == "{an }*1{important}*1.1{ word}*1");
  CHECK(parsed("(unbalanced") == "{unbalanced}*1.1");
  CHECK(parsed("\\(literal\\]") == "{(literal]}*1");
  CHECK(parsed("(unnecessary)(parens)") == "{unnecessaryparens}*1.1");
  CHECK(parsed("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).") ==
        "{a }*1{house}*1.573{ }*1.1{on}*1{ a }*1.1{hill}*0.55{, sun, }*1.1{sky}*1.464{.}*1.1");
  CHECK(parsed("[less]") == "{less}*0.9091");
  CHECK(parsed("(a: 1.5 )(b:-1)(c:.5)(d:+2)") == "{a}*1.5{b}*-1{c}*0.5{d}*2");
  CHECK(parsed("10:30, x:1.3) y] (a:b)") == "{10:30, x:1.3) y] }*1{a:b}*1.1");
  CHECK(parsed("").empty() == false);
  CHECK(parsed("a BREAK b") == "{a}*1|{b}*1");
  CHECK(parsed("(a BREAK b:1.2) BREAKER, UNBREAK") == "{a}*1.2|{b}*1.2{ BREAKER, UNBREAK}*1");
  CHECK(parsed("\\") == "{}*1");
}

TEST_CASE("a prompt is cut at the context, and the words past it are named") {
  const auto prompts = tokenizer(8);
  const auto& t = prompts.tokenizer();
  const auto ids = t.encode("red apple red apple blue book green heart");
  REQUIRE(ids.size() > 6);
  const auto tokens = tokenize_prompt(prompts, "red apple red apple blue book green heart");
  CHECK(tokens.ids.shape() == Shape{1, 8});
  CHECK(row(tokens, 0).front() == t.start_id());
  CHECK(row(tokens, 0).back() == t.end_id());
  CHECK(tokens.cut_off == t.decode(std::span(ids).subspan(6)));
  const auto brief = tokenize_prompt(tokenizer(8, 0), "red");
  CHECK(row(brief, 0).back() == 0);
  CHECK(brief.cut_off.empty());
  CHECK(tokenize_prompt(prompts, "(red:1.3)").ids == Tensor<std::int32_t>({1, 8}, prompts.tokenizer()({"(red:1.3)"}, 8).span()));  // parentheses are text
}

TEST_CASE("a padding token in a prompt is one, as transformers 5.23 finds it") {
  const auto ids = [](std::string_view text, std::optional<std::int32_t> pad) {
    auto out = row(tokenize_prompt(tokenizer(12, pad), text), 0);
    out.resize(8);
    return out;
  };
  using Ids = std::vector<std::int32_t>;
  CHECK(ids("it'!s", 0) == Ids{1498, 739, 262, 0, 338, 1499, 0, 0});  // "!" pads
  CHECK(ids("A!!B ?!?", 0) == Ids{1498, 320, 0, 0, 321, 286, 0, 286});
  CHECK(ids("<|endoftext|>!", 0) == Ids{1498, 1499, 0, 1499, 0, 0, 0, 0});
  CHECK(ids("a!", {}) == Ids{1498, 320, 256, 1499, 1499, 1499, 1499, 1499});
  auto prompts = tokenizer(12, 0);
  prompts.add("<!>", {2000});
  CHECK(prompts.encode("<!>!", true) == std::vector<Ids>{{2000}, {0}});
  const auto weighted = row(tokenize_prompt(prompts, "a!", PromptWeights::a1111), 0);  // AUTOMATIC1111 has OpenCLIP's own tokenizer
  CHECK(weighted[2] == 256);
}

TEST_CASE("words of inversions stay whole") {
  auto prompts = tokenizer();
  prompts.add("<cat>", {2000, 2001});
  prompts.add("<cat>s", {2002});
  const auto groups = prompts.encode("red <cat>, <cat>s");
  REQUIRE(groups.size() >= 4);
  const auto red = prompts.tokenizer().encode("red"), comma = prompts.tokenizer().encode(",");
  std::vector<std::vector<std::int32_t>> expected;
  for (const auto id : red) expected.push_back({id});
  expected.push_back({2000, 2001});
  for (const auto id : comma) expected.push_back({id});
  expected.push_back({2002});
  CHECK(groups == expected);
  REQUIRE_THROWS_WITH(prompts.add("<cat>", {1}), contains("the word '<cat>' is taken"));
  REQUIRE_THROWS_AS(prompts.add("", {1}), NameError);
}

TEST_CASE("windows of weights") {
  auto prompts = tokenizer(8, 0);
  const auto& t = prompts.tokenizer();
  const auto one = t.encode("a"), comma = t.encode(",");
  REQUIRE(one.size() == 1);
  REQUIRE(comma.size() == 1);
  const std::int32_t a = one[0], c = comma[0], start = t.start_id(), end = t.end_id();
  const auto made = [&](std::string_view text) { return tokenize_prompt(prompts, text, PromptWeights::a1111); };
  using Row = std::vector<std::int32_t>;

  const auto weighted = made("a (a:1.5) a");
  CHECK(weighted.ids.extent(0) == 1);
  CHECK(row(weighted, 0) == Row{start, a, a, a, end, 0, 0, 0});
  CHECK(weights(weighted, 0) == std::vector<float>{1, 1, 1.5f, 1, 1, 1, 1, 1});
  // an empty prompt has one window; BREAK ends one
  CHECK(row(made(""), 0) == Row{start, end, 0, 0, 0, 0, 0, 0});
  const auto broken = made("a BREAK a a");
  REQUIRE(broken.ids.extent(0) == 2);
  CHECK(row(broken, 0) == Row{start, a, end, 0, 0, 0, 0, 0});
  CHECK(row(broken, 1) == Row{start, a, a, end, 0, 0, 0, 0});
  // six fit; the seventh opens a window
  const auto full = made("a a a a a a"), more = made("a a a a a a a");
  CHECK(full.ids.extent(0) == 1);
  CHECK(row(full, 0) == Row{start, a, a, a, a, a, a, end});
  REQUIRE(more.ids.extent(0) == 2);
  CHECK(row(more, 1) == Row{start, a, end, 0, 0, 0, 0, 0});
  // what stands behind the last comma moves with it
  const auto moved = made("a a a, (a a a:2)");
  REQUIRE(moved.ids.extent(0) == 2);
  CHECK(row(moved, 0) == Row{start, a, a, a, c, end, 0, 0});
  CHECK(row(moved, 1) == Row{start, a, a, a, end, 0, 0, 0});
  CHECK(weights(moved, 1) == std::vector<float>{1, 2, 2, 2, 1, 1, 1, 1});
  // a comma that comes to a full window begins the next one
  CHECK(row(made("a a a a a a, a"), 1) == Row{start, c, a, end, 0, 0, 0, 0});
  // an inversion is not torn apart, and must fit
  prompts.add("<x>", {2000, 2001, 2002});
  const auto whole = made("a a a a <x>");
  REQUIRE(whole.ids.extent(0) == 2);
  CHECK(row(whole, 1) == Row{start, 2000, 2001, 2002, end, 0, 0, 0});
  prompts.add("<y>", Row(7, 2005));
  REQUIRE_THROWS_WITH(made("<y>"), contains("an inversion of 7 tokens does not fit a window of 6"));
}
