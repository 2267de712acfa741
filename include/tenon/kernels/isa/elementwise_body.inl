// Element-wise functions on 16 floats; the formulas are those of scalar.hpp.
#if defined(TENON_IN_GENERIC)
// The generic copy runs scalar.hpp itself: sixteen unrolled lanes of every function would cost a minute to compile.
TENON_ON_CALL void unary_forward(Unary op, Index n, const float* x, float* y) {
  for (Index i = 0; i < n; ++i) y[i] = detail::unary(op, x[i]);
}
TENON_ON_CALL void unary_backward(Unary op, Index n, const float* x, const float* y, const float* dy, float* dx) {
  for (Index i = 0; i < n; ++i) dx[i] = dy[i] * detail::unary_slope(op, x[i], y[i]);
}
TENON_ON_CALL void binary_forward(Binary op, const Rows<3>& r, const float* a, const float* b, float* y) {
  detail::binary_rows(op, r, a, b, y);
}
TENON_ON_CALL void binary_backward(Binary op, const Rows<3>& r, const float* a, const float* b, const float* dy, float* da, float* db) {
  detail::binary_slope_rows(op, r, a, b, dy, da, db);
}
#else
TENON_INLINE F16 sign_of(F16 x) {
  return select(x > zero(), set1(1.0f), select(x < zero(), set1(-1.0f), x));
}
/// tanh's argument in the tanh form of gelu.
TENON_INLINE F16 gelu_tanh_inner(F16 x) {
  return set1(0.797884583f) * fma(set1(0.044715f) * x, x * x, x);
}

template <Unary op>
TENON_INLINE F16 unary(F16 x) {
  if constexpr (op == Unary::negate) return -x;
  if constexpr (op == Unary::absolute) return abs(x);
  if constexpr (op == Unary::sign) return sign_of(x);
  if constexpr (op == Unary::exp) return exp(x);
  if constexpr (op == Unary::log) return log(x);
  if constexpr (op == Unary::sqrt) return sqrt(x);
  if constexpr (op == Unary::rsqrt) return rsqrt(x);
  if constexpr (op == Unary::reciprocal) return set1(1.0f) / x;
  if constexpr (op == Unary::square) return x * x;
  if constexpr (op == Unary::sin) return sin(x);
  if constexpr (op == Unary::cos) return cos(x);
  if constexpr (op == Unary::tanh) return tanh(x);
  if constexpr (op == Unary::sigmoid) return sigmoid(x);
  if constexpr (op == Unary::erf) return erf(x);
  if constexpr (op == Unary::relu) return select(x < zero(), zero(), x);
  if constexpr (op == Unary::gelu) return gelu(x);
  if constexpr (op == Unary::gelu_tanh) return from_below(x) * fma(set1(0.5f), tanh(gelu_tanh_inner(x)), set1(0.5f));
  if constexpr (op == Unary::quick_gelu) return quick_gelu(x);
  if constexpr (op == Unary::silu) return silu(x);
}

template <Unary op>
TENON_INLINE F16 unary_slope(F16 x, F16 y) {
  const F16 one = set1(1.0f);
  if constexpr (op == Unary::negate) return set1(-1.0f);
  if constexpr (op == Unary::absolute) return sign_of(x);
  if constexpr (op == Unary::sign) return zero();
  if constexpr (op == Unary::exp) return y;
  if constexpr (op == Unary::log) return one / x;
  if constexpr (op == Unary::sqrt) return set1(0.5f) / y;
  if constexpr (op == Unary::rsqrt) return set1(-0.5f) * y * y * y;
  if constexpr (op == Unary::reciprocal) return -y * y;
  if constexpr (op == Unary::square) return x + x;
  if constexpr (op == Unary::sin) return cos(x);
  if constexpr (op == Unary::cos) return -sin(x);
  if constexpr (op == Unary::tanh) return fnma(y, y, one);
  if constexpr (op == Unary::sigmoid) return y * (one - y);
  if constexpr (op == Unary::erf) return set1(1.12837923f) * exp(-x * x);
  if constexpr (op == Unary::relu) return select(x > zero(), one, zero());
  if constexpr (op == Unary::gelu) return gelu_derivative(x);
  if constexpr (op == Unary::gelu_tanh) {
    const F16 z = min(set1(1e4f), max(set1(-1e4f), x));
    const F16 t = tanh(gelu_tanh_inner(z));
    const F16 inner_slope = set1(0.797884583f) * fma(set1(0.134145f) * z, z, one);
    return set1(0.5f) * fma(z * fnma(t, t, one), inner_slope, one + t);
  }
  if constexpr (op == Unary::quick_gelu) return quick_gelu_derivative(x);
  if constexpr (op == Unary::silu) return silu_derivative(x);
}

