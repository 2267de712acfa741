#pragma once
// Lookups by ids (int32 or int64 tensors): parts of an axis, one element per position, one-hot rows.
#include <tenon/autograd/var.hpp>
#include <tenon/kernels/embedding.hpp>
#include <tenon/kernels/reduce.hpp>
#include <tenon/ops/shape.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {
template <kernels::IdType Id>
void check_ids(std::string_view op, const Tensor<Id>& ids, Index bound, const Shape& shape) {
  const Index at = kernels::first_out_of_range(ids.size(), ids.data(), bound);
  check(at < 0, op, "expected ids in [0, ", bound, ") for shape ", shape, ", got ", at < 0 ? Id{} : ids.data()[at], " at position ", at);
}
}  // namespace detail

/// The parts of x at `ids` [n] along one axis, in that order. Throws ShapeError on wrong shapes, Error on a wrong id.
template <Real T, kernels::IdType Id>
Var<T> index_select(const Var<T>& x, Index axis, Tensor<Id> ids) {
  check<ShapeError>(ids.rank() == 1, "index_select", "expected ids of shape [n] for x ", x.shape(), ", got ", ids.shape());
  axis = *Axes(axis).of("index_select", x.shape()).begin();
  detail::check_ids("index_select", ids, x.extent(axis), x.shape());
  const kernels::Collapsed size = kernels::collapse(x.shape(), axis, axis);
  auto y = Tensor<T>::uninitialized(x.shape().with(axis, ids.size()));
  kernels::index_select_forward(size.outer, size.axis, size.inner, ids.size(), static_cast<const Id*>(ids.data()), x.value().data(), y.data());
  return record(std::move(y), {x}, [size, shape = x.shape(), ids = std::move(ids)](Tensor<T>& dy, std::span<Grad<T>> dx) {
    Tensor<T> d(shape);
    kernels::index_select_backward(size.outer, size.axis, size.inner, ids.size(), ids.data(), static_cast<const T*>(dy.data()), d.data());
    dx[0].add(std::move(d));
  });
}

/// y[..., i, ...] = x[..., ids[..., i, ...], ...] along one axis: ids have x's shape but for that axis (torch.gather).
/// Throws ShapeError on wrong shapes, Error on a wrong id.
template <Real T, kernels::IdType Id>
Var<T> gather(const Var<T>& x, Index axis, Tensor<Id> ids) {
  axis = *Axes(axis).of("gather", x.shape()).begin();
  check<ShapeError>(ids.rank() == x.rank() && ids.shape().with(axis, x.extent(axis)) == x.shape(), "gather", "expected ids as x ",
                    x.shape(), " but for axis ", axis, ", got ", ids.shape());
  detail::check_ids("gather", ids, x.extent(axis), x.shape());
  const kernels::Collapsed size = kernels::collapse(x.shape(), axis, axis);
  const Index count = ids.extent(axis);
  auto y = Tensor<T>::uninitialized(ids.shape());
  kernels::gather_forward(size.outer, size.axis, size.inner, count, static_cast<const Id*>(ids.data()), x.value().data(), y.data());
  return record(std::move(y), {x}, [size, count, shape = x.shape(), ids = std::move(ids)](Tensor<T>& dy, std::span<Grad<T>> dx) {
    Tensor<T> d(shape);
    kernels::gather_backward(size.outer, size.axis, size.inner, count, ids.data(), static_cast<const T*>(dy.data()), d.data());
    dx[0].add(std::move(d));
  });
}

/// Row ids[n] of each sample: x [N, L, D] and ids [N] give [N, D]. Throws ShapeError on wrong shapes, Error on a wrong id.
template <Real T, kernels::IdType Id>
Var<T> take_rows(const Var<T>& x, Tensor<Id> ids) {
  check<ShapeError>(x.rank() == 3 && ids.shape() == Shape{x.extent(0)}, "take_rows", "expected x [N, L, D] and ids [N], got ", x.shape(),
                    " and ", ids.shape());
  detail::check_ids("take_rows", ids, x.extent(1), x.shape());
  for (Index n = 0; n < ids.size(); ++n) ids.data()[n] += static_cast<Id>(n * x.extent(1));
  return index_select(reshape(x, {x.extent(0) * x.extent(1), x.extent(2)}), 0, std::move(ids));
}

/// Rows of `classes` elements, 1 at each id and 0 elsewhere: ids [...] give [..., classes]. Throws Error on a wrong id.
template <Element T, kernels::IdType Id>
Tensor<T> one_hot(const Tensor<Id>& ids, Index classes) {
  Shape shape = ids.shape();
  shape.push_back(classes);
  detail::check_ids("one_hot", ids, classes, shape);
  auto y = Tensor<T>::uninitialized(shape);
  kernels::one_hot(ids.size(), classes, ids.data(), y.data());
  return y;
}

TENON_COMPILED_TEMPLATE(Var<float> index_select(const Var<float>&, Index, Tensor<std::int64_t>))
TENON_COMPILED_TEMPLATE(Var<float> take_rows(const Var<float>&, Tensor<std::int32_t>))

}  // namespace tenon::inline TENON_ABI
