// loss.hpp and resample.hpp.
#include <tenon/ops/loss.hpp>
#include <tenon/ops/resample.hpp>

#include "catch.hpp"
#include "ops/registry.hpp"

using namespace tenon;
using registry::row;

namespace {

/// Targets 0, 1, 2, ... within the classes; every third is ignored when asked.
Tensor<std::int32_t> targets_for(const Shape& logits, bool some_ignored) {
  auto targets = Tensor<std::int32_t>::uninitialized({logits[0]});
  for (Index i = 0; i < targets.size(); ++i)
    targets.data()[i] = some_ignored && i % 3 == 1 ? -100 : static_cast<std::int32_t>(i % logits[1]);
  return targets;
}

const std::vector<registry::Shapes> logits{{{2, 3}}, {{1, 1}}, {{4, 2}}, {{7, 33}}, {{3, 17}}, {{100, 5}}};
const std::vector<registry::Shapes> pictures{{{1, 2, 3, 2}}, {{2, 1, 1, 1}}, {{1, 5, 4, 3}}, {{0, 2, 2, 2}}, {{1, 7, 7, 1}}, {{1, 3, 2, 17}}};
const std::vector<registry::Shapes> no_pictures{{{2, 3, 4}}, {{1, 0, 2, 3}}, {{1, 2, 3}}};

const registry::Rows all{
    row("cross_entropy", [](const auto& x) { return cross_entropy(x[0], targets_for(x[0].shape(), false)); }, logits),
    row("cross_entropy", [](const auto& x) { return cross_entropy(x[0], targets_for(x[0].shape(), true), {.label_smoothing = 0.1}); }, logits),
    row("cross_entropy", [](const auto& x) { return cross_entropy(x[0], Tensor<std::int32_t>({2})); }, {{{2, 3}}}, {{{3, 2}}, {{2}}}),
    row("mse_loss", [](const auto& x) { return mse_loss(x[0], x[1]); }, {{{7}, {7}}, {{2, 3}, {2, 3}}, {{}, {}}, {{1, 1}, {1, 1}}, {{5, 1, 33}, {5, 1, 33}}, {{3, 2}, {3, 2}}},
        {{{2, 3}, {3}}, {{2}, {3}}}),
    row("upsample_nearest", [](const auto& x) { return upsample_nearest(x[0], 4, 5); }, pictures, no_pictures),
    row("resize_bicubic", [](const auto& x) { return resize_bicubic(x[0], 4, 5); }, pictures, no_pictures),
    row("resize_bicubic", [](const auto& x) { return resize_bicubic(x[0], 2, 1); }, pictures),
    row("average_pool", [](const auto& x) { return average_pool(x[0], 2); }, {{{1, 2, 3, 2}}, {{2, 2, 2, 1}}, {{1, 5, 4, 3}}, {{0, 2, 2, 2}}, {{1, 7, 7, 1}}, {{1, 3, 2, 17}}}, {{{1, 1, 2, 2}}, {{2, 2, 2}}}),
};

}  // namespace

TEST_CASE("losses by hand") {
  const Var<double> z = Tensor<double>({2, 2}, {0, std::log(3.0), 0, 0});
  const auto targets = Tensor<std::int32_t>::of({1, 0});
  CHECK(cross_entropy(z, targets).item() == Approx((std::log(4.0 / 3) + std::log(2.0)) / 2));
  CHECK(cross_entropy(z, Tensor<std::int32_t>::of({-100, 0})).item() == Approx(std::log(2.0)));
  CHECK(cross_entropy(z, targets, {.label_smoothing = 0.5}).item() ==
        Approx((0.75 * std::log(4.0 / 3) + 0.25 * std::log(4.0) + std::log(2.0)) / 2));
  CHECK(std::isnan(cross_entropy(z, Tensor<std::int32_t>::of({-100, -100})).item()));
  CHECK(mse_loss(z, Var<double>(Tensor<double>({2, 2}, {1, std::log(3.0), 0, 3}))).item() == Approx(2.5));
  REQUIRE_THROWS_WITH(cross_entropy(z, Tensor<std::int32_t>::of({1, 2})), contains("[cross_entropy] expected targets in [0, 2), got 2"));
  REQUIRE_THROWS_AS(cross_entropy(z, targets, {.label_smoothing = 1}), Error);
}

TEST_CASE("pictures in other sizes by hand") {
  const Var<float> x = Tensor<float>({1, 2, 2, 1}, {1, 2, 3, 4});
  CHECK(upsample_nearest(x, 2, 4).value() == Tensor<float>({1, 2, 4, 1}, {1, 1, 2, 2, 3, 3, 4, 4}));
  CHECK(average_pool(x, 2).value() == Tensor<float>({1, 1, 1, 1}, {2.5f}));
  CHECK(resize_bicubic(x, 2, 2).value() == x.value());
}
