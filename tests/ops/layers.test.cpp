// linear.hpp, conv2d.hpp and embedding.hpp: products with weights, with low-rank terms beside them.
#include <tenon/ops/arithmetic.hpp>
#include <tenon/ops/conv2d.hpp>
#include <tenon/ops/embedding.hpp>
#include <tenon/ops/linear.hpp>
#include <tenon/ops/shape.hpp>

#include "catch.hpp"
#include "ops/registry.hpp"

using namespace tenon;
using registry::row;

namespace {

template <class X>
using ScalarOf = typename std::remove_cvref_t<decltype(std::declval<X>()[0].value())>::value_type;

/// x, W, bias, and then A and B where given.
template <class X>
auto through_linear(const X& x, Activation activation) {
  using T = ScalarOf<X>;
  const Weight<T> weight(x[1]), bias(x[2]);
  if (x.size() == 3) return linear(x[0], weight, &bias, activation);
  const Weight<T> a(x[3]), b(x[4]);
  const LowRank<T> term{&a, &b, T(0.75), std::nullopt};
  return linear(x[0], weight, &bias, activation, std::span<const LowRank<T>>(&term, 1));
}
/// A low-rank term that reads an input of its own: x, W, A, B, x'.
template <class X>
auto with_own_input(const X& x) {
  using T = ScalarOf<X>;
  const Weight<T> weight(x[1]), a(x[2]), b(x[3]);
  const LowRank<T> term{&a, &b, T(-1.5), x[4]};
  const std::span<const LowRank<T>> terms(&term, 1);
  return x[0].rank() == 4 ? conv2d(x[0], weight, nullptr, {.padding = 1}, terms) : linear(x[0], weight, nullptr, Activation::none, terms);
}
template <class X>
auto through_conv(const X& x, const Conv2dOptions& options) {
  using T = ScalarOf<X>;
  const Weight<T> weight(x[1]), bias(x[2]);
  if (x.size() == 3) return conv2d(x[0], weight, &bias, options);
  const Weight<T> a(x[3]), b(x[4]);
  const LowRank<T> term{&a, &b, T(0.75), std::nullopt};
  return conv2d(x[0], weight, &bias, options, std::span<const LowRank<T>>(&term, 1));
}
/// x, W, bias, a bias for each sample, and then A and B where given.
template <class X>
auto with_sample_bias(const X& x, const Conv2dOptions& options) {
  using T = ScalarOf<X>;
  const Weight<T> weight(x[1]), bias(x[2]);
  if (x.size() == 4) return conv2d(x[0], weight, &bias, options, {}, x[3]);
  const Weight<T> a(x[4]), b(x[5]);
  const LowRank<T> term{&a, &b, T(0.75), std::nullopt};
  return conv2d(x[0], weight, &bias, options, std::span<const LowRank<T>>(&term, 1), x[3]);
}
template <class X>
auto through_geglu(const X& x) {
  using T = ScalarOf<X>;
  const Weight<T> weight(x[1]), bias(x[2]);
  if (x.size() == 3) return geglu_linear(x[0], weight, &bias);
  const Weight<T> a(x[3]), b(x[4]);
  const LowRank<T> term{&a, &b, T(0.75), std::nullopt};
  return geglu_linear(x[0], weight, &bias, std::span<const LowRank<T>>(&term, 1));
}
template <class X>
auto through_embedding(const X& x) {
  using T = ScalarOf<X>;
  const Tensor<std::int32_t> ids({2, 3}, {1, 0, 2, 1, 1, 0});
  const Weight<T> table(x[0]);
  if (x.size() == 1) return embedding(ids, table);
  const Weight<T> a(x[1]), b(x[2]);
  const LowRank<T> term{&a, &b, T(0.75), std::nullopt};
  return embedding(ids, table, std::span<const LowRank<T>>(&term, 1));
}

const std::vector<registry::Shapes> plain{{{3, 4}, {2, 4}, {2}}, {{1, 1}, {1, 1}, {1}}, {{2, 3, 5}, {4, 5}, {4}},
                                          {{7}, {3, 7}, {3}},    {{0, 4}, {2, 4}, {2}}, {{5, 17}, {19, 17}, {19}}};
const std::vector<registry::Shapes> low{{{3, 4}, {2, 4}, {2}, {3, 4}, {2, 3}}, {{2, 2, 5}, {4, 5}, {4}, {1, 5}, {4, 1}}};

const registry::Rows all{
    row("linear", [](const auto& x) { return through_linear(x, Activation::none); }, plain, {{{3, 4}, {2, 5}, {2}}, {{3, 4}, {2, 4, 1}, {2}}}),
    row("linear", [](const auto& x) { return through_linear(x, Activation::gelu); }, low, {}),
    row("linear", [](const auto& x) { return through_linear(x, Activation::quick_gelu); }, plain),
    row("linear", [](const auto& x) { return with_own_input(x); }, {{{3, 4}, {2, 4}, {2, 4}, {2, 2}, {3, 4}}}),
    row("geglu_linear", [](const auto& x) { return through_geglu(x); },
        {{{3, 4}, {2, 4}, {2}}, {{2, 3, 2}, {32, 2}, {32}}, {{0, 4}, {32, 4}, {32}}, {{1, 1}, {2, 1}, {2}}, {{2, 3}, {6, 3}, {6}, {2, 3}, {6, 2}}, {{2, 3}, {32, 3}, {32}, {2, 3}, {32, 2}}},
        {{{3, 4}, {3, 4}, {3}}, {{3, 4}, {2, 5}, {2}}}),
    row("conv2d", [](const auto& x) { return through_conv(x, {}); },
        {{{1, 3, 3, 2}, {3, 2, 2, 2}, {3}}, {{2, 4, 3, 1}, {2, 1, 1, 1}, {2}}, {{1, 3, 4, 2}, {2, 2, 3, 2}, {2}, {2, 2, 3, 2}, {2, 2, 1, 1}}},
        {{{1, 3, 3, 2}, {3, 4, 2, 2}, {3}}, {{3, 3, 2}, {3, 2, 2, 2}, {3}}}),
    row("conv2d", [](const auto& x) { return through_conv(x, {.stride = 2, .padding = 1, .dilation = 2, .groups = 2}); },
        {{{1, 5, 4, 4}, {2, 2, 2, 3}, {2}}, {{2, 5, 5, 2}, {4, 1, 2, 2}, {4}}, {{1, 5, 4, 4}, {2, 2, 2, 3}, {2}, {2, 2, 2, 3}, {2, 1, 1, 1}},
         {{1, 5, 4, 4}, {2, 2, 2, 3}, {2}, {2, 4, 2, 3}, {2, 1, 1, 1}}}),
    row("conv2d", [](const auto& x) { return with_sample_bias(x, {.padding = 1}); },
        {{{2, 2, 3, 2}, {3, 2, 3, 3}, {3}, {2, 3}}, {{3, 2, 2, 2}, {2, 2, 2, 2}, {2}, {3, 2}, {1, 2, 2, 2}, {2, 1, 1, 1}}},
        {{{2, 3, 3, 2}, {3, 2, 2, 2}, {3}, {1, 3}}, {{2, 3, 3, 2}, {3, 2, 2, 2}, {3}, {2, 4}}}),
    row("conv2d", [](const auto& x) { return through_conv(x, {.padding = 1, .upsample = 2}); },
        {{{2, 2, 3, 2}, {3, 2, 3, 3}, {3}}, {{1, 2, 2, 2}, {2, 2, 3, 3}, {2}, {2, 2, 3, 3}, {2, 2, 1, 1}}}),
    row("conv2d", [](const auto& x) { return with_sample_bias(x, {.groups = 2}); }, {{{2, 3, 2, 4}, {4, 2, 1, 1}, {4}, {2, 4}}, {{2, 3, 2, 4}, {4, 2, 2, 2}, {4}, {2, 4}}}),
    row("conv2d", [](const auto& x) { return with_own_input(x); }, {{{1, 3, 3, 2}, {3, 2, 2, 2}, {2, 2, 2, 2}, {3, 2, 1, 1}, {1, 3, 3, 2}}}),
    row("embedding", [](const auto& x) { return through_embedding(x); },
        {{{3, 2}}, {{4, 5}}, {{3, 1}}, {{5, 17}}, {{3, 4}, {2, 3}, {4, 2}}, {{4, 3}, {1, 4}, {3, 1}}}, {{{3, 2, 1}}, {{3, 4}, {2, 4}, {4, 2}}}),
};

}  // namespace

