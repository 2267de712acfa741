// F16 as sixteen plain floats. The interface is described in simd.hpp.
struct F16 { float v[16]; };
struct I16 { std::int32_t v[16]; };
struct M16 { std::int32_t v[16]; };  // all bits set, or none

#define TENON_LANES(R, expression)                  \
  R r;                                              \
  for (int i = 0; i < 16; ++i) r.v[i] = expression; \
  return r

TENON_INLINE F16 zero() { TENON_LANES(F16, 0.0f); }
TENON_INLINE F16 set1(float x) { TENON_LANES(F16, x); }
TENON_INLINE I16 set1_int(std::int32_t x) { TENON_LANES(I16, x); }
TENON_INLINE F16 load(const float* p) { TENON_LANES(F16, p[i]); }
TENON_INLINE void store(float* p, F16 x) {
  for (int i = 0; i < 16; ++i) p[i] = x.v[i];
}
template <class Storage>
TENON_INLINE F16 load(const Storage* p) { TENON_LANES(F16, static_cast<float>(p[i])); }
template <class Storage>
TENON_INLINE void store(Storage* p, F16 x) {
  for (int i = 0; i < 16; ++i) p[i] = Storage(x.v[i]);
}
template <class Storage>
TENON_INLINE F16 load_partial(const Storage* p, Index count) { TENON_LANES(F16, i < count ? static_cast<float>(p[i]) : 0.0f); }
template <class Storage>
TENON_INLINE void store_partial(Storage* p, F16 x, Index count) {
  for (int i = 0; i < 16 && i < count; ++i) p[i] = Storage(x.v[i]);
}

TENON_INLINE std::int32_t bits_of(float x) { return __builtin_bit_cast(std::int32_t, x); }
TENON_INLINE float float_of(std::int32_t x) { return __builtin_bit_cast(float, x); }
TENON_INLINE float fma_of(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else  // the product is exact in double; libm's fmaf without the instruction is far slower
  return static_cast<float>(static_cast<double>(a) * static_cast<double>(b) + static_cast<double>(c));
#endif
}
// Nearest even: adding and taking away 2^23 rounds, and floats from 2^23 up are whole already.
TENON_INLINE float round_of(float x) {
  const float magnitude = float_of(bits_of(x) & 0x7fffffff);
  const float whole = magnitude < 8388608.0f ? (magnitude + 8388608.0f) - 8388608.0f : x;
  return float_of((bits_of(whole) & 0x7fffffff) | (bits_of(x) & INT32_MIN));
}

