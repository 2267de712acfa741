// One row of softmax or log-softmax. See softmax.hpp.
namespace softmax {

TENON_INLINE F16 lane_numbers() {
  const float numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load(numbers);
}
/// The next 16 floats; those past the end are `rest`.
TENON_INLINE F16 next(const float* p, Index count, F16 rest) {
  return count >= 16 ? load(p) : select(lane_numbers() < set1(static_cast<float>(count)), load_partial(p, count), rest);
}
template <bool logarithm>
TENON_NOINLINE inline void forward(Index n, const float* x, const float*, float* y) {
  const F16 lowest = set1(-__builtin_inff());
  F16 top = lowest, sum = zero();
  for (Index i = 0; i < n; i += 16) top = max(next(x + i, n - i, lowest), top);
  const F16 m = set1(reduce_max(top));
  for (Index i = 0; i < n; i += 16) {
    const F16 z = next(x + i, n - i, lowest) - m, p = exp_nonpositive(z);
    sum = sum + p;
    if (!logarithm) store_next(y + i, p, n - i);
  }
  if (logarithm) {
    const F16 l = set1(first_lane(log(set1(reduce_add(sum)))));
    for (Index i = 0; i < n; i += 16) store_next(y + i, next(x + i, n - i, lowest) - m - l, n - i);
  } else {
    const F16 scale = set1(1.0f) / set1(reduce_add(sum));
    for (Index i = 0; i < n; i += 16) store_next(y + i, next(y + i, n - i, zero()) * scale, n - i);
  }
}

template <bool logarithm>
TENON_NOINLINE inline void backward(Index n, const float* y, const float* dy, float* dx) {
  F16 sum = zero();
  for (Index i = 0; i < n; i += 16) {
    const F16 d = next(dy + i, n - i, zero());
    sum = logarithm ? sum + d : fma(next(y + i, n - i, zero()), d, sum);
  }
  const F16 total = set1(reduce_add(sum));
  for (Index i = 0; i < n; i += 16) {
    const F16 v = next(y + i, n - i, zero()), d = next(dy + i, n - i, zero());
    store_next(dx + i, logarithm ? fnma(exp_nonpositive(v), total, d) : v * (d - total), n - i);
  }
}

}  // namespace softmax
