// Sums of one block; the order of the blocks is in reduce_float.inl.
TENON_NOINLINE inline float sum_block(Index n, const float* x) { return sum_run(n, x); }
TENON_NOINLINE inline float squares_block(Index n, float center, const float* x) { return squares_run(n, center, x); }

/// y[j] = the sum over `rows` rows, in order, of x[row stride + j], or of its squared distance from center[j] if not null.
TENON_NOINLINE inline void sum_rows(Index rows, Index columns, Index stride, const float* x, const float* center, float* y) {
  Index j = 0;
  for (; j + 64 <= columns; j += 64) {
    F16 a = zero(), b = zero(), c = zero(), d = zero();
    if (center == nullptr) {
      for (const float *p = x + j, *end = p + rows * stride; p != end; p += stride) {
        a = a + load(p);
        b = b + load(p + 16);
        c = c + load(p + 32);
        d = d + load(p + 48);
      }
    } else {
      const F16 ma = load(center + j), mb = load(center + j + 16), mc = load(center + j + 32), md = load(center + j + 48);
      for (const float *p = x + j, *end = p + rows * stride; p != end; p += stride) {
        const F16 da = load(p) - ma, db = load(p + 16) - mb, dc = load(p + 32) - mc, dd = load(p + 48) - md;
        a = fma(da, da, a);
        b = fma(db, db, b);
        c = fma(dc, dc, c);
        d = fma(dd, dd, d);
      }
    }
    store(y + j, a);
    store(y + j + 16, b);
    store(y + j + 32, c);
    store(y + j + 48, d);
  }
  for (; j < columns; j += 16) {
    const Index rest = columns - j;
    F16 total = zero();
    const F16 m = center == nullptr ? zero() : load_next(center + j, rest);
    for (Index r = 0; r < rows; ++r) {
      const F16 v = load_next(x + r * stride + j, rest);
      total = center == nullptr ? total + v : fma(v - m, v - m, total);
    }
    store_next(y + j, total, rest);
  }
}

/// y[i] /= divisor.
TENON_NOINLINE inline void divide_run(Index n, float divisor, float* y) {
  for (Index i = 0; i < n; i += 16) store_next(y + i, load_next(y + i, n - i) / set1(divisor), n - i);
}

/// dx = d factor (x - mean) for a row; d and mean advance only if `step` is 1.
TENON_NOINLINE inline void variance_slope(Index n, Index step, float factor, const float* x, const float* mean, const float* d, float* dx) {
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    const F16 m = step == 0 ? set1(*mean) : load_next(mean + i, rest), g = step == 0 ? set1(*d) : load_next(d + i, rest);
    store_next(dx + i, g * set1(factor) * (load_next(x + i, rest) - m), rest);
  }
}

TENON_NOINLINE inline bool finite_run(Index n, const float* x) {
  const I16 exponent = set1_int(0x7f800000);
  M16 bad = zero() < zero();
  for (Index i = 0; i < n; i += 16) bad = bad | ((bits(load_next(x + i, n - i)) & exponent) == exponent);
  return !any(bad);
}
