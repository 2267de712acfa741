// Sixteen doubles under the names of F16, as far as the products need them. See simd.hpp.
struct F16 { double v[16]; };

TENON_INLINE F16 zero() { return F16{}; }
TENON_INLINE F16 set1(double x) {
  F16 r;
  TENON_UNROLL
  for (int i = 0; i < 16; ++i) r.v[i] = x;
  return r;
}
TENON_INLINE F16 load_partial(const double* p, Index count) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = i < count ? p[i] : 0.0;
  return r;
}
TENON_INLINE void store_partial(double* p, F16 x, Index count) {
  for (int i = 0; i < 16 && i < count; ++i) p[i] = x.v[i];
}
TENON_INLINE F16 load(const double* p) {
  F16 r;
  TENON_UNROLL
  for (int i = 0; i < 16; ++i) r.v[i] = p[i];
  return r;
}
TENON_INLINE void store(double* p, F16 x) {
  TENON_UNROLL
  for (int i = 0; i < 16; ++i) p[i] = x.v[i];
}
TENON_INLINE F16 operator+(F16 a, F16 b) {
  TENON_UNROLL
  for (int i = 0; i < 16; ++i) a.v[i] += b.v[i];
  return a;
}
TENON_INLINE F16 operator*(F16 a, F16 b) {
  TENON_UNROLL
  for (int i = 0; i < 16; ++i) a.v[i] *= b.v[i];
  return a;
}
TENON_INLINE F16 fma(F16 a, F16 b, F16 c) {
  TENON_UNROLL
  for (int i = 0; i < 16; ++i) c.v[i] += a.v[i] * b.v[i];
  return c;
}
TENON_INLINE void transpose(F16 (&rows)[16]) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < i; ++j) {
      const double x = rows[i].v[j];
      rows[i].v[j] = rows[j].v[i];
      rows[j].v[i] = x;
    }
}
TENON_INLINE F16 max(F16 a, F16 b) {
  for (int i = 0; i < 16; ++i) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
TENON_INLINE F16 gelu(F16 x) {
  for (double& v : x.v) v = 0.5 * v * __builtin_erfc(-v * 0.70710678118654752440);
  return x;
}
TENON_INLINE F16 quick_gelu(F16 x) {
  for (double& v : x.v) v = v / (1 + __builtin_exp(-1.702 * v));
  return x;
}
TENON_INLINE F16 silu(F16 x) {
  for (double& v : x.v) v = v / (1 + __builtin_exp(-v));
  return x;
}
TENON_INLINE F16 tanh(F16 x) {
  for (double& v : x.v) v = __builtin_tanh(v);
  return x;
}
