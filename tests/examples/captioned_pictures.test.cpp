// Pictures with captions from folders, and the emoji in styles.
#define TENON_EXAMPLES_DATA TENON_TEST_DATA "/../../examples/data"
#include <fstream>

#include "../../examples/common/captioned_pictures.hpp"
#include "../../examples/common/data.hpp"
#include "../io/scratch.hpp"
#include "catch.hpp"

using namespace tenon;
using namespace tenon::examples;

namespace {

/// A picture whose pixel (y, x) is (y, x, 7).
Image ramp(Index height, Index width) {
  Image out(height, width);
  for (Index y = 0; y < height; ++y)
    for (Index x = 0; x < width; ++x) {
      out.at(y, x)[0] = static_cast<std::uint8_t>(y), out.at(y, x)[1] = static_cast<std::uint8_t>(x), out.at(y, x)[2] = 7;
    }
  return out;
}
void write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

}  // namespace

TEST_CASE("a folder's captions come from files beside the pictures, from metadata.jsonl, or from a trigger") {
  Scratch scratch("captions");
  std::filesystem::create_directory(scratch / "in");
  for (const char* name : {"a.png", "b.png", "in/c.png"}) save_png(ramp(16, 24), scratch / name);
  const std::string folder = std::filesystem::path(scratch / "a.png").parent_path().string();
  CHECK_THROWS_WITH(load_captioned_pictures(folder, 8, ""), contains("a.png: expected a caption in"));
  write(scratch / "a.txt", "a square\n# not this\n\nsomething square\n");
  write(scratch / "metadata.jsonl", "{\"file_name\": \"b.png\", \"text\": \"b\"}\n\n{\"text\": \"c\", \"file_name\": \"in/c.png\"}\n");
  const auto plain = load_captioned_pictures(folder, 8, "");
  CHECK(plain.pictures.shape() == Shape{3, 8, 8, 3});
  CHECK(plain.captions == std::vector<std::vector<std::string>>{{"a square", "something square"}, {"b"}, {"c"}});
  std::filesystem::remove(scratch / "metadata.jsonl");
  const auto with_trigger = load_captioned_pictures(folder, 8, "sks");
  CHECK(with_trigger.captions == std::vector<std::vector<std::string>>{{"sks, a square", "sks, something square"}, {"sks"}, {"sks"}});
  write(scratch / "metadata.jsonl", "{\"file_name\": \"b.png\", \"text\": \"b\"}\n{\"file_name\": 3}\n");
  CHECK_THROWS_WITH(load_captioned_pictures(folder, 8, "sks"), contains("metadata.jsonl, line 2"));
  std::filesystem::remove(scratch / "metadata.jsonl");
  write(scratch / "d.png", "not a picture");
  CHECK_THROWS_WITH(load_captioned_pictures(folder, 8, "sks"), contains("d.png: expected a PNG"));
}

TEST_CASE("a picture is its middle square") {
  const auto same = square_picture(ramp(10, 10), 10);
  CHECK(same(3, 4, 0) == Approx(3 / 127.5 - 1));
  CHECK(same(3, 4, 1) == Approx(4 / 127.5 - 1));
  const auto wide = square_picture(ramp(10, 20), 10), high = square_picture(ramp(30, 10), 10);
  CHECK(wide(0, 0, 1) == Approx(5 / 127.5 - 1));
  CHECK(high(0, 0, 0) == Approx(10 / 127.5 - 1));
  const auto half = square_picture(ramp(200, 100), 50);
  CHECK(half.shape() == Shape{50, 50, 3});
  CHECK(half(25, 25, 0) == Approx(100.5 / 127.5 - 1).margin(1 / 127.5));
  CHECK(square_picture(ramp(7, 31), 64).shape() == Shape{64, 64, 3});
}

TEST_CASE("neon draws outlines in the colours of a picture on black") {
  EmojiSet set(default_data());
  const auto neon = emoji_in_style(set, "neon", "glowing");
  CHECK(neon.size() == static_cast<Index>(set.split(false).size()));
  CHECK(neon.captions.front().front().starts_with("glowing, "));
  double sum = 0;
  for (const float x : neon.pictures) {
    REQUIRE((x >= -1 && x <= 1));
    sum += static_cast<double>(x);
  }
  CHECK(sum / static_cast<double>(neon.pictures.size()) < -0.6);  // black for the most part
  const auto drawings = emoji_in_style(set, "line-art", "");
  CHECK(drawings.size() == static_cast<Index>(set.split(false, true).size()));
}
