// Eigen's product, built with -march=native (all else of the benchmark is not), and without tenon.
#include <Eigen/Core>

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// y [m, n] = x [m, k] times the transpose of w [n, k]. Eigen packs both on every call.
void eigen_gemm(const float* x, const float* w, float* y, long m, long n, long k) {
  const Eigen::Map<const Matrix> a(x, m, k), b(w, n, k);
  Eigen::Map<Matrix>(y, m, n).noalias() = a * b.transpose();
}
void eigen_threads(int threads) { Eigen::setNbThreads(threads); }
