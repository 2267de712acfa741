#pragma once
// Matrices as products of low rank, by singular values (Eigen, in double). Apart from the other headers: Eigen's SVD is dear
// to compile.
#include <Eigen/Dense>

#include <tenon/peft/lora.hpp>
#include <tenon/tensor/eigen.hpp>

namespace tenon::inline TENON_ABI {

/// B A with the singular values' roots in both.
template <class T>
struct LowRankFactors {
  Tensor<T> a;       ///< [R, n]
  Tensor<T> b;       ///< [m, R]
  double error = 0;  ///< ||M - B A|| / ||M||, Frobenius; 0 for M = 0
};

namespace detail {

using DoubleMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// left u diag(values) v^T right^T cut to a rank. Ranks beyond the matrix's are zero. Each column of u has its largest element
/// positive, so that the factors are the same on every machine.
template <class T>
LowRankFactors<T> cut(DoubleMatrix u, const Eigen::VectorXd& values, DoubleMatrix v, Index rank) {
  const Index kept = std::min<Index>(rank, values.size());
  LowRankFactors<T> out{Tensor<T>(Shape{rank, v.rows()}), Tensor<T>(Shape{u.rows(), rank}), 0};
  for (Index r = 0; r < kept; ++r) {
    Index largest = 0;
    u.col(r).cwiseAbs().maxCoeff(&largest);
    const double root = std::sqrt(values(r)), sign = u(largest, r) < 0 ? -1 : 1;
    for (Index i = 0; i < u.rows(); ++i) out.b.data()[i * rank + r] = static_cast<T>(sign * root * u(i, r));
    for (Index i = 0; i < v.rows(); ++i) out.a.data()[r * v.rows() + i] = static_cast<T>(sign * root * v(i, r));
  }
  const double all = values.squaredNorm(), rest = values.tail(values.size() - kept).squaredNorm();
  out.error = all > 0 ? std::sqrt(rest / all) : 0;
  return out;
}

}  // namespace detail

/// The best approximation of a matrix [m, n] of that rank (Eckart, Young 1936).
template <class T>
LowRankFactors<T> low_rank_of(const Tensor<T>& matrix, Index rank) {
  check<ShapeError>(matrix.rank() == 2, "low_rank_of", "expected a matrix, got shape ", matrix.shape());
  check(rank >= 1, "low_rank_of", "expected a rank of at least 1, got ", rank);
  const detail::DoubleMatrix m = as_eigen(matrix).template cast<double>();
  check(m.allFinite(), "low_rank_of", "expected finite numbers");
  const Eigen::BDCSVD<detail::DoubleMatrix> svd(m, Eigen::ComputeThinU | Eigen::ComputeThinV);
  return detail::cut<T>(svd.matrixU(), svd.singularValues(), svd.matrixV(), rank);
}

namespace detail {
/// delta [m, ...], rows in `groups` equal blocks of their own inputs, as A [rank, k] and B [m, rank / groups] of a LoRA.
template <class T>
LowRankFactors<T> grouped_low_rank(const Tensor<T>& delta, Index rank, Index groups) {
  const Index m = delta.extent(0), k = delta.size() / std::max<Index>(1, m), each = rank / groups, rows = m / groups;
  LowRankFactors<T> out{Tensor<T>(Shape{rank, k}), Tensor<T>(Shape{m, each}), 0};
  double missed = 0, all = 0;
  for (Index g = 0; g < groups; ++g) {
    const Tensor<T> block({rows, k}, std::span(delta.data() + g * rows * k, static_cast<std::size_t>(rows * k)));
    const auto part = low_rank_of(block, each);
    std::copy_n(part.a.data(), each * k, out.a.data() + g * each * k);
    std::copy_n(part.b.data(), rows * each, out.b.data() + g * rows * each);
    double square = 0;
    for (const T v : block) square += static_cast<double>(v) * static_cast<double>(v);
    missed += part.error * part.error * square;
    all += square;
  }
  out.error = all > 0 ? std::sqrt(missed / all) : 0;
  return out;
}
}  // namespace detail

/// The same of a product b [m, R] a [R, n], which is not built: the work grows with (m + n) R^2.
template <class T>
LowRankFactors<T> low_rank_of_product(const Tensor<T>& b, const Tensor<T>& a, Index rank) {
  check<ShapeError>(a.rank() == 2 && b.rank() == 2 && a.extent(0) == b.extent(1), "low_rank_of_product", "expected [m, R] and [R, n], got ", b.shape(),
                    " and ", a.shape());
  check(rank >= 1, "low_rank_of_product", "expected a rank of at least 1, got ", rank);
  const detail::DoubleMatrix left = as_eigen(b).template cast<double>(), right = as_eigen(a).template cast<double>().transpose();
  check(left.allFinite() && right.allFinite(), "low_rank_of_product", "expected finite numbers");
  const Index kb = std::min(left.rows(), left.cols()), ka = std::min(right.rows(), right.cols());
  const Eigen::HouseholderQR<detail::DoubleMatrix> qb(left), qa(right);
  const detail::DoubleMatrix rb = detail::DoubleMatrix(qb.matrixQR().topRows(kb)).template triangularView<Eigen::Upper>();
  const detail::DoubleMatrix ra = detail::DoubleMatrix(qa.matrixQR().topRows(ka)).template triangularView<Eigen::Upper>();
  const detail::DoubleMatrix core = rb * ra.transpose();
  const Eigen::JacobiSVD<detail::DoubleMatrix> svd(core, Eigen::ComputeThinU | Eigen::ComputeThinV);
  detail::DoubleMatrix u = qb.householderQ() * detail::DoubleMatrix(detail::DoubleMatrix::Identity(left.rows(), kb));
  detail::DoubleMatrix v = qa.householderQ() * detail::DoubleMatrix(detail::DoubleMatrix::Identity(right.rows(), ka));
  return detail::cut<T>(u * svd.matrixU(), svd.singularValues(), v * svd.matrixV(), rank);
}

}  // namespace tenon::inline TENON_ABI
