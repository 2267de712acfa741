#include <tenon/io/image.hpp>

#include <filesystem>
#include <fstream>

#include <unistd.h>

#include "catch.hpp"

using namespace tenon;

namespace {

const std::string pictures = std::string(TENON_TEST_DATA) + "/pictures/";

struct TemporaryFolder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("tenon-image-" + std::to_string(::getpid()));
  TemporaryFolder() { std::filesystem::create_directory(path); }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
};

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::span<const std::uint8_t> as_pixels(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// True when the bytes decode to a picture of a sane size, false when they give a FileError; anything else escapes.
bool decodes(std::span<const std::uint8_t> bytes) {
  // a copy of exactly this size, so that a sanitizer sees a read past the end
  const std::vector<std::uint8_t> exact(bytes.begin(), bytes.end());
  try {
    const auto image = decode_image(exact, "hostile");
    REQUIRE(static_cast<Index>(image.pixels.size()) == image.height * image.width * image.channels);
    return true;
  } catch (const FileError&) {
    return false;
  }
}

}  // namespace

TEST_CASE("a PNM picture is read by hand") {
  const std::string grey("P5\n# two pixels\n2 1\n255\n\x00\xff", 27), colour("P6 1 2 100 \x00\x32\x64\x01\x02\x03", 17);
  const auto a = decode_image(as_pixels(grey), "grey");
  REQUIRE((a.height == 1 && a.width == 2 && a.channels == 3));
  REQUIRE(a.pixels == std::vector<std::uint8_t>{0, 0, 0, 255, 255, 255});
  const auto b = decode_image(as_pixels(colour), "colour");
  REQUIRE((b.height == 2 && b.width == 1));
  REQUIRE(b.pixels == std::vector<std::uint8_t>{0, 128, 255, 3, 5, 8});  // 127.5 rounds to even, 2.55, 5.1, 7.65
}

TEST_CASE("PNM pictures of bits and in digits by hand, as Pillow reads them") {
  const auto grey = [](const std::string& bytes) {
    const auto image = decode_image(as_pixels(bytes), "pnm");
    std::vector<int> out;
    for (std::size_t i = 0; i < image.pixels.size(); i += 3) out.push_back(image.pixels[i]);
    return out;
  };
  using Values = std::vector<int>;
  REQUIRE(grey("P1\n# c\n3 2\n10#x\n1010") == Values{0, 255, 0, 255, 0, 255});
  REQUIRE(grey("P1 2 1 # no\r1 0") == Values{0, 255});
  REQUIRE(grey("P4 9 1\n\xa0\x80") == Values{0, 255, 0, 255, 255, 255, 255, 255, 0});
  REQUIRE(grey("P2 3 1 7 0 3 7") == Values{0, 109, 255});
  REQUIRE(grey("P2 4 1 1000 0 1 2 999 12 tail") == Values{0, 66, 131, 255});  // scaled to 65535 and cut off
  REQUIRE(decode_image(as_pixels("P3 1 1 1000 1 500 1000"), "pnm").pixels == std::vector<std::uint8_t>{0, 128, 255});
  REQUIRE_THROWS_WITH(grey("P2 3 1 255 5 6 "), contains("no number where one is needed"));
  REQUIRE_THROWS_WITH(grey("P2 2 1 255 5 256"), contains("a sample past the largest"));
  REQUIRE_THROWS_WITH(grey("P1 2 1 1 2"), contains("a sample past the largest"));
  REQUIRE_THROWS_WITH(grey("P2 2 1 255 5,6"), contains("no number"));
  REQUIRE_THROWS_WITH(grey("P4 9 1\n\xa0"), contains("expected 2 bytes of samples after byte 7, found 1"));
}

TEST_CASE("tensors and pictures convert both ways") {
  Image image(1, 2);
  image.pixels = {0, 51, 255, 1, 2, 3};
  const auto values = as_tensor(image);
  REQUIRE(values.shape() == Shape{1, 2, 3});
  REQUIRE(values(0, 0, 1) == 0.2f);
  REQUIRE(as_image(values) == image);
  Image all(16, 16, 1);
  for (std::size_t i = 0; i < 256; ++i) all.pixels[i] = static_cast<std::uint8_t>(i);
  REQUIRE(as_image(as_tensor(all)) == all);

  const float nan = std::numeric_limits<float>::quiet_NaN(), huge = std::numeric_limits<float>::infinity();
  const Tensor<float> odd({1, 6, 1}, {-1.0f, 2.0f, nan, -huge, 0.5f, 2.5f / 255.0f});
  REQUIRE(as_image(odd).pixels == std::vector<std::uint8_t>{0, 255, 0, 0, 128, 2});
  REQUIRE_THROWS_AS(as_image(Tensor<float>({2, 2})), ShapeError);
  REQUIRE_THROWS_AS(as_image(Tensor<float>({2, 2, 5})), ShapeError);
}

