#include <nlohmann/json.hpp>

#include <tenon/io/json.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace tenon;

namespace {
Json parse(std::string_view text) { return Json::parse(text, "config.json"); }
}  // namespace

TEST_CASE("values are asked by path") {
  const auto json = parse(R"({"vision_config": {"hidden_size": 768, "eps": 1e-5, "layers": [1, 2, 3], "none": null},
                              "name": "clip", "normalize": true, "std": [0.25, 1], "big": 18446744073709551615})");
  CHECK(json.get<int>("vision_config.hidden_size") == 768);
  CHECK(json.get<Index>("vision_config.layers.2") == 3);
  CHECK(json.get<double>("vision_config.eps") == 1e-5);
  CHECK(json.get<float>("vision_config.hidden_size") == 768.0f);
  CHECK(json.get<std::string>("name") == "clip");
  CHECK(json.get<bool>("normalize"));
  CHECK(json.get<std::vector<double>>("std") == std::vector<double>{0.25, 1});
  CHECK(json.get<std::uint64_t>("big") == ~std::uint64_t{0});
  CHECK(json.get<int>("absent", 7) == 7);
  CHECK(json.get<int>("vision_config.none", 7) == 7);
  CHECK(json.get<int>("name.deeper", 7) == 7);
  CHECK(json.contains("vision_config.none"));
  CHECK(!json.contains("vision_config.layers.3"));
  CHECK(!json.contains("vision_config."));
  const auto part = json.at("vision_config");
  CHECK(part.get<int>("hidden_size") == 768);
  CHECK(part.keys() == std::vector<std::string>{"eps", "hidden_size", "layers", "none"});
  CHECK(part.size() == 4);
}

TEST_CASE("a wrong or absent value names file, path and what was found") {
  const auto json = parse(R"({"a": {"size": "many", "eps": [], "n": 300, "neg": -1, "x": 1.5}})");
  CHECK_THROWS_AS(json.get<int>("a.size"), FileError);
  CHECK_THROWS_WITH(json.get<int>("a.size"), contains("config.json: a.size: expected an integer, found \"many\""));
  CHECK_THROWS_WITH(json.get<int>("a.sise"), contains("expected a value at a.sise; nearest: size"));
  CHECK_THROWS_WITH(json.at("b.c"), contains("expected a value at b.c; nearest: a"));
  CHECK_THROWS_WITH(json.at("a").get<int>("size"), contains("a.size: expected an integer"));
  CHECK_THROWS_WITH(json.get<int>("a.x"), contains("expected an integer, found 1.5"));
  CHECK_THROWS_WITH(json.get<bool>("a.n"), contains("expected true or false"));
  CHECK_THROWS_WITH(json.get<double>("a.eps"), contains("expected a number, found array"));
  CHECK_THROWS_WITH(json.get<std::string>("a.n"), contains("expected a string"));
  CHECK_THROWS_WITH(json.get<std::int8_t>("a.n"), contains("expected an integer in [-128, 127], found 300"));
  CHECK_THROWS_WITH(json.get<std::uint32_t>("a.neg"), contains("expected an integer in [0, "));
  CHECK_THROWS_WITH(json.get<std::vector<int>>("a.n"), contains("expected an array"));
  CHECK_THROWS_WITH(parse(R"({"v": [1, "x"]})").get<std::vector<int>>("v"), contains("v.1: expected an integer"));
  CHECK_THROWS_AS(json.get<int>("a.size", 7), FileError);
}

TEST_CASE("extents have limits, alone and in lists") {
  const Json config = Json::parse(R"({"width": 64, "depths": [1, [2, 4611686018427387904]], "absent": null, "few": [0, 3], "word": "two"})", "c.json");
  check_extents(config, {"width", "absent", "nowhere"}, 1);
  check_extents(config, {"few"}, 0, 3);
  REQUIRE_THROWS_WITH(check_extents(config, {"width", "depths"}, 1, 1024), contains("c.json: depths.1.1: expected 1 to 1024, found 4611686018427387904"));
  REQUIRE_THROWS_WITH(check_extents(config, {"few"}, 1), contains("few.0: expected 1 to 16777216, found 0"));
  REQUIRE_THROWS_WITH(check_extents(config, {"word"}, 1), contains("word: expected an integer"));
}

TEST_CASE("text that is no strict JSON is refused with line and column") {
  const auto refused = [](std::string_view text, const std::string& because) {
    CHECK_THROWS_AS(parse(text), FileError);
    CHECK_THROWS_WITH(parse(text), contains(because));
  };
  refused("", "config.json:1:1: ");
  refused("{\"a\": 1,\n \"b\": tru}", "config.json:2:");
  refused("{\"a\": 1,\n \"a\": 2}", "config.json:2:4: key \"a\" twice in one object");
  refused("{\"a\": 1, \"\\u0061\": 2}", "twice");
  refused(std::string_view("{}\0junk", 7), "a NUL byte");
  refused("{} {}", "config.json:1:4");
  refused("[1,]", "config.json:1:4");
  refused("{\"a\": 01}", "syntax error");
  refused("// no\n{}", "syntax error");
  refused("[NaN]", "syntax error");
  refused("[1e999]", "number overflow");
  refused("[\"\xff\"]", "config.json:1:");
  refused(std::string(65, '[') + std::string(65, ']'), "nested more than 64 deep");
  refused(std::string(1'000'000, '['), "config.json:1:65: nested more than 64 deep");
  CHECK(parse(std::string(64, '[') + std::string(64, ']')).size() == 1);
  CHECK(parse(R"([{"a": 1}, {"a": 2}])").get<int>("1.a") == 2);  // the same key in two objects
}

TEST_CASE("files are read and written") {
  const Scratch folder("json");
  save_json(folder / "a.json", {{"r", 8}, {"target_modules", {"q_proj", "v_proj"}}});
  CHECK(contents(folder / "a.json") == "{\n  \"r\": 8,\n  \"target_modules\": [\n    \"q_proj\",\n    \"v_proj\"\n  ]\n}\n");
  const auto json = Json::read(folder / "a.json");
  CHECK(json.get<int>("r") == 8);
  CHECK(json.file() == folder / "a.json");
  CHECK_THROWS_AS(Json::read(folder / "absent.json"), FileError);
  CHECK_THROWS_AS(save_json(folder / "b.json", "\xff"), FileError);
  CHECK(folder.count() == 1);
  put(folder / "large.json", "");
  std::filesystem::resize_file(folder / "large.json", Json::max_bytes + 1);
  CHECK_THROWS_WITH(Json::read(folder / "large.json"), contains("expected at most"));
}
