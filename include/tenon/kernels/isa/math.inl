// Vector math on F16, written once for every instruction set: the same bits on AVX2 and AVX-512.
// Errors are against the exact value, in units of the last place of the result (tests/kernels/math.test.cpp).
// NaN gives NaN; infinities, zeros and denormals give what IEEE 754 asks for, or the limit.

/// A polynomial, lowest power first, by Horner's rule.
template <int n>
TENON_INLINE F16 polynomial(F16 x, const float (&c)[n]) {
  F16 p = set1(c[n - 1]);
  TENON_UNROLL
  for (int i = n - 2; i >= 0; --i) p = fma(p, x, set1(c[i]));
  return p;
}

/// 1 / sqrt(x), rounded twice.
TENON_INLINE F16 rsqrt(F16 x) { return set1(1.0f) / sqrt(x); }

/// |magnitude| with the sign bit of `sign`.
TENON_INLINE F16 copysign(F16 magnitude, F16 sign) {
  return from_bits((bits(magnitude) & set1_int(0x7fffffff)) | (bits(sign) & set1_int(INT32_MIN)));
}

/// e^r for |r| <= ln(2) / 2.
TENON_INLINE F16 exp_reduced(F16 r) {
  return polynomial(r, {1.0f, 1.0f, 0.49999994f, 0.166665211f, 0.041668389f, 0.00836874545f, 0.00138145406f});
}
/// x = n ln(2) + r.
TENON_INLINE F16 exp_remainder(F16 x, F16 n) {
  return fnma(n, set1(-1.90465421e-9f), fnma(n, set1(0.693147182f), x));
}

/// e^x, at most 1 ulp.
TENON_MATH F16 exp(F16 x) {
  x = min(set1(89.0f), max(set1(-104.0f), x));
  const F16 n = round(x * set1(1.44269502f));
  // 2^n in two factors, so that the result may be denormal or infinite.
  const F16 half_n = round(n * set1(0.5f));
  return exp_reduced(exp_remainder(x, n)) * pow2(to_int(half_n)) * pow2(to_int(n - half_n));
}

/// e^x for x <= 0, at most 1 ulp, results below e^-86.6 flushed to 0: what softmax needs, for less than exp costs.
TENON_MATH F16 exp_nonpositive(F16 x) {
  const F16 magic = set1(12583039.0f);  // 1.5 * 2^23 + 127: the sum's low bits are the nearest whole number + 127
  const F16 shifted = fma(max(set1(-150.0f), x), set1(1.44269502f), magic);
  const F16 y = exp_reduced(exp_remainder(x, shifted - magic)) * from_bits(shift_left<23>(bits(shifted)));
  return select(x < set1(-86.6f), zero(), y);
}

/// 2^x for x <= 0, at most 1 ulp, results below 2^-126.5 flushed to 0: the softmax of attention, whose scores are scaled
/// anyway, so that the factor log2(e) is free.
TENON_MATH F16 exp2_nonpositive(F16 x) {
  const F16 magic = set1(12583039.0f);  // as above
  const F16 z = max(set1(-127.0f), x), shifted = z + magic, r = z - (shifted - magic);
  return polynomial(r, {1.0f, 0.693147182f, 0.240226477f, 0.0555036217f, 0.00961852632f, 0.00133902184f, 0.000153210741f}) *
         from_bits(shift_left<23>(bits(shifted)));
}

/// Natural logarithm, at most 1 ulp.
TENON_MATH F16 log(F16 x) {
  const M16 denormal = x < set1(1.17549435e-38f);
  const I16 u = bits(select(denormal, x * set1(8388608.0f), x));
  // x = 2^e m with m in [sqrt(1/2), sqrt(2)).
  const I16 offset = u - set1_int(0x3f3504f3);
  const F16 e = to_float(shift_right<23>(offset + set1_int(0x3f800000)) - set1_int(127)) -
                select(denormal, set1(23.0f), zero());
  const F16 f = from_bits((offset & set1_int(0x7fffff)) + set1_int(0x3f3504f3)) - set1(1.0f);
  const F16 f2 = f * f;
  const F16 p = polynomial(f, {0.333333135f, -0.250000089f, 0.200021192f, -0.166679963f, 0.142195523f, -0.124055885f,
                               0.118881606f, -0.116756544f, 0.0674664676f});
  const F16 low = fma(e, set1(-1.90465421e-9f), fma(f2, f * p, f2 * set1(-0.5f)));
  const F16 y = fma(e, set1(0.693147182f), f + low);
  const F16 infinity = set1(__builtin_inff());
  const F16 special = select(x == zero(), -infinity, select(x == infinity, x, set1(__builtin_nanf(""))));
  return select((x > zero()) & (x < infinity), y, special);
}

