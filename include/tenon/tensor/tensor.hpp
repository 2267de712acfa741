#pragma once
// Tensor: owning, contiguous, row-major, 64-byte aligned. Copying is deep, moving is free.
#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include <tenon/core/dtype.hpp>
#include <tenon/core/memory.hpp>
#include <tenon/core/shape.hpp>
#include <tenon/tensor/view.hpp>

namespace tenon::inline TENON_ABI {

/// How a Tensor is built from another library's expression; a door (tensor/xtensor.hpp, tensor/eigen.hpp) specialises it
/// with `static Shape shape(const E&)` and `template <class T> static void write(const E&, T* out)`.
template <class E>
struct TensorSource;

template <class E>
concept TensorExpression = requires(const E& e) {
  { TensorSource<E>::shape(e) } -> std::same_as<Shape>;
};

/// Dense elements of type T with a shape known at run time (rank 0 to 8).
template <class T>
class Tensor {
  static_assert(Element<T>, "Tensor holds float, double, bfloat16, half, int8, int32, int64, uint8 or bool");

 public:
  using value_type = T;

  /// No elements: shape [0].
  Tensor() : shape_{0} {}
  /// Zeros.
  explicit Tensor(const Shape& shape) : Tensor(uninitialized(shape)) {
    if (size() > 0) std::memset(static_cast<void*>(data()), 0, static_cast<std::size_t>(size()) * sizeof(T));
  }
  /// The given elements in row-major order. Throws ShapeError when their number differs from the shape's.
  Tensor(const Shape& shape, std::span<const T> elements) : Tensor(uninitialized(shape)) {
    check<ShapeError>(static_cast<Index>(elements.size()) == size(), "Tensor", "expected ", size(), " elements for shape ",
                      shape, ", got ", elements.size());
    std::copy(elements.begin(), elements.end(), data());
  }
  Tensor(const Shape& shape, std::initializer_list<T> elements)
      : Tensor(shape, std::span<const T>(elements.begin(), elements.size())) {}
  /// Rank 1, from a list.
  static Tensor of(std::initializer_list<T> elements) { return Tensor({static_cast<Index>(elements.size())}, elements); }
  /// The value of another library's expression, evaluated once.
  template <TensorExpression E>
  Tensor(const E& expression) : Tensor(uninitialized(TensorSource<E>::shape(expression))) {  // NOLINT: a door is implicit
    TensorSource<E>::template write<T>(expression, data());
  }

  static Tensor uninitialized(const Shape& shape) {
    Tensor out;
    out.shape_ = shape;
    out.data_ = allocate<T>(shape.size());
    return out;
  }
  static Tensor full(const Shape& shape, T value) {
    Tensor out = uninitialized(shape);
    out.fill(value);
    return out;
  }
  static Tensor scalar(T value) { return full({}, value); }
  /// Takes part in memory that somebody else made, such as a mapped file. `data` must hold shape.size() elements.
  static Tensor adopt(const Shape& shape, std::shared_ptr<T[]> data) {
    Tensor out;
    out.shape_ = shape;
    out.data_ = std::move(data);
    return out;
  }

  Tensor(const Tensor& other) : Tensor(uninitialized(other.shape_)) {
    std::copy(other.data(), other.data() + other.size(), data());
  }
  Tensor& operator=(const Tensor& other) {
    if (this != &other) *this = Tensor(other);
    return *this;
  }
  Tensor(Tensor&& other) noexcept : shape_(other.shape_), data_(std::move(other.data_)) { other.shape_ = Shape{0}; }
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(shape_, other.shape_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~Tensor() = default;

  const Shape& shape() const { return shape_; }
  Index rank() const { return shape_.rank(); }
  Index size() const { return shape_.size(); }
  /// Extent of an axis; negative counts from the end.
  Index extent(Index axis) const { return shape_[axis]; }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::span<T> span() { return {data(), static_cast<std::size_t>(size())}; }
  std::span<const T> span() const { return {data(), static_cast<std::size_t>(size())}; }
  T* begin() { return data(); }
  T* end() { return data() + size(); }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size(); }

  /// What holds the elements.
  const std::shared_ptr<T[]>& memory() const { return data_; }

