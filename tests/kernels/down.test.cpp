#include <tenon/kernels/down.hpp>

#include "check.hpp"

using namespace tenon;
using namespace tenon::kernels;

TEST_CASE("down_project: by hand") {
  const std::vector<double> x{1, 2, 0, 3, 4, 0}, a{1, 0, 1, 1};  // rows 3 apart of 2
  std::vector<double> t(4);
  down_project<double>(2, 2, 2, x.data(), 3, a.data(), 2, t.data());
  CHECK(t == std::vector<double>{2, 6, 6, 14});
}

TEST_CASE("down_project: float follows double") {
  struct Case {
    Index m, k, rank, ldx;
  };
  for (const auto& [m, k, rank, ldx] : std::initializer_list<Case>{
           {1, 1, 1, 1}, {5, 16, 4, 16}, {7, 33, 5, 40}, {50, 320, 8, 320}, {64, 768, 3, 768}, {33, 100, 17, 100}, {9, 0, 2, 1}, {0, 8, 2, 8}, {4, 8, 0, 8}}) {
    INFO(m << " " << k << " " << rank << " " << ldx);
    check_float(
        [m = m, k = k, rank = rank, ldx = ldx]<class T>(T) {
          const auto x = numbers<T>(m * ldx, 1), a = numbers<T>(rank * k, 2, -0.1, 0.1);
          auto t = room<T>(m * rank);
          down_project(m, k, rank, x.data(), ldx, a.data(), T(0.75), t.data());
          return t;
        },
        2e-6);
  }
}

TEST_CASE("down_project: a row does not depend on those beside it") {
  const Index m = 7, k = 50, rank = 6;
  const auto x = numbers<float>(m * k, 1), a = numbers<float>(rank * k, 2);
  std::vector<float> all(static_cast<std::size_t>(m * rank)), one(static_cast<std::size_t>(rank));
  down_project(m, k, rank, x.data(), k, a.data(), 1.0f, all.data());
  for (Index i = 0; i < m; ++i) {
    down_project(1, k, rank, x.data() + i * k, k, a.data(), 1.0f, one.data());
    CHECK(std::equal(one.begin(), one.end(), all.begin() + i * rank));
  }
}
