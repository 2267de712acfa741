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
  // the derivative of log(1 + exp(-20 w)) + (2 w)^2 / (2 C) / 2 at the minimum is 0: 20 / (1 + exp(20 w)) = 2 w / C
  const Tensor<float> x({2, 1}, {-1, 1});
  const double c = 0.5;
  const LinearProbe probe(x, {0, 1}, 2, c);
  const auto scores = probe(x);
  const double w = static_cast<double>(scores(1, 1) - scores(1, 0)) / 20;
  REQUIRE(20 / (1 + std::exp(20 * w)) == Approx(2 * w / c).epsilon(1e-3));
  REQUIRE(scores(0, 0) == Approx(scores(1, 1)).margin(1e-4));
  REQUIRE(scores(0, 0) > scores(0, 1));
}

TEST_CASE("a probe's scores are those of scikit-learn, of two classes and of more") {
  const Tensor<float> x({8, 3}, {3, 1, 0, 2, -1, 1, -1, 2, 2, 0, 3, -2, 1, 1, -3, -2, 0, 1, 2, 2, 1, -1, -3, 0});
  // LogisticRegression(C=0.05, tol=1e-12).fit(10 * x / mean length, labels).decision_function: one score, of the second class,
  // of two classes; of more, here without their mean
  const double two[8] = {-1.0484556, -1.6376637, 2.8465541, 1.3714637, -1.195759, 1.4072188, 0.7296594, -1.9491116};
  const auto binary = LinearProbe(x, {0, 0, 1, 1, 0, 1, 1, 0}, 2, 0.05)(x);
  for (Index i = 0; i < 8; ++i) CHECK(binary(i, 1) - binary(i, 0) == Approx(two[i]).margin(2e-4));
  const double three[8][3] = {{1.0201409, 0.0951107, -1.1152516}, {1.2424252, -1.0928509, -0.1495743}, {-1.3108463, 1.6904113, -0.379565},
                              {-1.7183127, 1.4781814, 0.2401313}, {-0.6592164, -0.3465223, 1.0057387}, {-1.4255801, 0.0710996, 1.3544805},
                              {0.2813897, 1.1666481, -1.4480379}, {-0.0461387, -2.5067704, 2.5529091}};
  const auto more = LinearProbe(x, {0, 0, 1, 1, 2, 2, 1, 2}, 3, 0.05)(x);
  for (Index i = 0; i < 8; ++i) {
    const float mean = (more(i, 0) + more(i, 1) + more(i, 2)) / 3;
    for (Index k = 0; k < 3; ++k) CHECK(more(i, k) - mean == Approx(three[i][k]).margin(2e-4));
  }
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
