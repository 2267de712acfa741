/// The next 16 of `count` remaining floats; lanes past the end are 0.
TENON_INLINE F16 load_next(const float* p, Index count) { return count >= 16 ? load(p) : load_partial(p, count); }
TENON_INLINE void store_next(float* p, F16 x, Index count) { return count >= 16 ? store(p, x) : store_partial(p, x, count); }
/// Lane 0.
TENON_INLINE float first_lane(F16 x) {
  float lanes[16];
  store(lanes, x);
  return lanes[0];
}
/// The lanes below `count` of x, the others 0.
TENON_INLINE F16 keep_lanes(F16 x, Index count) {
  if (count >= 16) return x;
  float lanes[16] = {};
  store_partial(lanes, x, count);
  return load(lanes);
}

/// The sum of n floats: 16 lanes in order, folded 8, 4, 2, 1.
TENON_INLINE float sum_run(Index n, const float* x) {
  F16 total = zero();
  for (Index i = 0; i < n; i += 16) total = total + load_next(x + i, n - i);
  return reduce_add(total);
}
/// The sum of (x - center)^2, in the same order.
TENON_INLINE float squares_run(Index n, float center, const float* x) {
  F16 total = zero();
  const F16 c = set1(center);
  for (Index i = 0; i < n; i += 16) {
    F16 d = load_next(x + i, n - i) - c;
    if (n - i < 16) d = keep_lanes(d, n - i);
    total = fma(d, d, total);
  }
  return reduce_add(total);
}
/// y[i] += x[i].
TENON_NOINLINE inline void add_run(Index n, const float* x, float* y) {
  for (Index i = 0; i < n; i += 16) store_next(y + i, load_next(y + i, n - i) + load_next(x + i, n - i), n - i);
}
