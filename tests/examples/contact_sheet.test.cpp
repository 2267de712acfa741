#define TENON_EXAMPLES_DATA TENON_TEST_DATA "/../../examples/data"
#include "../../examples/common/contact_sheet.hpp"

#include "catch.hpp"

using namespace tenon;
using namespace tenon::examples;

TEST_CASE("pictures stand in a grid, their labels below") {
  const std::vector<Tile> tiles{{Image(4, 4, 3, 10), {{"one"}, {"two", red}}}, {Image(4, 4, 3, 20), {}}, {Image(2, 2, 1, 30), {}}};
  const auto sheet = contact_sheet(tiles, {.columns = 2, .zoom = 3, .letters = 4});
  // cells: 24 wide (4 letters) and 12 + 4 + 2 * 12 high, 10 apart
  REQUIRE(sheet.width == 10 + 2 * 34);
  REQUIRE(sheet.height == 10 + 2 * 50);
  REQUIRE(sheet.at(10, 10 + 6)[0] == 10);  // in the middle of 24 pixels
  REQUIRE(sheet.at(21, 10 + 17)[0] == 10);
  REQUIRE(sheet.at(10, 10 + 5)[0] == 255);
  REQUIRE(sheet.at(10, 44 + 6)[0] == 20);
  REQUIRE(sheet.at(10 + 50 + 11, 10 + 9)[0] == 30);  // smaller pictures stand at the bottom
  REQUIRE(sheet.at(10 + 50 + 5, 10 + 9)[0] == 255);
  Index ink = 0, red_ink = 0;
  for (Index y = 26; y < 38; ++y)
    for (Index x = 10; x < 34; ++x) ink += sheet.at(y, x)[0] < 200;
  for (Index y = 38; y < 50; ++y)
    for (Index x = 10; x < 34; ++x) red_ink += sheet.at(y, x)[0] > sheet.at(y, x)[1] + 60;
  REQUIRE(ink > 10);
  REQUIRE(red_ink > 10);
}

TEST_CASE("long labels are cut, other scripts are marked") {
  const auto sheet = [](const std::string& label) { return contact_sheet({{Image(8, 8), {{label}}}}, {.letters = 6}); };
  REQUIRE(sheet("abcdefgh") == sheet("abcd.."));
  REQUIRE(sheet("abcdef") != sheet("abcd.."));
  REQUIRE(sheet("r\u00e9d") == sheet("r?d"));
  REQUIRE_THROWS_AS(contact_sheet({}), ShapeError);
  REQUIRE_THROWS_AS(contact_sheet({{Image(8, 8), {}}}, {.columns = 0}), ShapeError);
}
