// F16 as four vectors of four floats, by the vector extensions of g++ and clang, which every target has. The interface
// is described in simd.hpp. (Sixteen plain floats would do as well, but take the compiler three times as long.)
typedef float Quad __attribute__((vector_size(16)));
typedef std::int32_t QuadInt __attribute__((vector_size(16)));
typedef std::uint32_t QuadBits __attribute__((vector_size(16)));
struct F16 { Quad v[4]; };
struct I16 { QuadInt v[4]; };
struct M16 { QuadInt v[4]; };  // all bits set, or none

#define TENON_QUADS(R, expression)                 \
  R r;                                             \
  TENON_UNROLL                                     \
  for (int i = 0; i < 4; ++i) r.v[i] = expression; \
  return r

TENON_INLINE Quad quad(float x) { return Quad{x, x, x, x}; }
TENON_INLINE QuadInt quad(std::int32_t x) { return QuadInt{x, x, x, x}; }
TENON_INLINE Quad load_quad(const float* p) {
  Quad q;
  __builtin_memcpy(&q, p, sizeof q);
  return q;
}

TENON_INLINE F16 zero() { TENON_QUADS(F16, Quad{}); }
TENON_INLINE F16 set1(float x) { TENON_QUADS(F16, quad(x)); }
TENON_INLINE I16 set1_int(std::int32_t x) { TENON_QUADS(I16, quad(x)); }
TENON_INLINE F16 load(const float* p) { TENON_QUADS(F16, load_quad(p + 4 * i)); }
TENON_INLINE void store(float* p, F16 x) { __builtin_memcpy(p, &x, sizeof x); }
template <class Storage>
TENON_INLINE F16 load_partial(const Storage* p, Index count) {
  float lanes[16];
  for (int i = 0; i < 16; ++i) lanes[i] = i < count ? static_cast<float>(p[i]) : 0.0f;
  return load(lanes);
}
template <class Storage>
TENON_INLINE void store_partial(Storage* p, F16 x, Index count) {
  float lanes[16];
  store(lanes, x);
  for (int i = 0; i < 16 && i < count; ++i) p[i] = Storage(lanes[i]);
}
template <class Storage>
TENON_INLINE F16 load(const Storage* p) { return load_partial(p, 16); }
template <class Storage>
TENON_INLINE void store(Storage* p, F16 x) { store_partial(p, x, 16); }

