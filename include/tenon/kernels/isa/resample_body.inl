// One output row of a resample: the weighted sum of `count` rows of `inner` floats, in the order of the taps.
TENON_NOINLINE inline void tap_row(Index count, const Index* source, const double* weight, Index inner, const float* x, float* y) {
  for (Index j = 0; j < inner; j += 16) {
    const Index rest = inner - j;
    F16 total = zero();
    for (Index t = 0; t < count; ++t) {
      const F16 w = set1(static_cast<float>(weight[t])), row = load_next(x + source[t] * inner + j, rest);
      total = t == 0 ? w * row : fma(w, row, total);
    }
    store_next(y + j, total, rest);
  }
}
