#pragma once
// View: borrowed, possibly strided elements. A View never owns and never outlives what it looks at.
#include <array>

#include <tenon/core/dtype.hpp>
#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI {

/// Elements at `data[sum(index[i] * strides[i])]`; `View<const float>` reads, `View<float>` also writes.
template <class T>
struct View {
  T* data = nullptr;
  Shape shape;
  std::array<Index, static_cast<std::size_t>(max_rank)> strides{};

  View() = default;
  /// Row-major, without gaps.
  View(T* elements, const Shape& extents) : data(elements), shape(extents) {
    Index stride = 1;
    for (Index i = shape.rank(); i-- > 0; stride *= shape[i]) strides[static_cast<std::size_t>(i)] = stride;
  }
  operator View<const T>() const
    requires(!std::is_const_v<T>)
  {
    View<const T> out;
    out.data = data;
    out.shape = shape;
    out.strides = strides;
    return out;
  }
  Index stride(Index axis) const { return strides[static_cast<std::size_t>(shape.normalize(axis))]; }

  bool contiguous() const {
    Index expected = 1;
    for (Index i = shape.rank(); i-- > 0; expected *= shape[i])
      if (shape[i] != 1 && strides[static_cast<std::size_t>(i)] != expected) return false;
    return true;
  }
  /// Axes in another order: axis i of the result is axis `axes[i]` of this. Throws ShapeError unless a permutation.
  View permuted(std::span<const Index> axes) const {
    check<ShapeError>(static_cast<Index>(axes.size()) == shape.rank(), "permute", "expected ", shape.rank(),
                      " axes, got ", axes.size());
    View out;
    out.data = data;
    std::array<bool, static_cast<std::size_t>(max_rank)> used{};
    for (std::size_t i = 0; i < axes.size(); ++i) {
      const auto axis = static_cast<std::size_t>(shape.normalize(axes[i]));
      check<ShapeError>(!used[axis], "permute", "axis ", axes[i], " appears twice");
      used[axis] = true;
      out.shape.push_back(shape[axes[i]]);
      out.strides[i] = strides[axis];
    }
    return out;
  }
  /// Elements begin, begin + step, ... below end along one axis. Throws ShapeError outside 0 <= begin <= end <= extent.
  View sliced(Index axis, Index begin, Index end, Index step = 1) const {
    axis = shape.normalize(axis);
    check<ShapeError>(0 <= begin && begin <= end && end <= shape[axis] && step >= 1, "slice", "range ", begin, ":", end,
                      ":", step, " does not fit axis ", axis, " of ", shape);
    View out = *this;
    out.data += begin * strides[static_cast<std::size_t>(axis)];
    out.shape = shape.with(axis, (end - begin + step - 1) / step);
    out.strides[static_cast<std::size_t>(axis)] *= step;
    return out;
  }
};

}  // namespace tenon::inline TENON_ABI
