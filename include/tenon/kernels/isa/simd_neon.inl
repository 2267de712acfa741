// F16 as four q registers. The interface is described in simd.hpp.
struct F16 { float32x4_t v[4]; };
struct I16 { int32x4_t v[4]; };
struct M16 { uint32x4_t v[4]; };

#define TENON_PARTS(R, expression)          \
  R r;                                      \
  TENON_UNROLL                              \
  for (int i = 0; i < 4; ++i) r.v[i] = expression; \
  return r

TENON_INLINE F16 zero() { TENON_PARTS(F16, vdupq_n_f32(0.0f)); }
TENON_INLINE F16 set1(float x) { TENON_PARTS(F16, vdupq_n_f32(x)); }
TENON_INLINE I16 set1_int(std::int32_t x) { TENON_PARTS(I16, vdupq_n_s32(x)); }
TENON_INLINE F16 load(const float* p) { TENON_PARTS(F16, vld1q_f32(p + 4 * i)); }
TENON_INLINE void store(float* p, F16 x) {
  TENON_UNROLL
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
}

TENON_INLINE F16 operator+(F16 a, F16 b) { TENON_PARTS(F16, vaddq_f32(a.v[i], b.v[i])); }
TENON_INLINE F16 operator-(F16 a, F16 b) { TENON_PARTS(F16, vsubq_f32(a.v[i], b.v[i])); }
TENON_INLINE F16 operator*(F16 a, F16 b) { TENON_PARTS(F16, vmulq_f32(a.v[i], b.v[i])); }
TENON_INLINE F16 operator/(F16 a, F16 b) { TENON_PARTS(F16, vdivq_f32(a.v[i], b.v[i])); }
TENON_INLINE F16 operator-(F16 a) { TENON_PARTS(F16, vnegq_f32(a.v[i])); }
TENON_INLINE F16 fma(F16 a, F16 b, F16 c) { TENON_PARTS(F16, vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
TENON_INLINE F16 fnma(F16 a, F16 b, F16 c) { TENON_PARTS(F16, vfmsq_f32(c.v[i], a.v[i], b.v[i])); }
TENON_INLINE F16 min(F16 a, F16 b) { TENON_PARTS(F16, vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])); }
TENON_INLINE F16 max(F16 a, F16 b) { TENON_PARTS(F16, vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])); }
TENON_INLINE F16 abs(F16 a) { TENON_PARTS(F16, vabsq_f32(a.v[i])); }
TENON_INLINE F16 sqrt(F16 a) { TENON_PARTS(F16, vsqrtq_f32(a.v[i])); }
TENON_INLINE F16 round(F16 a) { TENON_PARTS(F16, vrndnq_f32(a.v[i])); }

TENON_INLINE M16 operator<(F16 a, F16 b) { TENON_PARTS(M16, vcltq_f32(a.v[i], b.v[i])); }
TENON_INLINE M16 operator<=(F16 a, F16 b) { TENON_PARTS(M16, vcleq_f32(a.v[i], b.v[i])); }
TENON_INLINE M16 operator>(F16 a, F16 b) { TENON_PARTS(M16, vcgtq_f32(a.v[i], b.v[i])); }
TENON_INLINE M16 operator>=(F16 a, F16 b) { TENON_PARTS(M16, vcgeq_f32(a.v[i], b.v[i])); }
TENON_INLINE M16 operator==(F16 a, F16 b) { TENON_PARTS(M16, vceqq_f32(a.v[i], b.v[i])); }
TENON_INLINE M16 operator&(M16 a, M16 b) { TENON_PARTS(M16, vandq_u32(a.v[i], b.v[i])); }
TENON_INLINE M16 operator|(M16 a, M16 b) { TENON_PARTS(M16, vorrq_u32(a.v[i], b.v[i])); }
TENON_INLINE M16 operator~(M16 a) { TENON_PARTS(M16, vmvnq_u32(a.v[i])); }
TENON_INLINE bool any(M16 a) {
  return vmaxvq_u32(vorrq_u32(vorrq_u32(a.v[0], a.v[1]), vorrq_u32(a.v[2], a.v[3]))) != 0;
}
TENON_INLINE bool all(M16 a) { return !any(~a); }
TENON_INLINE F16 select(M16 m, F16 a, F16 b) { TENON_PARTS(F16, vbslq_f32(m.v[i], a.v[i], b.v[i])); }

