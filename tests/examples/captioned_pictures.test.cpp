// Pictures with captions from folders, and the emoji in styles.
#define TENON_EXAMPLES_DATA TENON_TEST_DATA "/../../examples/data"
#include <fstream>

#include "../../examples/common/captioned_pictures.hpp"
#include "../../examples/common/data.hpp"
#include "../../examples/common/pairs.hpp"
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
  CHECK_THROWS_WITH(load_captioned_pictures(folder, {8}, ""), contains("a.png: expected a caption in"));
  write(scratch / "a.txt", "a square\n# not this\n\nsomething square\n");
  write(scratch / "metadata.jsonl", "{\"file_name\": \"b.png\", \"text\": \"b\"}\n\n{\"text\": \"c\", \"file_name\": \"in/c.png\"}\n");
  const auto plain = load_captioned_pictures(folder, {8}, "");
  REQUIRE(plain.size() == 3);
  for (const auto& picture : plain.pictures) CHECK((picture.values.shape() == Shape{8, 8, 3} && picture.original == PictureSize{16, 24}));
  CHECK(load_captioned_pictures(folder, {16, 4}, "").pictures[0].size() == PictureSize{12, 20});
  CHECK(plain.captions == std::vector<std::vector<std::string>>{{"a square", "something square"}, {"b"}, {"c"}});
  std::filesystem::remove(scratch / "metadata.jsonl");
  const auto with_trigger = load_captioned_pictures(folder, {8}, "sks");
  CHECK(with_trigger.captions == std::vector<std::vector<std::string>>{{"sks, a square", "sks, something square"}, {"sks"}, {"sks"}});
  write(scratch / "metadata.jsonl", "{\"file_name\": \"b.png\", \"text\": \"b\"}\n{\"file_name\": 3}\n");
  CHECK_THROWS_WITH(load_captioned_pictures(folder, {8}, "sks"), contains("metadata.jsonl, line 2"));
  std::filesystem::remove(scratch / "metadata.jsonl");
  write(scratch / "d.png", "not a picture");
  CHECK_THROWS_WITH(load_captioned_pictures(folder, {8}, "sks"), contains("d.png: expected a PNG"));
}

TEST_CASE("a picture is fitted by its middle") {
  const auto square = [](const Image& image, Index side) { return fitted_picture(image, {side, side}).values; };
  const auto same = square(ramp(10, 10), 10);
  CHECK(same(3, 4, 0) == Approx(3 / 127.5 - 1));
  CHECK(same(3, 4, 1) == Approx(4 / 127.5 - 1));
  const auto wide = square(ramp(10, 20), 10), high = square(ramp(30, 10), 10);
  CHECK(wide(0, 0, 1) == Approx(5 / 127.5 - 1));
  CHECK(high(0, 0, 0) == Approx(10 / 127.5 - 1));
  const auto half = square(ramp(200, 100), 50);
  CHECK(half.shape() == Shape{50, 50, 3});
  CHECK(half(25, 25, 0) == Approx(100.5 / 127.5 - 1).margin(1 / 127.5));
  CHECK(square(ramp(7, 31), 64).shape() == Shape{64, 64, 3});

  const auto cut = fitted_picture(ramp(20, 60), {20, 30});  // as high as it is, the middle of its width
  CHECK(cut.size() == PictureSize{20, 30});
  CHECK((cut.original == PictureSize{20, 60} && cut.top == 0 && cut.left == 15));
  CHECK(cut.values(7, 0, 0) == Approx(7 / 127.5 - 1));
  CHECK(cut.values(7, 0, 1) == Approx(15 / 127.5 - 1));
  const auto flat = fitted_picture(ramp(100, 80), {20, 40});  // half as wide, the middle of its height
  CHECK((flat.original == PictureSize{100, 80} && flat.top == 15 && flat.left == 0));
  CHECK(flat.values.shape() == Shape{20, 40, 3});
  CHECK(flat.values(10, 20, 0) == Approx(50.5 / 127.5 - 1).margin(1 / 127.5));
  CHECK(flat.values(10, 20, 1) == Approx(40.5 / 127.5 - 1).margin(1 / 127.5));
}

