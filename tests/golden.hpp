#pragma once
// Numbers of a reference implementation, and how far ours are from them.
#include <algorithm>
#include <cmath>
#include <string>

#include <tenon/core/random.hpp>
#include <tenon/io/safetensors.hpp>

namespace golden {

using namespace tenon;

inline std::string path(const std::string& name) { return std::string(TENON_TEST_DATA) + "/" + name; }

/// max|a - b| / max|b|; infinite for shapes that differ.
template <class A, class B>
double error(const Tensor<A>& a, const Tensor<B>& b) {
  if (a.shape() != b.shape()) return INFINITY;
  double far = 0, largest = 0;
  for (Index i = 0; i < b.size(); ++i) {
    const double x = static_cast<double>(a.data()[i]), y = static_cast<double>(b.data()[i]);
    if (!(std::abs(x - y) <= far)) far = std::isnan(x - y) ? INFINITY : std::abs(x - y);
    largest = std::max(largest, std::abs(y));
  }
  return largest > 0 ? far / largest : far;
}

/// Normal numbers.
template <class T = double>
Tensor<T> numbers(const Shape& shape, Generator& generator, double deviation = 1) {
  auto out = Tensor<T>::uninitialized(shape);
  fill_normal(out.span(), T(0), static_cast<T>(deviation), generator);
  return out;
}

}  // namespace golden
