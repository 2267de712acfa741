// shape.hpp, gather.hpp, create.hpp and random.hpp.
#include <tenon/ops/arithmetic.hpp>
#include <tenon/ops/create.hpp>
#include <tenon/ops/gather.hpp>
#include <tenon/ops/random.hpp>
#include <tenon/ops/shape.hpp>

#include "catch.hpp"
#include "ops/registry.hpp"

using namespace tenon;
using registry::row;

namespace {

const std::vector<registry::Shapes> threes{{{2, 3, 4}}, {{1, 3, 1}}, {{5, 2, 3}}, {{0, 2, 2}}, {{3, 1, 17}}, {{2, 2, 2}}};
const std::vector<registry::Shapes> no_three{{{3, 4}}, {{}}, {{2, 2, 2, 2}}};
const std::vector<registry::Shapes> matrices{{{2, 4}}, {{3, 2}}, {{1, 2}}, {{0, 2}}, {{7, 4, 3}}, {{2, 6, 1}}};
const std::vector<registry::Shapes> joined{{{2, 3}, {2, 1}}, {{1, 1}, {1, 1}}, {{2, 0}, {2, 3}}, {{5, 2, 3}, {5, 1, 3}}, {{0, 1}, {0, 1}}, {{3, 7}, {3, 2}}};
const Tensor<std::int32_t> ids = Tensor<std::int32_t>::of({1, 0, 1, 1});

const registry::Rows all{
    row("reshape", [](const auto& x) { return reshape(x[0], {2, -1}) * 2; }, {{{4}}, {{2, 3}}, {{6, 5}}, {{2}}, {{1, 2, 7}}, {{2, 2, 2}}}, {{{3}}, {{5, 3}}}),
    row("squeeze", [](const auto& x) { return squeeze(x[0], {1, -1}) + 0; }, {{{2, 1, 1}}, {{1, 1, 1}}, {{0, 1, 1}}, {{3, 1, 2, 1}}}, {{{2, 2, 1}}, {{}}}),
    row("squeeze", [](const auto& x) { return squeeze(x[0]) + 0; }, {{{2, 1, 1}}, {{1}}, {{3}}}),
    row("unsqueeze", [](const auto& x) { return unsqueeze(unsqueeze(x[0], -1), 1); }, {{{2}}, {{2, 3}}, {{1, 1}}, {{0}}, {{5, 2, 3}}, {{17}}}),
    row("permute", [](const auto& x) { return permute(x[0], {2, 0, 1}); }, threes, no_three),
    row("transpose", [](const auto& x) { return transpose(x[0]) + transpose(transpose(x[0], 0, 1), -1, 0); }, {{{2, 2}}, {{3, 3}}, {{1, 1}}, {{5, 5}}, {{0, 0}}, {{17, 17}}}, {{{3}}, {{}}}),
    row("broadcast_to", [](const auto& x) { return broadcast_to(x[0], {2, 3, 4}); }, {{{4}}, {{3, 1}}, {{2, 1, 1}}, {{}}, {{1, 1, 4}}, {{2, 3, 4}}}, {{{2}}, {{5, 3, 4}}, {{1, 2, 3, 4}}}),
    row("repeat", [](const auto& x) { return repeat(x[0], -1, 3); }, {{{4}}, {{3, 1}}, {{2, 1, 1}}, {{0, 2}}, {{1, 1, 4}}, {{2, 17}}}, {{{}}}),
    row("flip", [](const auto& x) { return flip(x[0], {0, -1}); }, matrices, {{{3}}, {{}}}),
    row("slice", [](const auto& x) { return slice(x[0], 1, 0, 2) + slice(x[0], 1, -2, x[0].extent(1), 1); }, matrices, {{{3, 1}}, {{3}}}),
    row("slice", [](const auto& x) { return slice(x[0], 0, 1, -1, 3); }, {{{2}}, {{9, 2}}, {{5}}}, {{{0}}, {{}}}),
    row("select", [](const auto& x) { return select(x[0], 1, -2); }, matrices, {{{3, 1}}, {{3}}}),
    row("concat", [](const auto& x) { return concat({x[0], x[1], x[0]}, 1); }, joined, {{{2, 3}, {3, 3}}, {{2, 3}, {2}}}),
    row("stack", [](const auto& x) { return stack({x[0], x[1]}, -1); }, {{{2, 3}, {2, 3}}, {{}, {}}, {{1}, {1}}, {{0, 2}, {0, 2}}, {{3, 1, 2}, {3, 1, 2}}, {{17}, {17}}}, {{{2, 3}, {3}}, {{2}, {1}}}),
    row("split", [](const auto& x) { return split(x[0], {1, x[0].extent(1) - 1}, 1)[1] * 2; }, matrices, {{{3, 0}}, {{4}}}),
    row("chunk", [](const auto& x) { const auto c = chunk(x[0], 2, 1); return c[0] * c[1]; }, matrices, {{{2, 3}}, {{4}}}),
    row("pad", [](const auto& x) { return pad(x[0], {{1, 0}, {0, 2}, {3, 1}}, 0.5); }, threes, no_three),
    row("index_select", [](const auto& x) { return index_select(x[0], 1, ids); }, matrices, {{{3}}, {{}}}),
    row("gather", [](const auto& x) { return gather(x[0], -1, Tensor<std::int64_t>({2, 3}, {1, 0, 1, 1, 1, 0})); }, {{{2, 2}}, {{2, 3}}, {{2, 4}}, {{2, 17}}}, {{{3, 2}}, {{2}}}),
    row("gather", [](const auto& x) { return gather(x[0], 0, Tensor<std::int32_t>({1, 2}, {1, 0})); }, {{{2, 2}}, {{3, 2}}, {{7, 2}}}, {{{3, 3}}}),
    row("take_rows", [](const auto& x) { return take_rows(x[0], Tensor<std::int32_t>::of({1, 0})); }, {{{2, 2, 3}}, {{2, 3, 1}}, {{2, 5, 2}}, {{2, 2, 2}}, {{2, 2, 17}}, {{2, 4, 0}}}, {{{3, 2, 2}}, {{2, 2}}}),
    row("dropout", [](const auto& x) { return dropout(x[0], 0.3, Philox(1, 2)); }, {{{7}}, {{2, 3}}, {{}}, {{0, 3}}, {{33}}, {{5, 2, 3}}}),
};

using Values = Tensor<float>;

}  // namespace

