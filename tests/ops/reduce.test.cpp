// reduce.hpp, norm.hpp and softmax.hpp.
#include <tenon/ops/norm.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/ops/softmax.hpp>

#include "catch.hpp"
#include "ops/registry.hpp"

using namespace tenon;
using registry::row;
using registry::within;

namespace {

const std::vector<registry::Shapes> any{{{7}}, {{2, 3}}, {{}}, {{1, 1}}, {{5, 1, 33}}, {{2, 3, 4, 5}}, {{200, 3}}};
const std::vector<registry::Shapes> matrices{{{2, 3}}, {{1, 1}}, {{3, 1}}, {{5, 33}}, {{2, 3, 4}}, {{4, 2, 1, 3}}, {{101, 2}}};
const std::vector<registry::Shapes> no_matrix{{{3}}, {{}}};
const std::vector<registry::Shapes> affine{{{2, 3}, {3}, {3}}, {{4}, {4}, {4}},         {{2, 3, 33}, {33}, {33}},
                                           {{0, 5}, {5}, {5}}, {{2, 2, 2}, {2}, {2}}, {{100, 17}, {17}, {17}}};
const std::vector<registry::Shapes> grouped{{{2, 5, 4}, {4}, {4}},    {{1, 3, 3, 6}, {6}, {6}}, {{3, 2}, {2}, {2}},
                                            {{2, 1, 34}, {34}, {34}}, {{1, 7, 2, 8}, {8}, {8}}, {{0, 2, 4}, {4}, {4}}};
const std::vector<registry::Shapes> wrong_affine{{{2, 4}, {3}, {4}}, {{2, 4}, {4}, {1}}, {{2, 4}, {1, 4}, {4}}};

const registry::Rows all{
    row("sum", [](const auto& x) { return sum(x[0]); }, {{{7}}, {{2, 3}}, {{}}, {{0, 3}}, {{300}}, {{5, 1, 33}}}),
    row("sum", [](const auto& x) { return sum(x[0], {0, -1}); }, matrices, no_matrix),
    row("sum", [](const auto& x) { return sum(x[0], 1, true); }, {{{2, 3}}, {{2, 0}}, {{4, 33, 2}}}, no_matrix),
    row("mean", [](const auto& x) { return mean(x[0]); }, any),
    row("mean", [](const auto& x) { return mean(x[0], {-2}, true); }, matrices, no_matrix),
    row("variance", [](const auto& x) { return variance(x[0]); }, {{{7}}, {{2, 3}}, {{300}}}),
    row("variance", [](const auto& x) { return variance(x[0], {0, -1}, true, 0); }, matrices, no_matrix),
    row("variance", [](const auto& x) { return variance(x[0], {0}); }, {{{4, 3}}, {{2, 33}}, {{120, 2, 2}}}, {{{}}}),
    row("max", [](const auto& x) { return max(x[0]); }, any, {{{0}}, {{2, 0}}}),
    row("max", [](const auto& x) { return max(x[0], -2, true); }, matrices, no_matrix),
    row("min", [](const auto& x) { return min(x[0]); }, any, {{{0}}}),
    row("min", [](const auto& x) { return min(x[0], 1); }, matrices, no_matrix),
    row("norm", [](const auto& x) { return norm(x[0]); }, any),
    row("norm", [](const auto& x) { return norm(x[0], {1}); }, matrices, no_matrix),
    row("layer_norm", [](const auto& x) { return layer_norm(x[0], x[1], x[2], 1e-3); }, affine, wrong_affine),
    row("group_norm", [](const auto& x) { return group_norm(x[0], 2, x[1], x[2], 1e-3); }, grouped, wrong_affine),
    row("group_norm", [](const auto& x) { return group_norm(x[0], 2, x[1], x[2], 1e-3, true); }, grouped, {{{2, 3}, {3}, {3}}}),
    row("l2_normalize", [](const auto& x) { return l2_normalize(x[0]); }, {{{7}}, {{2, 3}}, {{0, 3}}, {{4, 1, 33}}, {{5, 2}}, {{100, 3}}}, {{{}}}),
    row("softmax", [](const auto& x) { return softmax(x[0]); }, {{{7}}, {{2, 3}}, {{0, 3}}, {{1, 1}}, {{5, 2, 33}}, {{3, 17}}}, {{{}}}),
    row("softmax", [](const auto& x) { return softmax(x[0], 1); }, matrices, no_matrix),
    row("log_softmax", [](const auto& x) { return log_softmax(x[0]); }, {{{7}}, {{2, 3}}, {{0, 3}}, {{1, 1}}, {{5, 2, 33}}, {{3, 17}}}, {{{}}}),
    row("log_softmax", [](const auto& x) { return log_softmax(x[0], 0); }, matrices, {{{}}}),
};

using Values = Tensor<float>;

}  // namespace

