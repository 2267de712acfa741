// F16 as two ymm registers. The interface is described in simd.hpp.
struct F16 { __m256 v[2]; };
struct I16 { __m256i v[2]; };
struct M16 { __m256 v[2]; };

TENON_INLINE I16 first_lanes(Index count) {
  const __m256i n = _mm256_set1_epi32(count >= 16 ? 16 : static_cast<std::int32_t>(count));
  return {{_mm256_cmpgt_epi32(n, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
           _mm256_cmpgt_epi32(n, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))}};
}

TENON_INLINE F16 zero() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
TENON_INLINE F16 set1(float x) { return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
TENON_INLINE I16 set1_int(std::int32_t x) { return {{_mm256_set1_epi32(x), _mm256_set1_epi32(x)}}; }
TENON_INLINE F16 load(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }
TENON_INLINE void store(float* p, F16 x) {
  _mm256_storeu_ps(p, x.v[0]);
  _mm256_storeu_ps(p + 8, x.v[1]);
}
TENON_INLINE F16 load_partial(const float* p, Index count) {
  const I16 m = first_lanes(count);
  return {{_mm256_maskload_ps(p, m.v[0]), _mm256_maskload_ps(p + 8, m.v[1])}};
}
TENON_INLINE void store_partial(float* p, F16 x, Index count) {
  const I16 m = first_lanes(count);
  _mm256_maskstore_ps(p, m.v[0], x.v[0]);
  _mm256_maskstore_ps(p + 8, m.v[1], x.v[1]);
}

TENON_INLINE F16 operator+(F16 a, F16 b) { return {{_mm256_add_ps(a.v[0], b.v[0]), _mm256_add_ps(a.v[1], b.v[1])}}; }
TENON_INLINE F16 operator-(F16 a, F16 b) { return {{_mm256_sub_ps(a.v[0], b.v[0]), _mm256_sub_ps(a.v[1], b.v[1])}}; }
TENON_INLINE F16 operator*(F16 a, F16 b) { return {{_mm256_mul_ps(a.v[0], b.v[0]), _mm256_mul_ps(a.v[1], b.v[1])}}; }
TENON_INLINE F16 operator/(F16 a, F16 b) { return {{_mm256_div_ps(a.v[0], b.v[0]), _mm256_div_ps(a.v[1], b.v[1])}}; }
TENON_INLINE F16 operator-(F16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {{_mm256_xor_ps(a.v[0], sign), _mm256_xor_ps(a.v[1], sign)}};
}
TENON_INLINE F16 fma(F16 a, F16 b, F16 c) {
  return {{_mm256_fmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], c.v[1])}};
}
TENON_INLINE F16 fnma(F16 a, F16 b, F16 c) {
  return {{_mm256_fnmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fnmadd_ps(a.v[1], b.v[1], c.v[1])}};
}
TENON_INLINE F16 min(F16 a, F16 b) { return {{_mm256_min_ps(a.v[0], b.v[0]), _mm256_min_ps(a.v[1], b.v[1])}}; }
TENON_INLINE F16 max(F16 a, F16 b) { return {{_mm256_max_ps(a.v[0], b.v[0]), _mm256_max_ps(a.v[1], b.v[1])}}; }
TENON_INLINE F16 abs(F16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {{_mm256_andnot_ps(sign, a.v[0]), _mm256_andnot_ps(sign, a.v[1])}};
}
TENON_INLINE F16 sqrt(F16 a) { return {{_mm256_sqrt_ps(a.v[0]), _mm256_sqrt_ps(a.v[1])}}; }
TENON_INLINE F16 round(F16 a) { return {{_mm256_round_ps(a.v[0], 0x08), _mm256_round_ps(a.v[1], 0x08)}}; }

