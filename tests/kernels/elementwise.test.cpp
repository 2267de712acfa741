#include <tenon/kernels/activation.hpp>
#include <tenon/kernels/cast.hpp>
#include <tenon/kernels/copy.hpp>
#include <tenon/kernels/elementwise.hpp>

#include <limits>

#include "check.hpp"

using namespace tenon;
using namespace tenon::kernels;

namespace {
constexpr Unary all_unary[] = {Unary::negate, Unary::absolute, Unary::sign, Unary::exp, Unary::log, Unary::sqrt, Unary::rsqrt, Unary::reciprocal, Unary::square, Unary::sin, Unary::cos, Unary::tanh, Unary::sigmoid, Unary::erf, Unary::relu, Unary::gelu, Unary::gelu_tanh, Unary::quick_gelu, Unary::silu};
constexpr Binary all_binary[] = {Binary::add, Binary::subtract, Binary::multiply, Binary::divide, Binary::maximum, Binary::minimum, Binary::pow};
bool positive_only(Unary op) { return op == Unary::log || op == Unary::sqrt || op == Unary::rsqrt || op == Unary::reciprocal; }
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
}  // namespace

TEST_CASE("elementwise: by hand") {
  for (Isa isa : all_isas) {
    if (!is_available(isa)) continue;
    const IsaScope scope(isa);
    const std::vector<float> x{-1, 0, 2}, dy{10, 10, 10};
    std::vector<float> y(3), dx(3);
    unary_forward(Unary::relu, 3, x.data(), y.data());
    unary_backward(Unary::relu, 3, x.data(), y.data(), dy.data(), dx.data());
    CHECK(y == std::vector<float>{0, 0, 2});
    CHECK(dx == std::vector<float>{0, 0, 10});
    unary_forward(Unary::square, 3, x.data(), y.data());
    CHECK(y == std::vector<float>{1, 0, 4});
    clamp_forward(3, -0.5, 1, x.data(), y.data());
    CHECK(y == std::vector<float>{-0.5f, 0, 1});
    clamp_backward(3, -0.5, 1, x.data(), dy.data(), dx.data());
    CHECK(dx == std::vector<float>{0, 10, 0});
    scale(3, 3, x.data(), y.data());
    axpy(3, 2, x.data(), y.data());
    CHECK(y == std::vector<float>{-5, 0, 10});

    const std::vector<float> a{1, 2, 3, 4, 5, 6}, row{10, 20, 30}, column{100, 200};
    std::vector<float> sum(6);
    binary_forward(Binary::add, {2, 3}, a.data(), {3}, row.data(), sum.data());
    CHECK(sum == std::vector<float>{11, 22, 33, 14, 25, 36});
    binary_forward(Binary::subtract, {2, 1}, column.data(), {2, 3}, a.data(), sum.data());
    CHECK(sum == std::vector<float>{99, 98, 97, 196, 195, 194});
    binary_forward(Binary::multiply, {2, 1}, column.data(), {1, 3}, row.data(), sum.data());
    CHECK(sum == std::vector<float>{1000, 2000, 3000, 2000, 4000, 6000});
    REQUIRE_THROWS_AS(binary_forward(Binary::add, {2, 3}, a.data(), {2}, column.data(), sum.data()), ShapeError);

    // x [1, 2n]: values 2, 3 and gates 0, 1; gelu(1) = 0.841345
    const std::vector<float> gated{2, 3, 0, 1};
    std::vector<float> out(2);
    geglu_forward(1, 2, gated.data(), out.data());
    CHECK(out[0] == 0.0f);
    CHECK(out[1] == Approx(3 * 0.8413447));
  }
}

TEST_CASE("elementwise: special numbers") {
  for (Isa isa : all_isas) {
    if (!is_available(isa)) continue;
    INFO("isa " << name_of(isa));
    const IsaScope scope(isa);
    for (Unary op : all_unary) {
      INFO("op " << static_cast<int>(op));
      const float x = not_a_number;
      float y = 0;
      unary_forward(op, 1, &x, &y);
      CHECK(std::isnan(y));
    }
    for (Binary op : all_binary) {
      INFO("op " << static_cast<int>(op));
      const float one = 3, bad = not_a_number;
      float y = 0;
      binary_forward(op, {}, &bad, {}, &one, &y);
      CHECK(std::isnan(y));
      binary_forward(op, {}, &one, {}, &bad, &y);
      CHECK(std::isnan(y));
    }
    // pow: {base, exponent, C's answer}
    const float cases[][3] = {{2, 3, 8}, {-2, 3, -8}, {-2, 2, 4}, {-8, 1.0f / 3, not_a_number}, {0, 2, 0}, {0, 0, 1}, {0, -1, infinity}, {-0.0f, -3, -infinity},
                              {4, 0.5f, 2}, {9, -0.5f, 1.0f / 3}, {infinity, 2, infinity}, {infinity, -2, 0}, {-infinity, 3, -infinity}, {1, not_a_number, 1}, {not_a_number, 0, 1}, {10, 60, infinity}, {0.1f, 60, 0}};
    for (const auto& [a, b, expected] : cases) {
      float y = 0;
      binary_forward(Binary::pow, {}, &a, {}, &b, &y);
      INFO(a << " ^ " << b << " = " << y);
      if (std::isnan(expected))
        CHECK(std::isnan(y));
      else if (std::isinf(expected))
        CHECK(y == expected);
      else
        CHECK(y == Approx(expected).margin(1e-37));
    }
  }
}

TEST_CASE("elementwise: float follows double") {
  const Index n = GENERATE(1, 15, 16, 17, 33, 100003);
  for (Unary op : all_unary) {
    INFO("op " << static_cast<int>(op) << " n " << n);
    check_float(
        [=]<class T>(T) {
          const auto x = numbers<T>(n, 1, positive_only(op) ? 0.1 : -6, 6), dy = numbers<T>(n, 2);
          auto y = room<T>(n), dx = room<T>(n);
          unary_forward(op, n, x.data(), y.data());
          unary_backward(op, n, x.data(), y.data(), dy.data(), dx.data());
          return joined({y, dx});
        },
        2e-6);
  }
}

TEST_CASE("elementwise: broadcasts of every kind, float follows double") {
  struct Pair {
    Shape a, b;
  };
  const Pair pairs[] = {{{37}, {37}}, {{1}, {5}}, {{}, {3, 17}}, {{5, 33}, {33}}, {{5, 33}, {5, 1}}, {{5, 1}, {1, 33}}, {{3, 1, 4, 1}, {2, 1, 7}},
                        {{2, 1, 1, 2, 1, 2, 1, 3}, {1, 2, 2, 1, 2, 1, 2, 1}}, {{0, 3}, {3}}, {{300, 200}, {200}}, {{300, 200}, {300, 1}}, {{2, 50000}, {50000}}};
  for (const auto& [a_shape, b_shape] : pairs)
    for (Binary op : all_binary) {
      INFO(a_shape.text() << " " << b_shape.text() << " op " << static_cast<int>(op));
      const Shape shape = broadcast_shape("test", a_shape, b_shape);
      check_float(
          [&]<class T>(T) {
            const double low = op == Binary::pow ? 0.2 : -3;
            auto a = numbers<T>(a_shape.size(), 3, low, 3), b = numbers<T>(b_shape.size(), 4, -3, 3);
            if (op == Binary::divide)
              for (T& v : b) v += v < 0 ? T(-0.5) : T(0.5);
            if (a.size() > 2 && b.size() > 2) a[2] = b[2] = 1;
            const auto dy = numbers<T>(shape.size(), 5);
            auto y = room<T>(shape.size()), da = y, db = y;
            binary_forward(op, a_shape, a.data(), b_shape, b.data(), y.data());
            binary_backward(op, a_shape, a.data(), b_shape, b.data(), dy.data(), da.data(), db.data());
            return joined({y, da, db});
          },
          3e-6);
    }
}

TEST_CASE("elementwise: broadcasting against naive indices") {
  const Shape a_shape{3, 1, 4, 1}, b_shape{2, 1, 7}, shape{3, 2, 4, 7};
  const auto a = numbers<double>(12, 1), b = numbers<double>(14, 2);
  auto y = room<double>(shape.size());
  binary_forward(Binary::subtract, a_shape, a.data(), b_shape, b.data(), y.data());
  std::size_t at = 0;
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 2; ++j)
      for (std::size_t k = 0; k < 4; ++k)
        for (std::size_t l = 0; l < 7; ++l) REQUIRE(y[at++] == a[i * 4 + k] - b[j * 7 + l]);
}

TEST_CASE("elementwise: gradients") {
  const Index n = 7;
  for (Unary op : all_unary) {
    INFO("op " << static_cast<int>(op));
    const auto x = numbers<double>(n, 6, positive_only(op) ? 0.5 : -2, 2), dy = numbers<double>(n, 7);
    auto y = room<double>(n), dx = room<double>(n);
    unary_forward(op, n, x.data(), y.data());
    unary_backward(op, n, x.data(), y.data(), dy.data(), dx.data());
    check_gradient(
        [&](const std::vector<double>& at) {
          auto out = room<double>(n);
          unary_forward(op, n, at.data(), out.data());
          return dot(out, dy);
        },
        x, dx);
  }
  for (Binary op : all_binary) {
    INFO("op " << static_cast<int>(op));
    const auto a = numbers<double>(n, 8, 0.5, 2), b = numbers<double>(n, 9, 0.5, 2), dy = numbers<double>(n, 10);
    auto da = room<double>(n), db = room<double>(n);
    binary_backward(op, {n}, a.data(), {n}, b.data(), dy.data(), da.data(), db.data());
    const auto value = [&](const std::vector<double>& p, const std::vector<double>& q) {
      auto out = room<double>(n);
      binary_forward(op, {n}, p.data(), {n}, q.data(), out.data());
      return dot(out, dy);
    };
    check_gradient([&](const std::vector<double>& p) { return value(p, b); }, a, da);
    check_gradient([&](const std::vector<double>& q) { return value(a, q); }, b, db);
  }
  const auto x = numbers<double>(3 * 10, 11), dy = numbers<double>(3 * 5, 12);
  auto dx = room<double>(3 * 10);
  geglu_backward(3, 5, x.data(), dy.data(), dx.data());
  check_gradient(
      [&](const std::vector<double>& at) {
        auto out = room<double>(15);
        geglu_forward(3, 5, at.data(), out.data());
        return dot(out, dy);
      },
      x, dx);
}

TEST_CASE("elementwise: the rest in float") {
  const Index n = GENERATE(1, 31, 70001);
  check_float(
      [=]<class T>(T) {
        const auto x = numbers<T>(n, 1), dy = numbers<T>(n, 2);
        auto y = room<T>(n), dx = y, s = y, t = numbers<T>(n, 3);
        clamp_forward(n, -0.5, 1, x.data(), y.data());
        clamp_backward(n, -0.5, 1, x.data(), dy.data(), dx.data());
        scale(n, 0.7, x.data(), s.data());
        axpy(n, -1.3, x.data(), t.data());
        return joined({y, dx, s, t});
      },
      1e-6);
  check_float(
      [=]<class T>(T) {
        const auto x = numbers<T>(6 * n, 1, -4, 4), dy = numbers<T>(3 * n, 2);
        auto y = room<T>(3 * n), dx = room<T>(6 * n);
        geglu_forward(3, n, x.data(), y.data());
        geglu_backward(3, n, x.data(), dy.data(), dx.data());
        return joined({y, dx});
      },
      2e-6);
}

TEST_CASE("elementwise: compare and where") {
  const std::vector<std::int32_t> a{1, 2, 3, 4}, b{3};
  std::vector<std::int32_t> picked(4);
  bool mask[4];
  compare(Compare::less, {4}, a.data(), {1}, b.data(), mask);
  CHECK((mask[0] && mask[1] && !mask[2] && !mask[3]));
  compare(Compare::greater_equal, {4}, a.data(), {}, b.data(), mask);
  CHECK((!mask[0] && !mask[1] && mask[2] && mask[3]));
  where({4}, mask, {4}, a.data(), {1}, b.data(), picked.data());
  CHECK(picked == std::vector<std::int32_t>{3, 3, 3, 4});
  const float x = not_a_number;
  bool equal = true, unequal = false;
  compare(Compare::equal, {}, &x, {}, &x, &equal);
  compare(Compare::not_equal, {}, &x, {}, &x, &unequal);
  CHECK((!equal && unequal));
}

TEST_CASE("copy: permute, slice, flip, and broadcast") {
  const auto x = numbers<float>(2 * 3 * 5, 1);
  auto y = room<float>(2 * 3 * 5);
  copy_strided({5, 2, 3}, {1, 15, 5}, x.data(), contiguous_strides({5, 2, 3}), y.data());
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j < 2; ++j)
      for (std::size_t k = 0; k < 3; ++k) REQUIRE(y[(i * 2 + j) * 3 + k] == x[(j * 3 + k) * 5 + i]);
  std::vector<float> flipped(5), repeated(6);
  copy_strided({5}, {-1}, x.data() + 4, {1}, flipped.data());
  CHECK(flipped == std::vector<float>{x[4], x[3], x[2], x[1], x[0]});
  copy_strided({2, 3}, {0, 1}, x.data(), {3, 1}, repeated.data());
  CHECK(repeated == std::vector<float>{x[0], x[1], x[2], x[0], x[1], x[2]});
  fill(3, 2.5f, y.data());
  CHECK((y[0] == 2.5f && y[2] == 2.5f && y[3] != 2.5f));
}

TEST_CASE("cast: by the rules of convert") {
  CHECK(convert<std::int32_t>(-2.9f) == -2);
  CHECK(convert<std::int32_t>(3e9f) == std::numeric_limits<std::int32_t>::max());
  CHECK(convert<std::int64_t>(-infinity) == std::numeric_limits<std::int64_t>::min());
  CHECK(convert<std::int64_t>(9.3e18) == std::numeric_limits<std::int64_t>::max());
  CHECK(convert<std::uint8_t>(300.0) == 255);
  CHECK(convert<std::uint8_t>(255.9f) == 255);
  CHECK(convert<std::uint8_t>(-1.0f) == 0);
  CHECK(convert<std::int32_t>(not_a_number) == 0);
  CHECK(convert<bool>(0.5f));
  CHECK(!convert<bool>(-0.0f));
  CHECK(convert<bool>(bfloat16(2.0f)));
  CHECK(convert<float>(true) == 1.0f);
  CHECK(convert<std::uint8_t>(std::int32_t{257}) == 1);
  CHECK(static_cast<float>(convert<half>(std::int32_t{3})) == 3.0f);
}

TEST_CASE("cast: 16-bit floats as core/dtype.hpp rounds them, on every ISA") {
  std::vector<float> x = numbers<float>(1003, 5, -70000, 70000);
  for (float special : {0.0f, -0.0f, infinity, -infinity, not_a_number, 1e-8f, 6e-8f, 65519.0f, 65520.0f, 1.0009766f, 3.4e38f, 1e-40f}) x.push_back(special);
  const Index n = static_cast<Index>(x.size());
  for (Isa isa : all_isas) {
    if (!is_available(isa)) continue;
    INFO("isa " << name_of(isa));
    const IsaScope scope(isa);
    std::vector<bfloat16> b(x.size());
    std::vector<half> h(x.size());
    std::vector<float> from_b(x.size()), from_h(x.size());
    cast(n, x.data(), b.data());
    cast(n, x.data(), h.data());
    cast(n, static_cast<const bfloat16*>(b.data()), from_b.data());
    cast(n, static_cast<const half*>(h.data()), from_h.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      INFO(x[i]);
      REQUIRE(b[i].bits == bfloat16(x[i]).bits);
      REQUIRE(h[i].bits == half(x[i]).bits);
      if (std::isnan(x[i])) continue;
      REQUIRE(from_b[i] == static_cast<float>(b[i]));
      REQUIRE(from_h[i] == static_cast<float>(h[i]));
    }
  }
}
