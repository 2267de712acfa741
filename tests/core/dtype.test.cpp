#include <tenon/core/dtype.hpp>

#include <cmath>
#include <cstring>
#include <limits>

#include "catch.hpp"

using namespace tenon;

namespace {

/// The value of 16 bits by the definition of the format: (-1)^sign (implicit + fraction) 2^exponent.
double defined_value(std::uint16_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1), fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1)
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  return sign * std::ldexp(exponent == 0 ? fraction : fraction + (1 << fraction_bits), std::max(exponent, 1) - bias - fraction_bits);
}

bool is_nan_bits(std::uint16_t bits, int fraction_bits) {
  const int fraction = (1 << fraction_bits) - 1;
  return (bits & 0x7fff & ~fraction) == (0x7fff & ~fraction) && (bits & fraction) != 0;
}

/// All 65,536 values to float and back, and every boundary between neighbours from both sides and exactly.
template <class T>
void check_all(int exponent_bits, int fraction_bits) {
  long wrong_value = 0, wrong_way_back = 0, wrong_tie = 0, wrong_side = 0;
  const auto from_bits = [](unsigned bits) {
    T x;
    x.bits = static_cast<std::uint16_t>(bits);
    return x;
  };
  const unsigned infinity = 0x7fffu & ~((1u << fraction_bits) - 1u);
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const auto u = static_cast<std::uint16_t>(bits);
    const float value = from_bits(bits);
    const double expected = defined_value(u, exponent_bits, fraction_bits);
    if (is_nan_bits(u, fraction_bits)) {
      wrong_value += !std::isnan(value);
      const T back(value);
      wrong_way_back += !is_nan_bits(back.bits, fraction_bits) || (back.bits & 0x8000) != (u & 0x8000);
      continue;
    }
    wrong_value += static_cast<double>(value) != expected || std::signbit(value) != std::signbit(expected);
    wrong_way_back += T(value).bits != u;
    if ((bits & 0x7fffu) >= infinity) continue;
    // the middle between this value and the next one outward, which before infinity is the value that would follow
    const unsigned next = bits + 1;
    const double outward = (next & 0x7fffu) == infinity
                               ? expected + (expected - defined_value(static_cast<std::uint16_t>(bits - 1), exponent_bits, fraction_bits))
                               : defined_value(static_cast<std::uint16_t>(next), exponent_bits, fraction_bits);
    const double middle = (expected + outward) / 2;
    if (std::abs(middle) > static_cast<double>(std::numeric_limits<float>::max())) continue;
    const float tie = static_cast<float>(middle);
    if (static_cast<double>(tie) != middle) continue;  // below float's smallest step
    wrong_tie += T(tie).bits != (bits & 1u ? next : bits);
    wrong_side += T(std::nextafter(tie, 0.0f)).bits != bits;
    wrong_side += T(std::nextafter(tie, tie < 0 ? -INFINITY : INFINITY)).bits != next;
  }
  CHECK(wrong_value == 0);
  CHECK(wrong_way_back == 0);
  CHECK(wrong_tie == 0);
  CHECK(wrong_side == 0);
}

}  // namespace

TEST_CASE("bfloat16 and half by hand") {
  CHECK(bfloat16(1.0f).bits == 0x3f80);
  CHECK(bfloat16(-2.5f).bits == 0xc020);
  CHECK(half(1.0f).bits == 0x3c00);
  CHECK(half(-2.5f).bits == 0xc100);
  CHECK(half(65504.0f).bits == 0x7bff);
  CHECK(half(65519.996f).bits == 0x7bff);
  CHECK(half(65520.0f).bits == 0x7c00);
  CHECK(half(1e30f).bits == 0x7c00);
  CHECK(half(0x1p-24f).bits == 1);
  CHECK(half(0x1p-25f).bits == 0);       // a tie to even
  CHECK(half(-0x1.000002p-25f).bits == 0x8001);
  CHECK(half(std::numeric_limits<float>::denorm_min()).bits == 0);
  CHECK(std::isinf(static_cast<float>(bfloat16(std::numeric_limits<float>::max()))));
}

TEST_CASE("all 65,536 bfloat16 values, both ways, with every tie") { check_all<bfloat16>(8, 7); }
TEST_CASE("all 65,536 half values, both ways, with every tie") { check_all<half>(5, 10); }

TEST_CASE("a NaN whose bits all lie below the cut stays a NaN") {
  const auto low_nan = std::bit_cast<float>(0x7f800001u), negative = std::bit_cast<float>(0xff800001u);
  CHECK(std::isnan(static_cast<float>(bfloat16(low_nan))));
  CHECK(std::isnan(static_cast<float>(half(low_nan))));
  CHECK(std::signbit(static_cast<float>(half(negative))));
}

TEST_CASE("names and sizes") {
  CHECK(name_of(DType::boolean) == "bool");
  CHECK(name_of(DType::f64) == "float64");
  CHECK(bytes_of(DType::i64) == 8);
  CHECK(bytes_of(dtype_of<bfloat16>) == sizeof(bfloat16));
  CHECK(bytes_of(dtype_of<half>) == sizeof(half));
  CHECK(bytes_of(dtype_of<bool>) == sizeof(bool));
}