TENON_INLINE M16 operator<(F16 a, F16 b) {
  return {{_mm256_cmp_ps(a.v[0], b.v[0], _CMP_LT_OQ), _mm256_cmp_ps(a.v[1], b.v[1], _CMP_LT_OQ)}};
}
TENON_INLINE M16 operator<=(F16 a, F16 b) {
  return {{_mm256_cmp_ps(a.v[0], b.v[0], _CMP_LE_OQ), _mm256_cmp_ps(a.v[1], b.v[1], _CMP_LE_OQ)}};
}
TENON_INLINE M16 operator>(F16 a, F16 b) { return b < a; }
TENON_INLINE M16 operator>=(F16 a, F16 b) { return b <= a; }
TENON_INLINE M16 operator==(F16 a, F16 b) {
  return {{_mm256_cmp_ps(a.v[0], b.v[0], _CMP_EQ_OQ), _mm256_cmp_ps(a.v[1], b.v[1], _CMP_EQ_OQ)}};
}
TENON_INLINE M16 operator&(M16 a, M16 b) { return {{_mm256_and_ps(a.v[0], b.v[0]), _mm256_and_ps(a.v[1], b.v[1])}}; }
TENON_INLINE M16 operator|(M16 a, M16 b) { return {{_mm256_or_ps(a.v[0], b.v[0]), _mm256_or_ps(a.v[1], b.v[1])}}; }
TENON_INLINE M16 operator~(M16 a) {
  const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
  return {{_mm256_xor_ps(a.v[0], ones), _mm256_xor_ps(a.v[1], ones)}};
}
TENON_INLINE bool any(M16 a) { return _mm256_movemask_ps(_mm256_or_ps(a.v[0], a.v[1])) != 0; }
TENON_INLINE bool all(M16 a) { return _mm256_movemask_ps(_mm256_and_ps(a.v[0], a.v[1])) == 0xff; }
TENON_INLINE F16 select(M16 m, F16 a, F16 b) {
  return {{_mm256_blendv_ps(b.v[0], a.v[0], m.v[0]), _mm256_blendv_ps(b.v[1], a.v[1], m.v[1])}};
}

TENON_INLINE I16 to_int(F16 a) { return {{_mm256_cvtps_epi32(a.v[0]), _mm256_cvtps_epi32(a.v[1])}}; }
TENON_INLINE F16 to_float(I16 a) { return {{_mm256_cvtepi32_ps(a.v[0]), _mm256_cvtepi32_ps(a.v[1])}}; }
TENON_INLINE I16 bits(F16 a) { return {{_mm256_castps_si256(a.v[0]), _mm256_castps_si256(a.v[1])}}; }
TENON_INLINE F16 from_bits(I16 a) { return {{_mm256_castsi256_ps(a.v[0]), _mm256_castsi256_ps(a.v[1])}}; }
TENON_INLINE I16 operator+(I16 a, I16 b) {
  return {{_mm256_add_epi32(a.v[0], b.v[0]), _mm256_add_epi32(a.v[1], b.v[1])}};
}
TENON_INLINE I16 operator-(I16 a, I16 b) {
  return {{_mm256_sub_epi32(a.v[0], b.v[0]), _mm256_sub_epi32(a.v[1], b.v[1])}};
}
TENON_INLINE I16 operator&(I16 a, I16 b) {
  return {{_mm256_and_si256(a.v[0], b.v[0]), _mm256_and_si256(a.v[1], b.v[1])}};
}
TENON_INLINE I16 operator|(I16 a, I16 b) {
  return {{_mm256_or_si256(a.v[0], b.v[0]), _mm256_or_si256(a.v[1], b.v[1])}};
}
TENON_INLINE I16 operator^(I16 a, I16 b) {
  return {{_mm256_xor_si256(a.v[0], b.v[0]), _mm256_xor_si256(a.v[1], b.v[1])}};
}
TENON_INLINE M16 operator==(I16 a, I16 b) {
  return {{_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v[0], b.v[0])),
           _mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v[1], b.v[1]))}};
}
template <int n>
TENON_INLINE I16 shift_left(I16 a) { return {{_mm256_slli_epi32(a.v[0], n), _mm256_slli_epi32(a.v[1], n)}}; }
template <int n>
TENON_INLINE I16 shift_right(I16 a) { return {{_mm256_srli_epi32(a.v[0], n), _mm256_srli_epi32(a.v[1], n)}}; }
TENON_INLINE F16 pow2(I16 n) { return from_bits(shift_left<23>(n + set1_int(127))); }

