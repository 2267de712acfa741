#pragma once
// The Eigen door: a Tensor seen as an Eigen::Map without a copy, and a Tensor from any dense Eigen expression.
// Maps are unaligned, so units compiled with different -march settings agree on their types.
#include <Eigen/Core>

#include <tenon/tensor/tensor.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
using EigenMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

namespace detail {
/// [..., n] as rows x n; rank 0 and 1 as one row.
inline std::pair<Index, Index> as_matrix(const Shape& shape) {
  const Index columns = shape.rank() == 0 ? 1 : shape[-1];
  return {columns == 0 ? 0 : shape.size() / columns, columns};
}
}  // namespace detail

/// The elements as a matrix [product of the leading extents, last extent], shared, not copied.
template <class T>
Eigen::Map<EigenMatrix<T>> as_eigen(Tensor<T>& tensor) {
  const auto [rows, columns] = detail::as_matrix(tensor.shape());
  return {tensor.data(), rows, columns};
}
template <class T>
Eigen::Map<const EigenMatrix<T>> as_eigen(const Tensor<T>& tensor) {
  const auto [rows, columns] = detail::as_matrix(tensor.shape());
  return {tensor.data(), rows, columns};
}
template <class T>
void as_eigen(const Tensor<T>&& tensor) = delete;

/// `Tensor<float> t = eigen_expression;` gives shape [rows, cols].
template <class E>
  requires std::derived_from<E, Eigen::DenseBase<E>>
struct TensorSource<E> {
  static Shape shape(const E& e) { return {static_cast<Index>(e.rows()), static_cast<Index>(e.cols())}; }
  template <class T>
  static void write(const E& e, T* out) {
    Eigen::Map<EigenMatrix<T>>(out, e.rows(), e.cols()) = e.derived().template cast<T>();
  }
};

}  // namespace tenon::inline TENON_ABI
