#pragma once
// Other shapes of the same elements, parts of a tensor, and tensors joined.
// reshape, squeeze and unsqueeze share the value; the others copy.
#include <tenon/ops/axes.hpp>
#include <tenon/ops/broadcast.hpp>

namespace tenon::inline TENON_ABI {

/// The same elements in row-major order under another shape. Throws ShapeError when the sizes differ.
template <Real T>
Var<T> reshape(const Var<T>& x, const Shape& shape) {
  if (shape == x.shape()) return x;
  return record(x.value().share(shape), {x}, [shape = x.shape()](Tensor<T>& dy, std::span<Grad<T>> dx) {
    dx[0].add(std::move(dy).reshape(shape));
  });
}
/// As above; one extent may be -1.
template <Real T>
Var<T> reshape(const Var<T>& x, std::initializer_list<Index> extents) {
  return reshape(x, x.value().resolve(extents));
}

/// Without the axes of extent 1 that are named. Throws ShapeError when one has another extent.
template <Real T>
Var<T> squeeze(const Var<T>& x, const Axes& over) {
  const Axes axes = over.of("squeeze", x.shape());
  for (Index axis : axes)
    check<ShapeError>(x.extent(axis) == 1, "squeeze", "expected extent 1 along axis ", axis, ", got shape ", x.shape());
  return reshape(x, reduced_shape(x.shape(), axes, false));
}
/// Without any axis of extent 1.
template <Real T>
Var<T> squeeze(const Var<T>& x) {
  Shape shape;
  for (Index extent : x.shape())
    if (extent != 1) shape.push_back(extent);
  return reshape(x, shape);
}
/// With a new axis of extent 1 that becomes axis `axis` of the result. Throws ShapeError when that is out of range.
template <Real T>
Var<T> unsqueeze(const Var<T>& x, Index axis) {
  const Index at = axis < 0 ? axis + x.rank() + 1 : axis;
  check<ShapeError>(0 <= at && at <= x.rank(), "unsqueeze", "axis ", axis, " is outside the result of ", x.shape());
  Shape shape;
  for (Index i = 0; i <= x.rank(); ++i) {
    if (i == at) shape.push_back(1);
    if (i < x.rank()) shape.push_back(x.extent(i));
  }
  return reshape(x, shape);
}

/// Axis i of the result is axis `axes[i]` of x. Throws ShapeError unless `axes` names each axis once.
template <Real T>
Var<T> permute(const Var<T>& x, const Axes& axes) {
  check<ShapeError>(axes.size() == x.rank(), "permute", "expected ", x.rank(), " axes for shape ", x.shape(), ", got ", axes.size());
  const Axes order = axes.of("permute", x.shape());
  return record(detail::gathered(x.value().view().permuted(order.span())), {x},
                [order, shape = x.shape()](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  auto d = Tensor<T>::uninitialized(shape);
                  detail::scatter(dy, d.view().permuted(order.span()));
                  dx[0].add(std::move(d));
                });
}
/// Two axes exchanged; by default the last two.
template <Real T>
Var<T> transpose(const Var<T>& x, Index a = -2, Index b = -1) {
  const Axes pair = Axes({a, b}).of("transpose", x.shape());
  std::vector<Index> order;
  for (Index i = 0; i < x.rank(); ++i) order.push_back(i == pair.begin()[0] ? pair.begin()[1] : i == pair.begin()[1] ? pair.begin()[0] : i);
  return permute(x, Axes(std::move(order)));
}

/// Repeats x to `shape` by NumPy's rules. Throws ShapeError when x does not broadcast to it.
template <Real T>
Var<T> broadcast_to(const Var<T>& x, const Shape& shape) {
  check<ShapeError>(x.rank() <= shape.rank() && broadcast_shape("broadcast_to", x.shape(), shape) == shape, "broadcast_to",
                    "shape ", x.shape(), " does not broadcast to ", shape);
  return record(detail::expand(x.value(), x.shape(), shape), {x}, [shape = x.shape()](Tensor<T>& dy, std::span<Grad<T>> dx) {
    dx[0].add(detail::sum_to(std::move(dy), shape));
  });
}
/// `times` copies of x one after the other along an axis.
template <Real T>
Var<T> repeat(const Var<T>& x, Index axis, Index times) {
  axis = *Axes(axis).of("repeat", x.shape()).begin();
  check<ShapeError>(times >= 0, "repeat", "expected at least 0 copies of shape ", x.shape(), ", got ", times);
  const Var<T> wide = unsqueeze(x, axis);
  return reshape(broadcast_to(wide, wide.shape().with(axis, times)), x.shape().with(axis, times * x.extent(axis)));
}

/// The elements along the named axes in reverse order.
template <Real T>
Var<T> flip(const Var<T>& x, const Axes& over) {
  const auto reversed = [axes = over.of("flip", x.shape())](auto view) {
    for (Index axis : axes) {
      auto& stride = view.strides[static_cast<std::size_t>(axis)];
      if (view.shape[axis] > 0) view.data += (view.shape[axis] - 1) * stride;
      stride = -stride;
    }
    return view;
  };
  return record(detail::gathered(reversed(x.value().view())), {x}, [reversed](Tensor<T>& dy, std::span<Grad<T>> dx) {
    dx[0].add(detail::gathered(reversed(static_cast<const Tensor<T>&>(dy).view())));
  });
}

/// Elements begin, begin + step, ... below `end` along one axis. Negative `begin` and `end` count from the end.
/// Throws ShapeError when the range does not lie within the axis.
template <Real T>
Var<T> slice(const Var<T>& x, Index axis, Index begin, Index end, Index step = 1) {
  axis = *Axes(axis).of("slice", x.shape()).begin();
  if (begin < 0) begin += x.extent(axis);
  if (end < 0) end += x.extent(axis);
  return record(detail::gathered(x.value().view().sliced(axis, begin, end, step)), {x},
                [=, shape = x.shape()](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  Tensor<T> d(shape);
                  detail::scatter(dy, d.view().sliced(axis, begin, end, step));
                  dx[0].add(std::move(d));
                });
}
/// The elements at one index of an axis, which vanishes; a negative index counts from the end.
template <Real T>
Var<T> select(const Var<T>& x, Index axis, Index index) {
  axis = *Axes(axis).of("select", x.shape()).begin();
  const Index at = index < 0 ? index + x.extent(axis) : index;
  check<ShapeError>(0 <= at && at < x.extent(axis), "select", "index ", index, " is outside axis ", axis, " of ", x.shape());
  return squeeze(slice(x, axis, at, at + 1), axis);
}

/// The parts one after the other along an axis. Throws ShapeError unless all other extents agree.
template <Real T>
Var<T> concat(const std::vector<Var<T>>& parts, Index axis) {
  check<ShapeError>(!parts.empty(), "concat", "expected at least one part");
  const Shape& first = parts.front().shape();
  axis = *Axes(axis).of("concat", first).begin();
  Index total = 0;
  for (const auto& part : parts) {
    check<ShapeError>(part.rank() == first.rank() && part.shape().with(axis, first[axis]) == first, "concat", "expected shapes as ",
                      first, " but for axis ", axis, ", got ", part.shape());
    total += part.extent(axis);
  }
  auto y = Tensor<T>::uninitialized(first.with(axis, total));
  std::vector<Index> ends{0};
  for (const auto& part : parts) {
    ends.push_back(ends.back() + part.extent(axis));
    detail::scatter(part.value(), y.view().sliced(axis, ends.end()[-2], ends.back()));
  }
  return record(std::move(y), std::span<const Var<T>>(parts), [axis, ends](Tensor<T>& dy, std::span<Grad<T>> dx) {
    for (std::size_t i = 0; i < dx.size(); ++i)
      if (dx[i].wanted()) dx[i].add(detail::gathered(dy.view().sliced(axis, ends[i], ends[i + 1])));
  });
}
template <Real T>
Var<T> concat(std::initializer_list<Var<T>> parts, Index axis) {
  return concat(std::vector<Var<T>>(parts), axis);
}
/// The parts, all of one shape, along a new axis.
template <Real T>
Var<T> stack(const std::vector<Var<T>>& parts, Index axis = 0) {
  std::vector<Var<T>> rows;
  for (const auto& part : parts) {
    check<ShapeError>(part.shape() == parts.front().shape(), "stack", "expected shapes as ", parts.front().shape(), ", got ", part.shape());
    rows.push_back(unsqueeze(part, axis));
  }
  return concat(rows, axis);
}
template <Real T>
Var<T> stack(std::initializer_list<Var<T>> parts, Index axis = 0) {
  return stack(std::vector<Var<T>>(parts), axis);
}

/// Consecutive parts of the given sizes along an axis. Throws ShapeError unless the sizes fill it.
template <Real T>
std::vector<Var<T>> split(const Var<T>& x, const std::vector<Index>& sizes, Index axis = -1) {
  axis = *Axes(axis).of("split", x.shape()).begin();
  Index total = 0;
  for (Index size : sizes) total += size;
  check<ShapeError>(total == x.extent(axis), "split", "expected sizes that fill axis ", axis, " of ", x.shape(), ", got a sum of ", total);
  std::vector<Var<T>> parts;
  Index begin = 0;
  for (Index size : sizes) {
    parts.push_back(slice(x, axis, begin, begin + size));
    begin += size;
  }
  return parts;
}
/// `count` parts of equal size along an axis. Throws ShapeError unless its extent divides.
template <Real T>
std::vector<Var<T>> chunk(const Var<T>& x, Index count, Index axis = -1) {
  axis = *Axes(axis).of("chunk", x.shape()).begin();
  check<ShapeError>(count > 0 && x.extent(axis) % count == 0, "chunk", "expected axis ", axis, " of ", x.shape(), " to divide in ", count);
  return split(x, std::vector<Index>(static_cast<std::size_t>(count), x.extent(axis) / count), axis);
}

/// x with `value` around it: for each axis, the number of elements before and after, as NumPy takes them.
template <Real T>
Var<T> pad(const Var<T>& x, const std::vector<std::pair<Index, Index>>& widths, double value = 0) {
  check<ShapeError>(static_cast<Index>(widths.size()) == x.rank(), "pad", "expected ", x.rank(), " widths for shape ", x.shape(), ", got ", widths.size());
  Shape shape;
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const auto [before, after] = widths[i];
    check<ShapeError>(before >= 0 && after >= 0, "pad", "expected widths of at least 0 around ", x.shape(), ", got ", before, " and ", after);
    shape.push_back(before + x.shape().begin()[i] + after);
  }
  const auto inside = [widths, extents = x.shape()](auto view) {
    for (Index axis = 0; axis < extents.rank(); ++axis) {
      const Index before = widths[static_cast<std::size_t>(axis)].first;
      view = view.sliced(axis, before, before + extents[axis]);
    }
    return view;
  };
  auto y = Tensor<T>::full(shape, static_cast<T>(value));
  detail::scatter(x.value(), inside(y.view()));
  return record(std::move(y), {x}, [inside](Tensor<T>& dy, std::span<Grad<T>> dx) { dx[0].add(detail::gathered(inside(dy.view()))); });
}

TENON_COMPILED_TEMPLATE(Var<float> reshape(const Var<float>&, const Shape&))
TENON_COMPILED_TEMPLATE(Var<float> reshape(const Var<float>&, std::initializer_list<Index>))
TENON_COMPILED_FUNCTION(permute<float>)
TENON_COMPILED_FUNCTION(transpose<float>)
TENON_COMPILED_FUNCTION(broadcast_to<float>)
TENON_COMPILED_FUNCTION(slice<float>)
TENON_COMPILED_FUNCTION(select<float>)
TENON_COMPILED_TEMPLATE(Var<float> concat(const std::vector<Var<float>>&, Index))
TENON_COMPILED_TEMPLATE(Var<float> concat(std::initializer_list<Var<float>>, Index))

}  // namespace tenon::inline TENON_ABI