TEST_CASE("every kind of file gives the pixels that Pillow gives") {
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(pictures)) {
    if (entry.path().extension() == ".ppm") continue;
    INFO(entry.path().filename().string());
    CHECK(load_image(entry.path()) == load_image(entry.path().string() + ".ppm"));
    ++compared;
  }
  REQUIRE(compared == 25);
}

TEST_CASE("a saved PNG comes back, with its texts") {
  const TemporaryFolder folder;
  const auto path = (folder.path / "a picture.png").string();
  const auto image = load_image(pictures + "rgb8.png");
  save_png(image, path, {{"parameters", "a horse, seed 42"}, {"Title", "r\xc3\xa9sum\xc3\xa9"}});
  REQUIRE(load_image(path) == image);
  std::ifstream in(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  REQUIRE(bytes.find(std::string("tEXtparameters\0a horse, seed 42", 31)) != std::string::npos);
  REQUIRE(bytes.find(std::string("iTXtTitle\0\0\0\0\0r\xc3\xa9sum\xc3\xa9", 22)) != std::string::npos);

  Image grey(3, 2, 1, 7), alpha(2, 2, 4, 9);
  save_png(grey, path);
  REQUIRE(load_image(path) == Image(3, 2, 3, 7));
  save_png(alpha, path);
  REQUIRE(load_image(path) == Image(2, 2, 3, 9));
  REQUIRE(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 1);  // no temporary file is left

  REQUIRE_THROWS_AS(save_png(grey, (folder.path / "none" / "x.png").string()), FileError);
  REQUIRE_THROWS_WITH(encode_png(grey, {{"", "x"}}), contains("text key"));
  REQUIRE_THROWS_WITH(encode_png(grey, {{"key", std::string("a\0b", 3)}}), contains("zero byte"));
  grey.pixels.pop_back();
  REQUIRE_THROWS_AS(encode_png(grey), ShapeError);
}

TEST_CASE("a file that is no picture gives one clear error") {
  const TemporaryFolder folder;
  const auto path = (folder.path / "x.png").string();
  REQUIRE_THROWS_WITH(load_image(path), contains("x.png: cannot open: No such file"));
  REQUIRE_THROWS_WITH(load_image(folder.path.string()), contains("expected a file, found a directory"));
  REQUIRE_THROWS_WITH(load_image("/dev/zero"), contains("found something else"));
  write_file(path, "");
  REQUIRE_THROWS_WITH(load_image(path), contains("x.png: expected a picture, found an empty file"));
  write_file(path, "GIF89a....");
  REQUIRE_THROWS_WITH(load_image(path), contains("expected a PNG, JPEG or PNM picture, found a file that begins with 47 49 46"));
  if (::geteuid() != 0) {
    std::filesystem::permissions(path, std::filesystem::perms::none);
    REQUIRE_THROWS_WITH(load_image(path), contains("cannot open"));
  }
}

TEST_CASE("sizes are checked before anything is allocated") {
  const auto decode = [](const std::string& bytes) { return decode_image(as_pixels(bytes), "bomb"); };
  REQUIRE_THROWS_WITH(decode("P6 100000 1 255\n"), contains("bomb: expected sides of 1 to 16384 and at most 64000000 pixels, found 100000 x 1"));
  REQUIRE_THROWS_WITH(decode("P6 16000 16000 255\n"), contains("found 16000 x 16000"));
  REQUIRE_THROWS_WITH(decode("P6 0 4 255\n"), contains("found 0 x 4"));
  REQUIRE_THROWS_WITH(decode("P6 99999999999999999999 4 255\n"), contains("past one million"));
  REQUIRE_THROWS_WITH(decode("P6 4 4 70000\n"), contains("outside 1..65535"));
  REQUIRE_THROWS_WITH(decode("P6 4 4 255\nshort"), contains("expected 48 bytes of samples after byte 11, found 5"));
  REQUIRE_THROWS_WITH(decode("P6 4 x"), contains("no number"));
  const std::string huge_png(
      "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0\x3a\x5e\x14\x17", 33);
  REQUIRE_THROWS_AS(decode(huge_png), FileError);
}

TEST_CASE("truncated and damaged files give an error or a picture, never more") {
  for (const std::string name : {"interlaced.png", "palette4.png", "rgb.jpg", "progressive.jpg", "cmyk.jpg", "grey16.pgm"}) {
    const auto bytes = detail::read_picture_file(pictures + name);
    INFO(name);
    // Without its last bytes a JPEG has lost only the end marker, which Pillow forgives.
    const bool jpeg = name.ends_with(".jpg");
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      const bool complete = decodes(std::span(bytes).first(size));
      if (!jpeg || size + 20 < bytes.size()) CHECK(!complete);
    }
    CHECK(decodes(bytes));
    auto damaged = bytes;
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      damaged[bit / 8] = static_cast<std::uint8_t>(damaged[bit / 8] ^ (1u << (bit % 8)));
      decodes(damaged);
      damaged[bit / 8] = bytes[bit / 8];
    }
  }
}
