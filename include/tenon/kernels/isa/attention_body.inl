// Attention of one head on one instruction set. See attention.hpp.
//
// Scores are kept transposed, [key, strip of 32 queries], and so are the sums over keys, [d, strip]: softmax then runs
// down the lanes without a horizontal sum, no head width is filled up to whole vectors, and the strip, not the tile,
// decides which keys take part, so that all instruction sets add the same terms. Scores are in units of log 2.
namespace attention {

using detail::HeadTask;
using detail::key_block_count;
using detail::key_block_max;
inline constexpr Index strip = detail::attention_strip;

#if defined(TENON_IN_AVX512)
inline constexpr int tile_rows = 12, tile_vectors = 3;  // at most 24 accumulators
#elif defined(TENON_IN_GENERIC)
inline constexpr int tile_rows = 2, tile_vectors = 1;  // nothing is gained by more, but compile time lost
#else
inline constexpr int tile_rows = 6, tile_vectors = 1;
#endif

TENON_INLINE F16 multiply_add(F16 x, F16 y, F16 sum) { return fma(x, y, sum); }
#include <tenon/kernels/isa/attention_tile.inl>

/// out [d, ld]: the first `count` rows of x as columns; columns are filled up with zeros to a multiple of 16.
inline void pack_transposed(const float* const* rows, Index count, Index d, float* out, Index ld) {
  for (Index r = 0; r < count; r += 16)
    for (Index c = 0; c < d; c += 16) {
      F16 block[16];
      for (Index i = 0; i < 16; ++i)
        block[i] = r + i < count ? (c + 16 <= d ? load(rows[r + i] + c) : load_partial(rows[r + i] + c, d - c)) : zero();
      transpose(block);
      for (Index i = 0; i < 16 && c + i < d; ++i) store(out + (c + i) * ld + r, block[i]);
    }
}
/// The reverse: rows 0 .. count of out, ld_out apart, are the columns of x [d, strip], each times its scale if there is one.
inline void unpack_transposed(const float* x, Index count, Index d, const float* scale, float* out, Index ld_out) {
  for (Index r = 0; r < count; r += 16) {
    const F16 factor = scale == nullptr ? set1(1.0f) : load(scale + r);
    for (Index c = 0; c < d; c += 16) {
      F16 block[16];
      for (Index i = 0; i < 16; ++i) block[i] = c + i < d ? load(x + (c + i) * strip + r) * factor : zero();
      transpose(block);
      for (Index i = 0; i < 16 && r + i < count; ++i) {
        float* row = out + (r + i) * ld_out + c;
        c + 16 <= d ? store(row, block[i]) : store_partial(row, block[i], d - c);
      }
    }
  }
}
/// out [count, ld]: the rows, filled up with zeros to ld, a multiple of 16.
inline void pack_rows(const float* const* rows, Index count, Index d, float* out, Index ld) {
  for (Index r = 0; r < count; ++r)
    for (Index c = 0; c < ld; c += 16)
      store(out + r * ld + c, c + 16 <= d ? load(rows[r] + c) : load_partial(rows[r] + c, d - c));
}

/// Pointers to the rows `first` .. `first + count` of x.
inline void point(const float** rows, const float* x, Index ld, Index first, Index count) {
  for (Index i = 0; i < count; ++i) rows[i] = x + (first + i) * ld;
}
/// Pointers to keys (or values) `first` .. `first + count`, of which the first `prefix` lie elsewhere.
inline void point(const float** rows, const float* x, Index ld, const float* head, Index ld_head, Index prefix, Index first,
                  Index count) {
  for (Index i = 0; i < count; ++i) {
    const Index j = first + i;
    rows[i] = j < prefix ? head + j * ld_head : x + (j - prefix) * ld;
  }
}

TENON_INLINE F16 lane_numbers() {
  const float numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load(numbers);
}

/// The keys of a strip: all queries see those before `common`, none those from `end` on, query i those up to prefix + i
/// in between.
struct Visible {
  Index common, end;
};
inline Visible visible(const HeadTask& h, Index query, Index count) {
  if (!h.causal) return {h.keys, h.keys};
  const Index first = h.prefix + query + 1, last = h.prefix + query + count;
  return {first < h.keys ? first : h.keys, last < h.keys ? last : h.keys};
}
/// Whether the queries from `query` on see key `key`.
TENON_INLINE M16 sees(const HeadTask& h, Index query, Index key) {
  return set1(static_cast<float>(key - h.prefix - query)) <= lane_numbers();
}

TENON_INLINE F16 log2_scale(const HeadTask& h) { return set1(h.scale) * set1(1.44269502f); }

/// Distance of two lines of packed keys: an odd number of cache lines.
inline Index keys_stride(Index keys) { return 16 * (((keys < key_block_max ? keys : key_block_max) + 15) / 16 | 1); }

// Lanes of one float. The same names, for pairs of bfloat16, are in attention_narrow.inl.
enum : Index { lane_elements = 1 };
TENON_INLINE F16 power_of_two(F16 x) { return exp2_nonpositive(x); }
/// The weights of keys k and k + 1 (if there is one), of 16 queries.
TENON_INLINE void store_weights(float* scores, Index k, Index count, const F16 (&p)[2]) {
  store(scores + strip * k, p[0]);
  if (k + 1 < count) store(scores + strip * (k + 1), p[1]);
}
inline void pack_lanes(const float** rows, Index count, Index d, float*, float* out, Index ld) { pack_transposed(rows, count, d, out, ld); }
inline void pack_values(const float** rows, Index count, Index d, float* out, Index ld) { pack_rows(rows, count, d, out, ld); }
#include <tenon/kernels/isa/attention_forward.inl>

/// delta [queries] = sum over d of out dout.
TENON_NOINLINE inline void delta(const HeadTask& h) {
  for (Index i = 0; i < h.queries; ++i) {
    F16 sum = zero();
    for (Index c = 0; c < h.d; c += 16)
      sum = fma(load_partial(h.out + i * h.stride_out + c, h.d - c), load_partial(h.dout + i * h.stride_out + c, h.d - c), sum);
    h.delta[i] = reduce_add(sum);
  }
}

/// Writes the gradients of one key; null means 0.
inline void put_key(const HeadTask& h, Index key, const float* dk, const float* dv) {
  const bool in_prefix = key < h.prefix;
  float* to_k = in_prefix ? h.dprefix_k : h.dk;
  float* to_v = in_prefix ? h.dprefix_v : h.dv;
  const Index row = in_prefix ? key : key - h.prefix;
  for (Index c = 0; c < h.d; c += 16) {
    if (to_k != nullptr)
      store_partial(to_k + row * (in_prefix ? h.stride_prefix : h.stride_k) + c, dk == nullptr ? zero() : load(dk + c), h.d - c);
    if (to_v != nullptr)
      store_partial(to_v + row * (in_prefix ? h.stride_prefix : h.stride_v) + c, dv == nullptr ? zero() : load(dv + c), h.d - c);
  }
}

/// Writes the weights p and the gradients ds of the scores of keys k and k + 1 (if there is one), of 16 queries from j on.
TENON_INLINE void store_slopes(float* scores, float* dscores, float*, Index k, Index j, Index count, const F16 (&p)[2], const F16 (&ds)[2]) {
  store_weights(scores + j, k, count, p);
  store_weights(dscores + j, k, count, ds);
}
/// Where store_slopes leaves ds with the keys as rows.
inline float* key_rows(float* dscores, float*) { return dscores; }
#include <tenon/kernels/isa/attention_backward.inl>

}  // namespace attention
