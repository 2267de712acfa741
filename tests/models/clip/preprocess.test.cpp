#include <tenon/models/clip/preprocess.hpp>

#include <filesystem>
#include <fstream>

#include <tenon/io/image.hpp>
#include <tenon/io/safetensors.hpp>

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

TEST_CASE("files of any mode, size and orientation become what Pillow and transformers make of them") {
  const std::string folder = std::string(TENON_TEST_DATA) + "/preprocess_modes/";
  const auto expected = SafetensorsFile::open(folder + "expected.safetensors");
  ClipImageProcessor processor;
  processor.shortest_edge = processor.crop_height = processor.crop_width = 16;
  for (const auto& name : expected.names()) {
    const Image found = processor.crop(load_image(folder + name, {.on_white = true}));
    const auto right = expected.load<std::uint8_t>(name);
    REQUIRE(right.shape() == Shape{16, 16, 3});
    INFO(name);
    CHECK(std::equal(right.begin(), right.end(), found.pixels.begin(), found.pixels.end()));
  }
  REQUIRE(expected.names().size() == 79);
  REQUIRE(load_image(folder + "rgba.png") != load_image(folder + "rgba.png", {.on_white = true}));
  // OpenAI's habit: as the camera held it
  const Image turned = load_image(folder + "exif_6.jpg"), as_stored = load_image(folder + "exif_6.jpg", {.orient = false});
  REQUIRE((turned.width == 19 && turned.height == 30 && as_stored.width == 30 && as_stored.height == 19));
}

TEST_CASE("pictures are covered and cropped as open_clip has it, in a square or not") {
  const std::string folder = std::string(TENON_TEST_DATA) + "/preprocess_modes/";
  const auto expected = SafetensorsFile::open(folder + "covered.safetensors");
  for (const auto& name : expected.names()) {
    const auto kind = name.substr(name.find(".png") + 4);
    const auto processor = read_image_processor(Json::parse(R"({"model_cfg": {}})", "o.json"), kind == ".upright" ? ImageSize(24, 16) : kind == ".square" ? 16 : ImageSize(16, 24));
    const Image found = processor.crop(load_image(folder + name.substr(0, name.size() - kind.size())));
    const auto right = expected.load<std::uint8_t>(name);
    REQUIRE(right.shape() == Shape{found.height, found.width, 3});
    INFO(name);
    CHECK(std::equal(right.begin(), right.end(), found.pixels.begin(), found.pixels.end()));
  }
  REQUIRE(expected.names().size() == 42);
  // transformers' processor begins at the pixel before
  const auto other = expected.load<std::uint8_t>("rgb_16x19.png.square");
  const Image found = ClipImageProcessor(16).crop(load_image(folder + "rgb_16x19.png"));
  REQUIRE_FALSE(std::equal(other.begin(), other.end(), found.pixels.begin(), found.pixels.end()));
}