TEST_CASE("reductions by hand") {
  const Var<float> x = Values({2, 3}, {1, 2, 3, 4, 6, 8});
  CHECK(sum(x).item() == 24);
  CHECK(sum(x, 0).value() == Values::of({5, 8, 11}));
  CHECK(sum(x, -1, true).value() == Values({2, 1}, {6, 18}));
  CHECK(sum(x, {1, 0}).shape() == Shape{});
  CHECK(mean(x, 1).value() == Values::of({2, 6}));
  CHECK(variance(x, 1).value() == Values::of({1, 4}));
  CHECK(variance(x, 0, false, 0).value() == Values::of({2.25f, 4, 6.25f}));
  CHECK(max(x, 0).value() == Values::of({4, 6, 8}));
  CHECK(min(x).item() == 1);
  CHECK(norm(Var<float>(Values::of({3, 4}))).item() == 5);
  CHECK(sum(Var<float>(Values({0, 2})), 0).value() == Values::of({0, 0}));
  CHECK(std::isnan(mean(Var<float>(Values({0}))).item()));
  CHECK(argmax(x) == Tensor<std::int32_t>::of({2, 2}));
  CHECK(argmax(x, 0) == Tensor<std::int32_t>::of({1, 1, 1}));
  REQUIRE_THROWS_WITH(sum(x, {0, -2}), contains("[sum] axis -2 of [2, 3] appears twice"));
  REQUIRE_THROWS_AS(sum(x, 2), ShapeError);
}

TEST_CASE("topk sorts, and prefers the lower index among equals") {
  const auto [values, indices] = topk(Values({2, 4}, {1, 3, 3, 2, -1, -2, -3, -1}), 3);
  CHECK(values == Values({2, 3}, {3, 3, 2, -1, -1, -2}));
  CHECK(indices == Tensor<std::int32_t>({2, 3}, {1, 2, 3, 0, 3, 1}));
  REQUIRE_THROWS_AS(topk(Values({2, 4}), 5), ShapeError);
}

TEST_CASE("gradients at the exceptional points") {
  const Var<float> zero = variable(Values({2, 2}, {0, 0, 3, 4}));
  backward(sum(norm(zero, 1)));
  CHECK(zero.grad() == Values({2, 2}, {0, 0, 0.6f, 0.8f}));
  const Var<float> equals = variable(Values::of({2, 5, 5}));
  backward(max(equals));
  CHECK(equals.grad() == Values::of({0, 1, 0}));
}

TEST_CASE("normalisation by hand") {
  const Var<float> one = Values::of({1, 1}), none = Values::of({0, 0});
  CHECK(layer_norm(Var<float>(Values({1, 2}, {1, 3})), one, Var<float>(Values::of({5, 7})), 0).value() == Values({1, 2}, {4, 8}));
  CHECK(group_norm(Var<float>(Values({1, 2, 2}, {1, 10, 3, 30})), 2, one, none, 0).value() == Values({1, 2, 2}, {-1, -1, 1, 1}));
  CHECK(l2_normalize(Var<float>(Values({2, 2}, {3, 4, 0, 0}))).value()(0, 0) == Approx(0.6));
  CHECK(l2_normalize(Var<float>(Values({2, 2}, {3, 4, 0, 0}))).value()(1, 0) == 0);
  REQUIRE_THROWS_AS(group_norm(one, 2, one, none), ShapeError);
}

TEST_CASE("group_norm writes over its input only where nobody could see it") {
  const Var<float> gamma(Values({4}, {1, 2, 3, 4})), beta(Values({4}, {0, 1, 0, 1}));
  const auto make = [] { return Values({1, 2, 4}, {1, 5, 3, 30, -2, 4, 6, 8}); };
  const Values right = group_norm(Var<float>(make()), 2, gamma, beta, 1e-5, true).value();
  Var<float> x(make());
  const float* const place = x.value().data();
  const Var<float> over = group_norm(std::move(x), 2, gamma, beta, 1e-5, true);
  CHECK((over.value().data() == place && over.value() == right));

  const auto apart = [&](Var<float> value, const Values& unchanged) {
    const float* const from = value.value().data();
    const Var<float> y = group_norm(std::move(value), 2, gamma, beta, 1e-5, true);
    CHECK((y.value().data() != from && y.value() == right && unchanged == make()));
  };
  const Var<float> held(make());
  apart(held, held.value());  // another handle of the Var
  Values shared = make();
  apart(Var<float>(Values::adopt({1, 2, 4}, shared.memory())), shared);  // another tensor of the same memory
  float own[8];
  std::copy_n(shared.data(), 8, own);
  const Values foreign = Values::adopt({1, 2, 4}, std::shared_ptr<float[]>(own, [](float*) {}));
  apart(Var<float>(Values::adopt({1, 2, 4}, std::shared_ptr<float[]>(own, [](float*) {}))), foreign);  // memory that is not ours
  Var<float> wanted = variable(make());
  const Var<float> leaf = wanted.detach();
  apart(std::move(wanted), leaf.value());
  Var<float> recorded = variable(make()) * 1.0f;
  const float* const from = recorded.value().data();
  CHECK(group_norm(std::move(recorded), 2, gamma, beta, 1e-5, true).value().data() != from);  // backward will read it
}

TEST_CASE("softmax by hand") {
  const Var<double> x = Tensor<double>({2, 2}, {0, std::log(3.0), 1000, 1000});
  CHECK(softmax(x).value()(0, 1) == Approx(0.75));
  CHECK(softmax(x).value()(1, 0) == Approx(0.5));
  CHECK(softmax(x, 0).value()(1, 0) == Approx(1));
  CHECK(log_softmax(x).value()(0, 0) == Approx(-std::log(4.0)));
}
