// arithmetic.hpp and unary.hpp.
#include <tenon/ops/arithmetic.hpp>
#include <tenon/ops/unary.hpp>

#include "catch.hpp"
#include "ops/registry.hpp"

using namespace tenon;
using registry::row;
using registry::within;

namespace {

const std::vector<registry::Shapes> pairs{{{2, 3}, {2, 3}}, {{2, 3}, {3}},  {{}, {2, 3}},          {{2, 1, 3}, {5, 1}},
                                          {{1}, {1}},       {{0, 3}, {3}},  {{4, 1}, {1, 7}},      {{17}, {17}},
                                          {{3, 5}, {1, 1}}, {{2, 1}, {33}}, {{2, 3, 1, 2}, {3, 1, 2}}};
const std::vector<registry::Shapes> unfit{{{2, 3}, {2}}, {{4}, {3}}, {{2, 3}, {3, 2}}};
const std::vector<registry::Shapes> singles{{{7}}, {{}}, {{2, 3}}, {{0}}, {{1, 1}}, {{3, 0, 2}}, {{33}}, {{5, 2, 3}}};

const registry::Rows all{
    row("operator+", [](const auto& x) { return x[0] + x[1]; }, pairs, unfit),
    row("operator+", [](const auto& x) { return 2 + (x[0] + 0.5) + x[0]; }, singles),
    row("operator-", [](const auto& x) { return x[0] - x[1]; }, pairs, unfit),
    row("operator-", [](const auto& x) { return 3 - (-x[0] - 0.5); }, singles),
    row("operator*", [](const auto& x) { return x[0] * x[1]; }, pairs, unfit),
    row("operator*", [](const auto& x) { return 2 * x[0] * x[0] * 0.5; }, singles),
    within(0.5, 2, row("operator/", [](const auto& x) { return x[0] / x[1]; }, pairs, unfit)),
    within(0.5, 2, row("operator/", [](const auto& x) { return 3 / x[0] + x[0] / 4; }, singles)),
    row("maximum", [](const auto& x) { return maximum(x[0], x[1] + 0.01); }, pairs, unfit),
    row("maximum", [](const auto& x) { return maximum(x[0], 0.013); }, singles),
    row("minimum", [](const auto& x) { return minimum(x[0], x[1] + 0.01); }, pairs, unfit),
    row("minimum", [](const auto& x) { return minimum(x[0], 0.013); }, singles),
    within(0.5, 2, row("pow", [](const auto& x) { return pow(x[0], x[1]); }, pairs, unfit)),
    within(0.5, 2, row("pow", [](const auto& x) { return pow(x[0], 2.5); }, singles)),
    row("clamp", [](const auto& x) { return clamp(x[0], -0.513, 1.017); }, singles),
    row("where", [](const auto& x) { return where(less(x[0], 0), x[0], x[1]); }, pairs, unfit),

    row("exp", [](const auto& x) { return exp(x[0]); }, singles),
    within(0.5, 4, row("log", [](const auto& x) { return log(x[0]); }, singles)),
    within(0.5, 4, row("sqrt", [](const auto& x) { return sqrt(x[0]); }, singles)),
    within(0.5, 4, row("rsqrt", [](const auto& x) { return rsqrt(x[0]); }, singles)),
    row("square", [](const auto& x) { return square(x[0]); }, singles),
    row("abs", [](const auto& x) { return abs(x[0] + 0.013); }, singles),
    row("sin", [](const auto& x) { return sin(x[0]); }, singles),
    row("cos", [](const auto& x) { return cos(x[0]); }, singles),
    row("tanh", [](const auto& x) { return tanh(x[0]); }, singles),
    row("erf", [](const auto& x) { return erf(x[0]); }, singles),
    row("sigmoid", [](const auto& x) { return sigmoid(x[0]); }, singles),
    row("relu", [](const auto& x) { return relu(x[0] + 0.013); }, singles),
    row("gelu", [](const auto& x) { return gelu(x[0]); }, singles),
    row("gelu_tanh", [](const auto& x) { return gelu_tanh(x[0]); }, singles),
    row("quick_gelu", [](const auto& x) { return quick_gelu(x[0]); }, singles),
    row("silu", [](const auto& x) { return silu(x[0]); }, singles),
    row("activation", [](const auto& x) { return activation(x[0], kernels::Activation::quick_gelu) + activation(x[0], kernels::Activation::none); }, singles),
    row("geglu", [](const auto& x) { return geglu(x[0]); }, {{{2, 4}}, {{6}}, {{3, 0}}, {{0, 2}}, {{2, 1, 34}}, {{5, 2}}}, {{{3}}, {{2, 5}}, {{}}}),
};

using Values = Tensor<float>;

}  // namespace

