#pragma once
// Shape: the extents of a tensor, at most eight, outermost first.
#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>

#include <tenon/core/error.hpp>

namespace tenon::inline TENON_ABI {

/// Sizes and indices everywhere.
using Index = std::int64_t;

inline constexpr Index max_rank = 8;

/// Extents, outermost first. Rank 0 is a scalar with one element.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<Index> extents) : Shape(std::span<const Index>(extents.begin(), extents.size())) {}
  /// Throws ShapeError on more than eight extents, a negative extent, or a product past 2^63.
  explicit Shape(std::span<const Index> extents) {
    check<ShapeError>(extents.size() <= static_cast<std::size_t>(max_rank), "Shape", "expected at most ", max_rank,
                      " extents, got ", extents.size());
    for (Index extent : extents) push_back(extent);
  }

  Index rank() const { return rank_; }
  /// The number of elements.
  Index size() const { return size_; }
  /// Extent of an axis; a negative axis counts from the end. Throws ShapeError when out of range.
  Index operator[](Index axis) const { return extents_[static_cast<std::size_t>(normalize(axis))]; }
  /// The axis as 0 .. rank-1. Throws ShapeError when out of range.
  Index normalize(Index axis) const {
    const Index positive = axis < 0 ? axis + rank_ : axis;
    check<ShapeError>(positive >= 0 && positive < rank_, "Shape", "axis ", axis, " is outside ", *this);
    return positive;
  }
  const Index* begin() const { return extents_.data(); }
  const Index* end() const { return extents_.data() + rank_; }
  std::span<const Index> extents() const { return {begin(), static_cast<std::size_t>(rank_)}; }

  void push_back(Index extent) {
    check<ShapeError>(rank_ < max_rank, "Shape", "expected at most ", max_rank, " extents");
    check<ShapeError>(extent >= 0, "Shape", "expected extents of at least 0, got ", extent);
    check<ShapeError>(extent == 0 || size_ <= std::numeric_limits<Index>::max() / extent, "Shape",
                      "the number of elements overflows 63 bits");
    extents_[static_cast<std::size_t>(rank_++)] = extent;
    size_ *= extent;
  }
  /// This shape with the extent of one axis replaced.
  Shape with(Index axis, Index extent) const {
    Shape out;
    axis = normalize(axis);
    for (Index i = 0; i < rank_; ++i) out.push_back(i == axis ? extent : extents_[static_cast<std::size_t>(i)]);
    return out;
  }
  /// This shape without one axis.
  Shape without(Index axis) const {
    Shape out;
    axis = normalize(axis);
    for (Index i = 0; i < rank_; ++i)
      if (i != axis) out.push_back(extents_[static_cast<std::size_t>(i)]);
    return out;
  }
  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (Index i = 0; i < a.rank_; ++i)
      if (a.begin()[i] != b.begin()[i]) return false;
    return true;
  }
  /// `[2, 3, 4]`
  std::string text() const {
    std::string out = "[";
    for (Index i = 0; i < rank_; ++i) {
      if (i > 0) out += ", ";
      out += std::to_string(begin()[i]);
    }
    return out + "]";
  }

 private:
  std::array<Index, static_cast<std::size_t>(max_rank)> extents_{};
  Index rank_ = 0;
  Index size_ = 1;
};

/// The shape NumPy gives to an element-wise result. Throws ShapeError when the extents do not fit.
inline Shape broadcast_shape(std::string_view op, const Shape& a, const Shape& b) {
  Shape out;
  const Index rank = a.rank() > b.rank() ? a.rank() : b.rank();
  for (Index i = 0; i < rank; ++i) {
    const Index ia = i - (rank - a.rank()), ib = i - (rank - b.rank());
    const Index ea = ia < 0 ? 1 : a[ia], eb = ib < 0 ? 1 : b[ib];
    check<ShapeError>(ea == eb || ea == 1 || eb == 1, op, "shapes ", a, " and ", b, " do not broadcast");
    out.push_back(ea == 1 ? eb : ea);
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI
