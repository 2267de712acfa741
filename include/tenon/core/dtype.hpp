#pragma once
// Element types: bfloat16 and half as storage, and the run-time tag of a file's or a Weight's type.
#include <bit>
#include <cstddef>
#include <cstdint>

#include <tenon/core/error.hpp>

namespace tenon::inline TENON_ABI {

/// Upper half of a float32. Conversion from float rounds to nearest even and keeps NaN a NaN.
struct bfloat16 {
  std::uint16_t bits = 0;
  bfloat16() = default;
  explicit bfloat16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u)
      bits = static_cast<std::uint16_t>((u >> 16) | 0x40u);
    else
      bits = static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

/// IEEE binary16. Conversion from float rounds to nearest even; overflow gives infinity.
struct half {
  std::uint16_t bits = 0;
  half() = default;
  explicit half(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
    std::uint32_t h;
    if (magnitude > 0x7f800000u) {
      h = 0x7e00u | ((magnitude >> 13) & 0x1ffu);
    } else if (magnitude >= 0x477ff000u) {  // rounds to at least 65520
      h = 0x7c00u;
    } else if (magnitude >= 0x38800000u) {  // normal
      h = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    } else if (magnitude > 0x33000000u) {  // subnormal: shift the significand, round to even
      const std::uint32_t shift = 126u - (magnitude >> 23), m = (magnitude & 0x7fffffu) | 0x800000u;
      const std::uint32_t rest = m & ((1u << shift) - 1u), mid = 1u << (shift - 1u);
      h = m >> shift;
      if (rest > mid || (rest == mid && (h & 1u))) ++h;
    } else {
      h = 0;
    }
    bits = static_cast<std::uint16_t>(sign | h);
  }
  operator float() const {
    const std::uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu, m = bits & 0x3ffu;
    if (exponent == 31u) return std::bit_cast<float>(sign | 0x7f800000u | (m << 13));
    if (exponent != 0u) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (m << 13));
    const float tiny = static_cast<float>(m) * 0x1p-24f;
    return sign ? -tiny : tiny;
  }
};

enum class DType : std::uint8_t { boolean, u8, i8, i32, i64, f16, bf16, f32, f64 };

inline std::string_view name_of(DType dtype) {
  constexpr std::string_view names[] = {"bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "float64"};
  return names[static_cast<std::size_t>(dtype)];
}
inline std::size_t bytes_of(DType dtype) {
  constexpr std::size_t sizes[] = {1, 1, 1, 4, 8, 2, 2, 4, 8};
  return sizes[static_cast<std::size_t>(dtype)];
}

template <class T>
struct DTypeOf;
template <> struct DTypeOf<bool> { static constexpr DType value = DType::boolean; };
template <> struct DTypeOf<std::uint8_t> { static constexpr DType value = DType::u8; };
template <> struct DTypeOf<std::int8_t> { static constexpr DType value = DType::i8; };
template <> struct DTypeOf<std::int32_t> { static constexpr DType value = DType::i32; };
template <> struct DTypeOf<std::int64_t> { static constexpr DType value = DType::i64; };
template <> struct DTypeOf<half> { static constexpr DType value = DType::f16; };
template <> struct DTypeOf<bfloat16> { static constexpr DType value = DType::bf16; };
template <> struct DTypeOf<float> { static constexpr DType value = DType::f32; };
template <> struct DTypeOf<double> { static constexpr DType value = DType::f64; };

/// The DType of a C++ element type.
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

/// Types that a Tensor can hold.
template <class T>
concept Element = requires { DTypeOf<T>::value; };
/// Types that operations compute in: float for work, double for gradient checks.
template <class T>
concept Real = std::same_as<T, float> || std::same_as<T, double>;

}  // namespace tenon::inline TENON_ABI
