// Backward of attention, for one kind of lane. Included by attention_body.inl and attention_narrow.inl, which say what
// attention_forward.inl asks for, and how weights and slopes become lanes (store_slopes, key_rows).

/// Sixteen queries from i + j on: scores become p = exp(scale s - lse), dscores scale p (dp - delta), as store_slopes lays them out.
TENON_NOINLINE inline void soften_backward(const HeadTask& h, Index i, Index j, Index first_key, Index count, Index common, Index n,
                                           float* scores, float* dscores, float* more) {
  const F16 scale = set1(h.scale), log2 = log2_scale(h);
  const F16 minus_lse = load_partial(h.lse + i + j, n) * set1(-1.44269502f), delta = load_partial(h.delta + i + j, n);
  for (Index k = 0; k < count; k += 2) {
    F16 p[2] = {zero(), zero()}, ds[2] = {zero(), zero()};
    TENON_UNROLL
    for (int e = 0; e < 2; ++e) {
      if (k + e == count) break;
      const Index at = strip * (k + e) + j;
      p[e] = power_of_two(fma(load(scores + at), log2, minus_lse));
      if (first_key + k + e >= common) p[e] = select(sees(h, h.query + i + j, first_key + k + e), p[e], zero());
      ds[e] = p[e] * (load(dscores + at) - delta) * scale;
    }
    store_slopes(scores, dscores, more, k, j, count, p, ds);
  }
}

TENON_NOINLINE inline void backward(const HeadTask& h) {
  const Index width = detail::padded_width(h.d), keys_ld = keys_stride(h.keys), depth = (h.d + lane_elements - 1) / lane_elements;
  float* kt = h.scratch;                                 // [depth, keys_ld]
  float* vt = kt + h.d * keys_ld;                        // [depth, keys_ld]
  float* k = vt + h.d * keys_ld;                         // [key_block_max / lane_elements, width]
  float* spare = k + key_block_max / lane_elements * width;
  float* qt = k + key_block_max * width;                 // [depth, strip]; then dq [d, strip]
  float* dot = qt + h.d * strip;                         // [depth, strip], dout
  float* q = dot + h.d * strip;                          // [strip / lane_elements, width]
  float* dout = q + strip * width;                       // [strip / lane_elements, width]
  float* scores = dout + strip * width;                  // [key_block_max, strip]
  float* dscores = scores + key_block_max * strip;       // [key_block_max, strip]
  float* more = dscores + key_block_max * strip;         // [key_block_max, strip]
  float* dk = more + key_block_max * strip;              // [key_block_max, width]
  float* dv = dk + key_block_max * width;                // [key_block_max, width]
  float* const slopes = key_rows(dscores, more);
  const float* rows[key_block_max];

  const Index keys = h.last_key < h.keys ? h.last_key : h.keys;
  const bool want_dk = h.dk != nullptr || h.dprefix_k != nullptr, want_dv = h.dv != nullptr || h.dprefix_v != nullptr;
  if (h.dq != nullptr && h.keys == 0)
    for (Index i = 0; i < h.queries; ++i)
      for (Index c = 0; c < h.d; ++c) h.dq[i * h.stride_q + c] = 0.0f;
  for (Index first = h.first_key, count; first < keys; first += count) {
    count = key_block_count(keys - first);
    point(rows, h.v, h.stride_v, h.prefix_v, h.stride_prefix, h.prefix, first, count);
    pack_lanes(rows, count, h.d, spare, vt, keys_ld);
    point(rows, h.k, h.stride_k, h.prefix_k, h.stride_prefix, h.prefix, first, count);
    if (h.dq != nullptr) pack_values(rows, count, h.d, k, width);
    pack_lanes(rows, count, h.d, spare, kt, keys_ld);
    Index done = 0;  // keys of this block whose dk and dv have begun
    for (Index i = 0; i < h.queries; i += strip) {
      const Index n = h.queries - i < strip ? h.queries - i : strip;
      const Visible seen = visible(h, h.query + i, n);
      if (seen.end <= first) continue;
      const Index used = seen.end - first < count ? seen.end - first : count, lanes = (n + 15) / 16 * 16;
      point(rows, h.q, h.stride_q, i, n);
      if (want_dk) pack_values(rows, n, h.d, q, width);
      pack_lanes(rows, n, h.d, spare, qt, strip);
      point(rows, h.dout, h.stride_out, i, n);
      if (want_dv) pack_values(rows, n, h.d, dout, width);
      pack_lanes(rows, n, h.d, spare, dot, strip);
      multiply<false>({used, lanes, depth, kt, keys_ld, qt, strip, 16, scores, strip, false, nullptr});
      multiply<false>({used, lanes, depth, vt, keys_ld, dot, strip, 16, dscores, strip, false, nullptr});
      for (Index j = 0; j < n; j += 16) soften_backward(h, i, j, first, used, seen.common, n - j, scores, dscores, more);
      if (h.dq != nullptr) {
        if (first > 0) {
          point(rows, h.dq, h.stride_q, i, n);
          pack_transposed(rows, n, h.d, qt, strip);
        }
        multiply<false>({h.d, lanes, (used + lane_elements - 1) / lane_elements, k, width, dscores, strip, 16, qt, strip, first > 0, nullptr});
        unpack_transposed(qt, n, h.d, nullptr, h.dq + i * h.stride_q, h.stride_q);
      }
      const Index old = done < used ? done : used, pairs = (n + lane_elements - 1) / lane_elements;  // under a causal mask later strips reach further keys
      if (want_dk) {
        multiply<true>({old, width, pairs, slopes, 1, q, width, 16, dk, width, true, nullptr});
        multiply<true>({used - old, width, pairs, slopes + old * strip, 1, q, width, 16, dk + old * width, width, false, nullptr});
      }
      if (want_dv) {
        multiply<true>({old, width, pairs, scores, 1, dout, width, 16, dv, width, true, nullptr});
        multiply<true>({used - old, width, pairs, scores + old * strip, 1, dout, width, 16, dv + old * width, width, false, nullptr});
      }
      if (used > done) done = used;
    }
    for (Index r = 0; r < count; ++r) put_key(h, first + r, r < done ? dk + r * width : nullptr, r < done ? dv + r * width : nullptr);
  }
  for (Index key = h.first_key < keys ? keys : h.first_key; key < h.last_key; ++key) put_key(h, key, nullptr, nullptr);
}
