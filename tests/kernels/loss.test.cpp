#include <tenon/kernels/loss.hpp>

#include "check.hpp"

using namespace tenon;
using namespace tenon::kernels;

TEST_CASE("loss: by hand") {
  for (Isa isa : all_isas) {
    if (!is_available(isa)) continue;
    const IsaScope scope(isa);
    const std::vector<float> even{5, 5, 5, 5}, a{1, 2, 3}, b{1, 0, 0};
    const std::vector<std::int32_t> target{2};
    float lse = 0;
    CHECK(cross_entropy_forward(1, 4, {}, even.data(), target.data(), &lse) == Approx(std::log(4.0)));
    CHECK(lse == Approx(5 + std::log(4.0)));
    std::vector<float> d(4), da(3), db(3);
    cross_entropy_backward(1, 4, {}, even.data(), target.data(), &lse, 1, d.data());
    CHECK(d[0] == Approx(0.25));
    CHECK(d[2] == Approx(-0.75));
    CHECK(mse_forward(3, a.data(), b.data()) == Approx(13.0 / 3));
    mse_backward(3, a.data(), b.data(), 3, da.data(), db.data());
    CHECK(da == std::vector<float>{0, 4, 6});
    CHECK(db == std::vector<float>{0, -4, -6});
    // Logits far apart neither overflow nor lose the loss.
    const std::vector<float> far{1000, 0, -1000, 0};
    CHECK(cross_entropy_forward(1, 4, {}, far.data(), target.data(), &lse) == Approx(2000));
    const std::vector<std::int32_t> ignored{-100};
    CHECK(std::isnan(cross_entropy_forward(1, 4, {}, even.data(), ignored.data(), &lse)));
  }
}

TEST_CASE("loss: float follows double") {
  const Index classes = GENERATE(1, 2, 17, 1000), rows = 131;
  const double smoothing = GENERATE(0.0, 0.1);
  check_float(
      [=]<class T>(T) {
        const auto z = numbers<T>(rows * classes, 1, -5, 5);
        std::vector<std::int32_t> targets(static_cast<std::size_t>(rows));
        for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = i % 9 == 4 ? -100 : static_cast<std::int32_t>(i * 31 % static_cast<std::size_t>(classes));
        const CrossEntropy options{.label_smoothing = smoothing};
        auto lse = room<T>(rows), d = room<T>(rows * classes);
        const T loss = cross_entropy_forward(rows, classes, options, z.data(), targets.data(), lse.data());
        cross_entropy_backward(rows, classes, options, z.data(), targets.data(), lse.data(), 100, d.data());
        return joined({lse, d, {loss}});
      },
      3e-6);
  check_float(
      [=]<class T>(T) {
        const Index n = rows * classes;
        const auto a = numbers<T>(n, 2), b = numbers<T>(n, 3);
        auto da = room<T>(n), db = da;
        const T loss = mse_forward(n, a.data(), b.data());
        mse_backward(n, a.data(), b.data(), 50, da.data(), db.data());
        return joined({da, db, {loss}});
      },
      2e-6);
}

TEST_CASE("loss: gradients") {
  const Index rows = 4, classes = 5;
  const auto z = numbers<double>(rows * classes, 1), b = numbers<double>(rows * classes, 2);
  const std::vector<std::int32_t> targets{0, 4, -1, 2};
  for (double smoothing : {0.0, 0.2}) {
    const CrossEntropy options{.label_smoothing = smoothing, .ignore_index = -1};
    std::vector<double> lse(4), d(20);
    cross_entropy_forward(rows, classes, options, z.data(), targets.data(), lse.data());
    cross_entropy_backward(rows, classes, options, z.data(), targets.data(), lse.data(), 1.5, d.data());
    check_gradient(
        [&](const auto& p) {
          std::vector<double> unused(4);
          return 1.5 * cross_entropy_forward(rows, classes, options, p.data(), targets.data(), unused.data());
        },
        z, d);
  }
  std::vector<double> da(20), db(20);
  mse_backward(20, z.data(), b.data(), 1, da.data(), db.data());
  check_gradient([&](const auto& p) { return mse_forward(20, p.data(), b.data()); }, z, da);
  check_gradient([&](const auto& p) { return mse_forward(20, z.data(), p.data()); }, b, db);
}
