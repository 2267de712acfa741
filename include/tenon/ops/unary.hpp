#pragma once
// Functions of one value, element by element, and the activations of transformers and U-Nets.
#include <tenon/autograd/saved.hpp>
#include <tenon/kernels/activation.hpp>
#include <tenon/kernels/activation_kind.hpp>
#include <tenon/kernels/elementwise.hpp>

namespace tenon::inline TENON_ABI {

using kernels::Activation;

namespace detail {

/// The element-wise function that an activation is.
inline kernels::Unary unary_of(Activation activation) {
  switch (activation) {
    case Activation::relu: return kernels::Unary::relu;
    case Activation::gelu: return kernels::Unary::gelu;
    case Activation::quick_gelu: return kernels::Unary::quick_gelu;
    case Activation::silu: return kernels::Unary::silu;
    case Activation::tanh: return kernels::Unary::tanh;
    case Activation::none: break;
  }
  fail("activation", "expected a function, got none");
}

/// Whether f'(x) is computed from y = f(x) alone: then x need not be kept.
inline bool slope_needs_y(kernels::Unary op) {
  using enum kernels::Unary;
  return op == exp || op == sqrt || op == rsqrt || op == reciprocal || op == tanh || op == sigmoid || op == relu;
}

template <Real T>
Var<T> unary(kernels::Unary op, const Var<T>& x) {
  auto y = std::make_shared<Tensor<T>>(Tensor<T>::uninitialized(x.shape()));
  kernels::unary_forward(op, x.size(), x.value().data(), y->data());
  std::shared_ptr<const Tensor<T>> value = std::move(y);
  return record(value, std::span<const Var<T>>(&x, 1),
                [op, saved = Saved<T>(slope_needs_y(op) ? value : x.shared())](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  const auto kept = saved.get();
                  kernels::unary_backward(op, dy.size(), kept->data(), kept->data(), static_cast<const T*>(dy.data()), dy.data());
                  dx[0].add(std::move(dy));
                });
}

}  // namespace detail

template <Real T> Var<T> exp(const Var<T>& x) { return detail::unary(kernels::Unary::exp, x); }
template <Real T> Var<T> log(const Var<T>& x) { return detail::unary(kernels::Unary::log, x); }
template <Real T> Var<T> sqrt(const Var<T>& x) { return detail::unary(kernels::Unary::sqrt, x); }
/// 1 / sqrt(x)
template <Real T> Var<T> rsqrt(const Var<T>& x) { return detail::unary(kernels::Unary::rsqrt, x); }
template <Real T> Var<T> square(const Var<T>& x) { return detail::unary(kernels::Unary::square, x); }
template <Real T> Var<T> abs(const Var<T>& x) { return detail::unary(kernels::Unary::absolute, x); }
template <Real T> Var<T> sin(const Var<T>& x) { return detail::unary(kernels::Unary::sin, x); }
template <Real T> Var<T> cos(const Var<T>& x) { return detail::unary(kernels::Unary::cos, x); }
template <Real T> Var<T> tanh(const Var<T>& x) { return detail::unary(kernels::Unary::tanh, x); }
template <Real T> Var<T> erf(const Var<T>& x) { return detail::unary(kernels::Unary::erf, x); }
template <Real T> Var<T> sigmoid(const Var<T>& x) { return detail::unary(kernels::Unary::sigmoid, x); }
template <Real T> Var<T> relu(const Var<T>& x) { return detail::unary(kernels::Unary::relu, x); }
/// x Phi(x), the erf form (Hendrycks and Gimpel, 1606.08415).
template <Real T> Var<T> gelu(const Var<T>& x) { return detail::unary(kernels::Unary::gelu, x); }
/// The tanh approximation of gelu.
template <Real T> Var<T> gelu_tanh(const Var<T>& x) { return detail::unary(kernels::Unary::gelu_tanh, x); }
/// x sigmoid(1.702 x), as in OpenAI's CLIP.
template <Real T> Var<T> quick_gelu(const Var<T>& x) { return detail::unary(kernels::Unary::quick_gelu, x); }
/// x sigmoid(x), also called swish.
template <Real T> Var<T> silu(const Var<T>& x) { return detail::unary(kernels::Unary::silu, x); }

/// The activation that a configuration names.
template <Real T>
Var<T> activation(const Var<T>& x, Activation kind) {
  return kind == Activation::none ? x : detail::unary(detail::unary_of(kind), x);
}

/// value gelu(gate), value and gate being the halves of x's last axis (Shazeer, 2002.05202, erf form).
/// Throws ShapeError when the last extent is odd.
template <Real T>
Var<T> geglu(const Var<T>& x) {
  check<ShapeError>(x.rank() >= 1 && x.extent(-1) % 2 == 0, "geglu", "expected an even last extent, got shape ", x.shape());
  const Shape shape = x.shape().with(-1, x.extent(-1) / 2);
  const Index n = shape[-1], rows = n > 0 ? shape.size() / n : 0;
  auto y = Tensor<T>::uninitialized(shape);
  kernels::geglu_forward(rows, n, x.value().data(), y.data());
  return record(std::move(y), {x}, [rows, n, saved = detail::Saved<T>(x.shared())](Tensor<T>& dy, std::span<Grad<T>> dx) {
    const auto kept = saved.get();
    auto d = Tensor<T>::uninitialized(kept->shape());
    kernels::geglu_backward(rows, n, kept->data(), static_cast<const T*>(dy.data()), d.data());
    dx[0].add(std::move(d));
  });
}

TENON_COMPILED_FUNCTION(detail::unary<float>)
TENON_COMPILED_FUNCTION(activation<float>)
TENON_COMPILED_FUNCTION(geglu<float>)

}  // namespace tenon::inline TENON_ABI
