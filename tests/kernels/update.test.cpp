#include <tenon/kernels/update.hpp>

#include "check.hpp"

using namespace tenon;
using namespace tenon::kernels;

TEST_CASE("update: by hand") {
  // One AdamW step from zero moments moves by lr sign(g) after decay, whatever the gradient's size.
  std::vector<double> p{1, 1}, m{0, 0}, v{0, 0}, average{0, 0};
  const std::vector<double> g{4, -0.5};
  adamw_update(2, {.learning_rate = 0.1, .eps = 0, .weight_decay = 0.5}, g.data(), p.data(), m.data(), v.data());
  CHECK(p[0] == Approx(0.95 - 0.1));
  CHECK(p[1] == Approx(0.95 + 0.1));
  CHECK(m[0] == Approx(0.4));
  CHECK(v[0] == Approx(0.016));
  // SGD with momentum: v = g, then v = 0.9 g + g.
  std::vector<double> q{1, 1}, velocity{7, 7};
  sgd_update(2, {.learning_rate = 0.1, .momentum = 0.9, .first = true}, g.data(), q.data(), velocity.data());
  CHECK(q[0] == Approx(0.6));
  sgd_update(2, {.learning_rate = 0.1, .momentum = 0.9}, g.data(), q.data(), velocity.data());
  CHECK(q[0] == Approx(0.6 - 0.1 * 7.6));
  sgd_update(2, {.learning_rate = 0.1, .weight_decay = 1, .gradient_scale = 0.5}, g.data(), q.data(), nullptr);
  CHECK(q[0] == Approx(-0.16 - 0.1 * (2 - 0.16)));
  ema_update(2, 0.75, g.data(), average.data());
  CHECK(average == std::vector<double>{1, -0.125});
}

TEST_CASE("update: float follows double over several steps") {
  const Index n = GENERATE(1, 16, 37, 100001);
  check_float(
      [=]<class T>(T) {
        auto p = numbers<T>(n, 1), q = p, s = p, average = p;
        std::vector<T> m(p.size(), T(0)), v = m, velocity = m;
        for (Index step = 1; step <= 5; ++step) {
          const auto g = numbers<T>(n, static_cast<unsigned>(step), 0.1, 1);
          adamw_update(n, {.gradient_scale = 0.5, .step = step}, g.data(), p.data(), m.data(), v.data());
          sgd_update(n, {.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.1, .weight_decay = 0.01, .nesterov = step > 2, .first = step == 1}, g.data(), q.data(), velocity.data());
          sgd_update(n, {.learning_rate = 0.1}, g.data(), s.data(), nullptr);
          ema_update(n, 0.9, p.data(), average.data());
        }
        return joined({p, m, v, q, velocity, s, average});
      },
      2e-6);
}
