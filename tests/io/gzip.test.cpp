#include <tenon/io/gzip.hpp>

#include "catch.hpp"

using namespace tenon;

namespace {

std::string bytes(const std::string& hex) {
  std::string out;
  for (std::size_t i = 0; i < hex.size(); i += 2) out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

std::string bottles() {
  std::string out;
  for (int i = 0; i < 40; ++i) out += std::to_string(i) + " bottles of beer, " + std::to_string(i * i % 17) + " bottles\n";
  return out;
}

// "hi", stored
const std::string stored = bytes("1f8b0800000000000003") + bytes("010200fdff6869") + bytes("ac2a93d802000000");
// bottles() by zlib 1.3, with tables of its own and with the fixed ones
const std::string dynamic = bytes(
    "1f8b08000000000002037d93310ec4200c047b5ec103ae606d20f09d48497552a4bbfc5f579d1ba2693dc25eef9a92f7ebbedfc7375f67de8fe3f3cae55f4a5a619492adb006"
    "f415ce80f5a16d0fda563a02f615868eb43df48d6e693cd090992652156c2d912c196d24473754c949350a419df2d386d10f7c3b69ae15d26cc2850ddd3227a7ad624cd63064"
    "eb8cf9bc6ca0b2495b79414b5ce4a7f34774cad12bdd80377cdb71ee869a072f8c6efd00c3669d58b3040000");
const std::string fixed = bytes(
    "1f8b0800000000000203335048ca2f29c9492d56c84f53484a4d2dd2513080097119624ac285b88c30254de092c69892967049132cc69ac1654d31652de09266989270777099"
    "6331176e1a97051659b833b92cf1ca1a1ae035dad0109fb30c8df0f9c8d0186f68189ae00b4943537c916068862ffe0ccdf146bd055ebd96f8ec3532c0e7662343bc1e36c21b"
    "5a46c6f842dac8046f341999e28d642333fcd2f8939791055e9759e2f395b101de203136c4179ec6f833a231be783436c197068c4df1ea35c36baf395e375be0f730ded00200"
    "c3669d58b3040000");

}  // namespace

TEST_CASE("the three kinds of blocks") {
  REQUIRE(gunzip(stored, 100, "x") == "hi");
  REQUIRE(gunzip(dynamic, 5000, "x") == bottles());
  REQUIRE(gunzip(fixed, 5000, "x") == bottles());
  REQUIRE(gunzip(stored + fixed + stored, 5000, "x") == "hi" + bottles() + "hi");  // members follow one another
}

TEST_CASE("names, comments and extra fields in the header are passed over") {
  std::string full = stored;
  full[3] = 0x1e;  // extra field, name, comment, checksum of the header
  full.insert(10, std::string("\x03\x00" "abc" "name\x00" "a comment\x00" "\x12\x34", 22));
  REQUIRE(gunzip(full, 100, "x") == "hi");
}

TEST_CASE("broken files are named, whatever is broken") {
  REQUIRE_THROWS_WITH(gunzip("", 100, "a.gz"), contains("[gunzip] a.gz: byte 0 of 0: the data ends early"));
  REQUIRE_THROWS_WITH(gunzip("plain text", 100, "a.gz"), contains("expected a gzip file"));
  REQUIRE_THROWS_WITH(gunzip(dynamic, 1202, "a.gz"), contains("expected at most 1202 bytes when unpacked"));
  REQUIRE(gunzip(dynamic, 1203, "a.gz").size() == 1203);
  for (const auto* whole : {&stored, &dynamic, &fixed})
    for (std::size_t size = 0; size < whole->size(); ++size) REQUIRE_THROWS_AS(gunzip(whole->substr(0, size), 5000, "a.gz"), FileError);
  // a bit changed: an error, or the same text where the bit says when it was packed, or fills the last byte
  for (const auto* whole : {&stored, &dynamic, &fixed}) {
    std::size_t harmless = 0, accepted = 0;
    for (std::size_t bit = 0; bit < 8 * whole->size(); ++bit) {
      std::string changed = *whole;
      changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ 1 << bit % 8);
      try {
        harmless += gunzip(changed, 5000, "a.gz") == gunzip(*whole, 5000, "a.gz");
      } catch (const FileError&) {
        continue;
      }
      ++accepted;
    }
    REQUIRE(accepted == harmless);
    REQUIRE(harmless >= 49);  // six bytes and a flag
    REQUIRE(harmless <= 49 + 7);
  }
}