TEST_CASE("the bucket of a picture has its aspect ratio, as nearly as multiples and area let it") {
  const PictureFit fit{512, 64};
  CHECK(bucket_of({512, 512}, fit) == PictureSize{512, 512});
  CHECK(bucket_of({3, 3}, fit) == PictureSize{512, 512});
  CHECK(bucket_of({1080, 1920}, fit) == PictureSize{384, 640});  // 1.67 is nearer to 1.78 than 2.2
  CHECK(bucket_of({1920, 1080}, fit) == PictureSize{640, 384});
  CHECK(bucket_of({1000, 1300}, fit) == PictureSize{448, 576});
  CHECK(bucket_of({100, 1000}, fit) == PictureSize{256, 1024});
  CHECK(bucket_of({5000, 7}, fit) == PictureSize{1024, 256});
  CHECK(bucket_of({10, 20}, {64, 64}) == PictureSize{64, 64});  // there is no other
  for (const PictureFit& one : {PictureFit{512, 64}, PictureFit{768, 64}, PictureFit{1024, 64}, PictureFit{64, 16}, PictureFit{480, 32}})
    for (Index height = 1; height < 4000; height += 97)
      for (Index width = 1; width < 4000; width += 89) {
        const PictureSize bucket = bucket_of({height, width}, one), turned = bucket_of({width, height}, one);
        REQUIRE((bucket.height % one.multiple == 0 && bucket.width % one.multiple == 0));
        REQUIRE(bucket.height * bucket.width <= one.resolution * one.resolution);
        REQUIRE(std::min(bucket.height, bucket.width) + one.multiple > one.resolution / 2);
        REQUIRE(std::max(bucket.height, bucket.width) <= 2 * one.resolution);
        REQUIRE(bucket.height * bucket.width == turned.height * turned.width);
        if (height > width) REQUIRE(bucket.height >= bucket.width);
      }
}

TEST_CASE("a round of pictures of several sizes") {
  const std::vector<Index> ids{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  const auto drawn = [](Rounds& rounds, Generator& generator, Index size, auto&& alike) {
    std::vector<Index> out;
    rounds.batch(size, generator, alike, [&](Index id) { out.push_back(id), generator.uniform<double>(); });  // a step draws in between
    return out;
  };
  SECTION("of one size the order is that of single draws, in the next round too") {
    Rounds batches(ids), single(ids);
    Generator one(3), other(3);
    for (int batch = 0; batch < 7; ++batch)
      for (const Index id : drawn(batches, one, 4, [](Index, Index) { return true; })) {
        CHECK(id == single.next(other));
        other.uniform<double>();
      }
    CHECK(batches.order() == single.order());
    CHECK(batches.order().size() == 2);
    CHECK(one.random() == other.random());
  }
  SECTION("of several, no batch mixes them, and each picture comes once in a round") {
    const auto alike = [](Index a, Index b) { return a % 3 == b % 3; };
    Rounds rounds(ids);
    Generator generator(5);
    std::vector<int> counts(ids.size());
    int total = 0, small = 0;
    while (total < 400) {
      const bool begins = rounds.order().empty();
      if (begins) CHECK(std::ranges::all_of(counts, [&](int n) { return n == counts.front(); }));
      const auto batch = drawn(rounds, generator, 4, alike);
      REQUIRE((!batch.empty() && batch.size() <= 4));
      small += batch.size() < 4;
      for (const Index id : batch) {
        CHECK(alike(batch.front(), id));
        ++counts[static_cast<std::size_t>(id)], ++total;
      }
      const auto [least, most] = std::ranges::minmax(counts);
      REQUIRE(most - least <= 1);
    }
    CHECK(small > 0);
  }
  SECTION("repeats come as pictures of their own") {
    Rounds rounds({0, 0, 1, 1});
    Generator generator(1);
    auto batch = drawn(rounds, generator, 4, [](Index, Index) { return true; });
    std::ranges::sort(batch);
    CHECK(batch == std::vector<Index>{0, 0, 1, 1});
    CHECK(rounds.order().empty());
  }
}

TEST_CASE("the parts of a caption are shuffled behind the trigger") {
  Generator generator(2);
  std::map<std::string, int> seen;
  for (int i = 0; i < 600; ++i) ++seen[shuffled_caption("sks, dog, red,  long hair , on grass", "sks", generator)];
  CHECK(seen.size() == 24);
  for (const auto& [caption, n] : seen) {
    CHECK(caption.starts_with("sks, "));
    CHECK(caption.size() == std::string_view("sks, dog, red, long hair, on grass").size());
    CHECK(n > 5);
  }
  CHECK(shuffled_caption("a photo, sks", "a photo, sks", generator).size() == 12);
  for (int i = 0; i < 20; ++i) CHECK(shuffled_caption("b, a, c", "b, a", generator) == "b, a, c");
  CHECK(shuffled_caption("one", "", generator) == "one");
  CHECK(shuffled_caption("", "", generator).empty());
}

TEST_CASE("neon draws outlines in the colours of a picture on black") {
  EmojiSet set(default_data());
  const auto neon = emoji_in_style(set, "neon", "glowing");
  CHECK(neon.size() == static_cast<Index>(set.split(false).size()));
  CHECK(neon.captions.front().front().starts_with("glowing, "));
  double sum = 0;
  for (const auto& picture : neon.pictures) {
    REQUIRE(picture.values.shape() == Shape{64, 64, 3});
    for (const float x : picture.values) {
      REQUIRE((x >= -1 && x <= 1));
      sum += static_cast<double>(x);
    }
  }
  CHECK(sum / static_cast<double>(neon.size() * 64 * 64 * 3) < -0.6);  // black for the most part
  const auto drawings = emoji_in_style(set, "line-art", "");
  CHECK(drawings.size() == static_cast<Index>(set.split(false, true).size()));
}
