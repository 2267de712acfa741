#include "../../examples/common/linear_probe.hpp"

#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using namespace tenon::examples;

TEST_CASE("L-BFGS finds known minima") {
  // Rosenbrock's valley, whose minimum is at (1, 1)
  std::vector<double> x{-1.2, 1};
  const auto result = minimize_lbfgs(x, [](const std::vector<double>& at, std::vector<double>& gradient) {
    const double a = at[1] - at[0] * at[0], b = 1 - at[0];
    gradient = {-400 * a * at[0] - 2 * b, 200 * a};
    return 100 * a * a + b * b;
  });
  REQUIRE(x[0] == Approx(1).epsilon(1e-6));
  REQUIRE(x[1] == Approx(1).epsilon(1e-6));
  REQUIRE(result.gradient <= 1e-5);
  REQUIRE(result.iterations < 100);

  // a quadratic of very different curvatures
  std::vector<double> y(20, 1.0);
  minimize_lbfgs(y, [](const std::vector<double>& at, std::vector<double>& gradient) {
    double value = 0;
    for (std::size_t i = 0; i < at.size(); ++i) {
      const double curvature = std::pow(10.0, static_cast<double>(i) / 5), d = at[i] - static_cast<double>(i);
      gradient[i] = curvature * d;
      value += 0.5 * curvature * d * d;
    }
    return value;
  });
  for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == Approx(static_cast<double>(i)).margin(1e-4));
  // at the minimum already: nothing moves
  std::vector<double> z{0};
  REQUIRE(minimize_lbfgs(z, [](const auto& at, auto& gradient) { gradient[0] = 2 * at[0]; return at[0] * at[0]; }).iterations == 0);
}

TEST_CASE("a probe of one feature and two classes by hand") {
  // labels 0 at -1 and 1 at +1 (lengths 10 after scaling): by symmetry the weights are (-w, w), the biases equal, and
  // the derivative of log(1 + exp(-20 w)) + w^2 / (2 C) * 2 / 2 at the minimum is 0: 20 / (1 + exp(20 w)) = w / C
  const Tensor<float> x({2, 1}, {-1, 1});
  const double c = 0.5;
  const LinearProbe probe(x, {0, 1}, 2, c);
  const auto scores = probe(x);
  const double w = static_cast<double>(scores(1, 1) - scores(1, 0)) / 20;
  REQUIRE(20 / (1 + std::exp(20 * w)) == Approx(w / c).epsilon(1e-3));
  REQUIRE(scores(0, 0) == Approx(scores(1, 1)).margin(1e-4));
  REQUIRE(scores(0, 0) > scores(0, 1));
}

TEST_CASE("a probe separates what can be separated, whatever the features' length") {
  Generator generator(5);
  const Index n = 60, width = 12, classes = 3;
  Tensor<float> x = golden::numbers<float>({n, width}, generator);
  std::vector<std::int32_t> labels;
  for (Index i = 0; i < n; ++i) {
    labels.push_back(static_cast<std::int32_t>(i % classes));
    x(i, i % classes) += 6;
  }
  const LinearProbe probe(x, labels, classes, 1);
  Tensor<float> longer = x;
  for (float& v : longer.span()) v *= 64;
  const LinearProbe same(longer, labels, classes, 1);
  const auto scores = probe(x);
  REQUIRE(golden::error(same(longer), scores) < 1e-5);
  for (Index i = 0; i < n; ++i)
    for (Index k = 0; k < classes; ++k) REQUIRE(scores(i, labels[static_cast<std::size_t>(i)]) >= scores(i, k));
  REQUIRE(LinearProbe(x, labels, classes, 100).result.value < probe.result.value);  // less regularised, better fitted
}
