#pragma once
// The element-wise functions on one number, in plain C++: what the templates loop over, and what a reader checks.
#include <array>
#include <cmath>

#include <tenon/core/dtype.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// gelu is the erf form, gelu_tanh its tanh approximation, quick_gelu x sigmoid(1.702 x), silu x sigmoid(x).
enum class Unary { negate, absolute, sign, exp, log, sqrt, rsqrt, reciprocal, square, sin, cos, tanh, sigmoid, erf, relu, gelu, gelu_tanh, quick_gelu, silu };
enum class Binary { add, subtract, multiply, divide, maximum, minimum, pow };
enum class Compare { equal, not_equal, less, less_equal, greater, greater_equal };

namespace detail {

template <class T>
T logistic(T x) {
  return T(1) / (T(1) + std::exp(-x));
}
template <class T>
T gelu_tanh_inner(T x) {
  return T(0.79788456080286535588) * (x + T(0.044715) * x * x * x);
}

template <class T>
T unary(Unary op, T x) {
  switch (op) {
    case Unary::negate: return -x;
    case Unary::absolute: return std::abs(x);
    case Unary::sign: return x > T(0) ? T(1) : x < T(0) ? T(-1) : x;
    case Unary::exp: return std::exp(x);
    case Unary::log: return std::log(x);
    case Unary::sqrt: return std::sqrt(x);
    case Unary::rsqrt: return T(1) / std::sqrt(x);
    case Unary::reciprocal: return T(1) / x;
    case Unary::square: return x * x;
    case Unary::sin: return std::sin(x);
    case Unary::cos: return std::cos(x);
    case Unary::tanh: return std::tanh(x);
    case Unary::sigmoid: return logistic(x);
    case Unary::erf: return std::erf(x);
    case Unary::relu: return x > T(0) || x != x ? x : T(0);
    case Unary::gelu: return T(0.5) * x * std::erfc(-x * T(0.70710678118654752440));
    case Unary::gelu_tanh: return T(0.5) * x * (T(1) + std::tanh(gelu_tanh_inner(x)));
    case Unary::quick_gelu: return x * logistic(T(1.702) * x);
    case Unary::silu: return x * logistic(x);
  }
  return x;
}

/// f'(x), from x and y = f(x); the subgradient at a kink is 0.
template <class T>
T unary_slope(Unary op, T x, T y) {
  switch (op) {
    case Unary::negate: return T(-1);
    case Unary::absolute: return x > T(0) ? T(1) : x < T(0) ? T(-1) : T(0);
    case Unary::sign: return T(0);
    case Unary::exp: return y;
    case Unary::log: return T(1) / x;
    case Unary::sqrt: return T(0.5) / y;
    case Unary::rsqrt: return T(-0.5) * y * y * y;
    case Unary::reciprocal: return -y * y;
    case Unary::square: return T(2) * x;
    case Unary::sin: return std::cos(x);
    case Unary::cos: return -std::sin(x);
    case Unary::tanh: return T(1) - y * y;
    case Unary::sigmoid: return y * (T(1) - y);
    case Unary::erf: return T(1.12837916709551257390) * std::exp(-x * x);
    case Unary::relu: return x > T(0) ? T(1) : T(0);
    case Unary::gelu:
      return T(0.5) * std::erfc(-x * T(0.70710678118654752440)) + x * T(0.39894228040143267794) * std::exp(T(-0.5) * x * x);
    case Unary::gelu_tanh: {
      const T t = std::tanh(gelu_tanh_inner(x));
      return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * T(0.79788456080286535588) * (T(1) + T(3 * 0.044715) * x * x);
    }
    case Unary::quick_gelu: {
      const T s = logistic(T(1.702) * x);
      return s + T(1.702) * x * s * (T(1) - s);
    }
    case Unary::silu: {
      const T s = logistic(x);
      return s + x * s * (T(1) - s);
    }
  }
  return T(0);
}

template <class T>
T binary(Binary op, T a, T b) {
  switch (op) {
    case Binary::add: return a + b;
    case Binary::subtract: return a - b;
    case Binary::multiply: return a * b;
    case Binary::divide: return a / b;
    case Binary::maximum: return a > b || a != a ? a : b;  // NaN from either side stays
    case Binary::minimum: return a < b || a != a ? a : b;
    case Binary::pow: return std::pow(a, b);
  }
  return a;
}

/// (df/da, df/db); equal arguments of maximum and minimum share the gradient in halves, as torch does.
template <class T>
std::array<T, 2> binary_slopes(Binary op, T a, T b) {
  switch (op) {
    case Binary::add: return {T(1), T(1)};
    case Binary::subtract: return {T(1), T(-1)};
    case Binary::multiply: return {b, a};
    case Binary::divide: return {T(1) / b, -a / b / b};
    case Binary::maximum: return a == b ? std::array{T(0.5), T(0.5)} : std::array{T(a > b), T(a < b)};
    case Binary::minimum: return a == b ? std::array{T(0.5), T(0.5)} : std::array{T(a < b), T(a > b)};
    case Binary::pow:
      return {b == T(0) ? T(0) : b * std::pow(a, b - T(1)), a == T(0) && b >= T(0) ? T(0) : std::pow(a, b) * std::log(a)};
  }
  return {};
}

}  // namespace detail

}  // namespace tenon::inline TENON_ABI::kernels