TENON_INLINE F16 operator+(F16 a, F16 b) { TENON_LANES(F16, a.v[i] + b.v[i]); }
TENON_INLINE F16 operator-(F16 a, F16 b) { TENON_LANES(F16, a.v[i] - b.v[i]); }
TENON_INLINE F16 operator*(F16 a, F16 b) { TENON_LANES(F16, a.v[i] * b.v[i]); }
TENON_INLINE F16 operator/(F16 a, F16 b) { TENON_LANES(F16, a.v[i] / b.v[i]); }
TENON_INLINE F16 operator-(F16 a) { TENON_LANES(F16, -a.v[i]); }
TENON_INLINE F16 fma(F16 a, F16 b, F16 c) { TENON_LANES(F16, fma_of(a.v[i], b.v[i], c.v[i])); }
TENON_INLINE F16 fnma(F16 a, F16 b, F16 c) { TENON_LANES(F16, fma_of(-a.v[i], b.v[i], c.v[i])); }
TENON_INLINE F16 min(F16 a, F16 b) { TENON_LANES(F16, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
TENON_INLINE F16 max(F16 a, F16 b) { TENON_LANES(F16, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
TENON_INLINE F16 abs(F16 a) { TENON_LANES(F16, float_of(bits_of(a.v[i]) & 0x7fffffff)); }
TENON_INLINE F16 sqrt(F16 a) { TENON_LANES(F16, __builtin_sqrtf(a.v[i])); }
TENON_INLINE F16 round(F16 a) { TENON_LANES(F16, round_of(a.v[i])); }

TENON_INLINE M16 operator<(F16 a, F16 b) { TENON_LANES(M16, -(a.v[i] < b.v[i])); }
TENON_INLINE M16 operator<=(F16 a, F16 b) { TENON_LANES(M16, -(a.v[i] <= b.v[i])); }
TENON_INLINE M16 operator>(F16 a, F16 b) { TENON_LANES(M16, -(a.v[i] > b.v[i])); }
TENON_INLINE M16 operator>=(F16 a, F16 b) { TENON_LANES(M16, -(a.v[i] >= b.v[i])); }
TENON_INLINE M16 operator==(F16 a, F16 b) { TENON_LANES(M16, -(a.v[i] == b.v[i])); }
TENON_INLINE M16 operator&(M16 a, M16 b) { TENON_LANES(M16, a.v[i] & b.v[i]); }
TENON_INLINE M16 operator|(M16 a, M16 b) { TENON_LANES(M16, a.v[i] | b.v[i]); }
TENON_INLINE M16 operator~(M16 a) { TENON_LANES(M16, ~a.v[i]); }
TENON_INLINE bool any(M16 a) {
  std::int32_t r = 0;
  for (int i = 0; i < 16; ++i) r |= a.v[i];
  return r != 0;
}
TENON_INLINE bool all(M16 a) { return !any(~a); }
TENON_INLINE F16 select(M16 m, F16 a, F16 b) { TENON_LANES(F16, m.v[i] ? a.v[i] : b.v[i]); }

// The same answer as the vector instruction outside of its range: INT32_MIN.
TENON_INLINE I16 to_int(F16 a) {
  TENON_LANES(I16, a.v[i] >= -2147483648.0f && a.v[i] < 2147483648.0f ? static_cast<std::int32_t>(round_of(a.v[i])) : INT32_MIN);
}
TENON_INLINE F16 to_float(I16 a) { TENON_LANES(F16, static_cast<float>(a.v[i])); }
TENON_INLINE I16 bits(F16 a) { TENON_LANES(I16, bits_of(a.v[i])); }
TENON_INLINE F16 from_bits(I16 a) { TENON_LANES(F16, float_of(a.v[i])); }
TENON_INLINE std::int32_t wrap(std::uint32_t x) { return static_cast<std::int32_t>(x); }
TENON_INLINE std::uint32_t unwrap(std::int32_t x) { return static_cast<std::uint32_t>(x); }
TENON_INLINE I16 operator+(I16 a, I16 b) { TENON_LANES(I16, wrap(unwrap(a.v[i]) + unwrap(b.v[i]))); }
TENON_INLINE I16 operator-(I16 a, I16 b) { TENON_LANES(I16, wrap(unwrap(a.v[i]) - unwrap(b.v[i]))); }
TENON_INLINE I16 operator&(I16 a, I16 b) { TENON_LANES(I16, a.v[i] & b.v[i]); }
TENON_INLINE I16 operator|(I16 a, I16 b) { TENON_LANES(I16, a.v[i] | b.v[i]); }
TENON_INLINE I16 operator^(I16 a, I16 b) { TENON_LANES(I16, a.v[i] ^ b.v[i]); }
TENON_INLINE M16 operator==(I16 a, I16 b) { TENON_LANES(M16, -(a.v[i] == b.v[i])); }
template <int n>
TENON_INLINE I16 shift_left(I16 a) { TENON_LANES(I16, wrap(unwrap(a.v[i]) << n)); }
template <int n>
TENON_INLINE I16 shift_right(I16 a) { TENON_LANES(I16, wrap(unwrap(a.v[i]) >> n)); }
TENON_INLINE F16 pow2(I16 n) { return from_bits(shift_left<23>(n + set1_int(127))); }
#undef TENON_LANES

TENON_INLINE float reduce_add(F16 a) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) a.v[i] += a.v[i + width];
  return a.v[0];
}
TENON_INLINE float reduce_max(F16 a) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
  return a.v[0];
}
TENON_INLINE float reduce_min(F16 a) { return -reduce_max(-a); }

TENON_INLINE void transpose(F16 (&rows)[16]) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < i; ++j) {
      const float t = rows[i].v[j];
      rows[i].v[j] = rows[j].v[i];
      rows[j].v[i] = t;
    }
}
