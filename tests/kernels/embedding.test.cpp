#include <tenon/kernels/embedding.hpp>

#include "check.hpp"

using namespace tenon;
using namespace tenon::kernels;

TEST_CASE("embedding: by hand") {
  const std::vector<float> table{0, 1, 10, 11, 20, 21}, dy{1, 2, 3, 4, 5, 6};
  const std::vector<std::int64_t> ids{2, 0, 2};
  std::vector<float> y(6), dtable(6, 100.0f);
  embedding_forward(3, 2, 3, ids.data(), table.data(), y.data());
  CHECK(y == std::vector<float>{20, 21, 0, 1, 20, 21});
  embedding_backward(3, 2, 3, ids.data(), dy.data(), dtable.data());
  CHECK(dtable == std::vector<float>{103, 104, 100, 100, 106, 108});
  CHECK(first_out_of_range(3, ids.data(), 3) == -1);
  CHECK(first_out_of_range(3, ids.data(), 2) == 0);
  const std::vector<std::int32_t> negative{0, -1};
  CHECK(first_out_of_range(2, negative.data(), 2) == 1);
  std::vector<float> hot(4);
  one_hot(2, 2, std::vector<std::int32_t>{1, 0}.data(), hot.data());
  CHECK(hot == std::vector<float>{0, 1, 1, 0});
}

TEST_CASE("embedding: index_select and gather against naive loops") {
  const Index outer = 2, axis = 5, inner = 3, count = 4;
  const auto x = numbers<double>(outer * axis * inner, 1);
  const std::vector<std::int32_t> ids{4, 0, 0, 2};
  std::vector<std::int32_t> each(static_cast<std::size_t>(outer * count * inner));
  for (std::size_t i = 0; i < each.size(); ++i) each[i] = static_cast<std::int32_t>(i * 7 % 5);
  auto y = room<double>(outer * count * inner), z = y;
  index_select_forward(outer, axis, inner, count, ids.data(), x.data(), y.data());
  gather_forward(outer, axis, inner, count, each.data(), x.data(), z.data());
  for (Index o = 0; o < outer; ++o)
    for (Index i = 0; i < count; ++i)
      for (Index k = 0; k < inner; ++k) {
        const auto at = static_cast<std::size_t>((o * count + i) * inner + k);
        REQUIRE(y[at] == x[static_cast<std::size_t>((o * axis + ids[static_cast<std::size_t>(i)]) * inner + k)]);
        REQUIRE(z[at] == x[static_cast<std::size_t>((o * axis + each[at]) * inner + k)]);
      }
  const auto dy = numbers<double>(outer * count * inner, 2);
  std::vector<double> dx(x.size(), 0.0), dz(x.size(), 0.0);
  index_select_backward(outer, axis, inner, count, ids.data(), dy.data(), dx.data());
  gather_backward(outer, axis, inner, count, each.data(), dy.data(), dz.data());
  check_gradient(
      [&](const auto& p) {
        index_select_forward(outer, axis, inner, count, ids.data(), p.data(), y.data());
        return dot(y, dy);
      },
      x, dx);
  check_gradient(
      [&](const auto& p) {
        gather_forward(outer, axis, inner, count, each.data(), p.data(), y.data());
        return dot(y, dy);
      },
      x, dz);
}

TEST_CASE("embedding: backward in float follows double") {
  const Index width = GENERATE(1, 17, 100), rows = 3000, table = 13;
  check_float(
      [=]<class T>(T) {
        std::vector<std::int64_t> ids(static_cast<std::size_t>(rows));
        std::vector<std::int32_t> short_ids(ids.size());
        for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = short_ids[i] = static_cast<std::int32_t>(i * i % 13);
        const auto dy = numbers<T>(rows * width, 1, 0, 0.01);
        std::vector<T> dtable(static_cast<std::size_t>(table * width), T(0)), again = dtable;
        embedding_backward(rows, width, table, ids.data(), dy.data(), dtable.data());
        embedding_backward(rows, width, table, short_ids.data(), dy.data(), again.data());
        return joined({dtable, again});
      },
      1e-5);
}
