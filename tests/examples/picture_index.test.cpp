#include "../../examples/common/picture_index.hpp"

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace tenon;
using namespace tenon::examples;

namespace {
PictureIndex sample() {
  return {"model", "/pictures",
          {{"a.png", {{10, 1}, {1, 0}}}, {"b/c \xc3\xa9\n.jpg", {{20, 2}, {0.6f, 0.8f}}}, {"broken.png", {{30, 3}, {}}}, {"z.png", {{40, 4}, {0.6f, 0.8f}}}}};
}
}  // namespace

TEST_CASE("an index comes back from its file") {
  const Scratch folder("picture-index");
  const std::string path = folder / "i";
  sample().save(path);
  const auto found = PictureIndex::load(path);
  REQUIRE((found.model == "model" && found.folder == "/pictures" && found.rows.size() == 4 && found.unreadable() == 1));
  for (const auto& [name, row] : sample().rows) {
    REQUIRE(found.rows.at(name).stamp == row.stamp);
    REQUIRE(found.rows.at(name).feature == row.feature);
  }
  PictureIndex{"m", "f", {}}.save(path);
  REQUIRE(PictureIndex::load(path).rows.empty());
  PictureIndex{"m", "f", {{"x", {{1, 1}, {}}}}}.save(path);
  REQUIRE(PictureIndex::load(path).unreadable() == 1);
}

TEST_CASE("files that are gone are dropped; new and changed ones are outdated") {
  auto index = sample();
  const std::map<std::string, FileStamp> files{{"a.png", {10, 1}}, {"broken.png", {30, 3}}, {"new.png", {5, 5}}, {"z.png", {40, 5}}};
  REQUIRE(index.drop_missing(files) == 1);
  REQUIRE(index.outdated(files) == std::vector<std::string>{"new.png", "z.png"});
}

TEST_CASE("the best pictures by hand") {
  const auto found = sample().best(Tensor<float>({1, 2}, {0, 1}), 5);
  REQUIRE(found.size() == 3);  // what cannot be read is never found
  REQUIRE((found[0].name == "b/c \xc3\xa9\n.jpg" && found[1].name == "z.png" && found[2].name == "a.png"));
  REQUIRE((found[0].score == 0.8f && found[2].score == 0.0f));
  REQUIRE(sample().best(Tensor<float>({1, 2}, {1, 0}), 1).front().name == "a.png");
  REQUIRE_THROWS_AS(sample().best(Tensor<float>({1, 3}), 1), ShapeError);
}

TEST_CASE("other files are no index") {
  const Scratch folder("picture-index-bad");
  const std::string path = folder / "i";
  put(path, "words");
  REQUIRE_THROWS_AS(PictureIndex::load(path), FileError);
  save_safetensors(path, {{"names", raw_copy(Tensor<float>({1}))}});
  REQUIRE_THROWS_WITH(PictureIndex::load(path), contains("expected an index of pictures, found another safetensors file"));
  sample().save(path);
  const auto whole = contents(path);
  for (std::size_t size = 0; size < whole.size(); size += 7) {
    put(path, whole.substr(0, size));
    REQUIRE_THROWS_AS(PictureIndex::load(path), FileError);
  }
}

TEST_CASE("a file's stamp moves when it is written") {
  const Scratch folder("picture-stamp");
  const std::string path = folder / "f";
  REQUIRE(!stamp_of(path));
  put(path, "one");
  const auto first = stamp_of(path);
  REQUIRE(first->size == 3);
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::milliseconds(1));
  REQUIRE(stamp_of(path) != first);
}
