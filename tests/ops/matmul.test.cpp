// matmul.hpp and attention.hpp.
#include <tenon/ops/arithmetic.hpp>
#include <tenon/ops/attention.hpp>
#include <tenon/ops/matmul.hpp>

#include "catch.hpp"
#include "ops/registry.hpp"

using namespace tenon;
using registry::row;

namespace {

template <class X>
auto attend(const X& x, Index heads, bool causal) {
  using T = typename std::remove_cvref_t<decltype(x[0].value())>::value_type;
  AttentionOptions<T> options;
  options.heads = heads;
  options.causal = causal;
  return attention(x[0], x[1], x[2], options);
}
template <class X>
auto attend_prefixed(const X& x, bool causal) {
  using T = typename std::remove_cvref_t<decltype(x[0].value())>::value_type;
  AttentionOptions<T> options;
  options.heads = 2;
  options.causal = causal;
  options.prefix_k = x[3];
  options.prefix_v = x[4];
  return attention(x[0], x[1], x[2], options);
}
template <class X>
auto attend_padded(const X& x) {
  using T = typename std::remove_cvref_t<decltype(x[0].value())>::value_type;
  AttentionOptions<T> options;
  options.scale = 0.7;
  options.key_lengths = {3, 0};
  return attention(x[0], x[1], x[2], options);
}

const std::vector<registry::Shapes> self{{{2, 3, 4}, {2, 3, 4}, {2, 3, 4}},
                                         {{1, 1, 2}, {1, 1, 2}, {1, 1, 2}},
                                         {{1, 5, 6}, {1, 7, 6}, {1, 7, 6}},
                                         {{3, 4, 2}, {3, 1, 2}, {3, 1, 2}},
                                         {{1, 35, 4}, {1, 35, 4}, {1, 35, 4}},
                                         {{2, 2, 34}, {2, 3, 34}, {2, 3, 34}},
                                         {{0, 2, 4}, {0, 2, 4}, {0, 2, 4}}};
const std::vector<registry::Shapes> not_attention{{{2, 3, 4}, {2, 3, 6}, {2, 3, 6}}, {{2, 3, 4}, {1, 3, 4}, {1, 3, 4}}, {{3, 4}, {3, 4}, {3, 4}}, {{2, 3, 4}, {2, 3, 4}, {2, 2, 4}}};
const registry::Shapes prefixed{{2, 3, 4}, {2, 2, 4}, {2, 2, 4}, {3, 4}, {3, 4}};

const registry::Rows all{
    row("matmul", [](const auto& x) { return matmul(x[0], x[1]); },
        {{{2, 3}, {3, 4}}, {{1, 1}, {1, 1}}, {{3}, {3}}, {{3}, {3, 2}}, {{2, 3}, {3}}, {{5, 2, 3}, {3, 4}}, {{2, 3}, {5, 3, 4}}, {{2, 1, 2, 3}, {3, 3, 2}},
         {{2, 2, 3}, {1, 3, 1}}, {{0, 2, 3}, {3, 4}}, {{2, 0}, {0, 3}}, {{1, 2, 3}, {4, 3, 2}}, {{17, 33}, {33, 19}}, {{4}, {2, 4, 3}}, {{0, 2}, {2, 3}}, {{3, 2, 3}, {3, 3, 2}}},
        {{{2, 3}, {2, 3}}, {{2, 2, 3}, {3, 3, 2}}, {{3}, {2}}, {{}, {2, 3}}}),
    row("matmul", [](const auto& x) { return matmul(x[0], x[1], {.transpose_b = true}); },
        {{{2, 3}, {4, 3}}, {{5, 2, 3}, {4, 3}}, {{2, 3}, {5, 4, 3}}, {{3, 2, 5}, {3, 4, 5}}, {{2, 0}, {3, 0}}, {{7, 33}, {18, 33}}}, {{{2, 3}, {3, 2}}}),
    row("matmul", [](const auto& x) { return matmul(x[0], x[1], {.transpose_a = true}); },
        {{{3, 2}, {3, 4}}, {{5, 3, 2}, {3, 4}}, {{3, 2}, {5, 3, 4}}, {{3, 5, 2}, {3, 5, 4}}, {{33, 7}, {33, 18}}}, {{{2, 3}, {3, 2}}}),
    row("matmul", [](const auto& x) { return matmul(x[0], x[1], {.transpose_a = true, .transpose_b = true}); },
        {{{3, 2}, {4, 3}}, {{5, 3, 2}, {4, 3}}, {{3, 2}, {5, 4, 3}}, {{2, 3, 2}, {2, 4, 3}}, {{33, 7}, {18, 33}}}, {{{2, 3}, {2, 3}}}),
    row("attention", [](const auto& x) { return attend(x, 2, false); }, self, not_attention),
    row("attention", [](const auto& x) { return attend(x, 1, true); }, self, {{{2, 3, 4}, {2, 3, 5}, {2, 3, 5}}}),
    row("attention", [](const auto& x) { return attend(x, 2, true); }, {{{2, 3, 4}, {2, 5, 4}, {2, 5, 4}}}, {{{1, 2, 3}, {1, 2, 3}, {1, 2, 3}}}),
    row("attention", [](const auto& x) { return attend_padded(x); }, {{{2, 2, 4}, {2, 5, 4}, {2, 5, 4}}, {{2, 1, 3}, {2, 3, 3}, {2, 3, 3}}}, {{{3, 2, 4}, {3, 5, 4}, {3, 5, 4}}}),
    row("attention", [](const auto& x) { return attend_prefixed(x, false); }, {prefixed, {{1, 2, 2}, {1, 0, 2}, {1, 0, 2}, {1, 2}, {1, 2}}}),
    row("attention", [](const auto& x) { return attend_prefixed(x, true); }, {prefixed, {{1, 40, 2}, {1, 40, 2}, {1, 40, 2}, {5, 2}, {5, 2}}}),
};

}  // namespace

