// The transforms of kernels/winograd.hpp, once per instruction set. Points: 0, +-1, infinity for 2 x 2 outputs; 0, +-sqrt(1/2),
// +-sqrt(2), infinity for 4 x 4.
namespace winograd {

// d = B^T d
TENON_INLINE void spread(F16 (&d)[4]) {
  const F16 first = d[2] - d[0], plus = d[2] + d[1], minus = d[2] - d[1], last = d[3] - d[1];
  d[0] = first, d[1] = plus, d[2] = minus, d[3] = last;
}
TENON_INLINE void spread(F16 (&d)[6]) {
  const F16 root = set1(1.41421356237309505f), half_root = set1(0.70710678118654752f);
  const F16 first = fma(set1(-2.5f), d[2], d[0]) + d[4], last = fma(set1(-2.5f), d[3], d[1]) + d[5];
  const F16 even_a = fnma(set1(2.0f), d[2], d[4]), odd_a = fnma(set1(2.0f), d[1], d[3]);
  const F16 even_b = fnma(set1(0.5f), d[2], d[4]), odd_b = fnma(set1(0.5f), d[1], d[3]);
  d[0] = first, d[1] = fma(half_root, odd_a, even_a), d[2] = fnma(half_root, odd_a, even_a), d[3] = fma(root, odd_b, even_b);
  d[4] = fnma(root, odd_b, even_b), d[5] = last;
}
// y = A^T m
TENON_INLINE void fold(const F16 (&m)[4], F16 (&y)[2]) {
  y[0] = (m[0] + m[1]) + m[2];
  y[1] = (m[1] - m[2]) + m[3];
}
TENON_INLINE void fold(const F16 (&m)[6], F16 (&y)[4]) {
  const F16 half_root = set1(0.70710678118654752f);
  const F16 even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
  y[0] = (m[0] + even_a) + even_b;
  y[1] = half_root * fma(set1(2.0f), odd_b, odd_a);
  y[2] = fma(set1(0.5f), even_a, set1(2.0f) * even_b);
  y[3] = fma(half_root, fma(set1(0.5f), odd_a, set1(4.0f) * odd_b), m[5]);
}

// v [planes][channels in whole lines] = B^T d B of the (tile + 2)^2 pixels under one tile of outputs.
template <int tile>
TENON_NOINLINE inline void spread_tile(const float* const* pixels, Index channels, float* v, Index plane) {
  enum : int { side = tile + 2 };
  for (Index c = 0; c < channels; c += 16) {
    F16 rows[side][side];
    TENON_UNROLL
    for (int j = 0; j < side; ++j) {
      F16 d[side];
      TENON_UNROLL
      for (int i = 0; i < side; ++i) d[i] = channels - c >= 16 ? load(pixels[i * side + j] + c) : load_partial(pixels[i * side + j] + c, channels - c);
      spread(d);
      TENON_UNROLL
      for (int i = 0; i < side; ++i) rows[i][j] = d[i];
    }
    TENON_UNROLL
    for (int i = 0; i < side; ++i) {
      spread(rows[i]);
      TENON_UNROLL
      for (int j = 0; j < side; ++j) store(v + (i * side + j) * plane + c, rows[i][j]);
    }
  }
}

// y = A^T m A + bias + sample_bias of one tile, of which `height` x `width` pixels are wanted.
template <int tile>
TENON_NOINLINE inline void fold_tile(const float* m, Index plane, Index channels, const float* bias, const float* sample_bias, Index height, Index width,
                                     Index line, float* y) {
  enum : int { side = tile + 2 };
  for (Index c = 0; c < channels; c += 16) {
    const Index lanes = channels - c < 16 ? channels - c : 16;
    F16 rows[tile][side];
    TENON_UNROLL
    for (int j = 0; j < side; ++j) {
      F16 column[side], folded[tile];
      TENON_UNROLL
      for (int i = 0; i < side; ++i) column[i] = load(m + (i * side + j) * plane + c);
      fold(column, folded);
      TENON_UNROLL
      for (int i = 0; i < tile; ++i) rows[i][j] = folded[i];
    }
    const F16 b = bias != nullptr ? load_partial(bias + c, lanes) : zero(), s = sample_bias != nullptr ? load_partial(sample_bias + c, lanes) : zero();
    for (int i = 0; i < tile && i < height; ++i) {
      F16 out[tile];
      fold(rows[i], out);
      TENON_UNROLL
      for (int j = 0; j < tile; ++j)
        if (j < width) store_partial(y + i * line + j * channels + c, (out[j] + b) + s, lanes);
    }
  }
}

}  // namespace winograd