TENON_INLINE QuadInt bits_of(Quad x) { return __builtin_bit_cast(QuadInt, x); }
TENON_INLINE Quad float_of(QuadInt x) { return __builtin_bit_cast(Quad, x); }
TENON_INLINE QuadBits unsign(QuadInt x) { return __builtin_bit_cast(QuadBits, x); }
TENON_INLINE QuadInt sign(QuadBits x) { return __builtin_bit_cast(QuadInt, x); }
TENON_INLINE Quad choose(QuadInt m, Quad a, Quad b) { return float_of((m & bits_of(a)) | (~m & bits_of(b))); }
TENON_INLINE Quad fma_of(Quad a, Quad b, Quad c) {
#if defined(__FMA__) || defined(__aarch64__)
  TENON_UNROLL
  for (int i = 0; i < 4; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#else  // the product is exact in double; libm's fmaf without the instruction is far slower
  typedef double Wide __attribute__((vector_size(32)));
  return __builtin_convertvector(__builtin_convertvector(a, Wide) * __builtin_convertvector(b, Wide) + __builtin_convertvector(c, Wide), Quad);
#endif
}
TENON_INLINE Quad root_of(Quad x) {
  TENON_UNROLL
  for (int i = 0; i < 4; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
// Nearest even: adding and taking away 2^23 rounds, and floats from 2^23 up are whole already.
TENON_INLINE Quad round_of(Quad x) {
  const Quad magnitude = float_of(bits_of(x) & quad(0x7fffffff)), two23 = quad(8388608.0f);
  const Quad whole = choose(magnitude < two23, (magnitude + two23) - two23, x);
  return float_of((bits_of(whole) & quad(0x7fffffff)) | (bits_of(x) & quad(INT32_MIN)));
}
// The same answer as the vector instruction outside of its range: INT32_MIN.
TENON_INLINE QuadInt int_of(Quad x) {
  const QuadInt fits = (x >= quad(-2147483648.0f)) & (x < quad(2147483648.0f));
  return (fits & __builtin_convertvector(float_of(fits & bits_of(round_of(x))), QuadInt)) | (~fits & quad(INT32_MIN));
}

TENON_INLINE F16 operator+(F16 a, F16 b) { TENON_QUADS(F16, a.v[i] + b.v[i]); }
TENON_INLINE F16 operator-(F16 a, F16 b) { TENON_QUADS(F16, a.v[i] - b.v[i]); }
TENON_INLINE F16 operator*(F16 a, F16 b) { TENON_QUADS(F16, a.v[i] * b.v[i]); }
TENON_INLINE F16 operator/(F16 a, F16 b) { TENON_QUADS(F16, a.v[i] / b.v[i]); }
TENON_INLINE F16 operator-(F16 a) { TENON_QUADS(F16, float_of(bits_of(a.v[i]) ^ quad(INT32_MIN))); }
TENON_INLINE F16 fma(F16 a, F16 b, F16 c) { TENON_QUADS(F16, fma_of(a.v[i], b.v[i], c.v[i])); }
TENON_INLINE F16 fnma(F16 a, F16 b, F16 c) { return fma(-a, b, c); }
TENON_INLINE F16 min(F16 a, F16 b) { TENON_QUADS(F16, choose(a.v[i] < b.v[i], a.v[i], b.v[i])); }
TENON_INLINE F16 max(F16 a, F16 b) { TENON_QUADS(F16, choose(a.v[i] > b.v[i], a.v[i], b.v[i])); }
TENON_INLINE F16 abs(F16 a) { TENON_QUADS(F16, float_of(bits_of(a.v[i]) & quad(0x7fffffff))); }
TENON_INLINE F16 sqrt(F16 a) { TENON_QUADS(F16, root_of(a.v[i])); }
TENON_INLINE F16 round(F16 a) { TENON_QUADS(F16, round_of(a.v[i])); }

TENON_INLINE M16 operator<(F16 a, F16 b) { TENON_QUADS(M16, a.v[i] < b.v[i]); }
TENON_INLINE M16 operator<=(F16 a, F16 b) { TENON_QUADS(M16, a.v[i] <= b.v[i]); }
TENON_INLINE M16 operator>(F16 a, F16 b) { TENON_QUADS(M16, a.v[i] > b.v[i]); }
TENON_INLINE M16 operator>=(F16 a, F16 b) { TENON_QUADS(M16, a.v[i] >= b.v[i]); }
TENON_INLINE M16 operator==(F16 a, F16 b) { TENON_QUADS(M16, a.v[i] == b.v[i]); }
TENON_INLINE M16 operator&(M16 a, M16 b) { TENON_QUADS(M16, a.v[i] & b.v[i]); }
TENON_INLINE M16 operator|(M16 a, M16 b) { TENON_QUADS(M16, a.v[i] | b.v[i]); }
TENON_INLINE M16 operator~(M16 a) { TENON_QUADS(M16, ~a.v[i]); }
TENON_INLINE bool any(M16 a) {
  const QuadInt r = (a.v[0] | a.v[1]) | (a.v[2] | a.v[3]);
  return (r[0] | r[1] | r[2] | r[3]) != 0;
}
TENON_INLINE bool all(M16 a) { return !any(~a); }
TENON_INLINE F16 select(M16 m, F16 a, F16 b) { TENON_QUADS(F16, choose(m.v[i], a.v[i], b.v[i])); }

TENON_INLINE I16 to_int(F16 a) { TENON_QUADS(I16, int_of(a.v[i])); }
TENON_INLINE F16 to_float(I16 a) { TENON_QUADS(F16, __builtin_convertvector(a.v[i], Quad)); }
TENON_INLINE I16 bits(F16 a) { TENON_QUADS(I16, bits_of(a.v[i])); }
TENON_INLINE F16 from_bits(I16 a) { TENON_QUADS(F16, float_of(a.v[i])); }
TENON_INLINE I16 operator+(I16 a, I16 b) { TENON_QUADS(I16, sign(unsign(a.v[i]) + unsign(b.v[i]))); }
TENON_INLINE I16 operator-(I16 a, I16 b) { TENON_QUADS(I16, sign(unsign(a.v[i]) - unsign(b.v[i]))); }
TENON_INLINE I16 operator&(I16 a, I16 b) { TENON_QUADS(I16, a.v[i] & b.v[i]); }
TENON_INLINE I16 operator|(I16 a, I16 b) { TENON_QUADS(I16, a.v[i] | b.v[i]); }
TENON_INLINE I16 operator^(I16 a, I16 b) { TENON_QUADS(I16, a.v[i] ^ b.v[i]); }
TENON_INLINE M16 operator==(I16 a, I16 b) { TENON_QUADS(M16, a.v[i] == b.v[i]); }
template <int n>
TENON_INLINE I16 shift_left(I16 a) { TENON_QUADS(I16, sign(unsign(a.v[i]) << n)); }
template <int n>
TENON_INLINE I16 shift_right(I16 a) { TENON_QUADS(I16, sign(unsign(a.v[i]) >> n)); }
TENON_INLINE F16 pow2(I16 n) { return from_bits(shift_left<23>(n + set1_int(127))); }
#undef TENON_QUADS

TENON_INLINE float reduce_add(F16 a) {
  const Quad q = (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]);
  return (q[0] + q[2]) + (q[1] + q[3]);
}
TENON_INLINE float larger(float a, float b) { return a > b ? a : b; }
TENON_INLINE float reduce_max(F16 a) {
  const F16 high{{a.v[2], a.v[3], a.v[2], a.v[3]}}, half = max(a, high);
  const Quad q = choose(half.v[0] > half.v[1], half.v[0], half.v[1]);
  return larger(larger(q[0], q[2]), larger(q[1], q[3]));
}
TENON_INLINE float reduce_min(F16 a) { return -reduce_max(-a); }

inline void transpose(F16 (&rows)[16]) {
  float lanes[16][16];
  for (int i = 0; i < 16; ++i) store(lanes[i], rows[i]);
  for (int i = 0; i < 16; ++i) {
    float column[16];
    for (int j = 0; j < 16; ++j) column[j] = lanes[j][i];
    rows[i] = load(column);
  }
}
