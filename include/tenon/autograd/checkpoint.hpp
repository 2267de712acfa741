#pragma once
// Activation checkpointing: keep the inputs only, compute the function again in backward (Chen et al. 2016, 1604.06174).
#include <functional>

#include <tenon/autograd/backward.hpp>
#include <tenon/autograd/training.hpp>

namespace tenon::inline TENON_ABI {

/// `f(inputs)` whose inner values are not kept. `parameters` are the leaves that f reads besides its inputs: the result
/// wants a gradient when any input or any parameter does. `unchanged()` runs before the second computation and throws
/// when something f reads has moved since. Dropout inside drops the same elements again.
template <Real T>
Var<T> checkpoint(std::function<Var<T>(std::span<const Var<T>>)> f, std::vector<Var<T>> inputs, std::span<const Var<T>> parameters,
                  std::function<void()> unchanged) {
  bool wanted = false;
  for (const auto& x : inputs) wanted = wanted || x.requires_grad();
  std::vector<Var<T>> edges = inputs;
  for (const auto& p : parameters) {
    wanted = wanted || p.requires_grad();
    edges.push_back(p);
  }
  if (!wanted || !grad_enabled()) return f(inputs);
  const detail::TrainingState training = detail::training_state;
  Var<T> y = [&] {
    const NoGrad no_grad;
    return f(inputs);
  }();
  std::vector<std::shared_ptr<const Tensor<T>>> kept;
  std::vector<bool> wants;
  for (const auto& x : inputs) {
    kept.push_back(x.shared());
    wants.push_back(x.requires_grad());
  }
  return record(y.shared(), std::span<const Var<T>>(edges),
                [f = std::move(f), kept = std::move(kept), wants = std::move(wants), unchanged = std::move(unchanged), training](
                    Tensor<T>& dy, std::span<Grad<T>> dx) {
                  unchanged();
                  const EnableGrad enable;
                  const detail::TrainingScope same_draws(training);
                  std::vector<Var<T>> again;
                  for (std::size_t i = 0; i < kept.size(); ++i)
                    again.push_back(wants[i] ? variable<T>(kept[i]) : Var<T>(kept[i], nullptr));
                  const Var<T> value = f(again);
                  if (value.requires_grad()) backward(value, std::move(dy));  // adds to the parameters by itself
                  for (std::size_t i = 0; i < again.size(); ++i)
                    if (again[i].has_grad()) dx[i].add(again[i].node()->grad);
                });
}

TENON_COMPILED_TEMPLATE(Var<float> checkpoint(std::function<Var<float>(std::span<const Var<float>>)>, std::vector<Var<float>>, std::span<const Var<float>>, std::function<void()>))

}  // namespace tenon::inline TENON_ABI