TEST_CASE("linear, conv2d and embedding by hand") {
  const Weight<float> weight(Tensor<float>({2, 2}, {1, 2, 3, 4})), bias(Tensor<float>({2}, {10, 20}));
  CHECK(linear(Var<float>(Tensor<float>({1, 2}, {1, -1})), weight, &bias).value() == Tensor<float>({1, 2}, {9, 19}));
  const Weight<float> a(Tensor<float>({1, 2}, {1, 1})), b(Tensor<float>({2, 1}, {2, 3}));
  const LowRank<float> term{&a, &b, 0.5f, std::nullopt};  // adds 0.5 (x0 + x1) (2, 3)
  CHECK(linear(Var<float>(Tensor<float>({1, 2}, {3, 1})), weight, &bias, Activation::none, std::span(&term, 1)).value() ==
        Tensor<float>({1, 2}, {5 + 10 + 4, 13 + 20 + 6}));
  const Weight<float> kernel(Tensor<float>({1, 1, 2, 2}, {1, 2, 3, 4}));
  CHECK(conv2d(Var<float>(Tensor<float>({1, 2, 2, 1}, {1, 10, 100, 1000})), kernel).value() == Tensor<float>({1, 1, 1, 1}, {4321}));
  CHECK(embedding(Tensor<std::int32_t>({2}, {1, 0}), weight).value() == Tensor<float>({2, 2}, {3, 4, 1, 2}));
  REQUIRE_THROWS_WITH(embedding(Tensor<std::int32_t>({2}, {1, 2}), weight), contains("expected ids in [0, 2), got 2 at position 1"));
}

