#pragma once
// Tensors from nothing: constants and ranges.
#include <cmath>

#include <tenon/tensor/tensor.hpp>

namespace tenon::inline TENON_ABI {

template <Element T>
Tensor<T> zeros(const Shape& shape) {
  return Tensor<T>(shape);
}
template <Element T>
Tensor<T> ones(const Shape& shape) {
  return Tensor<T>::full(shape, T(1));
}
template <Element T>
Tensor<T> full(const Shape& shape, std::type_identity_t<T> value) {
  return Tensor<T>::full(shape, value);
}
/// begin, begin + step, ... before end; a negative step counts down. Throws ShapeError when step is 0.
template <Element T>
Tensor<T> arange(std::type_identity_t<T> begin, std::type_identity_t<T> end, std::type_identity_t<T> step = T(1)) {
  check<ShapeError>(step != T(0), "arange", "expected a step other than 0");
  const double count = std::ceil((static_cast<double>(end) - static_cast<double>(begin)) / static_cast<double>(step));
  auto out = Tensor<T>::uninitialized({count > 0 ? static_cast<Index>(count) : 0});
  for (Index i = 0; i < out.size(); ++i) out.data()[i] = static_cast<T>(begin + static_cast<T>(i) * step);
  return out;
}
/// 0, 1, ... count - 1.
template <Element T>
Tensor<T> arange(Index count) {
  return arange<T>(T(0), static_cast<T>(count));
}
/// `count` numbers evenly from begin to end, both included.
template <Real T>
Tensor<T> linspace(double begin, double end, Index count) {
  auto out = Tensor<T>::uninitialized({count});
  const double step = count > 1 ? (end - begin) / static_cast<double>(count - 1) : 0.0;
  for (Index i = 0; i < count; ++i)
    out.data()[i] = static_cast<T>(i < count / 2 ? begin + static_cast<double>(i) * step : end - static_cast<double>(count - 1 - i) * step);
  if (count == 1) out.data()[0] = static_cast<T>(begin);
  return out;
}
/// The identity matrix [n, n].
template <Element T>
Tensor<T> eye(Index n) {
  Tensor<T> out({n, n});
  for (Index i = 0; i < n; ++i) out.data()[i * n + i] = T(1);
  return out;
}

}  // namespace tenon::inline TENON_ABI
