#pragma once
// Random tensors by torch's CPU stream, and dropout by position.
#include <tenon/autograd/training.hpp>
#include <tenon/autograd/var.hpp>
#include <tenon/core/random.hpp>
#include <tenon/kernels/dropout.hpp>

namespace tenon::inline TENON_ABI {

/// Uniform numbers in [0, 1): torch.rand with the same seed.
template <Real T>
Tensor<T> rand(const Shape& shape, Generator& generator) {
  auto out = Tensor<T>::uninitialized(shape);
  fill_uniform(out.span(), T(0), T(1), generator);
  return out;
}
/// Standard normal numbers: torch.randn with the same seed, to about 2 ulp.
template <Real T>
Tensor<T> randn(const Shape& shape, Generator& generator) {
  auto out = Tensor<T>::uninitialized(shape);
  fill_normal(out.span(), T(0), T(1), generator);
  return out;
}
/// Integers in [low, high): torch.randint. Throws Error when the interval is empty.
template <std::integral T>
Tensor<T> randint(std::int64_t low, std::int64_t high, const Shape& shape, Generator& generator) {
  auto out = Tensor<T>::uninitialized(shape);
  fill_integers(out.span(), low, high, generator);
  return out;
}
/// One with the given probability, else zero. Throws Error unless 0 <= probability <= 1.
template <Element T>
Tensor<T> bernoulli(double probability, const Shape& shape, Generator& generator) {
  auto out = Tensor<T>::uninitialized(shape);
  fill_bernoulli(out.span(), probability, generator);
  return out;
}

/// x / (1 - p) with each element put to 0 with probability p (Srivastava et al. 2014). Which ones depends on the seed
/// and the step of `random` alone. Throws Error unless 0 <= p < 1.
template <Real T>
Var<T> dropout(const Var<T>& x, double p, const Philox& random) {
  check(0 <= p && p < 1, "dropout", "expected a probability in [0, 1), got ", p);
  if (p == 0) return x;
  auto y = Tensor<T>::uninitialized(x.shape());
  kernels::dropout(x.size(), p, random, x.value().data(), y.data());
  return record(std::move(y), {x}, [p, random](Tensor<T>& dy, std::span<Grad<T>> dx) {
    kernels::dropout(dy.size(), p, random, static_cast<const T*>(dy.data()), dy.data());
    dx[0].add(std::move(dy));
  });
}
/// Dropout as layers have it: by the next numbers of the enclosing Training, and x itself where there is none.
template <Real T>
Var<T> dropout(const Var<T>& x, double p) {
  return is_training() ? dropout(x, p, next_draw()) : x;
}

}  // namespace tenon::inline TENON_ABI
