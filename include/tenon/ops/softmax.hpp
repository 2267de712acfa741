#pragma once
// Softmax and log-softmax over the last axis.
#include <tenon/autograd/var.hpp>
#include <tenon/kernels/softmax.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {
inline Index softmax_rows(std::string_view op, const Shape& shape) {
  check<ShapeError>(shape.rank() >= 1, op, "expected at least one axis, got shape ", shape);
  return shape[-1] > 0 ? shape.size() / shape[-1] : 0;
}
}  // namespace detail

/// exp(x) / sum exp(x) along the last axis; x [..., C]. Permute another axis to the end first.
template <Real T>
Var<T> softmax(const Var<T>& x) {
  const Index rows = detail::softmax_rows("softmax", x.shape()), width = x.extent(-1);
  auto value = Tensor<T>::uninitialized(x.shape());
  kernels::softmax_forward(rows, width, x.value().data(), value.data());
  auto y = std::make_shared<const Tensor<T>>(std::move(value));
  return record(y, std::span<const Var<T>>(&x, 1), [rows, width, y](Tensor<T>& dy, std::span<Grad<T>> dx) {
    auto d = Tensor<T>::uninitialized(y->shape());
    kernels::softmax_backward(rows, width, y->data(), dy.data(), d.data());
    dx[0].add(std::move(d));
  });
}

/// x - log sum exp(x) along the last axis; x [..., C].
template <Real T>
Var<T> log_softmax(const Var<T>& x) {
  const Index rows = detail::softmax_rows("log_softmax", x.shape()), width = x.extent(-1);
  auto value = Tensor<T>::uninitialized(x.shape());
  kernels::log_softmax_forward(rows, width, x.value().data(), value.data());
  auto y = std::make_shared<const Tensor<T>>(std::move(value));
  return record(y, std::span<const Var<T>>(&x, 1), [rows, width, y](Tensor<T>& dy, std::span<Grad<T>> dx) {
    auto d = Tensor<T>::uninitialized(y->shape());
    kernels::log_softmax_backward(rows, width, y->data(), dy.data(), d.data());
    dx[0].add(std::move(d));
  });
}

}  // namespace tenon::inline TENON_ABI
