#include <tenon/io/exif.hpp>

#include "catch.hpp"

using namespace tenon;

namespace {

/// An EXIF block with one entry before the orientation.
std::vector<std::uint8_t> block(bool big, int value, int type = 3, bool mark = true) {
  std::vector<std::uint8_t> out;
  if (mark) out = {'E', 'x', 'i', 'f', 0, 0};
  const auto put = [&](std::uint32_t number, int bytes) {
    for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(number >> 8 * (big ? bytes - 1 - i : i)));
  };
  for (int i = 0; i < 2; ++i) out.push_back(big ? 'M' : 'I');
  put(42, 2);
  put(8, 4);
  put(2, 2);
  put(0x010f, 2), put(2, 2), put(1, 4), put(0, 4);
  put(0x0112, 2), put(static_cast<std::uint32_t>(type), 2), put(1, 4), put(static_cast<std::uint32_t>(value), type == 3 ? 2 : 4);
  if (type == 3) put(0, 2);
  put(0, 4);
  return out;
}

/// 1 2
/// 3 4
/// 5 6
Image numbers() {
  Image out(3, 2, 1);
  out.pixels = {1, 2, 3, 4, 5, 6};
  return out;
}

}  // namespace

TEST_CASE("the orientation in a block of either byte order, as 16 or 32 bits, with or without a mark") {
  for (const bool big : {false, true})
    for (const int type : {3, 4})
      for (const bool mark : {false, true})
        for (int value = 1; value <= 8; ++value) REQUIRE(detail::exif_orientation(block(big, value, type, mark)) == value);
}

TEST_CASE("a broken block says nothing") {
  REQUIRE(detail::exif_orientation({}) == 1);
  REQUIRE(detail::exif_orientation(block(true, 0)) == 1);
  REQUIRE(detail::exif_orientation(block(true, 9)) == 1);
  REQUIRE(detail::exif_orientation(block(true, 6, 2)) == 1);  // text
  const auto whole = block(false, 6);
  for (std::size_t size = 0; size < whole.size() - 4; ++size) {  // the last four bytes are the link to a next directory
    const std::vector<std::uint8_t> part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    REQUIRE(detail::exif_orientation(part) == 1);
  }
  for (std::size_t at = 0; at < whole.size(); ++at)  // anything else: no reading outside
    for (int value = 0; value < 256; ++value) {
      auto changed = whole;
      changed[at] = static_cast<std::uint8_t>(value);
      const int found = detail::exif_orientation(changed);
      REQUIRE((found >= 1 && found <= 8));
    }
}

TEST_CASE("what stands elsewhere counts where a block says nothing") {
  REQUIRE(detail::exif_orientation({}, 6) == 6);
  REQUIRE(detail::exif_orientation(block(true, 1), 6) == 1);
  REQUIRE(detail::exif_orientation(block(true, 9), 6) == 1);
  auto other = block(true, 3);
  other[other.size() - 15] = 0x13;  // another tag in the place of the orientation
  REQUIRE(detail::exif_orientation(other, 6) == 6);
}

TEST_CASE("the orientation in an XMP packet and in ImageMagick's profile") {
  REQUIRE(detail::xmp_orientation("<a tiff:Orientation=\"6\"/>") == 6);
  REQUIRE(detail::xmp_orientation("<tiff:Orientation>8</tiff:Orientation>") == 8);
  REQUIRE(detail::xmp_orientation("tiff:Orientation='6' tiff:Orientation=\"3\"") == 3);
  for (const char* nothing : {"", "tiff:Orientation", "tiff:Orientation=\"", "tiff:Orientation>x", "<tiff:Orientation>9<", "<tiff:Orientation>0<"})
    REQUIRE(detail::xmp_orientation(nothing) == 1);
  REQUIRE(detail::raw_profile("\nexif\n   3\n4d4D\n2A\n") == std::vector<std::uint8_t>{0x4d, 0x4d, 0x2a});
  for (const char* broken : {"", "\nexif", "\nexif\n 2\n4d4g"}) REQUIRE(detail::raw_profile(broken).empty());
}

TEST_CASE("turning and mirroring by hand") {
  using Pixels = std::vector<std::uint8_t>;
  const auto turned = [](int orientation) { return oriented(numbers(), orientation); };
  REQUIRE(turned(1) == numbers());
  REQUIRE(turned(2).pixels == Pixels{2, 1, 4, 3, 6, 5});  // mirrored
  REQUIRE(turned(3).pixels == Pixels{6, 5, 4, 3, 2, 1});  // by 180 degrees
  REQUIRE(turned(4).pixels == Pixels{5, 6, 3, 4, 1, 2});  // upside down
  REQUIRE(turned(5).pixels == Pixels{1, 3, 5, 2, 4, 6});  // transposed
  REQUIRE(turned(6).pixels == Pixels{5, 3, 1, 6, 4, 2});  // clockwise
  REQUIRE(turned(7).pixels == Pixels{6, 4, 2, 5, 3, 1});  // transposed about the other diagonal
  REQUIRE(turned(8).pixels == Pixels{2, 4, 6, 1, 3, 5});  // counterclockwise
  for (int orientation = 5; orientation <= 8; ++orientation) REQUIRE((turned(orientation).width == 3 && turned(orientation).height == 2));
  REQUIRE(turned(0) == numbers());
  REQUIRE(turned(9) == numbers());
}