/// At most 2 ulp.
TENON_MATH F16 tanh(F16 x) {
  const F16 a = abs(x), u = x * x;
  const F16 small = fma(a * u, polynomial(u, {-0.333332807f, 0.133314416f, -0.0537397154f, 0.0206390861f, -0.0057049864f}), a);
  const F16 e = exp(min(set1(20.0f), a) * set1(2.0f));
  const F16 large = set1(1.0f) - set1(2.0f) / (e + set1(1.0f));
  return copysign(select(a < set1(0.625f), small, large), x);
}

/// 1 / (1 + e^-x), at most 2.5 ulp.
TENON_MATH F16 sigmoid(F16 x) {
  const F16 e = exp(-abs(x));
  return select(x < zero(), e, set1(1.0f)) / (e + set1(1.0f));
}

/// erf(x) for |x| < 1.
TENON_INLINE F16 erf_small(F16 x) {
  const F16 u = x * x;
  return fma(x, polynomial(u, {0.128379166f, -0.37612626f, 0.112835854f, -0.026853811f, 0.00518832775f, -0.000801019371f,
                               7.85386073e-05f}), x);
}
/// erfc(a) for a in [1, 4]; beyond 4 as at 4, where erf is 1. Right in absolute terms, as 1 - erfc needs it.
TENON_INLINE F16 erfc_large(F16 a) {
  return exp(polynomial(min(set1(4.0f), a), {0.000179625597f, -1.12953854f, -0.633299291f, -0.108332291f, 0.0251530707f,
                                             -0.00418380182f, 0.000437085022f, -2.13213934e-05f}));
}
/// At most 2 ulp.
TENON_MATH F16 erf(F16 x) {
  const F16 a = abs(x);
  const F16 large = copysign(set1(1.0f) - erfc_large(a), x);
  return select(a < set1(1.0f), erf_small(x), large);
}

/// sin when `quadrant` is 0, cos when it is 1: x = n pi/2 + r, |r| <= pi/4. At most 2 ulp for |x| <= 1e5; beyond
/// 1e7 only within [-1, 1].
TENON_MATH F16 sin_quadrant(F16 x, std::int32_t quadrant) {
  const F16 n = round(x * set1(0.636619747f));
  F16 r = fnma(n, set1(1.57079637f), x);
  r = fnma(n, set1(-1.71512451e-15f), fnma(n, set1(-4.37113883e-08f), r));
  r = min(set1(0.8f), max(set1(-0.8f), r));
  const F16 u = r * r;
  const F16 s = fma(r * u, polynomial(u, {-0.166666672f, 0.00833332911f, -0.000198393042f, 2.71804652e-06f}), r);
  const F16 c = fma(u * u, polynomial(u, {0.0416666456f, -0.00138873095f, 2.44324128e-05f}), fma(u, set1(-0.5f), set1(1.0f)));
  const I16 q = to_int(n) + set1_int(quadrant);
  const F16 y = select((q & set1_int(1)) == set1_int(0), s, c);
  return from_bits(bits(y) ^ shift_left<30>(q & set1_int(2)));
}
TENON_INLINE F16 sin(F16 x) { return select(x == zero(), x, sin_quadrant(x, 0)); }
TENON_INLINE F16 cos(F16 x) { return sin_quadrant(x, 1); }

/// The activations and their derivatives. Arguments are kept off infinity where x * 0 stands for a limit of 0.
TENON_INLINE F16 from_below(F16 x) { return max(set1(-1e18f), x); }
TENON_INLINE F16 within(F16 x) { return min(set1(1e18f), from_below(x)); }

/// x sigmoid(x)
TENON_INLINE F16 silu(F16 x) { return from_below(x) * sigmoid(x); }
TENON_INLINE F16 silu_derivative(F16 x) {
  const F16 s = sigmoid(x), c = sigmoid(-x);
  return fma(within(x) * s, c, s);
}
/// x sigmoid(1.702 x)
TENON_INLINE F16 quick_gelu(F16 x) { return from_below(x) * sigmoid(set1(1.702f) * x); }
TENON_INLINE F16 quick_gelu_derivative(F16 x) {
  const F16 z = set1(1.702f) * within(x), s = sigmoid(z), c = sigmoid(-z);
  return fma(z * s, c, s);
}
/// x Phi(x), Phi by erf. As 1 + erf cancels, the error for x < 0 is that of |x| ulp(1).
TENON_INLINE F16 normal_cdf(F16 x) { return fma(set1(0.5f), erf(x * set1(0.707106769f)), set1(0.5f)); }
TENON_INLINE F16 gelu(F16 x) { return from_below(x) * normal_cdf(x); }
TENON_INLINE F16 gelu_derivative(F16 x) {
  const F16 z = within(x);
  const F16 density = exp(z * z * set1(-0.5f)) * set1(0.398942292f);
  return fma(z, density, normal_cdf(x));
}
