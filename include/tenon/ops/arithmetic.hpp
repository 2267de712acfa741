#pragma once
// Arithmetic and comparison of values, element by element, with NumPy broadcasting.
//
// Scalars stand on either side and are rounded to T. A plain Tensor joins as a constant: `x + Var<float>(tensor)`.
// All throw ShapeError when the shapes do not broadcast.
#include <tenon/kernels/elementwise.hpp>
#include <tenon/ops/broadcast.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

template <Real T>
Var<T> constant(double value) {
  return Var<T>(Tensor<T>::scalar(static_cast<T>(value)));
}

template <Real T>
Tensor<T> binary(std::string_view name, kernels::Binary op, const Tensor<T>& a, const Tensor<T>& b) {
  auto y = Tensor<T>::uninitialized(broadcast_shape(name, a.shape(), b.shape()));
  kernels::binary_forward(op, a.shape(), a.data(), b.shape(), b.data(), y.data());
  return y;
}

/// dy op x, in dy's own memory.
template <Real T>
Tensor<T> onto(kernels::Binary op, Tensor<T> dy, const Tensor<T>& x) {
  kernels::binary_forward(op, dy.shape(), static_cast<const T*>(dy.data()), x.shape(), x.data(), dy.data());
  return dy;
}

/// A function of two whose gradient needs both: `binary_backward` in general.
template <Real T>
Var<T> curved(std::string_view name, kernels::Binary op, const Var<T>& a, const Var<T>& b) {
  return record(binary(name, op, a.value(), b.value()), {a, b},
                [op, a = a.shared(), b = b.shared()](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  Tensor<T> da, db;
                  if (dx[0].wanted()) da = Tensor<T>::uninitialized(dy.shape());
                  if (dx[1].wanted()) db = Tensor<T>::uninitialized(dy.shape());
                  kernels::binary_backward(op, a->shape(), a->data(), b->shape(), b->data(), static_cast<const T*>(dy.data()),
                                           dx[0].wanted() ? da.data() : nullptr, dx[1].wanted() ? db.data() : nullptr);
                  if (dx[0].wanted()) dx[0].add(sum_to(std::move(da), a->shape()));
                  if (dx[1].wanted()) dx[1].add(sum_to(std::move(db), b->shape()));
                });
}

}  // namespace detail

template <Real T>
Var<T> operator+(const Var<T>& a, const Var<T>& b) {
  return record(detail::binary("add", kernels::Binary::add, a.value(), b.value()), {a, b},
                [a = a.shape(), b = b.shape()](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  if (dx[0].wanted()) dx[0].add(detail::sum_to(dx[1].wanted() ? Tensor<T>(dy) : std::move(dy), a));
                  if (dx[1].wanted()) dx[1].add(detail::sum_to(std::move(dy), b));
                });
}

template <Real T>
Var<T> operator-(const Var<T>& a, const Var<T>& b) {
  return record(detail::binary("subtract", kernels::Binary::subtract, a.value(), b.value()), {a, b},
                [a = a.shape(), b = b.shape()](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  if (dx[0].wanted()) dx[0].add(detail::sum_to(dx[1].wanted() ? Tensor<T>(dy) : std::move(dy), a));
                  if (!dx[1].wanted()) return;
                  auto db = detail::sum_to(std::move(dy), b);
                  kernels::scale(db.size(), -1.0, static_cast<const T*>(db.data()), db.data());
                  dx[1].add(std::move(db));
                });
}

template <Real T>
Var<T> operator*(const Var<T>& a, const Var<T>& b) {
  using Value = std::shared_ptr<const Tensor<T>>;
  return record(detail::binary("multiply", kernels::Binary::multiply, a.value(), b.value()), {a, b},
                [a_shape = a.shape(), b_shape = b.shape(), a = b.requires_grad() ? a.shared() : Value(),
                 b = a.requires_grad() ? b.shared() : Value()](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  const auto times = kernels::Binary::multiply;
                  if (dx[0].wanted()) dx[0].add(detail::sum_to(detail::onto(times, dx[1].wanted() ? Tensor<T>(dy) : std::move(dy), *b), a_shape));
                  if (dx[1].wanted()) dx[1].add(detail::sum_to(detail::onto(times, std::move(dy), *a), b_shape));
                });
}

