// Products of narrow elements that share a 32-bit lane, two bfloat16 or four bytes: F16 carries the lanes' bits.
#if !defined(TENON_IN_AVX512BF16)
// The largest |x|, or NaN when an element is not finite.
TENON_NOINLINE inline float largest(const float* x, Index count) {
  F16 most = zero(), check = zero();
  for (Index i = 0; i < count; i += 16) {
    const F16 v = load_partial(x + i, count - i < 16 ? count - i : 16);
    most = max(most, abs(v));
    check = fma(v, zero(), check);  // infinity times 0 is NaN
  }
  return reduce_max(most) + reduce_add(check);
}
#endif

// On AVX-512 without BF16 and VNNI instructions the AVX2 copy runs.
#if !defined(TENON_IN_AVX512) || defined(TENON_IN_AVX512BF16) || defined(TENON_STATIC_ISA)
struct Brain {  // sum += x[0] w[0] + x[1] w[1], bfloat16
  enum : int { integers = 0 };
};
struct Bytes {  // sum (int32) += x[0] w[0] + ... + x[3] w[3], x unsigned, w signed
  enum : int { integers = 1 };
};
TENON_INLINE F16 scaled(Bytes, F16 sum, F16 scale) { return to_float(bits(sum)) * scale; }

#if defined(TENON_IN_AVX512BF16)
TENON_INLINE F16 dot(Brain, F16 x, F16 w, F16 sum) {
  return {_mm512_dpbf16_ps(sum.v, __builtin_bit_cast(__m512bh, x.v), __builtin_bit_cast(__m512bh, w.v))};
}
TENON_INLINE F16 dot(Bytes, F16 x, F16 w, F16 sum) {
  return from_bits({_mm512_dpbusd_epi32(bits(sum).v, bits(x).v, bits(w).v)});
}
TENON_INLINE void store_lanes(Brain, void* p, F16 x) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(x.v)));
}
#else
TENON_INLINE F16 dot(Brain, F16 x, F16 w, F16 sum) {
  const I16 a = bits(x), b = bits(w), high = set1_int(-65536);
  sum = fma(from_bits(shift_left<16>(a)), from_bits(shift_left<16>(b)), sum);
  return fma(from_bits(a & high), from_bits(b & high), sum);
}
TENON_INLINE void store_lanes(Brain, void* p, F16 x) {
  bfloat16 lanes[16];
  store(lanes, x);
  __builtin_memcpy(p, lanes, sizeof lanes);
}
#if defined(TENON_IN_AVX512)
TENON_INLINE F16 dot(Bytes, F16 x, F16 w, F16 sum) {
  const __m512i a = bits(x).v, b = bits(w).v, low = _mm512_set1_epi16(0x00ff);
  const __m512i even = _mm512_madd_epi16(_mm512_and_si512(a, low), _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8));
  const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(a, 8), _mm512_srai_epi16(b, 8));
  return from_bits(bits(sum) + I16{even} + I16{odd});
}
#elif defined(TENON_IN_AVX2)
TENON_INLINE __m256i dot_bytes(__m256i a, __m256i b) {
  const __m256i low = _mm256_set1_epi16(0x00ff);
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(a, low), _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
  return _mm256_add_epi32(even, _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8)));
}
TENON_INLINE F16 dot(Bytes, F16 x, F16 w, F16 sum) {
  const I16 a = bits(x), b = bits(w);
  return from_bits(bits(sum) + I16{{dot_bytes(a.v[0], b.v[0]), dot_bytes(a.v[1], b.v[1])}});
}
#elif defined(TENON_IN_NEON)
TENON_INLINE int32x4_t add_products(int16x8_t a, int16x8_t b, int32x4_t sum) {
  return vaddq_s32(sum, vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b)));
}
TENON_INLINE F16 dot(Bytes, F16 x, F16 w, F16 sum) {
  I16 a = bits(x), b = bits(w), c = bits(sum);
  TENON_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint16x8_t u = vreinterpretq_u16_s32(a.v[i]);
    const int16x8_t s = vreinterpretq_s16_s32(b.v[i]);
    c.v[i] = add_products(vreinterpretq_s16_u16(vandq_u16(u, vdupq_n_u16(0x00ff))), vshrq_n_s16(vshlq_n_s16(s, 8), 8), c.v[i]);
    c.v[i] = add_products(vreinterpretq_s16_u16(vshrq_n_u16(u, 8)), vshrq_n_s16(s, 8), c.v[i]);
  }
  return from_bits(c);
}
#else
TENON_INLINE F16 dot(Bytes, F16 x, F16 w, F16 sum) {
  std::uint8_t a[64];
  std::int8_t b[64];
  std::int32_t c[16];
  __builtin_memcpy(a, &x, sizeof a);
  __builtin_memcpy(b, &w, sizeof b);
  __builtin_memcpy(c, &sum, sizeof c);
  for (int i = 0; i < 64; ++i) c[i / 4] += a[i] * b[i];
  __builtin_memcpy(&sum, c, sizeof c);
  return sum;
}
#endif
#endif

