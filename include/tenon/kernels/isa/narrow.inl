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

#if defined(TENON_IN_AVX512)
// rows [8] of 8 pairs of lanes (u64) = their transpose, the two bfloat16 in the middle of each u64 swapped on the way.
TENON_INLINE void turn_pairs(__m512i (&rows)[8]) {
  const __m512i swap = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0f0e0b0a0d0c0908, 0x0706030205040100));
  __m512i low[4], high[4];
  TENON_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m512i a = _mm512_shuffle_epi8(rows[2 * i], swap), b = _mm512_shuffle_epi8(rows[2 * i + 1], swap);
    low[i] = _mm512_unpacklo_epi64(a, b);
    high[i] = _mm512_unpackhi_epi64(a, b);
  }
  TENON_UNROLL
  for (int odd = 0; odd < 2; ++odd) {
    const __m512i* from = odd != 0 ? high : low;
    const __m512i a = _mm512_shuffle_i64x2(from[0], from[1], 0x88), b = _mm512_shuffle_i64x2(from[0], from[1], 0xdd);
    const __m512i c = _mm512_shuffle_i64x2(from[2], from[3], 0x88), d = _mm512_shuffle_i64x2(from[2], from[3], 0xdd);
    rows[odd] = _mm512_shuffle_i64x2(a, c, 0x88);
    rows[odd + 2] = _mm512_shuffle_i64x2(b, d, 0x88);
    rows[odd + 4] = _mm512_shuffle_i64x2(a, c, 0xdd);
    rows[odd + 6] = _mm512_shuffle_i64x2(b, d, 0xdd);
  }
}
TENON_NOINLINE inline void gather_pairs(const detail::Operand<float>& b, Index panel, Index count, Index first, Index last, float* out) {
  for (Index l = first; l < last; l += 8) {  // eight pairs of lines lie in one panel of the operand
    const float* from = b.data + l / 8 * b.ld + panel * 128;
    float* to = out + (l - first) * 16;
    for (Index p = 0; p < count; ++p, from += 128, to += (last - first) * 16) {
      const Index columns = b.n - (panel + p) * 16, held = columns < 16 ? (columns + 1) / 2 : 8;
      __m512i rows[8];
      if (held == 8) {
        TENON_UNROLL
        for (int i = 0; i < 8; ++i) rows[i] = _mm512_loadu_si512(from + 16 * i);
      } else {
        for (Index i = 0; i < 8; ++i) rows[i] = i < held ? _mm512_loadu_si512(from + 16 * i) : _mm512_setzero_si512();
      }
      TENON_UNROLL
      for (int i = 0; i < 8; ++i) __builtin_prefetch(from + 2 * b.ld + 16 * i);
      turn_pairs(rows);
      if (last - l >= 8) {
        TENON_UNROLL
        for (int i = 0; i < 8; ++i) _mm512_storeu_si512(to + 16 * i, rows[i]);
      } else {
        for (Index i = 0; i < last - l; ++i) _mm512_storeu_si512(to + 16 * i, rows[i]);
      }
    }
  }
}
#else
TENON_NOINLINE inline void gather_pairs(const detail::Operand<float>& b, Index panel, Index count, Index first, Index last, float* out) {
  for (Index p = panel; p < panel + count; ++p) {
    const Index columns = b.n - p * 16 < 16 ? b.n - p * 16 : 16;
    for (Index l = first; l < last; ++l, out += 16) {
      const float* lanes = b.data + l / 8 * b.ld + p * 128 + l % 8 * 2;
      for (Index j = 0; j < 16; j += 2) {
        std::uint32_t pair[2] = {};  // columns j and j + 1 of lines 2 l and 2 l + 1
        if (j < columns) __builtin_memcpy(pair, lanes + j * 8, sizeof pair);
        const std::uint32_t turned[2] = {(pair[0] & 0xffffu) | pair[1] << 16, pair[0] >> 16 | (pair[1] & 0xffff0000u)};
        __builtin_memcpy(out + j, turned, sizeof turned);
      }
    }
  }
}
#endif

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
    fetch_terms(p, panel);
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
  out.gather_pairs = &gather_pairs;
}
#endif