template <Real T>
Var<T> operator/(const Var<T>& a, const Var<T>& b) {
  if (b.requires_grad()) return detail::curved("divide", kernels::Binary::divide, a, b);
  return record(detail::binary("divide", kernels::Binary::divide, a.value(), b.value()), {a},
                [a = a.shape(), b = b.shared()](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  dx[0].add(detail::sum_to(detail::onto(kernels::Binary::divide, std::move(dy), *b), a));
                });
}

template <Real T>
Var<T> operator-(const Var<T>& x) {
  auto y = Tensor<T>::uninitialized(x.shape());
  kernels::scale(x.size(), -1.0, x.value().data(), y.data());
  return record(std::move(y), {x}, [](Tensor<T>& dy, std::span<Grad<T>> dx) {
    kernels::scale(dy.size(), -1.0, static_cast<const T*>(dy.data()), dy.data());
    dx[0].add(std::move(dy));
  });
}

/// The larger of the two; NaN from either side stays. Equal values share the gradient in halves.
template <Real T>
Var<T> maximum(const Var<T>& a, const Var<T>& b) {
  return detail::curved("maximum", kernels::Binary::maximum, a, b);
}
/// The smaller of the two; NaN from either side stays. Equal values share the gradient in halves.
template <Real T>
Var<T> minimum(const Var<T>& a, const Var<T>& b) {
  return detail::curved("minimum", kernels::Binary::minimum, a, b);
}
/// a to the power b.
template <Real T>
Var<T> pow(const Var<T>& a, const Var<T>& b) {
  return detail::curved("pow", kernels::Binary::pow, a, b);
}

template <Real T> Var<T> operator+(const Var<T>& a, double b) { return a + detail::constant<T>(b); }
template <Real T> Var<T> operator+(double a, const Var<T>& b) { return detail::constant<T>(a) + b; }
template <Real T> Var<T> operator-(const Var<T>& a, double b) { return a - detail::constant<T>(b); }
template <Real T> Var<T> operator-(double a, const Var<T>& b) { return detail::constant<T>(a) - b; }
template <Real T> Var<T> operator*(const Var<T>& a, double b) { return a * detail::constant<T>(b); }
template <Real T> Var<T> operator*(double a, const Var<T>& b) { return detail::constant<T>(a) * b; }
template <Real T> Var<T> operator/(const Var<T>& a, double b) { return a / detail::constant<T>(b); }
template <Real T> Var<T> operator/(double a, const Var<T>& b) { return detail::constant<T>(a) / b; }
template <Real T> Var<T> maximum(const Var<T>& a, double b) { return maximum(a, detail::constant<T>(b)); }
template <Real T> Var<T> minimum(const Var<T>& a, double b) { return minimum(a, detail::constant<T>(b)); }
template <Real T> Var<T> pow(const Var<T>& a, double b) { return pow(a, detail::constant<T>(b)); }

/// min(max(x, low), high); NaN stays. The gradient passes where low <= x <= high.
template <Real T>
Var<T> clamp(const Var<T>& x, double low, double high) {
  auto y = Tensor<T>::uninitialized(x.shape());
  kernels::clamp_forward(x.size(), low, high, x.value().data(), y.data());
  return record(std::move(y), {x}, [low, high, x = x.shared()](Tensor<T>& dy, std::span<Grad<T>> dx) {
    kernels::clamp_backward(dy.size(), low, high, x->data(), static_cast<const T*>(dy.data()), dy.data());
    dx[0].add(std::move(dy));
  });
}