  View<T> view() { return {data(), shape_}; }
  View<const T> view() const { return {data(), shape_}; }

  /// One element. Throws ShapeError when the number of indices or one of them does not fit.
  template <class... I>
  T& operator()(I... index) {
    return data_[offset({static_cast<Index>(index)...})];
  }
  template <class... I>
  const T& operator()(I... index) const {
    return data_[offset({static_cast<Index>(index)...})];
  }
  /// The only element. Throws ShapeError when there is not exactly one.
  T item() const {
    check<ShapeError>(size() == 1, "item", "expected one element, got shape ", shape_);
    return data_[0];
  }
  void fill(T value) { std::fill(begin(), end(), value); }

  /// The same elements under another shape; one extent may be -1. Throws ShapeError when the sizes differ.
  Tensor reshape(std::initializer_list<Index> extents) && { return std::move(*this).reshape(resolve(extents)); }
  Tensor reshape(std::initializer_list<Index> extents) const& { return Tensor(*this).reshape(resolve(extents)); }
  Tensor reshape(const Shape& shape) && {
    check<ShapeError>(shape.size() == size(), "reshape", "cannot view ", shape_, " as ", shape);
    Tensor out = std::move(*this);
    out.shape_ = shape;
    return out;
  }
  Tensor reshape(const Shape& shape) const& { return Tensor(*this).reshape(shape); }
  /// Another shape over the same memory: for values that nobody writes any more, as those of a Var.
  Tensor share(const Shape& shape) const {
    check<ShapeError>(shape.size() == size(), "reshape", "cannot view ", shape_, " as ", shape);
    return adopt(shape, data_);
  }
  /// `extents` with its single -1 replaced by what is left.
  Shape resolve(std::initializer_list<Index> extents) const {
    Index known = 1, unknown = 0;
    for (Index extent : extents) (extent == -1 ? ++unknown : known *= extent);
    check<ShapeError>(unknown <= 1 && (unknown == 0 || (known > 0 && size() % known == 0)), "reshape", "cannot fit ", size(),
                      " elements of ", shape_, " into the extents asked for");
    Shape out;
    for (Index extent : extents) out.push_back(extent == -1 ? size() / known : extent);
    return out;
  }

 private:
  Index offset(std::initializer_list<Index> index) const {
    check<ShapeError>(static_cast<Index>(index.size()) == rank(), "Tensor", "expected ", rank(), " indices for ", shape_, ", got ",
                      index.size());
    Index out = 0, axis = 0;
    for (Index i : index) {
      const Index extent = shape_.begin()[axis++];
      check<ShapeError>(0 <= i && i < extent, "Tensor", "index ", i, " is outside axis ", axis - 1, " of ", shape_);
      out = out * extent + i;
    }
    return out;
  }

  Shape shape_;
  std::shared_ptr<T[]> data_;
};

/// Whether shapes and all elements are equal.
template <class T>
bool operator==(const Tensor<T>& a, const Tensor<T>& b) {
  return a.shape() == b.shape() && std::equal(a.begin(), a.end(), b.begin());
}

/// The elements of a strided view in a tensor of their own.
template <class T>
Tensor<std::remove_const_t<T>> copy(const View<T>& view) {
  auto out = Tensor<std::remove_const_t<T>>::uninitialized(view.shape);
  auto* to = out.data();
  const Index rank = view.shape.rank();
  if (view.shape.size() == 0) return out;
  const Index inner = rank > 0 ? view.shape[-1] : 1, inner_stride = rank > 0 ? view.stride(-1) : 1;
  std::array<Index, static_cast<std::size_t>(max_rank)> index{};
  for (Index row = 0; row < view.shape.size() / inner; ++row) {
    const T* from = view.data;
    for (Index i = 0; i + 1 < rank; ++i) from += index[static_cast<std::size_t>(i)] * view.strides[static_cast<std::size_t>(i)];
    for (Index i = 0; i < inner; ++i) *to++ = from[i * inner_stride];
    for (Index i = rank - 2; i >= 0 && ++index[static_cast<std::size_t>(i)] == view.shape[i]; --i) index[static_cast<std::size_t>(i)] = 0;
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI
