// LayerNorm by rows, GroupNorm by blocks of pixels, and row normalisation. Null gamma and beta mean 1 and 0.
TENON_INLINE F16 gamma_next(const float* gamma, Index i, Index rest) {
  return gamma == nullptr ? set1(1.0f) : load_next(gamma + i, rest);
}
TENON_INLINE F16 beta_next(const float* beta, Index i, Index rest) {
  return beta == nullptr ? zero() : load_next(beta + i, rest);
}

TENON_NOINLINE inline void layer_norm_row(Index n, float eps, const float* x, const float* gamma, const float* beta, float* y, float* mean, float* rstd) {
  const float m = sum_run(n, x) / static_cast<float>(n);
  const F16 s = rsqrt(set1(squares_run(n, m, x) / static_cast<float>(n)) + set1(eps));
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    const F16 xhat = (load_next(x + i, rest) - set1(m)) * s;
    store_next(y + i, fma(xhat, gamma_next(gamma, i, rest), beta_next(beta, i, rest)), rest);
  }
  *mean = m;
  *rstd = first_lane(s);
}

/// dx of a row (if not null); dgamma and dbeta [n] of the row are added to `dgamma` and `dbeta` (if not null).
TENON_NOINLINE inline void layer_norm_row_backward(Index n, const float* x, const float* gamma, float mean, float rstd, const float* dy, float* dx, float* dgamma, float* dbeta) {
  const F16 m = set1(mean), s = set1(rstd);
  F16 sum_g = zero(), sum_gx = zero();  // of g = dy gamma, and of g xhat
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    const F16 d = load_next(dy + i, rest), xhat = (load_next(x + i, rest) - m) * s;
    const F16 g = d * gamma_next(gamma, i, rest);
    sum_g = sum_g + g;
    sum_gx = fma(g, xhat, sum_gx);
    if (dgamma != nullptr) store_next(dgamma + i, fma(d, xhat, load_next(dgamma + i, rest)), rest);
    if (dbeta != nullptr) store_next(dbeta + i, load_next(dbeta + i, rest) + d, rest);
  }
  if (dx == nullptr) return;
  const F16 a = set1(reduce_add(sum_g) / static_cast<float>(n)), b = set1(reduce_add(sum_gx) / static_cast<float>(n));
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    const F16 xhat = (load_next(x + i, rest) - m) * s, g = load_next(dy + i, rest) * gamma_next(gamma, i, rest);
    store_next(dx + i, s * (fnma(xhat, b, g) - a), rest);
  }
}

/// Per channel over `rows` pixels: the mean, and the sum of squared distances from it.
TENON_NOINLINE inline void channel_moments(Index rows, Index channels, const float* x, float* mean, float* squares) {
  const F16 count = set1(static_cast<float>(rows));
  for (Index c = 0; c < channels; c += 16) {
    const Index rest = channels - c;
    F16 sum = zero(), total = zero();
    for (Index r = 0; r < rows; ++r) sum = sum + load_next(x + r * channels + c, rest);
    const F16 m = sum / count;
    for (Index r = 0; r < rows; ++r) {
      const F16 d = load_next(x + r * channels + c, rest) - m;
      total = fma(d, d, total);
    }
    store_next(mean + c, m, rest);
    store_next(squares + c, total, rest);
  }
}
/// mean and rstd of one group of a sample from the moments of its blocks, [blocks, 2, channels] from the group's first
/// channel on; every block has `block` pixels but the last. Merged in double (Chan, Golub, LeVeque 1979).
inline void merge_moments(Index pixels, Index block, Index channels, Index width, float eps, const float* moments, float* mean, float* rstd) {
  const double count = static_cast<double>(pixels * width);
  double sum = 0, squares = 0;
  for (Index first = 0, b = 0; first < pixels; first += block, ++b) {
    const double rows = static_cast<double>(pixels - first < block ? pixels - first : block);
    double part = 0;
    for (Index c = 0; c < width; ++c) part += static_cast<double>(moments[2 * b * channels + c]);
    sum += rows * part;
  }
  const double m = sum / count;
  for (Index first = 0, b = 0; first < pixels; first += block, ++b) {
    const double rows = static_cast<double>(pixels - first < block ? pixels - first : block);
    for (Index c = 0; c < width; ++c) {
      const double d = static_cast<double>(moments[2 * b * channels + c]) - m;
      squares += static_cast<double>(moments[(2 * b + 1) * channels + c]);
      squares += rows * d * d;
    }
  }
  *mean = static_cast<float>(m);
  *rstd = first_lane(rsqrt(set1(static_cast<float>(squares / count)) + set1(eps)));
}

