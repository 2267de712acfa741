#pragma once
// A linear probe: multinomial logistic regression on frozen features (Radford et al. 2021, section 3.2).
#include <tenon/autograd/backward.hpp>
#include <tenon/nn/linear.hpp>
#include <tenon/ops/loss.hpp>
#include <tenon/ops/reduce.hpp>

#include "lbfgs.hpp"

namespace tenon::examples {

/// What brings features to the length that CLIP's usually have, 10 in the mean, so that C means the same for every model.
inline float length_factor(const Tensor<float>& features) {
  const Index n = features.extent(0), width = features.extent(1);
  double sum = 0;
  for (Index i = 0; i < n; ++i) {
    double squares = 0;
    for (Index k = 0; k < width; ++k) squares += static_cast<double>(features(i, k)) * static_cast<double>(features(i, k));
    sum += std::sqrt(squares);
  }
  return sum > 0 ? static_cast<float>(10 * static_cast<double>(n) / sum) : 1.0f;
}

/// Fitted to features [N, E] with labels below `classes` by L-BFGS: the mean cross-entropy, and |weight|^2 / (2 C N), as
/// scikit-learn's LogisticRegression(C) has it; the bias is not punished. For two classes that is |w|^2 / (2 C N) of the
/// difference w of the two weights, which at the minimum are w / 2 and -w / 2: twice as much of each.
class LinearProbe {
 public:
  LinearProbe(const Tensor<float>& features, const std::vector<std::int32_t>& labels, Index classes, double c)
      : factor_(length_factor(features)), linear_(features.extent(1), classes) {
    const Index n = features.extent(0), width = features.extent(1);
    linear_.weight->set(Tensor<float>({classes, width}));
    linear_.bias->set(Tensor<float>({classes}));
    for (auto* part : {&linear_.weight, &linear_.bias}) (*part)->set_trainable(true);
    const Var<float> x(scaled(features));
    const Tensor<std::int32_t> targets({n}, labels);
    const double decay = (classes == 2 ? 2 : 1) / (c * static_cast<double>(n));
    std::vector<double> theta(static_cast<std::size_t>(classes * width + classes), 0.0);
    const std::size_t weights = static_cast<std::size_t>(classes * width);
    result = minimize_lbfgs(theta, [&](const std::vector<double>& at, std::vector<double>& gradient) {
      put(at);
      const Var<float> loss = cross_entropy(linear_(x), targets);
      double value = static_cast<double>(loss.item());
      backward(loss);
      std::size_t i = 0;
      for (auto* part : {&linear_.weight, &linear_.bias}) {
        const Var<float> leaf = (*part)->var();
        for (const float g : leaf.grad()) gradient[i++] = static_cast<double>(g);
        leaf.clear_grad();
      }
      for (i = 0; i < weights; ++i) {
        value += 0.5 * decay * at[i] * at[i];
        gradient[i] += decay * at[i];
      }
      return value;
    });
    put(theta);
    for (auto* part : {&linear_.weight, &linear_.bias}) (*part)->set_trainable(false);
  }

  /// Scores [N, classes] of features [N, E].
  Tensor<float> operator()(const Tensor<float>& features) const { return linear_(Var<float>(scaled(features))).value(); }

  LbfgsResult result{};

 private:
  Tensor<float> scaled(const Tensor<float>& features) const {
    Tensor<float> out = features;
    for (float& v : out.span()) v *= factor_;
    return out;
  }
  void put(const std::vector<double>& theta) {
    auto from = theta.begin();
    for (auto* part : {&linear_.weight, &linear_.bias})
      (*part)->update([&](Tensor<float>& value) {
        for (float& v : value.span()) v = static_cast<float>(*from++);
      });
  }

  float factor_;
  Linear<float> linear_;
};

}  // namespace tenon::examples