TEST_CASE("matmul by hand") {
  const Var<float> a = Tensor<float>({2, 2}, {1, 2, 3, 4}), v = Tensor<float>::of({5, 6});
  CHECK(matmul(a, a).value() == Tensor<float>({2, 2}, {7, 10, 15, 22}));
  CHECK(matmul(a, v).value() == Tensor<float>::of({17, 39}));
  CHECK(matmul(v, a).value() == Tensor<float>::of({23, 34}));
  CHECK(matmul(v, v).value() == Tensor<float>::scalar(61));
  CHECK(matmul(a, a, {.transpose_a = true}).value() == Tensor<float>({2, 2}, {10, 14, 14, 20}));
  CHECK(matmul(a, a, {.transpose_b = true}).value() == Tensor<float>({2, 2}, {5, 11, 11, 25}));
  CHECK(matmul(Var<float>(Tensor<float>({2, 0})), Var<float>(Tensor<float>({0, 2}))).value() == Tensor<float>({2, 2}));
}

TEST_CASE("attention by hand") {
  const Var<double> q = Tensor<double>({1, 2, 1}, {0, std::log(3.0)}), k = Tensor<double>({1, 2, 1}, {0, 1}), v = Tensor<double>({1, 2, 1}, {4, 8});
  AttentionOptions<double> options;
  CHECK(attention(q, k, v).value()(0, 0, 0) == Approx(6));
  CHECK(attention(q, k, v).value()(0, 1, 0) == Approx(7));
  options.causal = true;
  CHECK(attention(q, k, v, options).value()(0, 0, 0) == Approx(4));
  options.prefix_k = Tensor<double>({1, 1}, {0});
  options.prefix_v = Tensor<double>({1, 1}, {0});
  CHECK(attention(q, k, v, options).value()(0, 0, 0) == Approx(2));
  options.prefix_v.reset();
  REQUIRE_THROWS_AS(attention(q, k, v, options), ShapeError);
}

TEST_CASE("attention gives gradients to what wants them, whatever is constant") {
  const auto inputs = registry::inputs_of(row("", [](const auto& x) { return x[0]; }, {}), prefixed);
  const auto run = [&]<class T>(T, unsigned wanted) {
    std::vector<Var<T>> x;
    for (std::size_t i = 0; i < inputs.size(); ++i) x.push_back(wanted >> i & 1u ? variable(cast<T>(inputs[i])) : Var<T>(cast<T>(inputs[i])));
    backward(attend_prefixed(x, true), cast<T>(registry::numbers({2, 3, 4}, -1, 1, 3)));
    return x;
  };
  const auto expected = run(double{}, 31u);
  for (unsigned wanted = 1; wanted < 32; ++wanted) {
    const auto got = run(float{}, wanted);
    const auto exact = run(double{}, wanted);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      INFO("inputs wanted " << wanted << ", gradient " << i);
      REQUIRE(got[i].has_grad() == ((wanted >> i & 1u) != 0));
      REQUIRE(exact[i].has_grad() == got[i].has_grad());
      for (Index j = 0; got[i].has_grad() && j < got[i].size(); ++j) {
        REQUIRE(got[i].grad().data()[j] == Approx(expected[i].grad().data()[j]).margin(1e-5));
        REQUIRE(exact[i].grad().data()[j] == Approx(expected[i].grad().data()[j]));
      }
    }
  }
}
