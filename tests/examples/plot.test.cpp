#define TENON_EXAMPLES_DATA TENON_TEST_DATA "/../../examples/data"
#include "../../examples/common/plot.hpp"

#include "catch.hpp"

using namespace tenon;
using namespace tenon::examples;

namespace {
Index count_of(const Image& image, const Colour& colour, Index from_x, Index to_x) {
  Index count = 0;
  for (Index y = 0; y < image.height; ++y)
    for (Index x = from_x; x < to_x; ++x) count += std::equal(colour.begin(), colour.end(), image.at(y, x));
  return count;
}
}  // namespace

TEST_CASE("ticks are round numbers") {
  const Ticks a(0.13, 4.2, 8);  // 4.07 / 8 is about 0.51: steps of 1
  REQUIRE(a.step == 1.0);
  REQUIRE(a.first == 0.0);
  REQUIRE(a.last == 5.0);
  REQUIRE(a.size() == 6);
  REQUIRE(a.text(3) == "3");
  const Ticks b(0.1, 0.35, 5);
  REQUIRE(b.step == Approx(0.05));
  REQUIRE(b.text(0) == "0.10");
  const Ticks c(-200, 300, 5);
  REQUIRE(c.text(0) == "-200");
  REQUIRE(c.text(2) == "0");
  REQUIRE(Ticks(1e9, 3e9, 4).text(0) == "1e+09");
}

TEST_CASE("a rising line rises across the picture") {
  const auto image = plot({.title = "t", .x = "x", .y = "y", .width = 320, .height = 240}, {{"up", {1, 2, 3}}});
  REQUIRE((image.height == 240 && image.width == 320));
  const Colour blue{0, 114, 178};
  double before = 1e9;
  for (Index x = 40; x <= 280; x += 40) {  // the mean height of the curve in a strip; smaller y is higher
    double sum = 0, count = 0;
    for (Index y = 60; y < image.height; ++y)
      if (std::equal(blue.begin(), blue.end(), image.at(y, x))) sum += static_cast<double>(y), ++count;
    REQUIRE(count > 0);
    REQUIRE(sum / count < before);
    before = sum / count;
  }
}

TEST_CASE("odd values do not break a plot") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  const Colour blue{0, 114, 178};
  REQUIRE(plot({}, {}).width == 640);
  REQUIRE(plot({}, {{"none", {}}}).width == 640);
  REQUIRE(count_of(plot({}, {{"one", {3}}}), blue, 60, 640) > 4);
  REQUIRE(count_of(plot({}, {{"flat", {2, 2, 2}}}), blue, 60, 640) > 400);
  REQUIRE(count_of(plot({}, {{"holes", {1, nan, 3, infinity, 5, 6}}}), blue, 60, 640) > 4);
  REQUIRE(plot({.y_min = 0, .y_max = 1}, {{"cut", {-5, 9}}}).width == 640);
  REQUIRE(plot({}, {{"huge", {-1e300, 1e300}, {1e-300, 2e-300}}}).width == 640);
  REQUIRE_THROWS_AS(plot({}, {{"bad", {1, 2}, {1}}}), ShapeError);
  REQUIRE_THROWS_AS(plot({.width = 50}, {}), ShapeError);
}
