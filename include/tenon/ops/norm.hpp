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

/// What a norm keeps, and the value made again from it: once, for all operations that ask, until the norm's own turn in backward.
template <Real T>
struct NormPullback {
  Saved<T> saved;
  std::shared_ptr<const Tensor<T>> gamma, beta;
  Tensor<T> mean, rstd;
  std::shared_ptr<const Tensor<T>> again{};

  bool remakes() const { return !saved.narrow(); }
  /// `forward(x, y, mean, rstd)` writes the value.
  template <class Forward>
  std::shared_ptr<const Tensor<T>> remake_by(Forward&& forward) {
    if (!again) {
      const auto x = saved.get();
      auto y = std::make_shared<Tensor<T>>(Tensor<T>::uninitialized(x->shape()));
      forward(x->data(), y->data(), mean.data(), rstd.data());
      again = std::move(y);
    }
    return again;
  }
  /// `run(x, to, to_gamma, to_beta)` writes the gradients that are wanted, the others being null.
  template <class Run>
  void backward(std::span<Grad<T>> dx, Run&& run) {
    again.reset();
    const auto in = saved.get();
    Tensor<T> d, dgamma, dbeta;
    T* to = wanted_data(dx[0], d, in->shape());
    T* to_gamma = wanted_data(dx[1], dgamma, gamma->shape());
    T* to_beta = wanted_data(dx[2], dbeta, gamma->shape());
    run(in->data(), to, to_gamma, to_beta);
    dx[0].add(std::move(d));
    dx[1].add(std::move(dgamma));
    dx[2].add(std::move(dbeta));
  }
};

template <Real T>
struct LayerNormPullback : NormPullback<T> {
  Index rows, width;
  double eps;

  void operator()(Tensor<T>& dy, std::span<Grad<T>> dx) {
    this->backward(dx, [&](const T* x, T* to, T* to_gamma, T* to_beta) {
      kernels::layer_norm_backward(rows, width, x, this->gamma->data(), this->mean.data(), this->rstd.data(), static_cast<const T*>(dy.data()), to, to_gamma, to_beta);
    });
  }
  std::shared_ptr<const Tensor<T>> remake() {
    return this->remake_by([&](const T* x, T* y, T* to_mean, T* to_rstd) {
      kernels::layer_norm_forward(rows, width, eps, x, this->gamma->data(), this->beta->data(), y, to_mean, to_rstd);
    });
  }
};

template <Real T>
struct GroupNormPullback : NormPullback<T> {
  Index n, pixels, channels, groups;
  double eps;
  bool silu;

  void operator()(Tensor<T>& dy, std::span<Grad<T>> dx) {
    this->backward(dx, [&](const T* x, T* to, T* to_gamma, T* to_beta) {
      kernels::group_norm_backward(n, pixels, channels, groups, silu, x, this->gamma->data(), this->beta->data(), this->mean.data(), this->rstd.data(),
                                   static_cast<const T*>(dy.data()), to, to_gamma, to_beta);
    });
  }
  std::shared_ptr<const Tensor<T>> remake() {
    return this->remake_by([&](const T* x, T* y, T* to_mean, T* to_rstd) {
      kernels::group_norm_forward(n, pixels, channels, groups, eps, silu, x, this->gamma->data(), this->beta->data(), y, to_mean, to_rstd);
    });
  }
};

/// Where an operation that reads each element before it writes it may put its result: over `x` when this is the last handle of
/// the value and nothing is recorded, else into new memory.
template <Real T, class... Vars>
Tensor<T> over(const Var<T>& x, const Vars&... others) {
  const auto& memory = x.value().memory();
  const bool last = x.shared().use_count() == 1 && memory.use_count() == 1 && is_block(memory);
  return last && !wants_grad(x, others...) ? Tensor<T>::adopt(x.shape(), memory) : Tensor<T>::uninitialized(x.shape());
}
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
                detail::LayerNormPullback<T>{{detail::Saved<T>(x.shared()), gamma.shared(), beta.shared(), std::move(mean), std::move(rstd)}, rows, width, eps});
}

/// Normalises each sample's channels in `groups` groups over all pixels (Wu and He, 1803.08494), then `* gamma + beta`,
/// then SiLU when asked; x [N, ..., C], gamma and beta [C]. An x that is moved here and has no other handle may hold the result: at
/// the end of a decoder that is a fifth of all memory. Throws ShapeError when they do not fit.
template <Real T>
Var<T> group_norm(Var<T> x, Index groups, const Var<T>& gamma, const Var<T>& beta, double eps = 1e-5, bool silu = false) {
  check<ShapeError>(x.rank() >= 2 && gamma.shape() == Shape{x.extent(-1)} && beta.shape() == gamma.shape(), "group_norm",
                    "expected gamma and beta of the last extent of x ", x.shape(), ", got ", gamma.shape(), " and ", beta.shape());
  const Index n = x.extent(0), channels = x.extent(-1), pixels = n * channels > 0 ? x.size() / (n * channels) : 0;
  check<ShapeError>(groups > 0 && channels % groups == 0, "group_norm", "expected channels that divide in ", groups, " groups, got x ", x.shape(), " and gamma ", gamma.shape());
  Tensor<T> y = detail::over(x, gamma, beta);
  auto mean = Tensor<T>::uninitialized({n, groups}), rstd = Tensor<T>::uninitialized({n, groups});
  kernels::group_norm_forward(n, pixels, channels, groups, eps, silu, x.value().data(), gamma.value().data(), beta.value().data(), y.data(), mean.data(), rstd.data());
  return record(std::move(y), {x, gamma, beta},
                detail::GroupNormPullback<T>{{detail::Saved<T>(x.shared()), gamma.shared(), beta.shared(), std::move(mean), std::move(rstd)}, n, pixels, channels, groups, eps, silu});
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
