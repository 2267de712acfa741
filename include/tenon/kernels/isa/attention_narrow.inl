// Attention with products of bfloat16 pairs (vdpbf16ps); softmax and all sums are float32.
namespace attention {

using namespace avx512::attention;
enum : Index { lane_elements = 2 };

TENON_INLINE F16 multiply_add(F16 x, F16 y, F16 sum) {
  return {_mm512_dpbf16_ps(sum.v, __builtin_bit_cast(__m512bh, x.v), __builtin_bit_cast(__m512bh, y.v))};
}
/// 2^x for x <= 0 to 4e-6: the weights are rounded to bfloat16 anyway.
TENON_INLINE F16 power_of_two(F16 x) {
  const F16 magic = set1(12583039.0f);  // as exp2_nonpositive
  const F16 z = max(set1(-127.0f), x), shifted = z + magic, r = z - (shifted - magic);
  return polynomial(r, {1.0f, 0.693147182f, 0.240226477f, 0.0555036217f, 0.00961852632f}) * from_bits(shift_left<23>(bits(shifted)));
}
TENON_INLINE F16 pair(F16 low, F16 high) {
  const __m512i a = _mm512_maskz_cvtepu16_epi32(0xffff, __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(low.v)));
  const __m512i b = _mm512_maskz_cvtepu16_epi32(0xffff, __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(high.v)));
  return from_bits(I16{a} | shift_left<16>(I16{b}));
}
TENON_INLINE void store_weights(float* scores, Index k, Index, const F16 (&p)[2]) { store(scores + strip * (k / 2), pair(p[0], p[1])); }

/// out [(d + 1) / 2, ld]: pairs of the elements of a row, rows as columns. `spare` holds count rows of pairs.
inline void pack_lanes(const float** rows, Index count, Index d, float* spare, float* out, Index ld) {
  const Index width = detail::padded_width(d) / 2;
  for (Index r = 0; r < count; ++r) {
    float* to = spare + r * width;
    for (Index c = 0; c < d; c += 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + c / 2), __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(load_partial(rows[r] + c, d - c).v)));
    rows[r] = to;
  }
  pack_transposed(rows, count, (d + 1) / 2, out, ld);
}
/// out [(count + 1) / 2, ld]: pairs of rows, filled up with zeros.
inline void pack_values(const float** rows, Index count, Index d, float* out, Index ld) {
  for (Index r = 0; r < count; r += 2, out += ld)
    for (Index c = 0; c < d; c += 16)
      store(out + c, pair(load_partial(rows[r] + c, d - c), r + 1 < count ? load_partial(rows[r + 1] + c, d - c) : zero()));
}

/// p in pairs of queries, [key, strip / 2 of strip]; ds in pairs of keys, and in `more` in pairs of queries.
TENON_INLINE void store_slopes(float* scores, float* dscores, float* more, Index k, Index j, Index count, const F16 (&p)[2], const F16 (&ds)[2]) {
  TENON_UNROLL
  for (int e = 0; e < 2; ++e) {
    if (k + e == count) break;
    const Index at = strip * (k + e) + j / 2;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(scores + at), __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(p[e].v)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(more + at), __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(ds[e].v)));
  }
  store_weights(dscores + j, k, count, ds);
}
inline float* key_rows(float*, float* more) { return more; }

#include <tenon/kernels/isa/attention_tile.inl>
#include <tenon/kernels/isa/attention_forward.inl>
#include <tenon/kernels/isa/attention_backward.inl>

}  // namespace attention