TEST_CASE("arithmetic broadcasts as NumPy does") {
  const Var<float> a = Values({2, 1}, {1, 2}), b = Values::of({10, 20, 30});
  CHECK((a + b).value() == Values({2, 3}, {11, 21, 31, 12, 22, 32}));
  CHECK((a - b).value() == Values({2, 3}, {-9, -19, -29, -8, -18, -28}));
  CHECK((a * b).value() == Values({2, 3}, {10, 20, 30, 20, 40, 60}));
  CHECK((b / a).value() == Values({2, 3}, {10, 20, 30, 5, 10, 15}));
  CHECK((-a).value() == Values({2, 1}, {-1, -2}));
  CHECK((1 - a * 2).value() == Values({2, 1}, {-1, -3}));
  CHECK((6 / a + 1).value() == Values({2, 1}, {7, 4}));
  CHECK(maximum(a, 1.5).value() == Values({2, 1}, {1.5f, 2}));
  CHECK(minimum(a, 1.5).value() == Values({2, 1}, {1, 1.5f}));
  CHECK(pow(a, 3).value() == Values({2, 1}, {1, 8}));
  CHECK(clamp(b, 15, 25).value() == Values::of({15, 20, 25}));
}

TEST_CASE("comparisons take Vars, Tensors and scalars") {
  const Values t = Values::of({1, 2, 3});
  const Var<float> v = t;
  const Tensor<std::int32_t> ids = Tensor<std::int32_t>::of({1, 2, 1});
  CHECK(less(v, 2) == Tensor<bool>::of({true, false, false}));
  CHECK(less_equal(t, 2) == Tensor<bool>::of({true, true, false}));
  CHECK(greater(v, Var<float>(Values::scalar(2))) == Tensor<bool>::of({false, false, true}));
  CHECK(greater_equal(t, v) == Tensor<bool>::of({true, true, true}));
  CHECK(equal(ids, 1) == Tensor<bool>::of({true, false, true}));
  CHECK(not_equal(ids, ids) == Tensor<bool>::of({false, false, false}));
  CHECK(where(greater(v, 1), v, Var<float>(Values({2, 1}, {-1, -2}))).value() == Values({2, 3}, {-1, 2, 3, -2, 2, 3}));
  REQUIRE_THROWS_WITH(less(v, Values({2})), contains("[less]") && contains("[3]") && contains("[2]"));
}

TEST_CASE("NaN stays NaN where it must") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Var<float> x = Values::of({nan, 1}), y = Values::of({1, nan});
  for (const Var<float>& z : {maximum(x, y), minimum(x, y)})
    for (float e : z.value()) CHECK(std::isnan(e));
  CHECK(std::isnan(relu(x).value()(0)));
  CHECK(std::isnan(clamp(x, 0, 1).value()(0)));
}

TEST_CASE("activations at points that a reader can check") {
  const Var<double> x = Tensor<double>::of({-1, 0, 2});
  CHECK(relu(x).value() == Tensor<double>::of({0, 0, 2}));
  CHECK(sigmoid(x).value()(1) == 0.5);
  CHECK(silu(x).value()(2) == Approx(2 / (1 + std::exp(-2.0))));
  CHECK(quick_gelu(x).value()(0) == Approx(-1 / (1 + std::exp(1.702))));
  CHECK(gelu(x).value()(2) == Approx(1.9544997361036416));
  CHECK(gelu_tanh(x).value()(2) == Approx(1.9545976940877752));
  CHECK(geglu(Var<double>(Tensor<double>({1, 4}, {3, 5, 0, 2}))).value()(0, 1) == Approx(5 * 1.9544997361036416));
}

TEST_CASE("a product with a constant keeps only what its gradient needs") {
  const Var<float> c = Values::of({2, 3});
  const Var<float> x = variable(Values::of({5, 7}));
  std::weak_ptr<const Values> kept;
  Var<float> y;
  {
    const Var<float> inner = x + 1;
    kept = inner.shared();
    y = inner * c;
  }
  CHECK(kept.expired());
  backward(y, Values::of({1, 1}));
  CHECK(x.grad() == Values::of({2, 3}));
}
