#pragma once
// Layer and group normalisation, and rows of unit length.
#include <tenon/autograd/saved.hpp>
#include <tenon/kernels/norm.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {
template <Real T>
T* wanted_data(const Grad<T>& grad, Tensor<T>& d, const Shape& shape) {
  if (!grad.wanted()) return nullptr;
  d = Tensor<T>::uninitialized(shape);
  return d.data();
}
inline Index rows_of(const Shape& shape) { return shape[-1] > 0 ? shape.size() / shape[-1] : 0; }
}  // namespace detail

/// (x - mean) / sqrt(variance + eps) * gamma + beta along the last axis (Ba et al., 1607.06450); x [..., D], gamma and
/// beta [D]. Throws ShapeError when they do not fit.
template <Real T>
Var<T> layer_norm(const Var<T>& x, const Var<T>& gamma, const Var<T>& beta, double eps = 1e-5) {
  check<ShapeError>(x.rank() >= 1 && gamma.shape() == Shape{x.extent(-1)} && beta.shape() == gamma.shape(), "layer_norm",
                    "expected gamma and beta of the last extent of x ", x.shape(), ", got ", gamma.shape(), " and ", beta.shape());
  const Index width = x.extent(-1), rows = detail::rows_of(x.shape());
  auto y = Tensor<T>::uninitialized(x.shape()), mean = Tensor<T>::uninitialized({rows}), rstd = Tensor<T>::uninitialized({rows});
  kernels::layer_norm_forward(rows, width, eps, x.value().data(), gamma.value().data(), beta.value().data(), y.data(), mean.data(), rstd.data());
  return record(std::move(y), {x, gamma, beta},
                [=, saved = detail::Saved<T>(x.shared()), gamma = gamma.shared(), mean = std::move(mean), rstd = std::move(rstd)](
                    Tensor<T>& dy, std::span<Grad<T>> dx) {
                  const auto in = saved.get();
                  Tensor<T> d, dgamma, dbeta;
                  T* to = detail::wanted_data(dx[0], d, in->shape());
                  T* to_gamma = detail::wanted_data(dx[1], dgamma, gamma->shape());
                  T* to_beta = detail::wanted_data(dx[2], dbeta, gamma->shape());
                  kernels::layer_norm_backward(rows, width, in->data(), gamma->data(), mean.data(), rstd.data(),
                                               static_cast<const T*>(dy.data()), to, to_gamma, to_beta);
                  dx[0].add(std::move(d));
                  dx[1].add(std::move(dgamma));
                  dx[2].add(std::move(dbeta));
                });
}

/// Normalises each sample's channels in `groups` groups over all pixels (Wu and He, 1803.08494), then `* gamma + beta`,
/// then SiLU when asked; x [N, ..., C], gamma and beta [C]. Throws ShapeError when they do not fit.
template <Real T>
Var<T> group_norm(const Var<T>& x, Index groups, const Var<T>& gamma, const Var<T>& beta, double eps = 1e-5, bool silu = false) {
  check<ShapeError>(x.rank() >= 2 && gamma.shape() == Shape{x.extent(-1)} && beta.shape() == gamma.shape(), "group_norm",
                    "expected gamma and beta of the last extent of x ", x.shape(), ", got ", gamma.shape(), " and ", beta.shape());
  const Index n = x.extent(0), channels = x.extent(-1), pixels = n * channels > 0 ? x.size() / (n * channels) : 0;
  check<ShapeError>(groups > 0 && channels % groups == 0, "group_norm", "expected channels that divide in ", groups, " groups, got x ", x.shape(), " and gamma ", gamma.shape());
  auto y = Tensor<T>::uninitialized(x.shape()), mean = Tensor<T>::uninitialized({n, groups}), rstd = Tensor<T>::uninitialized({n, groups});
  kernels::group_norm_forward(n, pixels, channels, groups, eps, silu, x.value().data(), gamma.value().data(), beta.value().data(), y.data(), mean.data(), rstd.data());
  return record(std::move(y), {x, gamma, beta},
                [=, saved = detail::Saved<T>(x.shared()), gamma = gamma.shared(), beta = beta.shared(), mean = std::move(mean), rstd = std::move(rstd)](
                    Tensor<T>& dy, std::span<Grad<T>> dx) {
                  const auto in = saved.get();
                  Tensor<T> d, dgamma, dbeta;
                  T* to = detail::wanted_data(dx[0], d, in->shape());
                  T* to_gamma = detail::wanted_data(dx[1], dgamma, gamma->shape());
                  T* to_beta = detail::wanted_data(dx[2], dbeta, gamma->shape());
                  kernels::group_norm_backward(n, pixels, channels, groups, silu, in->data(), gamma->data(), beta->data(), mean.data(), rstd.data(),
                                               static_cast<const T*>(dy.data()), to, to_gamma, to_beta);
                  dx[0].add(std::move(d));
                  dx[1].add(std::move(dgamma));
                  dx[2].add(std::move(dbeta));
                });
}

/// x / max(|x|, eps) along the last axis, |x| being the length of the row.
template <Real T>
Var<T> l2_normalize(const Var<T>& x, double eps = 1e-12) {
  check<ShapeError>(x.rank() >= 1, "l2_normalize", "expected at least one axis, got shape ", x.shape());
  const Index width = x.extent(-1), rows = detail::rows_of(x.shape());
  auto y = std::make_shared<Tensor<T>>(Tensor<T>::uninitialized(x.shape()));
  auto norm = Tensor<T>::uninitialized({rows});
  kernels::normalize_rows_forward(rows, width, eps, x.value().data(), y->data(), norm.data());
  std::shared_ptr<const Tensor<T>> value = std::move(y);
  return record(value, std::span<const Var<T>>(&x, 1),
                [=, norm = std::move(norm)](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  auto d = Tensor<T>::uninitialized(value->shape());
                  kernels::normalize_rows_backward(rows, width, eps, value->data(), norm.data(), static_cast<const T*>(dy.data()), d.data());
                  dx[0].add(std::move(d));
                });
}

TENON_COMPILED_FUNCTION(layer_norm<float>)
TENON_COMPILED_FUNCTION(group_norm<float>)
TENON_COMPILED_FUNCTION(l2_normalize<float>)

}  // namespace tenon::inline TENON_ABI