template <Unary op>
TENON_NOINLINE inline void unary_run(Index n, const float* x, float* y) {
  for (Index i = 0; i < n; i += 16) store_next(y + i, unary<op>(load_next(x + i, n - i)), n - i);
}
template <Unary op>
TENON_NOINLINE inline void unary_slope_run(Index n, const float* x, const float* y, const float* dy, float* dx) {
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    store_next(dx + i, load_next(dy + i, rest) * unary_slope<op>(load_next(x + i, rest), load_next(y + i, rest)), rest);
  }
}

TENON_ON_CALL void unary_forward(Unary op, Index n, const float* x, float* y) {
  switch (op) {
#define TENON_CASE(name) \
  case Unary::name: return unary_run<Unary::name>(n, x, y);
    TENON_FOR_UNARY(TENON_CASE)
#undef TENON_CASE
  }
}
TENON_ON_CALL void unary_backward(Unary op, Index n, const float* x, const float* y, const float* dy, float* dx) {
  switch (op) {
#define TENON_CASE(name) \
  case Unary::name: return unary_slope_run<Unary::name>(n, x, y, dy, dx);
    TENON_FOR_UNARY(TENON_CASE)
#undef TENON_CASE
  }
}

/// a^b for a > 0 to about 2 + |b| ulp: the product's rounding error is carried into the result.
TENON_INLINE F16 pow_positive(F16 a, F16 b) {
  const F16 l = log(a), product = b * l, y = exp(product);
  return select((y > zero()) & (y < set1(__builtin_inff())), fma(y, fma(b, l, -product), y), y);
}
TENON_INLINE F16 pow(F16 a, F16 b) {
  const F16 one = set1(1.0f), nan = set1(__builtin_nanf("")), size = abs(a), infinity = set1(__builtin_inff());
  const F16 rounded = round(b), half_b = b * set1(0.5f);
  const M16 whole = rounded == b, odd = whole & ~(round(half_b) == half_b);
  F16 y = pow_positive(size, b);
  y = select(size == zero(), select(b < zero(), infinity, zero()), y);
  y = select(b == set1(2.0f), a * a, y);
  y = select(b == set1(0.5f), sqrt(size), y);
  y = select((a < zero()) | ((a == zero()) & odd), select(odd, copysign(y, a), select(whole | (size == zero()) | (size == infinity), y, nan)), y);
  y = select(b == one, a, y);
  return select((b == zero()) | (a == one), one, select((a == a) & (b == b), y, nan));
}

template <Binary op>
TENON_INLINE F16 binary(F16 a, F16 b) {
  if constexpr (op == Binary::add) return a + b;
  if constexpr (op == Binary::subtract) return a - b;
  if constexpr (op == Binary::multiply) return a * b;
  if constexpr (op == Binary::divide) return a / b;
  if constexpr (op == Binary::maximum) return select(a == a, max(a, b), a);
  if constexpr (op == Binary::minimum) return select(a == a, min(a, b), a);
  if constexpr (op == Binary::pow) return pow(a, b);
}
template <Binary op>
TENON_INLINE F16 slope_a(F16 a, F16 b) {
  const F16 one = set1(1.0f), half = select(a == b, set1(0.5f), zero());
  if constexpr (op == Binary::add || op == Binary::subtract) return one;
  if constexpr (op == Binary::multiply) return b;
  if constexpr (op == Binary::divide) return one / b;
  if constexpr (op == Binary::maximum) return select(a > b, one, half);
  if constexpr (op == Binary::minimum) return select(a < b, one, half);
  if constexpr (op == Binary::pow) return select(b == zero(), zero(), b * pow(a, b - one));
}
template <Binary op>
TENON_INLINE F16 slope_b(F16 a, F16 b) {
  const F16 one = set1(1.0f), half = select(a == b, set1(0.5f), zero());
  if constexpr (op == Binary::add) return one;
  if constexpr (op == Binary::subtract) return -one;
  if constexpr (op == Binary::multiply) return a;
  if constexpr (op == Binary::divide) return -a / b / b;
  if constexpr (op == Binary::maximum) return select(a < b, one, half);
  if constexpr (op == Binary::minimum) return select(a > b, one, half);
  if constexpr (op == Binary::pow) return select((a == zero()) & (b >= zero()), zero(), pow(a, b) * log(a));
}

