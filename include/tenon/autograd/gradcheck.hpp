#pragma once
// Gradients checked against central differences, in double.
#include <cmath>
#include <functional>
#include <sstream>

#include <tenon/autograd/backward.hpp>

namespace tenon::inline TENON_ABI {

struct GradCheckOptions {
  double step = 1e-6;
  double absolute = 1e-6;
  double relative = 1e-4;
};

/// Compares the gradient of sum(f(inputs) * w), for fixed pseudo-random w, with central differences in every element
/// of every input. Returns an empty text when all agree, else the first disagreement.
inline std::string check_grad(const std::function<Var<double>(const std::vector<Var<double>>&)>& f,
                              const std::vector<Tensor<double>>& inputs, const GradCheckOptions& options = {}) {
  const auto weight = [](Index i) { return 0.5 + std::fmod(0.6180339887498949 * static_cast<double>(i + 1), 1.0); };
  const auto objective = [&](const std::vector<Tensor<double>>& at) {
    const NoGrad no_grad;
    const Var<double> y = f({at.begin(), at.end()});
    double sum = 0;
    for (Index i = 0; i < y.size(); ++i) sum += y.value().data()[i] * weight(i);
    return sum;
  };
  std::vector<Var<double>> leaves;
  for (const auto& input : inputs) leaves.push_back(variable(input));
  const Var<double> y = f(leaves);
  Tensor<double> dy(y.shape());
  for (Index i = 0; i < dy.size(); ++i) dy.data()[i] = weight(i);
  backward(y, std::move(dy));
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    for (Index i = 0; i < inputs[k].size(); ++i) {
      std::vector<Tensor<double>> at = inputs;
      at[k].data()[i] = inputs[k].data()[i] + options.step;
      const double above = objective(at);
      at[k].data()[i] = inputs[k].data()[i] - options.step;
      const double below = objective(at);
      const double expected = (above - below) / (2 * options.step);
      const double got = leaves[k].has_grad() ? leaves[k].grad().data()[i] : 0.0;
      if (!(std::abs(got - expected) <= options.absolute + options.relative * std::abs(expected))) {
        std::ostringstream text;
        text << "input " << k << ", element " << i << " of " << inputs[k].shape().text() << ": expected " << expected << ", got " << got;
        return text.str();
      }
    }
  }
  return {};
}

}  // namespace tenon::inline TENON_ABI
