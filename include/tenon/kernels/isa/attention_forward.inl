// Softmax and forward of attention, for one kind of lane. Included by attention_body.inl and attention_narrow.inl, which say
// how many elements a lane holds (lane_elements), how keys, queries (pack_lanes), values (pack_values) and weights
// (store_weights) become lanes, and what power_of_two is.

/// Sixteen lanes of scores [count, strip]; softmax statistics m and l of the keys so far move on; scores become
/// 2^(scale s - m), stored as lanes; alpha receives 2^(m before - m), by which everything summed before must shrink.
TENON_NOINLINE inline void soften(const HeadTask& h, Index query, Index first_key, Index count, Index common, float* scores,
                                  float* m, float* l, float* alpha) {
  const F16 lowest = set1(-__builtin_inff()), scale = log2_scale(h);
  F16 top = lowest;
  const Index open = common > first_key ? (common - first_key < count ? common - first_key : count) : 0;
  for (Index k = 0; k < open; ++k) top = max(top, load(scores + strip * k));
  for (Index k = open; k < count; ++k) {
    const F16 x = select(sees(h, query, first_key + k), load(scores + strip * k), lowest);
    store(scores + strip * k, x);
    top = max(top, x);
  }
  const bool fresh = first_key == 0;
  const F16 before = fresh ? lowest : load(m), now = max(before, top * scale);
  F16 sum[2] = {zero(), zero()};
  for (Index k = 0; k < count; k += 2) {
    F16 p[2] = {zero(), zero()};
    TENON_UNROLL
    for (int i = 0; i < 2; ++i) {
      if (k + i == count) break;
      p[i] = power_of_two(fma(load(scores + strip * (k + i)), scale, -now));
      sum[i] = sum[i] + p[i];
    }
    store_weights(scores, k, count, p);
  }
  const F16 total = sum[0] + sum[1], shrink = exp2_nonpositive(before - now);
  store(alpha, shrink);
  store(m, now);
  store(l, fresh ? total : fma(load(l), shrink, total));
}

/// Queries of a strip of n, beyond whole vectors, that are cheaper as rows than as a vector of lanes most of which are empty;
/// the chains of their sums are the same.
inline Index few_queries(Index n, bool once) { return once && n % 16 <= detail::few_max ? n % 16 : 0; }

TENON_NOINLINE inline void forward(const HeadTask& h) {
  const Index width = detail::padded_width(h.d), keys_ld = keys_stride(h.keys), depth = (h.d + lane_elements - 1) / lane_elements;
  float* kt = h.scratch;                                 // [depth, keys_ld]
  float* v = kt + h.d * keys_ld;                         // [key_block_max / lane_elements, width]
  float* spare = v + key_block_max / lane_elements * width;
  float* qt = v + key_block_max * width;                 // [depth, strip]
  float* scores = qt + h.d * strip;                      // [key_block_max, strip]
  float* turned = scores + key_block_max * strip;        // [few_max, keys_ld]
  float* m = turned + detail::few_max * detail::keys_stride_max;  // [queries]
  float* l = m + h.chunk;                                // [queries]
  float* sums = l + h.chunk;                             // [strips][d, strip]
  const float* rows[key_block_max];
  float alpha[strip];

  const Index keys = h.keys;
  const bool once = keys <= key_block_max;  // no rescaling
  if (keys == 0) {
    for (Index i = 0; i < h.queries; ++i) {
      for (Index c = 0; c < h.d; ++c) h.out[i * h.stride_out + c] = 0.0f;
      h.lse[i] = -__builtin_inff();
    }
    return;
  }
  for (Index first = 0, count; first < keys; first += count) {
    count = key_block_count(keys - first);
    if (h.causal && first >= h.prefix + h.query + h.queries) break;
    point(rows, h.k, h.stride_k, h.prefix_k, h.stride_prefix, h.prefix, first, count);
    pack_lanes(rows, count, h.d, spare, kt, keys_ld);
    point(rows, h.v, h.stride_v, h.prefix_v, h.stride_prefix, h.prefix, first, count);
    pack_values(rows, count, h.d, v, width);
    for (Index i = 0; i < h.queries; i += strip) {
      const Index n = h.queries - i < strip ? h.queries - i : strip;
      const Visible seen = visible(h, h.query + i, n);
      if (seen.end <= first) continue;
      const Index used = seen.end - first < count ? seen.end - first : count;
      point(rows, h.q, h.stride_q, i, n);
      pack_lanes(rows, n, h.d, spare, qt, strip);
      const Index few = few_queries(n, once), lanes = (n - few + 15) / 16 * 16;
      multiply<false>({used, lanes, depth, kt, keys_ld, qt, strip, 16, scores, strip, false, nullptr});
      if (few > 0) {
        multiply<false>({few, used, depth, qt + lanes, strip, kt, keys_ld, 16, turned, keys_ld, false, nullptr});
        point(rows, turned, keys_ld, 0, few);
        pack_transposed(rows, few, used, scores + lanes, strip);
      }
      for (Index j = 0; j < n; j += 16)
        soften(h, h.query + i + j, first, used, seen.common, scores + j, m + i + j, l + i + j, alpha + j);
      const Index pairs = (used + lane_elements - 1) / lane_elements;
      multiply<false>({h.d, lanes, pairs, v, width, scores, strip, 16, sums + i * h.d, strip, first > 0, alpha});
      float* rest = h.out + (i + lanes) * h.stride_out;
      if (few > 0) multiply<false>({few, h.d, pairs, scores + lanes, strip, v, width, 16, rest, h.stride_out, false, nullptr});
    }
  }
  for (Index i = 0; i < h.queries; i += strip) {
    const Index n = h.queries - i < strip ? h.queries - i : strip;
    for (Index j = 0; j < n; j += 16) {
      const F16 total = load(l + i + j);
      store(l + i + j, set1(1.0f) / total);
      store_partial(h.lse + i + j, fma(load(m + i + j), set1(0.693147182f), log(total)), n - j);
    }
    const Index few = few_queries(n, once);
    unpack_transposed(sums + i * h.d, n - few, h.d, l + i, h.out + i * h.stride_out, h.stride_out);
    for (Index j = n - few; j < n; ++j)
      for (Index c = 0; c < h.d; c += 16) {
        float* row = h.out + (i + j) * h.stride_out + c;
        store_partial(row, load_partial(row, h.d - c) * set1(l[i + j]), h.d - c);
      }
  }
}