/// Rows of two operands; a step of 0 repeats the row's first element.
template <Binary op>
TENON_NOINLINE inline void binary_rows(const Rows<3>& r, const float* a, const float* b, float* y) {
  for (Index i = 0; i < r.rows; ++i) {
    const float *pa = a + r.offset[0] + i * r.row_stride[0], *pb = b + r.offset[1] + i * r.row_stride[1];
    float* py = y + r.offset[2] + i * r.row_stride[2];
    const bool fixed_a = r.step[0] == 0, fixed_b = r.step[1] == 0;
    const F16 a0 = fixed_a ? set1(*pa) : zero(), b0 = fixed_b ? set1(*pb) : zero();
    for (Index j = 0; j < r.columns; j += 16) {
      const Index rest = r.columns - j;
      store_next(py + j, binary<op>(fixed_a ? a0 : load_next(pa + j, rest), fixed_b ? b0 : load_next(pb + j, rest)), rest);
    }
  }
}
template <Binary op>
TENON_NOINLINE inline void binary_slope_rows(const Rows<3>& r, const float* a, const float* b, const float* dy, float* da, float* db) {
  for (Index i = 0; i < r.rows; ++i) {
    const float *pa = a + r.offset[0] + i * r.row_stride[0], *pb = b + r.offset[1] + i * r.row_stride[1];
    const Index at = r.offset[2] + i * r.row_stride[2];
    const bool fixed_a = r.step[0] == 0, fixed_b = r.step[1] == 0;
    const F16 a0 = fixed_a ? set1(*pa) : zero(), b0 = fixed_b ? set1(*pb) : zero();
    for (Index j = 0; j < r.columns; j += 16) {
      const Index rest = r.columns - j;
      const F16 va = fixed_a ? a0 : load_next(pa + j, rest), vb = fixed_b ? b0 : load_next(pb + j, rest);
      const F16 d = load_next(dy + at + j, rest);
      if (da != nullptr) store_next(da + at + j, d * slope_a<op>(va, vb), rest);
      if (db != nullptr) store_next(db + at + j, d * slope_b<op>(va, vb), rest);
    }
  }
}

TENON_ON_CALL void binary_forward(Binary op, const Rows<3>& r, const float* a, const float* b, float* y) {
  switch (op) {
#define TENON_CASE(name) \
  case Binary::name: return binary_rows<Binary::name>(r, a, b, y);
    TENON_FOR_BINARY(TENON_CASE)
#undef TENON_CASE
  }
}
TENON_ON_CALL void binary_backward(Binary op, const Rows<3>& r, const float* a, const float* b, const float* dy, float* da, float* db) {
  switch (op) {
#define TENON_CASE(name) \
  case Binary::name: return binary_slope_rows<Binary::name>(r, a, b, dy, da, db);
    TENON_FOR_BINARY(TENON_CASE)
#undef TENON_CASE
  }
}
#endif

TENON_NOINLINE inline void clamp_run(Index n, float low, float high, const float* x, float* y) {
  const F16 l = set1(low), h = set1(high);
  for (Index i = 0; i < n; i += 16) {
    const F16 v = load_next(x + i, n - i);
    store_next(y + i, select(v < l, l, select(v > h, h, v)), n - i);
  }
}
TENON_NOINLINE inline void clamp_slope_run(Index n, float low, float high, const float* x, const float* dy, float* dx) {
  const F16 l = set1(low), h = set1(high);
  for (Index i = 0; i < n; i += 16) {
    const F16 v = load_next(x + i, n - i);
    store_next(dx + i, select((v >= l) & (v <= h), load_next(dy + i, n - i), zero()), n - i);
  }
}
TENON_NOINLINE inline void scale_run(Index n, float a, const float* x, float* y) {
  for (Index i = 0; i < n; i += 16) store_next(y + i, set1(a) * load_next(x + i, n - i), n - i);
}
TENON_NOINLINE inline void axpy_run(Index n, float a, const float* x, float* y) {
  for (Index i = 0; i < n; i += 16)
    store_next(y + i, fma(set1(a), load_next(x + i, n - i), load_next(y + i, n - i)), n - i);
}