/// y = (x - mean) scale + beta over `rows` pixels, then SiLU; mean and scale = rstd gamma are per channel.
TENON_NOINLINE inline void group_norm_rows(Index rows, Index channels, bool with_silu, const float* x, const float* mean, const float* scale, const float* beta, float* y) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < channels; c += 16) {
      const Index rest = channels - c, at = r * channels + c;
      const F16 z = fma(load_next(x + at, rest) - load_next(mean + c, rest), load_next(scale + c, rest), beta_next(beta, c, rest));
      store_next(y + at, with_silu ? silu(z) : z, rest);
    }
}
/// Per channel over `rows` pixels: the sums of dz and of dz xhat, dz being dy in front of the SiLU; dz goes to `dz`
/// (if not null).
TENON_NOINLINE inline void group_norm_slopes(Index rows, Index channels, bool with_silu, const float* x, const float* gamma, const float* beta, const float* mean, const float* rstd, const float* dy, float* dz, float* sum, float* sum_x) {
  for (Index c = 0; c < channels; c += 16) {
    const Index rest = channels - c;
    const F16 m = load_next(mean + c, rest), s = load_next(rstd + c, rest);
    const F16 g = gamma_next(gamma, c, rest), b = beta_next(beta, c, rest);
    F16 total = zero(), total_x = zero();
    for (Index r = 0; r < rows; ++r) {
      const Index at = r * channels + c;
      const F16 centered = load_next(x + at, rest) - m, xhat = centered * s;
      F16 d = load_next(dy + at, rest);
      if (with_silu) d = d * silu_derivative(fma(centered, s * g, b));
      if (dz != nullptr) store_next(dz + at, d, rest);
      total = total + d;
      total_x = fma(d, xhat, total_x);
    }
    store_next(sum + c, total, rest);
    store_next(sum_x + c, total_x, rest);
  }
}
/// dx = dz scale - a - xhat b over `rows` pixels; scale = rstd gamma, a and b are per channel.
TENON_NOINLINE inline void group_norm_rows_backward(Index rows, Index channels, const float* x, const float* mean, const float* rstd, const float* scale, const float* a, const float* b, const float* dz, float* dx) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < channels; c += 16) {
      const Index rest = channels - c, at = r * channels + c;
      const F16 xhat = (load_next(x + at, rest) - load_next(mean + c, rest)) * load_next(rstd + c, rest);
      const F16 d = fma(load_next(dz + at, rest), load_next(scale + c, rest), -load_next(a + c, rest));
      store_next(dx + at, fnma(xhat, load_next(b + c, rest), d), rest);
    }
}

TENON_NOINLINE inline void normalize_row(Index n, float eps, const float* x, float* y, float* norm) {
  const F16 size = max(set1(eps), sqrt(set1(squares_run(n, 0.0f, x))));
  for (Index i = 0; i < n; i += 16) store_next(y + i, load_next(x + i, n - i) / size, n - i);
  *norm = first_lane(size);
}
TENON_NOINLINE inline void normalize_row_backward(Index n, float eps, const float* y, float norm, const float* dy, float* dx) {
  F16 dot = zero();
  if (norm > eps)
    for (Index i = 0; i < n; i += 16) dot = fma(load_next(y + i, n - i), load_next(dy + i, n - i), dot);
  const F16 along = set1(reduce_add(dot));
  for (Index i = 0; i < n; i += 16)
    store_next(dx + i, fnma(load_next(y + i, n - i), along, load_next(dy + i, n - i)) / set1(norm), n - i);
}