TEST_CASE("the keys of preprocessor_config.json") {
  const auto read = [](const std::string& text) { return read_image_processor(Json::parse(text, "p.json"), 32); };
  const auto plain = read("{}");
  REQUIRE((plain.shortest_edge == 32 && plain.crop_height == 32 && plain.crop_width == 32 && plain.exact_height == 0 && plain.resize));
  REQUIRE(plain.mean == ClipImageProcessor{}.mean);
  REQUIRE(plain.rescale_factor == 1.0 / 255.0);

  // what transformers writes today, and the numbers of older files
  const auto today = read(R"({"crop_size": {"height": 20, "width": 24}, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true,
    "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.25, 0.125], "image_processor_type": "CLIPImageProcessor",
    "image_std": [1, 2, 4], "resample": 3, "rescale_factor": 0.5, "size": {"shortest_edge": 28}})");
  REQUIRE((today.shortest_edge == 28 && today.crop_height == 20 && today.crop_width == 24 && today.rescale_factor == 0.5));
  REQUIRE(today.mean == std::array{0.5f, 0.25f, 0.125f});
  REQUIRE(today.std == std::array{1.0f, 2.0f, 4.0f});
  const auto older = read(R"({"crop_size": 20, "size": 28, "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3})");
  REQUIRE((older.shortest_edge == 28 && older.crop_height == 20 && older.crop_width == 20));
  // transformers 5 keeps it in processor_config.json; nulls count as absent
  const auto nested = read(R"({"image_processor": {"size": {"shortest_edge": 30, "longest_edge": null}, "crop_size": 31}, "processor_class": "CLIPProcessor"})");
  REQUIRE((nested.shortest_edge == 30 && nested.crop_height == 31));

  const auto exact = read(R"({"size": {"height": 40, "width": 48}, "do_center_crop": false, "crop_size": 9})");
  REQUIRE((exact.exact_height == 40 && exact.exact_width == 48 && exact.crop_height == 40 && exact.crop_width == 48));
  REQUIRE(exact.crop(Image(7, 9)).width == 48);
  const auto raw = read(R"({"do_resize": false, "do_rescale": false, "do_normalize": false, "crop_size": 2, "resample": 2})");
  REQUIRE(raw(Image(4, 5, 3, 200)) == Tensor<float>::full({1, 2, 2, 3}, 200));

  // in transformers a step that is null is not done
  const auto none = read(R"({"do_resize": null, "do_rescale": null, "do_normalize": null, "crop_size": 2, "resample": 2})");
  REQUIRE(none(Image(4, 5, 3, 200)) == Tensor<float>::full({1, 2, 2, 3}, 200));
  REQUIRE(read(R"({"size": {"height": 40, "width": 48}, "do_center_crop": null, "crop_size": 9})").crop_width == 48);

  // a crop that is no square is covered, unless the file says how large the picture is to be
  const auto wide = [](const std::string& text) { return read_image_processor(Json::parse(text, "p.json"), {16, 24}); };
  REQUIRE((wide("{}").cover && wide("{}").crop_size() == ImageSize(16, 24)));
  REQUIRE_FALSE(wide(R"({"size": 16})").cover);
  REQUIRE(wide(R"({"model_cfg": {}, "preprocess_cfg": {"resize_mode": "squash"}})").crop(Image(7, 9)).width == 24);

  REQUIRE_THROWS_WITH(read(R"({"resample": 2})"), contains("p.json: expected resample 3 (bicubic), found 2"));
  REQUIRE_THROWS_WITH(read(R"({"size": {"shortest_edge": 8, "longest_edge": 9}})"), contains("found longest_edge"));
  REQUIRE_THROWS_WITH(read(R"({"size": {"shorter": 8}})"), contains("size.shortest_edge"));
  REQUIRE_THROWS_WITH(read(R"({"size": 0})"), contains("size: expected 1 to 16384, found 0"));
  REQUIRE_THROWS_WITH(read(R"({"crop_size": {"height": 8}})"), contains("crop_size.width"));
  REQUIRE_THROWS_WITH(read(R"({"crop_size": 99999})"), contains("found 99999"));
  REQUIRE_THROWS_WITH(read(R"({"do_center_crop": false})"), contains("do_center_crop is false"));
  REQUIRE_THROWS_WITH(read(R"({"image_std": [1, 0, 1]})"), contains("deviations above 0"));
  REQUIRE_THROWS_WITH(read(R"({"image_mean": [1, 0]})"), contains("image_mean: expected 3 numbers, found 2"));
  REQUIRE_THROWS_WITH(read(R"({"do_resize": 1})"), contains("do_resize: expected true or false"));
}

TEST_CASE("the keys of open_clip_config.json") {
  const auto read = [](const std::string& text) { return read_image_processor(Json::parse(text, "o.json"), 32); };
  const auto plain = read(R"({"model_cfg": {}, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}})");
  REQUIRE((plain.shortest_edge == 32 && plain.crop_height == 32 && plain.exact_height == 0 && plain.mean[1] == 0.5f && plain.std[2] == 0.5f));
  REQUIRE(read(R"({"model_cfg": {}})").mean == ClipImageProcessor{}.mean);
  REQUIRE((plain.even_crop && plain.at_size(48).even_crop && !ClipImageProcessor(32).even_crop));
  REQUIRE(read(R"({"preprocess_cfg": {"interpolation": "bicubic", "resize_mode": "squash"}})").exact_width == 32);
  REQUIRE_THROWS_WITH(read(R"({"preprocess_cfg": {"interpolation": "bilinear"}})"), contains("found bilinear and shortest"));
  REQUIRE_THROWS_WITH(read(R"({"preprocess_cfg": {"resize_mode": "longest"}})"), contains("found bicubic and longest"));
}

TEST_CASE("a processor for another size keeps its proportions") {
  ClipImageProcessor p;
  p.shortest_edge = 256;
  const auto larger = p.at_size(336);
  REQUIRE((larger.shortest_edge == 384 && larger.crop_height == 336 && larger.crop_width == 336 && larger.exact_height == 0));
  p.exact_height = p.exact_width = 224;
  REQUIRE(p.at_size(112).exact_width == 112);
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
