#include <tenon/models/clip/preprocess.hpp>

#include <filesystem>
#include <fstream>

#include <tenon/io/image.hpp>

#include "catch.hpp"

using namespace tenon;

TEST_CASE("bicubic weights by hand") {
  REQUIRE(detail::bicubic_weight(0.0) == 1.0);
  REQUIRE(detail::bicubic_weight(-1.0) == 0.0);
  REQUIRE(detail::bicubic_weight(0.5) == 0.5625);    // (1.5 * 0.5 - 2.5) * 0.25 + 1
  REQUIRE(detail::bicubic_weight(-1.5) == -0.0625);  // (((-3.5) * 1.5 + 8) * 1.5 - 4) * -0.5
  const auto plan = detail::plan_resize(4, 2);  // eight pixels wide, cut at the borders to four
  REQUIRE(plan.windows[0].begin == 0);
  REQUIRE(plan.windows[0].count == 4);
  std::int32_t sum = 0;
  for (int i = 0; i < 4; ++i) sum += plan.weights[static_cast<std::size_t>(i)];
  REQUIRE(std::abs(sum - (1 << 22)) <= 2);
}

TEST_CASE("a flat picture stays flat, and an equal size changes nothing") {
  REQUIRE(resize_bicubic(Image(5, 9, 3, 200), 17, 4) == Image(17, 4, 3, 200));
  REQUIRE(resize_bicubic(Image(3, 3, 1, 9), 1, 50) == Image(1, 50, 1, 9));
  Image image(2, 2);
  image.pixels = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  REQUIRE(resize_bicubic(image, 2, 2) == image);
}

TEST_CASE("the middle of a picture") {
  Image row(1, 5, 1);
  row.pixels = {1, 2, 3, 4, 5};
  REQUIRE(center_crop(row, 1, 2).pixels == std::vector<std::uint8_t>{2, 3});  // 3 / 2 = 1 before
  REQUIRE(center_crop(row, 1, 8).pixels == std::vector<std::uint8_t>{0, 0, 1, 2, 3, 4, 5, 0});
}

TEST_CASE("pictures become what transformers' processor makes of them") {
  const std::filesystem::path folder = std::filesystem::path(TENON_TEST_DATA) / "preprocess";
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".f32") continue;
    const std::string name = entry.path().stem().string();  // WxH-EDGE-CROP
    INFO(name);
    const auto first = name.find('-'), second = name.rfind('-');
    ClipImageProcessor processor;
    processor.shortest_edge = std::stol(name.substr(first + 1, second - first - 1));
    processor.crop_height = processor.crop_width = std::stol(name.substr(second + 1));
    const auto image = load_image((folder / (name.substr(0, first) + ".ppm")).string());
    CHECK(processor.crop(image) == load_image((folder / (name + ".ppm")).string()));

    const auto values = processor(image);
    REQUIRE(values.shape() == Shape{1, processor.crop_height, processor.crop_width, 3});
    std::vector<float> expected(static_cast<std::size_t>(values.size()));
    std::ifstream(entry.path(), std::ios::binary)
        .read(reinterpret_cast<char*>(expected.data()), static_cast<std::streamsize>(expected.size() * sizeof(float)));
    CHECK(std::equal(expected.begin(), expected.end(), values.begin()));
    ++compared;
  }
  REQUIRE(compared == 8);
}

TEST_CASE("a batch is its pictures, and the number of threads does not matter") {
  const std::vector<Image> images{Image(20, 30, 3, 10), Image(70, 31, 3, 90), Image(8, 8, 3, 255)};
  ClipImageProcessor processor;
  processor.shortest_edge = processor.crop_height = processor.crop_width = 12;
  const auto batch = processor(images);
  for (int threads : {1, 3}) {
    const ThreadScope scope(threads);
    for (std::size_t n = 0; n < images.size(); ++n) {
      const auto one = processor(images[n]);
      REQUIRE(std::equal(one.begin(), one.end(), batch.begin() + static_cast<Index>(n) * one.size()));
    }
  }
}

TEST_CASE("wrong pictures are named") {
  const ClipImageProcessor processor;
  REQUIRE_THROWS_WITH(processor(Image(4, 4, 1)), contains("[ClipImageProcessor] expected an RGB picture, got [4, 4, 1]"));
  REQUIRE_THROWS_AS(processor(Image()), ShapeError);
  REQUIRE_THROWS_AS(resize_bicubic(Image(4, 4), 0, 4), ShapeError);
  REQUIRE_THROWS_WITH(processor(Image(16000, 1)), contains("64000000 pixels"));
}