// 16-bit lanes have no masked load here: partial ones go through the stack.
TENON_INLINE F16 widen_bfloat16(const void* p) {
  const __m128i* q = static_cast<const __m128i*>(p);
  const I16 u{{_mm256_cvtepu16_epi32(_mm_loadu_si128(q)), _mm256_cvtepu16_epi32(_mm_loadu_si128(q + 1))}};
  return from_bits(shift_left<16>(u));
}
TENON_INLINE void narrow_bfloat16(void* p, F16 x) {
  const I16 u = bits(x);
  const I16 rounded = shift_right<16>(u + set1_int(0x7fff) + (shift_right<16>(u) & set1_int(1)));
  const I16 nan = shift_right<16>(u) | set1_int(0x40);
  const I16 y = bits(select(x == x, from_bits(rounded), from_bits(nan)));
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm256_permute4x64_epi64(_mm256_packus_epi32(y.v[0], y.v[1]), 0xd8));
}
TENON_INLINE F16 widen_half(const void* p) {
  const __m128i* q = static_cast<const __m128i*>(p);
  return {{_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))}};
}
TENON_INLINE void narrow_half(void* p, F16 x) {
  __m128i* q = static_cast<__m128i*>(p);
  _mm_storeu_si128(q, _mm256_cvtps_ph(x.v[0], 0x08));
  _mm_storeu_si128(q + 1, _mm256_cvtps_ph(x.v[1], 0x08));
}
TENON_INLINE void copy_lanes(void* to, const void* from, Index count) {
  __builtin_memcpy(to, from, 2 * static_cast<unsigned long>(count < 16 ? count : 16));
}
TENON_INLINE F16 load(const bfloat16* p) { return widen_bfloat16(p); }
TENON_INLINE void store(bfloat16* p, F16 x) { narrow_bfloat16(p, x); }
TENON_INLINE F16 load_partial(const bfloat16* p, Index count) {
  std::uint16_t lanes[16] = {};
  copy_lanes(lanes, p, count);
  return widen_bfloat16(lanes);
}
TENON_INLINE void store_partial(bfloat16* p, F16 x, Index count) {
  std::uint16_t lanes[16];
  narrow_bfloat16(lanes, x);
  copy_lanes(p, lanes, count);
}
TENON_INLINE F16 load(const half* p) { return widen_half(p); }
TENON_INLINE void store(half* p, F16 x) { narrow_half(p, x); }
TENON_INLINE F16 load_partial(const half* p, Index count) {
  std::uint16_t lanes[16] = {};
  copy_lanes(lanes, p, count);
  return widen_half(lanes);
}
TENON_INLINE void store_partial(half* p, F16 x, Index count) {
  std::uint16_t lanes[16];
  narrow_half(lanes, x);
  copy_lanes(p, lanes, count);
}

TENON_INLINE float reduce_add(F16 a) {
  const __m256 y = _mm256_add_ps(a.v[0], a.v[1]);
  const __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  const __m128 s = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
TENON_INLINE float reduce_max(F16 a) {
  const __m256 y = _mm256_max_ps(a.v[0], a.v[1]);
  const __m128 x = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  const __m128 s = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
TENON_INLINE float reduce_min(F16 a) { return -reduce_max(-a); }

TENON_INLINE void transpose8(__m256 (&r)[8]) {
  __m256 t[8];
  TENON_UNROLL
  for (int i = 0; i < 8; i += 4) {
    const __m256 a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
    const __m256 c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  TENON_UNROLL
  for (int c = 0; c < 4; ++c) {
    r[c] = _mm256_permute2f128_ps(t[c], t[4 + c], 0x20);
    r[4 + c] = _mm256_permute2f128_ps(t[c], t[4 + c], 0x31);
  }
}
TENON_INLINE void transpose(F16 (&rows)[16]) {
  __m256 a[8], b[8];
  TENON_UNROLL
  for (int h = 0; h < 2; ++h) {  // the diagonal quarters
    TENON_UNROLL
    for (int i = 0; i < 8; ++i) a[i] = rows[8 * h + i].v[h];
    transpose8(a);
    TENON_UNROLL
    for (int i = 0; i < 8; ++i) rows[8 * h + i].v[h] = a[i];
  }
  TENON_UNROLL
  for (int i = 0; i < 8; ++i) {
    a[i] = rows[i].v[1];
    b[i] = rows[8 + i].v[0];
  }
  transpose8(a);
  transpose8(b);
  TENON_UNROLL
  for (int i = 0; i < 8; ++i) {
    rows[i].v[1] = b[i];
    rows[8 + i].v[0] = a[i];
  }
}
