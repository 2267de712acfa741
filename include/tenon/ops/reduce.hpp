#pragma once
// Reductions over axes. Without axes, over all of them; a reduced axis vanishes unless `keep_dims`.
#include <tenon/kernels/topk.hpp>
#include <tenon/ops/arithmetic.hpp>
#include <tenon/ops/axes.hpp>
#include <tenon/ops/shape.hpp>
#include <tenon/ops/unary.hpp>
#include <tenon/tensor/cast.hpp>

namespace tenon::inline TENON_ABI {

/// The sum over `axes`. Throws ShapeError when an axis is out of range or appears twice.
template <Real T>
Var<T> sum(const Var<T>& x, const Axes& over, bool keep_dims = false) {
  const Axes axes = over.of("sum", x.shape());
  auto y = Tensor<T>::uninitialized(reduced_shape(x.shape(), axes, keep_dims));
  kernels::sum_axes(x.shape(), axes.span(), x.value().data(), y.data());
  return record(std::move(y), {x}, [shape = x.shape(), kept = reduced_shape(x.shape(), axes, true)](Tensor<T>& dy, std::span<Grad<T>> dx) {
    dx[0].add(detail::expand(dy, kept, shape));
  });
}
template <Real T>
Var<T> sum(const Var<T>& x) {
  return sum(x, Axes::all(x.shape()));
}

/// The sum over `axes` divided by the number of elements in it; NaN when there are none.
template <Real T>
Var<T> mean(const Var<T>& x, const Axes& over, bool keep_dims = false) {
  double count = 1;
  for (Index axis : over.of("mean", x.shape())) count *= static_cast<double>(x.extent(axis));
  return sum(x, over, keep_dims) / count;
}
template <Real T>
Var<T> mean(const Var<T>& x) {
  return mean(x, Axes::all(x.shape()));
}

/// The mean squared distance from the mean over `axes`, with the sum divided by count - correction (as torch: 1 by
/// default; 0 gives NumPy's). The mean is taken first (two passes).
template <Real T>
Var<T> variance(const Var<T>& x, const Axes& over, bool keep_dims = false, double correction = 1) {
  const Axes axes = over.of("variance", x.shape());
  std::vector<Index> order;  // reduced axes last, so that they are one run
  for (Index i = 0; i < x.rank(); ++i)
    if (!axes.contains(i)) order.push_back(i);
  const auto split = static_cast<Index>(order.size());
  Index outer = 1, count = 1;
  for (Index i : order) outer *= x.extent(i);
  for (Index i = 0; i < x.rank(); ++i)
    if (axes.contains(i)) {
      order.push_back(i);
      count *= x.extent(i);
    }
  const bool moves = !std::is_sorted(order.begin(), order.end());
  const Var<T> rows = split < x.rank() && moves ? permute(x, Axes(order)) : x;
  auto mean = Tensor<T>::uninitialized({outer});
  auto y = Tensor<T>::uninitialized(reduced_shape(x.shape(), axes, keep_dims));
  kernels::variance_forward(outer, count, Index{1}, correction, rows.value().data(), mean.data(), y.data());
  return record(std::move(y), {rows},
                [outer, count, correction, rows = rows.shared(), mean = std::move(mean)](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  auto d = Tensor<T>::uninitialized(rows->shape());
                  kernels::variance_backward(outer, count, Index{1}, correction, rows->data(), mean.data(),
                                             static_cast<const T*>(dy.data()), d.data());
                  dx[0].add(std::move(d));
                });
}
template <Real T>
Var<T> variance(const Var<T>& x) {
  return variance(x, Axes::all(x.shape()));
}

/// The largest element along one axis; the gradient goes to the first of equals. NaN counts as largest.
/// Throws ShapeError when the axis is out of range or empty.
template <Real T>
Var<T> max(const Var<T>& x, Index axis, bool keep_dims = false) {
  const Axes axes = Axes(axis).of("max", x.shape());
  check<ShapeError>(x.extent(axis) > 0, "max", "expected at least one element along axis ", axis, ", got shape ", x.shape());
  const auto [outer, count, inner] = kernels::collapse(x.shape(), axis, axis);
  auto y = Tensor<T>::uninitialized(reduced_shape(x.shape(), axes, keep_dims));
  auto at = Tensor<std::int64_t>::uninitialized(wants_grad(x) ? y.shape() : Shape{0});
  kernels::max_forward(outer, count, inner, x.value().data(), y.data(), wants_grad(x) ? at.data() : nullptr);
  return record(std::move(y), {x}, [size = kernels::collapse(x.shape(), axis, axis), shape = x.shape(), at = std::move(at)](
                                       Tensor<T>& dy, std::span<Grad<T>> dx) {
    auto d = Tensor<T>::uninitialized(shape);
    kernels::max_backward(size.outer, size.axis, size.inner, at.data(), static_cast<const T*>(dy.data()), d.data());
    dx[0].add(std::move(d));
  });
}
template <Real T>
Var<T> max(const Var<T>& x) {
  check<ShapeError>(x.size() > 0, "max", "expected at least one element, got shape ", x.shape());
  return max(reshape(x, {x.size()}), 0);
}
/// The smallest element along one axis, as `max`.
template <Real T>
Var<T> min(const Var<T>& x, Index axis, bool keep_dims = false) {
  return -max(-x, axis, keep_dims);
}
template <Real T>
Var<T> min(const Var<T>& x) {
  return -max(-x);
}

/// The square root of the sum of squares over `axes`; the gradient is 0 where the norm is.
template <Real T>
Var<T> norm(const Var<T>& x, const Axes& over, bool keep_dims = false) {
  const Axes axes = over.of("norm", x.shape());
  const Shape kept = reduced_shape(x.shape(), axes, true);
  std::shared_ptr<const Tensor<T>> value;
  {
    const NoGrad no_grad;
    value = sqrt(sum(square(x), axes, keep_dims)).shared();
  }
  return record(value, std::span<const Var<T>>(&x, 1), [kept, x = x.shared(), y = value](Tensor<T>& dy, std::span<Grad<T>> dx) {
    const NoGrad no_grad;  // x dy / y, and 0 where y = 0
    const Var<T> zero = detail::constant<T>(0);
    const Var<T> factor = where(equal(*y, 0), zero, Var<T>(std::move(dy)) / Var<T>(y, nullptr));
    dx[0].add(detail::onto(kernels::Binary::multiply, detail::expand(factor.value(), kept, x->shape()), *x));
  });
}
template <Real T>
Var<T> norm(const Var<T>& x) {
  return norm(x, Axes::all(x.shape()));
}

/// The index of the first largest element along one axis; NaN counts as largest.
/// Throws ShapeError when the axis is out of range or empty.
template <Real T>
Tensor<std::int32_t> argmax(const Tensor<T>& x, Index axis = -1) {
  const Axes axes = Axes(axis).of("argmax", x.shape());
  check<ShapeError>(x.extent(axis) > 0, "argmax", "expected at least one element along axis ", axis, ", got shape ", x.shape());
  const auto [outer, count, inner] = kernels::collapse(x.shape(), axis, axis);
  auto at = Tensor<std::int64_t>::uninitialized(x.shape().without(axis));
  auto largest = Tensor<T>::uninitialized(at.shape());
  kernels::max_forward(outer, count, inner, x.data(), largest.data(), at.data());
  return cast<std::int32_t>(at);
}
template <Real T>
Tensor<std::int32_t> argmax(const Var<T>& x, Index axis = -1) {
  return argmax(x.value(), axis);
}

template <Element T>
struct TopK {
  Tensor<T> values;
  Tensor<std::int32_t> indices;
};
/// The k largest along the last axis, largest first, equals by ascending index: x [..., n] gives two [..., k].
/// Throws ShapeError when there are fewer than k.
template <Real T>
TopK<T> topk(const Tensor<T>& x, Index k) {
  check<ShapeError>(x.rank() >= 1 && 0 <= k && k <= x.extent(-1), "topk", "expected at least ", k, " along the last axis, got shape ", x.shape());
  const Index width = x.extent(-1);
  auto values = Tensor<T>::uninitialized(x.shape().with(-1, k));
  auto indices = Tensor<std::int32_t>::uninitialized(values.shape());
  if (values.size() > 0) kernels::topk(x.size() / width, width, k, x.data(), values.data(), indices.data());
  return {std::move(values), std::move(indices)};
}
template <Real T>
TopK<T> topk(const Var<T>& x, Index k) {
  return topk(x.value(), k);
}

TENON_COMPILED_TEMPLATE(Var<float> sum(const Var<float>&, const Axes&, bool))
TENON_COMPILED_TEMPLATE(Var<float> sum(const Var<float>&))
TENON_COMPILED_TEMPLATE(Var<float> mean(const Var<float>&, const Axes&, bool))
TENON_COMPILED_TEMPLATE(Var<float> mean(const Var<float>&))

}  // namespace tenon::inline TENON_ABI
