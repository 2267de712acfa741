#pragma once
// Softmax and log-softmax along one axis.
#include <tenon/kernels/softmax.hpp>
#include <tenon/ops/shape.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// `forward` and `backward` are row kernels; an axis other than the last is brought there and back.
template <Real T, class Forward, class Backward>
Var<T> along(std::string_view op, const Var<T>& x, Index axis, Forward forward, Backward backward) {
  axis = *Axes(axis).of(op, x.shape()).begin();
  if (axis != x.rank() - 1) return transpose(along(op, transpose(x, axis, -1), -1, forward, backward), axis, -1);
  const Index width = x.extent(-1), rows = width > 0 ? x.size() / width : 0;
  auto out = Tensor<T>::uninitialized(x.shape());
  forward(rows, width, x.value().data(), out.data());
  const auto y = std::make_shared<const Tensor<T>>(std::move(out));
  return record(y, std::span<const Var<T>>(&x, 1), [=](Tensor<T>& dy, std::span<Grad<T>> dx) {
    backward(rows, width, y->data(), static_cast<const T*>(dy.data()), dy.data());
    dx[0].add(std::move(dy));
  });
}

}  // namespace detail

/// exp(x) / sum exp(x) along `axis`. Throws ShapeError when the axis is out of range.
template <Real T>
Var<T> softmax(const Var<T>& x, Index axis = -1) {
  return detail::along("softmax", x, axis, [](auto... a) { kernels::softmax_forward(a...); },
                       [](auto... a) { kernels::softmax_backward(a...); });
}

/// x - log sum exp(x) along `axis`. Throws ShapeError when the axis is out of range.
template <Real T>
Var<T> log_softmax(const Var<T>& x, Index axis = -1) {
  return detail::along("log_softmax", x, axis, [](auto... a) { kernels::log_softmax_forward(a...); },
                       [](auto... a) { kernels::log_softmax_backward(a...); });
}

TENON_COMPILED_FUNCTION(softmax<float>)
TENON_COMPILED_FUNCTION(log_softmax<float>)

}  // namespace tenon::inline TENON_ABI