TEST_CASE("a frozen weight gets no gradient buffer, a low-rank term does") {
  const Weight<float> weight(Tensor<float>({2, 2}, {1, 2, 3, 4}), false), a(Tensor<float>({1, 2}, {1, 1})), b(Tensor<float>({2, 1}, {2, 3}));
  const LowRank<float> term{&a, &b, 0.5f, std::nullopt};
  const auto y = linear(Var<float>(Tensor<float>({1, 2}, {3, 1})), weight, nullptr, Activation::none, std::span(&term, 1));
  backward(y, Tensor<float>({1, 2}, {1, 1}));
  CHECK_FALSE(weight.var().has_grad());
  CHECK(a.var().grad() == Tensor<float>({1, 2}, {0.5f * 5 * 3, 0.5f * 5 * 1}));
  CHECK(b.var().grad() == Tensor<float>({2, 1}, {0.5f * 4, 0.5f * 4}));
}

TEST_CASE("a product keeps its output for backward only where the slope of its activation is computed from it") {
  Generator generator(2);
  Tensor<float> values({3, 5}), elements({4, 5});
  fill_normal(values.span(), 0.0f, 1.0f, generator), fill_normal(elements.span(), 0.0f, 1.0f, generator);
  const Weight<float> weight(elements, false);
  for (const auto kind : {Activation::relu, Activation::gelu, Activation::quick_gelu, Activation::silu, Activation::tanh}) {
    INFO(name_of(kind));
    const auto x = variable(values);
    auto y = linear(x, weight, nullptr, kind);
    const std::weak_ptr<const Tensor<float>> output = y.shared();
    const auto doubled = y * 2.0;  // keeps nothing of y
    y = Var<float>();
    CHECK(output.expired() == (kind != Activation::relu && kind != Activation::tanh));
    backward(doubled, Tensor<float>::full({3, 4}, 1.0f));
    const auto fused = x.grad();
    x.clear_grad();
    backward(activation(linear(x, weight), kind) * 2.0, Tensor<float>::full({3, 4}, 1.0f));
    CHECK(fused == x.grad());
  }
}

TEST_CASE("an embedding stored as bfloat16 or half gives the rows converted") {
  Generator generator(3);
  auto table = Tensor<float>::uninitialized({7, 5});
  fill_normal(table.span(), 0.0f, 1.0f, generator);
  const Tensor<std::int32_t> ids({2, 2}, {6, 0, 3, 6});
  const auto same = [&]<class S>(S) {
    const Tensor<S> stored = cast<S>(table);
    Weight<float> narrow, wide(cast<float>(stored), false);
    narrow.set(Weight<float>::Stored(raw_copy(stored)));
    return embedding(ids, narrow).value() == embedding(ids, wide).value();
  };
  CHECK(same(bfloat16()));
  CHECK(same(half()));
  Weight<float> narrow;
  narrow.set(Weight<float>::Stored(raw_copy(cast<bfloat16>(table))));
  REQUIRE_THROWS_WITH(embedding(Tensor<std::int32_t>({1}, {7}), narrow), contains("expected ids in [0, 7), got 7"));
}

TEST_CASE("a convolution lets go of the input that it has rounded, where nobody else holds it") {
  Generator generator(4);
  const auto fill = [&](Shape shape) {
    auto value = Tensor<float>::uninitialized(shape);
    fill_normal(value.span(), 0.0f, 1.0f, generator);
    return value;
  };
  const auto values = fill({1, 24, 24, 32}), kernel = fill({32, 32, 3, 3}), down = fill({4, 32, 3, 3}), up = fill({32, 4, 1, 1});
  const Weight<float> a(down, false), b(up, false), trained(up);
  for (const DType panels : {DType::f32, DType::bf16, DType::i8}) {
    INFO(name_of(panels));
    Weight<float> weight(kernel, false);
    weight.set_panels(panels);
    // Whether the result lies where x did: a block that is free is the next one taken.
    const auto reuses = [&](Var<float> x, const Weight<float>& last) {
      const LowRank<float> term{&a, &last, 0.5f, std::nullopt};
      const std::span<const LowRank<float>> terms(&term, 1);
      const Var<float> held = values;
      const Tensor<float> right = conv2d(held, weight, nullptr, {.padding = 1}, terms).value();
      const float* const place = x.value().data();
      const Var<float> y = conv2d(std::move(x), weight, nullptr, {.padding = 1}, terms);
      CHECK(y.value() == right);
      return y.value().data() == place;
    };
    CHECK(reuses(values, b) == (panels != DType::f32));
    const Var<float> held = values;
    CHECK_FALSE(reuses(held, b));
    CHECK(held.value() == values);
    CHECK_FALSE(reuses(variable(values), b));      // backward may read it
    CHECK_FALSE(reuses(values, trained));          // the record keeps what it needs
    const NoGrad inference;
    CHECK(reuses(values, trained) == (panels != DType::f32));
  }
}

TEST_CASE("a sample bias and a gated product give the bits of the operations apart") {
  Generator generator(5);
  const auto leaf = [&](const Shape& shape) {
    auto value = Tensor<float>::uninitialized(shape);
    fill_normal(value.span(), 0.0f, 1.0f, generator);
    return variable(std::move(value));
  };
  const auto dy = [&](const Shape& shape) { return leaf(shape).value(); };
  const auto x = leaf({2, 5, 4, 6}), time = leaf({2, 20}), kernel = leaf({20, 6, 3, 3}), bias = leaf({20});
  const Weight<float> conv(kernel), conv_bias(bias);
  const auto fused = conv2d(x, conv, &conv_bias, {.padding = 1}, {}, time);
  const auto apart = conv2d(x, conv, &conv_bias, {.padding = 1}) + reshape(time, Shape{2, 1, 1, 20});
  CHECK(fused.value() == apart.value());
  const auto tokens = leaf({7, 24}), wide = leaf({96, 24}), shift = leaf({96});
  const Weight<float> gates(wide), gates_bias(shift);
  const auto one = geglu_linear(tokens, gates, &gates_bias);
  const auto two = geglu(linear(tokens, gates, &gates_bias));
  CHECK(one.value() == two.value());
  CHECK(geglu_linear(tokens.detach(), gates, &gates_bias).value() == two.value());
  const auto gradients = [](const Var<float>& y, const Tensor<float>& d, std::initializer_list<Var<float>> leaves) {
    std::vector<Tensor<float>> out;
    backward(y, d);
    for (const auto& l : leaves) {
      out.push_back(l.grad());
      l.clear_grad();
    }
    return out;
  };
  const auto d = dy(fused.shape()), e = dy(one.shape());
  CHECK(gradients(fused, d, {x, time, kernel, bias}) == gradients(apart, d, {x, time, kernel, bias}));
  CHECK(gradients(one, e, {tokens, wide, shift}) == gradients(two, e, {tokens, wide, shift}));
}
