#pragma once
// Initialisation of parameters; afterwards they are trainable. The defaults are torch's.
#include <cmath>

#include <tenon/core/random.hpp>
#include <tenon/nn/param.hpp>

namespace tenon::inline TENON_ABI::init {

template <class T>
void constant(Param<T>& param, T value) {
  if (!param) return;
  param->set(Tensor<T>::full(param->shape(), value));
  param->set_trainable(true);
}
/// Uniform in [-bound, bound).
template <class T>
void uniform(Param<T>& param, double bound, Generator& generator) {
  if (!param) return;
  auto value = Tensor<T>::uninitialized(param->shape());
  fill_uniform(value.span(), static_cast<T>(-bound), static_cast<T>(bound), generator);
  param->set(std::move(value));
  param->set_trainable(true);
}
/// Normal with mean 0.
template <class T>
void normal(Param<T>& param, double deviation, Generator& generator) {
  if (!param) return;
  auto value = Tensor<T>::uninitialized(param->shape());
  fill_normal(value.span(), T(0), static_cast<T>(deviation), generator);
  param->set(std::move(value));
  param->set_trainable(true);
}
/// Elements that feed one output of a weight [out, in, ...].
template <class T>
Index fan_in(const Weight<T>& weight) {
  return weight.shape()[0] == 0 ? 1 : std::max<Index>(1, weight.size() / weight.shape()[0]);
}
/// torch's default for Linear and Conv: weight and bias uniform in +-1/sqrt(fan in).
template <class T>
void fan_in_uniform(Param<T>& weight, Param<T>& bias, Generator& generator) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in(*weight)));
  uniform(weight, bound, generator);
  uniform(bias, bound, generator);
}

}  // namespace tenon::inline TENON_ABI::init
