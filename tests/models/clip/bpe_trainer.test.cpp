#include <tenon/models/clip/bpe_trainer.hpp>

#include "catch.hpp"

using namespace tenon;

TEST_CASE("merges by hand") {
  // Pairs: l+o 5 times (low 2, lower 2, lot 1), o+w</w> 2, o+w 2, w+e 2, e+r</w> 2, o+t</w> 1. Ids: a = 64, l = 75, o = 78.
  const std::vector<std::string> texts{"low lower", "lower low lot"};
  const auto merges = train_bpe(texts, {.vocab_size = 514 + 3});
  const std::int32_t l = 75, o = 78, w = 86, e = 68, r = 81, last = 256;
  REQUIRE(merges.size() == 3);
  REQUIRE(merges[0] == BpeMerge{l, o});
  REQUIRE(merges[1] == BpeMerge{e, r + last});  // of four pairs that occur twice, the one of the lowest ids
  REQUIRE(merges[2] == BpeMerge{w, 513});

  const auto all = train_bpe(texts);
  const Tokenizer tokenizer(all);
  REQUIRE(tokenizer.encode("low lower lot").size() == 4);  // "lot" occurs once: lo t
  REQUIRE(train_bpe(texts, {.min_count = 1}).size() == all.size() + 1);
}

TEST_CASE("the first of equals does not depend on the order of the texts") {
  const std::vector<std::string> texts{"zebra crossing", "red apple", "green apple", "a crossing zebra", "blue zebra"};
  const std::vector<std::string> turned(texts.rbegin(), texts.rend());
  REQUIRE(train_bpe(texts) == train_bpe(turned));
}

TEST_CASE("learnt merges make texts shorter and keep every text") {
  std::vector<std::string> texts;
  for (const std::string animal : {"horse", "house", "mouse", "moose", "aaaaaaa", "aaaa"})
    for (const std::string colour : {"red", "blue", "black", "r\u00e9d"}) texts.push_back("a " + colour + " " + animal + " it's 12");
  const auto merges = train_bpe(texts, {.vocab_size = 560});
  const Tokenizer trained(merges), untrained{std::vector<BpeMerge>{}};
  REQUIRE(trained.size() <= 560);
  for (const auto& text : texts) {
    REQUIRE(trained.encode(text).size() < untrained.encode(text).size());
    REQUIRE(trained.decode(trained.encode(text)) == trained.decode(untrained.encode(text)));
  }
}

TEST_CASE("nothing to learn, and too small a vocabulary") {
  REQUIRE(train_bpe({}).empty());
  REQUIRE(train_bpe(std::vector<std::string>{"", "a b c <|endoftext|>"}).empty());
  REQUIRE(train_bpe(std::vector<std::string>{"low low"}, {.vocab_size = 514}).empty());
  REQUIRE_THROWS_AS(train_bpe({}, {.vocab_size = 513}), ShapeError);
  REQUIRE_THROWS_AS(train_bpe(std::vector<std::string>{"\xff"}), Error);
}
