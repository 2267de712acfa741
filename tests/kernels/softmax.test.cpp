#include <tenon/kernels/softmax.hpp>

#include "check.hpp"
#include "guarded.hpp"

using namespace tenon;
using namespace tenon::kernels;

TEST_CASE("softmax: by hand") {
  for (Isa isa : all_isas) {
    if (!is_available(isa)) continue;
    const IsaScope scope(isa);
    const float x[] = {0, std::log(3.0f)}, dy[] = {1, 0};
    float y[2], dx[2];
    softmax_forward(1, 2, x, y);
    CHECK(y[0] == Approx(0.25));
    CHECK(y[1] == Approx(0.75));
    softmax_backward(1, 2, y, dy, dx);
    CHECK(dx[0] == Approx(0.1875));  // 1/4 (1 - 1/4)
    CHECK(dx[1] == Approx(-0.1875));
    log_softmax_forward(1, 2, x, y);
    CHECK(y[0] == Approx(-std::log(4.0)));
    CHECK(y[1] == Approx(std::log(0.75)));
    log_softmax_backward(1, 2, y, dy, dx);
    CHECK(dx[0] == Approx(0.75));  // 1 - 1/4
    CHECK(dx[1] == Approx(-0.75));
  }
}

TEST_CASE("softmax: float follows double, inside its arrays") {
  for (Index width : {1, 2, 7, 16, 17, 31, 77, 1000})
    for (double spread : {2.0, 200.0}) {
      const Index rows = 5;
      CAPTURE(width, spread);
      check_float(
          [=](auto t) {
            using T = decltype(t);
            Guarded<T> x(numbers<T>(rows * width, 1, -spread, spread)), dy(numbers<T>(rows * width, 2));
            Guarded<T> y(x.size()), dx(x.size()), log_y(x.size()), log_dx(x.size());
            softmax_forward(rows, width, x.data(), y.data());
            softmax_backward(rows, width, y.data(), dy.data(), dx.data());
            log_softmax_forward(rows, width, x.data(), log_y.data());
            log_softmax_backward(rows, width, log_y.data(), dy.data(), log_dx.data());
            return joined<T>({y.values(), dx.values(), log_y.values(), log_dx.values()});
          },
          3e-6);
    }
}

TEST_CASE("softmax: gradients are those of finite differences") {
  const Index rows = 2, width = 5;
  const std::vector<double> x = numbers<double>(rows * width, 3), dy = numbers<double>(rows * width, 4);
  std::vector<double> y(x.size()), dx(x.size());
  softmax_forward(rows, width, x.data(), y.data());
  softmax_backward(rows, width, y.data(), dy.data(), dx.data());
  check_gradient([&](const std::vector<double>& v) { softmax_forward(rows, width, v.data(), y.data()); return dot(y, dy); }, x, dx);
  log_softmax_forward(rows, width, x.data(), y.data());
  log_softmax_backward(rows, width, y.data(), dy.data(), dx.data());
  check_gradient([&](const std::vector<double>& v) { log_softmax_forward(rows, width, v.data(), y.data()); return dot(y, dy); }, x, dx);
}