// 16 bytes at p = the lanes of x, each within 0..255.
TENON_INLINE void store_lanes(Bytes, void* p, I16 x) {
#if defined(TENON_IN_AVX512)
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(0xffff, x.v));
#elif defined(TENON_IN_AVX2)
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(x.v[0], x.v[1]), 0xd8);
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
#else
  std::int32_t lanes[16];
  std::uint8_t bytes[16];
  __builtin_memcpy(lanes, &x, sizeof lanes);
  for (int i = 0; i < 16; ++i) bytes[i] = static_cast<std::uint8_t>(lanes[i]);
  __builtin_memcpy(p, bytes, sizeof bytes);
#endif
}

// lanes = x [count] rounded to bfloat16 (pairs), zero padded to a multiple of 16 elements.
TENON_NOINLINE inline void round_row(const float* x, Index count, float* lanes) {
  for (Index i = 0; i < count; i += 16)
    store_lanes(Brain{}, lanes + i / 2, count - i >= 16 ? load(x + i) : load_partial(x + i, count - i));
}
// lanes = x [count] / scale rounded, plus 128, as bytes (fours); the padding to a multiple of 16 elements is 128.
TENON_NOINLINE inline void quantize_row(const float* x, Index count, float inverse_scale, float* lanes) {
  const F16 factor = set1(inverse_scale);
  for (Index i = 0; i < count; i += 16) {
    const F16 v = count - i >= 16 ? load(x + i) : load_partial(x + i, count - i);
    store_lanes(Bytes{}, lanes + i / 4, to_int(v * factor) + set1_int(128));
  }
}

#if defined(TENON_IN_AVX512BF16)
#include <tenon/kernels/isa/tile.inl>
#endif

// Two registers of each panel line and of each row are held besides the sums where the elements must be widened.
#if defined(TENON_IN_AVX512)
enum : int { narrow_rows = tile_rows };
#else
enum : int { narrow_rows = tile_rows < 4 ? tile_rows : 4 };
#endif

// The stretches before p.narrow_count hold lanes of that kind; those from there on hold floats.
template <class Lane>
TENON_INLINE void multiply_lanes(const detail::Product<float>& p) {
  alignas(64) float buffer[detail::block_rows_max * buffer_columns];
  const Index lines = lines_of(p);
  for (Index panel = p.first_panel; panel < p.last_panel; panel += p.gate != 0 ? 1 : tile_panels) {
    const Pass pass{panel, 0, p.narrow_count, lines, buffer, false};
    if (p.gate != 0)
      run_gated<Lane, narrow_rows>(p, pass);
    else
      run<Lane, narrow_rows, tile_panels>(p, pass);
    if (p.narrow_count < p.stretch_count) multiply_group(p, panel, p.narrow_count, lines, buffer);
  }
}
TENON_ON_CALL TENON_NOINLINE void multiply_brain(const detail::Product<float>& p) { multiply_lanes<Brain>(p); }
TENON_ON_CALL TENON_NOINLINE void multiply_bytes(const detail::Product<float>& p) { multiply_lanes<Bytes>(p); }
TENON_ON_CALL void use_narrow(detail::ProductKernels<float>& out) {
  out.multiply_narrow[0] = &multiply_brain<>;
  out.multiply_narrow[1] = &multiply_bytes<>;
  out.round_row = &round_row;
  out.quantize_row = &quantize_row;
  out.largest = &largest;
}
#endif
