#pragma once
// Conversion between element types.
#include <limits>

#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// One element as another type. To bool: not zero. Real to integer: towards zero, saturated, NaN gives 0.
/// Between integers: modulo 2^bits. Through float for half and bfloat16 (double rounds twice, as torch does).
template <Element To, Element From>
To convert(From x) {
  constexpr bool from_small = std::is_same_v<From, half> || std::is_same_v<From, bfloat16>;
  constexpr bool to_small = std::is_same_v<To, half> || std::is_same_v<To, bfloat16>;
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (from_small) {
    return convert<To>(static_cast<float>(x));
  } else if constexpr (to_small) {
    return To(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, bool>) {
    return x != From{};
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    constexpr From low = static_cast<From>(std::numeric_limits<To>::min());
    constexpr From past = -2 * static_cast<From>(std::numeric_limits<To>::min() / 2);  // 2^(bits-1), exact
    if (x != x) return To{};
    if constexpr (std::is_signed_v<To>) {
      if (x >= past) return std::numeric_limits<To>::max();
    } else {
      if (x >= static_cast<From>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    }
    return x <= low ? std::numeric_limits<To>::min() : static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

/// y[i] = x[i] as `To`, by the rules of `convert`.
template <Element From, Element To>
void cast(Index n, const From* x, To* y) {
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) y[i] = convert<To>(x[i]);
  });
}

TENON_KERNEL void cast(Index n, const float* x, bfloat16* y);
TENON_KERNEL void cast(Index n, const bfloat16* x, float* y);
TENON_KERNEL void cast(Index n, const float* x, half* y);
TENON_KERNEL void cast(Index n, const half* x, float* y);

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/cast_float.inl>
#endif
