#pragma once
// Broadcasting of tensors, and its adjoint.
#include <tenon/autograd/var.hpp>
#include <tenon/kernels/copy.hpp>
#include <tenon/kernels/reduce.hpp>

namespace tenon::inline TENON_ABI::detail {

/// x repeated to `shape`, to which x's own shape (or `as`, of the same size) broadcasts.
template <class T>
Tensor<T> expand(const Tensor<T>& x, const Shape& as, const Shape& shape) {
  auto y = Tensor<T>::uninitialized(shape);
  kernels::copy_strided(shape, kernels::broadcast_strides(as, shape), x.data(), kernels::contiguous_strides(shape), y.data());
  return y;
}

/// `dy` summed to `shape`, which was broadcast to dy's.
template <Real T>
Tensor<T> sum_to(Tensor<T> dy, const Shape& shape) {
  if (dy.shape() == shape) return dy;
  if (dy.size() == shape.size()) return std::move(dy).reshape(shape);
  auto dx = Tensor<T>::uninitialized(shape);
  kernels::sum_to(dy.shape(), static_cast<const T*>(dy.data()), shape, dx.data());
  return dx;
}

/// The elements of a strided view, in a tensor of their own.
template <class T>
Tensor<std::remove_const_t<T>> gathered(const View<T>& view) {
  auto y = Tensor<std::remove_const_t<T>>::uninitialized(view.shape);
  kernels::copy_strided(view.shape, view.strides, static_cast<const std::remove_const_t<T>*>(view.data),
                        kernels::contiguous_strides(view.shape), y.data());
  return y;
}

/// Writes x into a strided view of the same shape.
template <class T>
void scatter(const Tensor<T>& x, const View<T>& view) {
  kernels::copy_strided(view.shape, kernels::contiguous_strides(view.shape), x.data(), view.strides, view.data);
}

}  // namespace tenon::inline TENON_ABI::detail
