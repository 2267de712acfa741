// Eigen's side of the benchmark: the same product as for `gemm`.
#include "../gemm/eigen.cpp"
