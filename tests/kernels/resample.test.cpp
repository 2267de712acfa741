#include <tenon/kernels/resample.hpp>

#include "check.hpp"

using namespace tenon;
using namespace tenon::kernels;

TEST_CASE("resample: by hand") {
  const std::vector<float> x{1, 2, 3, 4};  // [1, 2, 2, 1]
  std::vector<float> y(16), small(1);
  resample_forward(1, 1, nearest_taps(2, 4), nearest_taps(2, 4), x.data(), y.data());
  CHECK(y == std::vector<float>{1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4});
  resample_forward(1, 1, average_taps(2, 2), average_taps(2, 2), x.data(), small.data());
  CHECK(small[0] == 2.5f);
  CHECK(nearest_taps(5, 3).source == std::vector<Index>{0, 1, 3});
  CHECK(nearest_taps(3, 5).source == std::vector<Index>{0, 0, 1, 1, 2});
  CHECK(average_taps(5, 2).out == 2);
  REQUIRE_THROWS_AS(average_taps(2, 3), ShapeError);
  REQUIRE_THROWS_AS(nearest_taps(0, 3), ShapeError);
}

TEST_CASE("resample: bicubic as torch") {
  // F.interpolate(torch.tensor([[[[0., 1., 4., 9.]]]]), size=(1, 8), mode="bicubic"): t is 3/4 and 1/4 in turn, and
  // the weights at t = 1/4 are -27/256, 225/256, 67/256, -9/256.
  const std::vector<double> x{0, 1, 4, 9};
  const Taps taps = bicubic_taps(4, 8);
  const double w[] = {-27.0 / 256, 225.0 / 256, 67.0 / 256, -9.0 / 256};
  for (std::size_t k = 0; k < 4; ++k) CHECK(taps.weight[4 + k] == Approx(w[k]));
  for (std::size_t k = 0; k < 4; ++k) CHECK(taps.weight[k] == Approx(w[3 - k]));
  CHECK(std::vector<Index>(taps.source.begin(), taps.source.begin() + 8) == std::vector<Index>{0, 0, 0, 1, 0, 0, 1, 2});
  std::vector<double> y(8);
  resample_forward(1, 1, nearest_taps(1, 1), taps, x.data(), y.data());
  CHECK(y[3] == Approx(w[0] * 0 + w[1] * 1 + w[2] * 4 + w[3] * 9));
  CHECK(y[7] == Approx(w[0] * 4 + w[1] * 9 + w[2] * 9 + w[3] * 9));
  std::vector<double> same(4);
  resample_forward(1, 1, nearest_taps(1, 1), bicubic_taps(4, 4), x.data(), same.data());
  CHECK(same == x);
  // Weights of an output sum to 1 at any ratio.
  for (Index out : {1, 3, 7, 13}) {
    const Taps any = bicubic_taps(5, out);
    for (Index i = 0; i < out; ++i) {
      double sum = 0;
      for (std::size_t k = 0; k < 4; ++k) sum += any.weight[static_cast<std::size_t>(4 * i) + k];
      CHECK(sum == Approx(1));
    }
  }
}

TEST_CASE("resample: float follows double, backward is the transpose") {
  const Index c = GENERATE(1, 5, 48), n = 2, h = 7, w = 9;
  const Taps rows[] = {nearest_taps(h, 14), bicubic_taps(h, 11), average_taps(h, 3), bicubic_taps(h, 3), nearest_taps(h, 4)};
  const Taps columns[] = {nearest_taps(w, 18), bicubic_taps(w, 30), average_taps(w, 2), bicubic_taps(w, 4), bicubic_taps(w, 9)};
  for (std::size_t i = 0; i < 5; ++i) {
    INFO("case " << i);
    const Taps &r = rows[i], &q = columns[i];
    check_float(
        [&]<class T>(T) {
          const auto x = numbers<T>(n * h * w * c, 1), dy = numbers<T>(n * r.out * q.out * c, 2);
          auto y = room<T>(n * r.out * q.out * c), dx = room<T>(n * h * w * c);
          resample_forward(n, c, r, q, x.data(), y.data());
          resample_backward(n, c, r, q, dy.data(), dx.data());
          return joined({y, dx});
        },
        2e-6);
    const auto x = numbers<double>(n * h * w * c, 3), dy = numbers<double>(n * r.out * q.out * c, 4);
    auto y = room<double>(n * r.out * q.out * c), dx = room<double>(n * h * w * c);
    resample_forward(n, c, r, q, x.data(), y.data());
    resample_backward(n, c, r, q, dy.data(), dx.data());
    CHECK(dot(y, dy) == Approx(dot(x, dx)));
  }
}
