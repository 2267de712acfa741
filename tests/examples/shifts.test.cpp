#define TENON_EXAMPLES_DATA TENON_TEST_DATA "/../../examples/data"
#include "../../examples/common/augment.hpp"
#include "../../examples/common/bars.hpp"
#include "../../examples/common/shifts.hpp"

#include "catch.hpp"

using namespace tenon;
using namespace tenon::examples;

namespace {
/// [1, size, size, 3], white but for one black pixel.
Tensor<float> dot(Index size, Index y, Index x) {
  auto out = Tensor<float>::full({1, size, size, 3}, 1);
  for (Index c = 0; c < 3; ++c) out(0, y, x, c) = 0;
  return out;
}
}  // namespace

TEST_CASE("grey is luma in all channels") {
  const auto grey = in_grey(Tensor<float>({1, 1, 1, 3}, {1, 0.5f, 0}));
  for (Index c = 0; c < 3; ++c) REQUIRE(grey(0, 0, 0, c) == Approx(0.299 + 0.587 / 2));
}

TEST_CASE("a blur keeps the ink and spreads it as a Gaussian does") {
  const auto found = blurred(dot(21, 10, 10), 1.5);
  double ink = 0;
  for (Index y = 0; y < 21; ++y)
    for (Index x = 0; x < 21; ++x) ink += 1 - static_cast<double>(found(0, y, x, 1));
  REQUIRE(ink == Approx(1).epsilon(1e-4));
  const auto at = [&](Index y, Index x) { return 1 - static_cast<double>(found(0, y, x, 0)); };
  REQUIRE(at(10, 12) / at(10, 10) == Approx(std::exp(-4 / (2 * 2.25))).epsilon(1e-3));
  REQUIRE(at(12, 12) / at(10, 10) == Approx(std::exp(-8 / (2 * 2.25))).epsilon(1e-3));
  REQUIRE(blurred(Tensor<float>::full({2, 5, 7, 3}, 1), 2)(1, 4, 6, 2) == Approx(1));
}

TEST_CASE("a quarter turn is exact, and white comes in from outside") {
  const auto found = rotated(dot(5, 2, 4), 90);  // from the right to the top
  for (Index y = 0; y < 5; ++y)
    for (Index x = 0; x < 5; ++x) REQUIRE(found(0, y, x, 0) == Approx(y == 0 && x == 2 ? 0 : 1).margin(1e-5));
  REQUIRE(rotated(dot(5, 2, 2), 45)(0, 2, 2, 0) == Approx(0).margin(1e-5));
  REQUIRE(rotated(Tensor<float>({1, 9, 9, 3}), 45)(0, 0, 0, 0) == Approx(1));  // a corner of a black picture
}

TEST_CASE("noise has its deviation and stays within 0..1") {
  Generator generator(1);
  const auto found = with_noise(Tensor<float>::full({4, 16, 16, 3}, 0.5f), 0.1, generator);
  double sum = 0, squares = 0;
  for (const float v : found) sum += static_cast<double>(v), squares += std::pow(static_cast<double>(v) - 0.5, 2);
  REQUIRE(sum / static_cast<double>(found.size()) == Approx(0.5).margin(0.01));
  REQUIRE(std::sqrt(squares / static_cast<double>(found.size())) == Approx(0.1).margin(0.01));
  for (const float v : with_noise(Tensor<float>({1, 8, 8, 3}), 1, generator)) REQUIRE((v >= 0 && v <= 1));
}

TEST_CASE("shifts by name") {
  Generator generator(4);
  Tensor<float> pictures({1, 64, 64, 3});
  fill_uniform(pictures.span(), 0.0f, 1.0f, generator);
  CHECK(shifted(pictures, "grey", generator) == in_grey(pictures));
  CHECK(shifted(pictures, "blur", generator) == blurred(pictures, 2));
  CHECK(shifted(pictures, "rotation", generator) == rotated(pictures, 45));
  Generator one(5), other(5);
  CHECK(shifted(pictures, "noise", one) == with_noise(pictures, 0.2, other));
  for (const auto& name : shift_names) CHECK(shifted(pictures, name, generator).shape() == pictures.shape());
  REQUIRE_THROWS_WITH(shifted(pictures, "snow", generator), contains("grey, blur, noise or rotation, got snow"));
}

TEST_CASE("bars are as high as their values") {
  const auto image = bars({.title = "t", .y = "%", .width = 320, .height = 240}, {"a", "b"}, {{"one", {10, 20}, {0, 5}}});
  const Colour blue{0, 114, 178};
  Index counts[2] = {0, 0};
  for (Index y = 50; y < image.height; ++y)
    for (Index x = 0; x < image.width; ++x) counts[x > 175] += std::equal(blue.begin(), blue.end(), image.at(y, x));
  REQUIRE(counts[0] > 500);
  REQUIRE(static_cast<double>(counts[1]) / static_cast<double>(counts[0]) == Approx(2).margin(0.1));
  REQUIRE(bars({}, {}, {}).width == 640);
  REQUIRE_THROWS_AS(bars({}, {"a"}, {{"one", {1, 2}}}), ShapeError);
}

TEST_CASE("painted: what is not ground takes the colour, black and white stay") {
  Tensor<float> picture({1, 2, 3, 3}, std::vector<float>{1, 1, 1, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f,  //
                                                         0, 0, 0, 0.5f, 0.5f, 0.5f, 0.75f, 0.75f, 0.75f});
  const Tensor<float> red = painted(picture, {0.8f, 0.2f, 0.1f});
  const auto near = [&](Index x, float r, float g, float b) {
    CHECK(red.data()[3 * x] == Approx(r).margin(1e-6));
    CHECK(red.data()[3 * x + 1] == Approx(g).margin(1e-6));
    CHECK(red.data()[3 * x + 2] == Approx(b).margin(1e-6));
  };
  near(0, 1, 1, 1);
  near(1, 0.8f, 0.2f, 0.1f);
  near(3, 0, 0, 0);
  near(5, 0.9f, 0.6f, 0.55f);
}