/// mask ? a : b, over the broadcast of the three shapes.
template <Real T>
Var<T> where(Tensor<bool> mask, const Var<T>& a, const Var<T>& b) {
  auto y = Tensor<T>::uninitialized(broadcast_shape("where", mask.shape(), broadcast_shape("where", a.shape(), b.shape())));
  kernels::where(mask.shape(), mask.data(), a.shape(), a.value().data(), b.shape(), b.value().data(), y.data());
  return record(std::move(y), {a, b},
                [mask = std::move(mask), a = a.shape(), b = b.shape()](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  const T zero = 0;
                  const auto part = [&](bool chosen) {
                    auto d = Tensor<T>::uninitialized(dy.shape());
                    const T* from = dy.data();
                    if (chosen)
                      kernels::where(mask.shape(), mask.data(), dy.shape(), from, Shape{}, &zero, d.data());
                    else
                      kernels::where(mask.shape(), mask.data(), Shape{}, &zero, dy.shape(), from, d.data());
                    return d;
                  };
                  if (dx[0].wanted()) dx[0].add(detail::sum_to(part(true), a));
                  if (dx[1].wanted()) dx[1].add(detail::sum_to(part(false), b));
                });
}

namespace detail {

template <Element T> const Tensor<T>& elements(const Tensor<T>& x) { return x; }
template <Real T> const Tensor<T>& elements(const Var<T>& x) { return x.value(); }

template <class A>
using ElementOf = typename std::remove_cvref_t<decltype(elements(std::declval<const A&>()))>::value_type;

/// The other side of a comparison: elements of the same type, or a scalar.
template <Element T, class B>
decltype(auto) other_side(const B& b) {
  if constexpr (std::is_arithmetic_v<B>)
    return Tensor<T>::scalar(static_cast<T>(b));
  else
    return (elements(b));
}

template <class A, class B>
Tensor<bool> compare(std::string_view name, kernels::Compare op, const A& a, const B& b) {
  using T = ElementOf<A>;
  const Tensor<T>& left = elements(a);
  const Tensor<T>& right = other_side<T>(b);
  auto y = Tensor<bool>::uninitialized(broadcast_shape(name, left.shape(), right.shape()));
  kernels::compare(op, left.shape(), left.data(), right.shape(), right.data(), y.data());
  return y;
}

template <class A>
concept Comparable = requires(const A& a) { elements(a); };

}  // namespace detail

// Comparisons of a Var or Tensor with another or with a scalar give a Tensor<bool> of the broadcast shape.
template <detail::Comparable A, class B> Tensor<bool> equal(const A& a, const B& b) { return detail::compare("equal", kernels::Compare::equal, a, b); }
template <detail::Comparable A, class B> Tensor<bool> not_equal(const A& a, const B& b) { return detail::compare("not_equal", kernels::Compare::not_equal, a, b); }
template <detail::Comparable A, class B> Tensor<bool> less(const A& a, const B& b) { return detail::compare("less", kernels::Compare::less, a, b); }
template <detail::Comparable A, class B> Tensor<bool> less_equal(const A& a, const B& b) { return detail::compare("less_equal", kernels::Compare::less_equal, a, b); }
template <detail::Comparable A, class B> Tensor<bool> greater(const A& a, const B& b) { return detail::compare("greater", kernels::Compare::greater, a, b); }
template <detail::Comparable A, class B> Tensor<bool> greater_equal(const A& a, const B& b) { return detail::compare("greater_equal", kernels::Compare::greater_equal, a, b); }

TENON_COMPILED_TEMPLATE(Var<float> operator+(const Var<float>&, const Var<float>&))
TENON_COMPILED_TEMPLATE(Var<float> operator-(const Var<float>&, const Var<float>&))
TENON_COMPILED_TEMPLATE(Var<float> operator*(const Var<float>&, const Var<float>&))
TENON_COMPILED_TEMPLATE(Var<float> operator/(const Var<float>&, const Var<float>&))
TENON_COMPILED_TEMPLATE(Var<float> operator-(const Var<float>&))
TENON_COMPILED_FUNCTION(detail::curved<float>)
TENON_COMPILED_FUNCTION(clamp<float>)

}  // namespace tenon::inline TENON_ABI
