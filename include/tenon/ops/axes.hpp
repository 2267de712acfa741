#pragma once
// Axes: a list of axis numbers as operations take them, `1` or `{0, -1}`.
#include <array>
#include <initializer_list>
#include <span>
#include <vector>

#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI {

/// Axis numbers, in the order given; negative ones count from the end.
class Axes {
 public:
  Axes(Index axis) : Axes({axis}) {}  // NOLINT: a single axis is implicit
  Axes(std::initializer_list<Index> axes) : axes_(axes) {}
  explicit Axes(std::vector<Index> axes) : axes_(std::move(axes)) {}
  static Axes all(const Shape& shape) {
    Axes out({});
    for (Index i = 0; i < shape.rank(); ++i) out.axes_.push_back(i);
    return out;
  }
  /// These axes of `shape` as 0 .. rank-1. Throws ShapeError when one is out of range or appears twice.
  Axes of(std::string_view op, const Shape& shape) const {
    Axes out({});
    std::array<bool, static_cast<std::size_t>(max_rank)> used{};
    for (Index axis : axes_) {
      const Index positive = axis < 0 ? axis + shape.rank() : axis;
      check<ShapeError>(0 <= positive && positive < shape.rank(), op, "axis ", axis, " is outside ", shape);
      check<ShapeError>(!used[static_cast<std::size_t>(positive)], op, "axis ", axis, " of ", shape, " appears twice");
      used[static_cast<std::size_t>(positive)] = true;
      out.axes_.push_back(positive);
    }
    return out;
  }
  Index size() const { return static_cast<Index>(axes_.size()); }
  bool contains(Index axis) const {
    for (Index a : axes_)
      if (a == axis) return true;
    return false;
  }
  const Index* begin() const { return axes_.data(); }
  const Index* end() const { return axes_.data() + axes_.size(); }
  std::span<const Index> span() const { return axes_; }

 private:
  std::vector<Index> axes_;
};

/// `shape` with the extents of these axes (as 0 .. rank-1) set to 1, or left out.
inline Shape reduced_shape(const Shape& shape, const Axes& axes, bool keep_dims) {
  Shape out;
  for (Index i = 0; i < shape.rank(); ++i) {
    if (!axes.contains(i))
      out.push_back(shape[i]);
    else if (keep_dims)
      out.push_back(1);
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI
