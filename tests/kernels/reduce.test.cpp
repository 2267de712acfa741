#include <tenon/kernels/reduce.hpp>

#include <limits>

#include "check.hpp"

using namespace tenon;
using namespace tenon::kernels;

TEST_CASE("reduce: by hand") {
  const std::vector<double> x{1, 2, 3, 4, 5, 6};  // [2, 3]
  std::vector<double> y(3), v(3);
  std::vector<std::int64_t> at(3);
  sum(2, 3, 1, x.data(), y.data());
  CHECK((y[0] == 6 && y[1] == 15));
  mean(1, 2, 3, x.data(), y.data());
  CHECK(y == std::vector<double>{2.5, 3.5, 4.5});
  max_forward(1, 2, 3, x.data(), y.data(), at.data());
  CHECK(y == std::vector<double>{4, 5, 6});
  CHECK(at == std::vector<std::int64_t>{1, 1, 1});
  variance_forward(2, 3, 1, 1, x.data(), y.data(), v.data());
  CHECK((y[0] == 2 && v[0] == 1 && v[1] == 1));
  CHECK(sum_of_squares(6, x.data()) == 91);
  const std::vector<Index> outer_axes{0, 2};
  sum_axes({1, 2, 3}, std::span<const Index>(outer_axes), x.data(), y.data());
  CHECK((y[0] == 6 && y[1] == 15));
  const auto [outer, axis, inner] = collapse({2, 3, 4, 5}, 1, -2);
  CHECK((outer == 2 && axis == 12 && inner == 5));
}

TEST_CASE("reduce: NaN is the largest, the first of equals wins") {
  const double nan_value = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> x{1, nan_value, 5, nan_value}, ties{3, 7, 7, 1};
  double y = 0;
  std::int64_t at = -1;
  max_forward(1, 4, 1, x.data(), &y, &at);
  CHECK((std::isnan(y) && at == 1));
  max_forward(1, 4, 1, ties.data(), &y, &at);
  CHECK((y == 7 && at == 1));
  max_forward(1, 4, 1, ties.data(), &y, nullptr);
  CHECK(y == 7);
}

TEST_CASE("reduce: sums over any axes, against naive loops") {
  const Shape shape{2, 3, 4, 5};
  const auto x = numbers<double>(shape.size(), 1);
  for (unsigned mask = 0; mask < 16; ++mask) {
    std::vector<Index> axes;
    Shape kept;
    for (Index i = 0; i < 4; ++i) {
      if (mask >> i & 1u) axes.push_back(i);
      kept.push_back(mask >> i & 1u ? 1 : shape[i]);
    }
    std::vector<double> expected(static_cast<std::size_t>(kept.size()), 0.0), y(expected.size()), z(expected.size());
    const auto strides = broadcast_strides(kept, shape);
    for (Index at = 0; at < shape.size(); ++at) {
      Index rest = at, to = 0;
      for (Index i = 3; i >= 0; --i) {
        to += rest % shape[i] * strides[static_cast<std::size_t>(i)];
        rest /= shape[i];
      }
      expected[static_cast<std::size_t>(to)] += x[static_cast<std::size_t>(at)];
    }
    sum_axes(shape, std::span<const Index>(axes), x.data(), y.data());
    sum_to(shape, x.data(), kept, z.data());
    for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == Approx(expected[i]).margin(1e-12));
    REQUIRE(z == y);
  }
  std::vector<double> y(20);
  sum_to(shape, x.data(), {4, 5}, y.data());
  CHECK(y[0] == Approx(x[0] + x[20] + x[40] + x[60] + x[80] + x[100]));
  REQUIRE_THROWS_AS(sum_to(shape, x.data(), {5, 4}, y.data()), ShapeError);
}

TEST_CASE("reduce: float follows double") {
  struct Case {
    Index outer, axis, inner;
  };
  const Case cases[] = {{1, 1, 1}, {3, 17, 1}, {2, 5, 3}, {1, 96, 65}, {1, 97, 130}, {2, 1000, 7}, {1, 4097, 1}, {1, 100000, 1}, {40, 333, 16}, {7, 0, 3}, {3, 9, 5000}};
  for (const auto& [outer, axis, inner] : cases) {
    INFO(outer << " " << axis << " " << inner);
    check_float(
        [&, o = outer, a = axis, i = inner]<class T>(T) {
          const auto x = numbers<T>(o * a * i, 1, -1, 2), d = numbers<T>(o * i, 2);
          auto s = room<T>(o * i), m = s, v = s, dx = room<T>(o * a * i);
          sum(o, a, i, x.data(), s.data());
          if (a == 0) return s;
          variance_forward(o, a, i, 0, x.data(), m.data(), v.data());
          variance_backward(o, a, i, 0, x.data(), m.data(), d.data(), dx.data());
          // A sum's error grows with its length, a mean's does not.
          for (T& value : s) value /= static_cast<T>(a);
          const T norm = static_cast<T>(sum_of_squares(o * a * i, x.data()) / static_cast<double>(o * a * i));
          return joined({s, m, v, dx, {norm}});
        },
        2e-6);
  }
}

TEST_CASE("reduce: finiteness on bits") {
  for (Isa isa : all_isas) {
    if (!is_available(isa)) continue;
    const IsaScope scope(isa);
    for (Index n : {1, 16, 37, 100001}) {
      auto x = numbers<float>(n, 1);
      x[0] = std::numeric_limits<float>::max();
      CHECK(all_finite(n, x.data()));
      for (Index at : {Index{0}, n / 2, n - 1})
        for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
          const float kept = x[static_cast<std::size_t>(at)];
          x[static_cast<std::size_t>(at)] = bad;
          CHECK(!all_finite(n, x.data()));
          x[static_cast<std::size_t>(at)] = kept;
        }
    }
  }
}

TEST_CASE("reduce: gradients") {
  const auto x = numbers<double>(2 * 5 * 3, 1), d = numbers<double>(6, 2);
  std::vector<double> y(6), m(6), dx(30);
  std::vector<std::int64_t> at(6);
  max_forward(2, 5, 3, x.data(), y.data(), at.data());
  max_backward(2, 5, 3, at.data(), d.data(), dx.data());
  check_gradient(
      [&](const std::vector<double>& p) {
        max_forward(2, 5, 3, p.data(), y.data(), nullptr);
        return dot(y, d);
      },
      x, dx);
  variance_forward(2, 5, 3, 1, x.data(), m.data(), y.data());
  const auto mean_of_x = m;
  variance_backward(2, 5, 3, 1, x.data(), mean_of_x.data(), d.data(), dx.data());
  check_gradient(
      [&](const std::vector<double>& p) {
        variance_forward(2, 5, 3, 1, p.data(), m.data(), y.data());
        return dot(y, d);
      },
      x, dx);
}