TENON_INLINE I16 to_int(F16 a) { TENON_PARTS(I16, vcvtnq_s32_f32(a.v[i])); }
TENON_INLINE F16 to_float(I16 a) { TENON_PARTS(F16, vcvtq_f32_s32(a.v[i])); }
TENON_INLINE I16 bits(F16 a) { TENON_PARTS(I16, vreinterpretq_s32_f32(a.v[i])); }
TENON_INLINE F16 from_bits(I16 a) { TENON_PARTS(F16, vreinterpretq_f32_s32(a.v[i])); }
TENON_INLINE I16 operator+(I16 a, I16 b) { TENON_PARTS(I16, vaddq_s32(a.v[i], b.v[i])); }
TENON_INLINE I16 operator-(I16 a, I16 b) { TENON_PARTS(I16, vsubq_s32(a.v[i], b.v[i])); }
TENON_INLINE I16 operator&(I16 a, I16 b) { TENON_PARTS(I16, vandq_s32(a.v[i], b.v[i])); }
TENON_INLINE I16 operator|(I16 a, I16 b) { TENON_PARTS(I16, vorrq_s32(a.v[i], b.v[i])); }
TENON_INLINE I16 operator^(I16 a, I16 b) { TENON_PARTS(I16, veorq_s32(a.v[i], b.v[i])); }
TENON_INLINE M16 operator==(I16 a, I16 b) { TENON_PARTS(M16, vceqq_s32(a.v[i], b.v[i])); }
template <int n>
TENON_INLINE I16 shift_left(I16 a) { TENON_PARTS(I16, vshlq_n_s32(a.v[i], n)); }
template <int n>
TENON_INLINE I16 shift_right(I16 a) {
  TENON_PARTS(I16, vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v[i]), n)));
}
TENON_INLINE F16 pow2(I16 n) { return from_bits(shift_left<23>(n + set1_int(127))); }

TENON_INLINE F16 load(const bfloat16* p) {
  const std::uint16_t* q = reinterpret_cast<const std::uint16_t*>(p);
  TENON_PARTS(F16, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(q + 4 * i), 16)));
}
TENON_INLINE void store(bfloat16* p, F16 x) {
  const I16 u = bits(x);
  const I16 rounded = shift_right<16>(u + set1_int(0x7fff) + (shift_right<16>(u) & set1_int(1)));
  const I16 y = bits(select(x == x, from_bits(rounded), from_bits(shift_right<16>(u) | set1_int(0x40))));
  std::uint16_t* q = reinterpret_cast<std::uint16_t*>(p);
  TENON_UNROLL
  for (int i = 0; i < 4; ++i) vst1_u16(q + 4 * i, vmovn_u32(vreinterpretq_u32_s32(y.v[i])));
}
TENON_INLINE F16 load(const half* p) {
  const std::uint16_t* q = reinterpret_cast<const std::uint16_t*>(p);
  TENON_PARTS(F16, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(q + 4 * i))));
}
TENON_INLINE void store(half* p, F16 x) {
  std::uint16_t* q = reinterpret_cast<std::uint16_t*>(p);
  TENON_UNROLL
  for (int i = 0; i < 4; ++i) vst1_u16(q + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
}
#undef TENON_PARTS
// No masked loads here: partial ones go through the stack.
template <class Storage>
TENON_INLINE F16 load_partial(const Storage* p, Index count) {
  if (count >= 16) return load(p);
  alignas(Storage) unsigned char lanes[16 * sizeof(Storage)] = {};
  __builtin_memcpy(lanes, p, sizeof(Storage) * static_cast<unsigned long>(count));
  return load(reinterpret_cast<const Storage*>(lanes));
}
template <class Storage>
TENON_INLINE void store_partial(Storage* p, F16 x, Index count) {
  if (count >= 16) return store(p, x);
  alignas(Storage) unsigned char lanes[16 * sizeof(Storage)];
  store(reinterpret_cast<Storage*>(lanes), x);
  __builtin_memcpy(p, lanes, sizeof(Storage) * static_cast<unsigned long>(count));
}

TENON_INLINE float reduce_add(F16 a) {
  const float32x4_t x = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t s = vadd_f32(vget_low_f32(x), vget_high_f32(x));
  return vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
}
TENON_INLINE float reduce_max(F16 a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[2]), vmaxq_f32(a.v[1], a.v[3])));
}
TENON_INLINE float reduce_min(F16 a) { return -reduce_max(-a); }

TENON_INLINE void transpose4(float32x4_t& a, float32x4_t& b, float32x4_t& c, float32x4_t& d) {
  const float64x2_t e = vreinterpretq_f64_f32(vtrn1q_f32(a, b)), f = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
  const float64x2_t g = vreinterpretq_f64_f32(vtrn1q_f32(c, d)), h = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
  a = vreinterpretq_f32_f64(vtrn1q_f64(e, g));
  b = vreinterpretq_f32_f64(vtrn1q_f64(f, h));
  c = vreinterpretq_f32_f64(vtrn2q_f64(e, g));
  d = vreinterpretq_f32_f64(vtrn2q_f64(f, h));
}
TENON_INLINE void transpose(F16 (&rows)[16]) {
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) transpose4(rows[4 * i].v[j], rows[4 * i + 1].v[j], rows[4 * i + 2].v[j], rows[4 * i + 3].v[j]);
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < i; ++j)
      for (int k = 0; k < 4; ++k) {
        const float32x4_t t = rows[4 * i + k].v[j];
        rows[4 * i + k].v[j] = rows[4 * j + k].v[i];
        rows[4 * j + k].v[i] = t;
      }
}
