// F16 as one zmm register. The interface is described in simd.hpp.
struct F16 { __m512 v; };
struct I16 { __m512i v; };
struct M16 { __mmask16 v; };

TENON_INLINE __mmask16 first_lanes(Index count) {
  return count >= 16 ? __mmask16(0xffff) : static_cast<__mmask16>((1u << count) - 1u);
}

TENON_INLINE F16 zero() { return {_mm512_setzero_ps()}; }
TENON_INLINE F16 set1(float x) { return {_mm512_set1_ps(x)}; }
TENON_INLINE I16 set1_int(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
TENON_INLINE F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
TENON_INLINE void store(float* p, F16 x) { _mm512_storeu_ps(p, x.v); }
TENON_INLINE F16 load_partial(const float* p, Index count) { return {_mm512_maskz_loadu_ps(first_lanes(count), p)}; }
TENON_INLINE void store_partial(float* p, F16 x, Index count) { _mm512_mask_storeu_ps(p, first_lanes(count), x.v); }

TENON_INLINE F16 operator+(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
TENON_INLINE F16 operator-(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
TENON_INLINE F16 operator*(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
TENON_INLINE F16 operator/(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }
TENON_INLINE F16 operator-(F16 a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
TENON_INLINE F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
TENON_INLINE F16 fnma(F16 a, F16 b, F16 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
// The maskz forms keep g++ 12 from warning about the undefined source of the plain ones.
TENON_INLINE F16 min(F16 a, F16 b) { return {_mm512_maskz_min_ps(0xffff, a.v, b.v)}; }
TENON_INLINE F16 max(F16 a, F16 b) { return {_mm512_maskz_max_ps(0xffff, a.v, b.v)}; }
TENON_INLINE F16 abs(F16 a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
TENON_INLINE F16 sqrt(F16 a) { return {_mm512_maskz_sqrt_ps(0xffff, a.v)}; }
TENON_INLINE F16 round(F16 a) { return {_mm512_maskz_roundscale_ps(0xffff, a.v, 0x08)}; }

TENON_INLINE M16 operator<(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
TENON_INLINE M16 operator<=(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
TENON_INLINE M16 operator>(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
TENON_INLINE M16 operator>=(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
TENON_INLINE M16 operator==(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
TENON_INLINE M16 operator&(M16 a, M16 b) { return {static_cast<__mmask16>(a.v & b.v)}; }
TENON_INLINE M16 operator|(M16 a, M16 b) { return {static_cast<__mmask16>(a.v | b.v)}; }
TENON_INLINE M16 operator~(M16 a) { return {static_cast<__mmask16>(~a.v)}; }
TENON_INLINE bool any(M16 a) { return a.v != 0; }
TENON_INLINE bool all(M16 a) { return a.v == 0xffff; }
TENON_INLINE F16 select(M16 m, F16 a, F16 b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }

TENON_INLINE I16 to_int(F16 a) { return {_mm512_maskz_cvtps_epi32(0xffff, a.v)}; }
TENON_INLINE F16 to_float(I16 a) { return {_mm512_maskz_cvtepi32_ps(0xffff, a.v)}; }
TENON_INLINE I16 bits(F16 a) { return {_mm512_castps_si512(a.v)}; }
TENON_INLINE F16 from_bits(I16 a) { return {_mm512_castsi512_ps(a.v)}; }
TENON_INLINE I16 operator+(I16 a, I16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
TENON_INLINE I16 operator-(I16 a, I16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
TENON_INLINE I16 operator&(I16 a, I16 b) { return {_mm512_and_si512(a.v, b.v)}; }
TENON_INLINE I16 operator|(I16 a, I16 b) { return {_mm512_or_si512(a.v, b.v)}; }
TENON_INLINE I16 operator^(I16 a, I16 b) { return {_mm512_xor_si512(a.v, b.v)}; }
TENON_INLINE M16 operator==(I16 a, I16 b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
template <int n>
TENON_INLINE I16 shift_left(I16 a) { return {_mm512_maskz_slli_epi32(0xffff, a.v, n)}; }
template <int n>
TENON_INLINE I16 shift_right(I16 a) { return {_mm512_maskz_srli_epi32(0xffff, a.v, n)}; }
TENON_INLINE F16 pow2(I16 n) { return from_bits(shift_left<23>(n + set1_int(127))); }

TENON_INLINE F16 load_partial(const bfloat16* p, Index count) {
  const __m256i x = _mm256_maskz_loadu_epi16(first_lanes(count), p);
  return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, x), 16))};
}
TENON_INLINE void store_partial(bfloat16* p, F16 x, Index count) {
  const I16 u = bits(x);
  const I16 rounded = shift_right<16>(u + set1_int(0x7fff) + (shift_right<16>(u) & set1_int(1)));
  const I16 nan = shift_right<16>(u) | set1_int(0x40);
  const __m512i y = _mm512_mask_blend_epi32((x == x).v, nan.v, rounded.v);
  _mm256_mask_storeu_epi16(p, first_lanes(count), _mm512_maskz_cvtepi32_epi16(0xffff, y));
}
TENON_INLINE F16 load(const bfloat16* p) { return load_partial(p, 16); }
TENON_INLINE void store(bfloat16* p, F16 x) { store_partial(p, x, 16); }
TENON_INLINE F16 load_partial(const half* p, Index count) {
  return {_mm512_maskz_cvtph_ps(0xffff, _mm256_maskz_loadu_epi16(first_lanes(count), p))};
}
TENON_INLINE void store_partial(half* p, F16 x, Index count) {
  _mm256_mask_storeu_epi16(p, first_lanes(count), _mm512_maskz_cvtps_ph(0xffff, x.v, 0x08));
}
TENON_INLINE F16 load(const half* p) { return load_partial(p, 16); }
TENON_INLINE void store(half* p, F16 x) { store_partial(p, x, 16); }

TENON_INLINE float reduce_add(F16 a) {
  const __m256 y = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, a.v, 0), _mm512_maskz_extractf32x8_ps(0xff, a.v, 1));
  const __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  const __m128 s = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
TENON_INLINE float reduce_max(F16 a) {
  const __m256 y = _mm256_max_ps(_mm512_maskz_extractf32x8_ps(0xff, a.v, 0), _mm512_maskz_extractf32x8_ps(0xff, a.v, 1));
  const __m128 x = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  const __m128 s = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
TENON_INLINE float reduce_min(F16 a) { return -reduce_max(-a); }

TENON_INLINE void transpose(F16 (&rows)[16]) {
  __m512 t[16];
  TENON_UNROLL
  for (int i = 0; i < 16; i += 4) {
    const __m512 a = _mm512_maskz_unpacklo_ps(0xffff, rows[i].v, rows[i + 1].v);
    const __m512 b = _mm512_maskz_unpackhi_ps(0xffff, rows[i].v, rows[i + 1].v);
    const __m512 c = _mm512_maskz_unpacklo_ps(0xffff, rows[i + 2].v, rows[i + 3].v);
    const __m512 d = _mm512_maskz_unpackhi_ps(0xffff, rows[i + 2].v, rows[i + 3].v);
    t[i] = _mm512_maskz_shuffle_ps(0xffff, a, c, 0x44);
    t[i + 1] = _mm512_maskz_shuffle_ps(0xffff, a, c, 0xee);
    t[i + 2] = _mm512_maskz_shuffle_ps(0xffff, b, d, 0x44);
    t[i + 3] = _mm512_maskz_shuffle_ps(0xffff, b, d, 0xee);
  }
  // t[4 r + c] holds, in its 128-bit part p, the column 4 p + c of rows 4 r .. 4 r + 3.
  TENON_UNROLL
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_maskz_shuffle_f32x4(0xffff, t[c], t[4 + c], 0x88);
    const __m512 b = _mm512_maskz_shuffle_f32x4(0xffff, t[8 + c], t[12 + c], 0x88);
    const __m512 d = _mm512_maskz_shuffle_f32x4(0xffff, t[c], t[4 + c], 0xdd);
    const __m512 e = _mm512_maskz_shuffle_f32x4(0xffff, t[8 + c], t[12 + c], 0xdd);
    rows[c].v = _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0x88);
    rows[4 + c].v = _mm512_maskz_shuffle_f32x4(0xffff, d, e, 0x88);
    rows[8 + c].v = _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0xdd);
    rows[12 + c].v = _mm512_maskz_shuffle_f32x4(0xffff, d, e, 0xdd);
  }
}
