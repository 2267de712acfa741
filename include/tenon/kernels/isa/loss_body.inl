// Rows of cross-entropy, and runs of mean squared error.
/// -log softmax(z)[target] with label smoothing; the log-sum-exp goes to `log_sum`.
TENON_NOINLINE inline float cross_entropy_row(Index n, float smooth, Index target, const float* z, float* log_sum) {
  F16 best = set1(z[0]);
  Index i = 0;
  for (; i + 16 <= n; i += 16) best = max(best, load(z + i));
  float top = reduce_max(best);
  for (; i < n; ++i) top = z[i] > top ? z[i] : top;
  F16 mass = zero(), sum = zero();
  for (i = 0; i < n; i += 16) {
    const Index rest = n - i;
    const F16 d = load_next(z + i, rest) - set1(top), e = exp_nonpositive(d);
    mass = mass + (rest >= 16 ? e : keep_lanes(e, rest));
    sum = sum + (rest >= 16 ? d : keep_lanes(d, rest));
  }
  const float log_mass = first_lane(log(set1(reduce_add(mass))));
  *log_sum = top + log_mass;
  const float hit = log_mass - (z[target] - top);
  if (smooth == 0.0f) return hit;
  const F16 even = set1(log_mass - reduce_add(sum) / static_cast<float>(n));
  return first_lane(fma(set1(1.0f - smooth), set1(hit), set1(smooth) * even));
}
/// d = factor (softmax(z) - spread - hit at target).
TENON_NOINLINE inline void cross_entropy_row_backward(Index n, float factor, float spread, float hit, Index target, const float* z, float log_sum, float* d) {
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    store_next(d + i, set1(factor) * (exp(load_next(z + i, rest) - set1(log_sum)) - set1(spread)), rest);
  }
  d[target] -= factor * hit;
}

TENON_NOINLINE inline float squared_distance(Index n, const float* a, const float* b) {
  F16 total = zero();
  for (Index i = 0; i < n; i += 16) {
    const F16 d = load_next(a + i, n - i) - load_next(b + i, n - i);
    total = fma(d, d, total);
  }
  return reduce_add(total);
}
TENON_NOINLINE inline void difference_run(Index n, float factor, const float* a, const float* b, float* da, float* db) {
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    const F16 d = set1(factor) * (load_next(a + i, rest) - load_next(b + i, rest));
    if (da != nullptr) store_next(da + i, d, rest);
    if (db != nullptr) store_next(db + i, -d, rest);
  }
}