TEST_CASE("shapes by hand") {
  const Var<float> x = Values({2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(reshape(x, {3, -1}).shape() == Shape{3, 2});
  CHECK(reshape(x, {6}).value().data() == x.value().data());
  CHECK(transpose(x).value() == Values({3, 2}, {1, 4, 2, 5, 3, 6}));
  CHECK(flip(x, 1).value() == Values({2, 3}, {3, 2, 1, 6, 5, 4}));
  CHECK(slice(x, 1, 0, 3, 2).value() == Values({2, 2}, {1, 3, 4, 6}));
  CHECK(select(x, 0, -1).value() == Values::of({4, 5, 6}));
  CHECK(repeat(x, 0, 2).value() == Values({4, 3}, {1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6}));
  CHECK(concat({x, x}, 1).value() == Values({2, 6}, {1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6}));
  CHECK(stack({x, x}, 1).shape() == Shape{2, 2, 3});
  CHECK(pad(x, {{0, 1}, {1, 0}}, 9).value() == Values({3, 4}, {9, 1, 2, 3, 9, 4, 5, 6, 9, 9, 9, 9}));
  const auto parts = split(x, {1, 2}, 1);
  CHECK(parts[0].value() == Values({2, 1}, {1, 4}));
  CHECK(parts[1].value() == Values({2, 2}, {2, 3, 5, 6}));
  CHECK(chunk(x, 2, 0)[1].value() == Values({1, 3}, {4, 5, 6}));
  REQUIRE_THROWS_WITH(permute(x, {0, 0}), contains("axis 0 of [2, 3] appears twice"));
  REQUIRE_THROWS_WITH(reshape(x, {4, 2}), contains("[reshape]") && contains("[2, 3]"));
  REQUIRE_THROWS_WITH(slice(x, 1, 2, 1), contains("2:1") && contains("[2, 3]"));
  REQUIRE_THROWS_AS(concat(std::vector<Var<float>>{}, 0), ShapeError);
}

TEST_CASE("lookups by hand") {
  const Var<float> x = Values({2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(index_select(x, 1, Tensor<std::int32_t>::of({2, 0})).value() == Values({2, 2}, {3, 1, 6, 4}));
  CHECK(gather(x, 1, Tensor<std::int32_t>({2, 1}, {2, 0})).value() == Values({2, 1}, {3, 4}));
  CHECK(take_rows(reshape(x, {2, 3, 1}), Tensor<std::int32_t>::of({2, 0})).value() == Values({2, 1}, {3, 4}));
  CHECK(one_hot<float>(Tensor<std::int32_t>::of({1, 0}), 3) == Values({2, 3}, {0, 1, 0, 1, 0, 0}));
  for (std::int32_t wrong : {-1, 3}) {
    const auto at = Tensor<std::int32_t>::of({0, wrong});
    REQUIRE_THROWS_WITH(index_select(x, 1, at), contains("[index_select] expected ids in [0, 3)") && contains(std::to_string(wrong)));
    REQUIRE_THROWS_AS(gather(x, 1, Tensor<std::int32_t>({2, 1}, {0, wrong})), Error);
    REQUIRE_THROWS_AS(take_rows(reshape(x, {2, 3, 1}), at), Error);
    REQUIRE_THROWS_AS(one_hot<float>(at, 3), Error);
  }
}

TEST_CASE("tensors from nothing") {
  CHECK(zeros<float>({2}) == Values::of({0, 0}));
  CHECK(ones<float>({2}) == Values::of({1, 1}));
  CHECK(full<float>({2}, 3) == Values::of({3, 3}));
  CHECK(arange<std::int32_t>(3) == Tensor<std::int32_t>::of({0, 1, 2}));
  CHECK(arange<float>(1, 2, 0.25f) == Values::of({1, 1.25f, 1.5f, 1.75f}));
  CHECK(arange<std::int32_t>(3, 0, -2) == Tensor<std::int32_t>::of({3, 1}));
  CHECK(arange<std::int32_t>(3, 0).size() == 0);
  CHECK(linspace<float>(0, 1, 5) == Values::of({0, 0.25f, 0.5f, 0.75f, 1}));
  CHECK(linspace<float>(2, 1, 1) == Values::of({2}));
  CHECK(eye<float>(2) == Values({2, 2}, {1, 0, 0, 1}));
  REQUIRE_THROWS_AS(arange<float>(0, 1, 0), ShapeError);
}

TEST_CASE("random tensors repeat with the seed") {
  Generator a(3), b(3);
  CHECK(randn<float>({5, 7}, a) == randn<float>({5, 7}, b));
  CHECK(rand<double>({3}, a) == rand<double>({3}, b));
  for (std::int64_t i : randint<std::int64_t>(-2, 2, {100}, a)) CHECK((i >= -2 && i < 2));
  const auto coins = bernoulli<float>(0.25, {4000}, a);
  CHECK(std::count(coins.begin(), coins.end(), 1.0f) == Approx(1000).margin(100));
}

TEST_CASE("dropout keeps the mean, and depends on seed and step alone") {
  const Var<float> x = ones<float>({100000});
  const auto run = [&](int threads, std::uint64_t step) {
    const ThreadScope scope(threads);
    return dropout(x, 0.25, Philox(5, step)).value();
  };
  const Values y = run(1, 0);
  CHECK(std::count(y.begin(), y.end(), 0.0f) == Approx(25000).margin(600));
  CHECK(*std::max_element(y.begin(), y.end()) == Approx(1 / 0.75));
  CHECK(run(3, 0) == y);
  CHECK(!(run(1, 1) == y));
  CHECK(dropout(x, 0, Philox(5, 0)).value().data() == x.value().data());
  REQUIRE_THROWS_AS(dropout(x, 1, Philox(5, 0)), Error);
}
