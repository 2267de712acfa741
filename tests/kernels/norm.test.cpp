#include <tenon/kernels/norm.hpp>

#include "check.hpp"

using namespace tenon;
using namespace tenon::kernels;

namespace {
struct Group {
  Index n, pixels, channels, groups;
  bool silu;
};
}  // namespace

TEST_CASE("norm: by hand") {
  for (Isa isa : all_isas) {
    if (!is_available(isa)) continue;
    const IsaScope scope(isa);
    const std::vector<float> x{1, 3, 10, 10}, gamma{2, 2}, beta{0, 1};
    std::vector<float> y(4), mean_of(2), rstd(2);
    layer_norm_forward(2, 2, 0, x.data(), gamma.data(), beta.data(), y.data(), mean_of.data(), rstd.data());
    CHECK((y[0] == -2 && y[1] == 3 && mean_of[0] == 2 && rstd[0] == 1));
    layer_norm_forward(2, 2, 0.25, x.data(), nullptr, nullptr, y.data(), mean_of.data(), rstd.data());
    CHECK((y[2] == 0 && y[3] == 0 && rstd[1] == 2));
    // One sample of two pixels and four channels in two groups: the first holds 1, 3, 1, 3, the second 0, 0, 4, 4.
    const std::vector<float> image{1, 3, 0, 0, 1, 3, 4, 4};
    std::vector<float> z(8);
    group_norm_forward(1, 2, 4, 2, 0, false, image.data(), nullptr, nullptr, z.data(), mean_of.data(), rstd.data());
    CHECK(z == std::vector<float>{-1, 1, -1, -1, -1, 1, 1, 1});
    CHECK((mean_of[0] == 2 && mean_of[1] == 2 && rstd[0] == 1 && rstd[1] == 0.5f));
    const std::vector<float> rows{3, 4, 0, 0};
    std::vector<float> norm(2);
    normalize_rows_forward(2, 2, 1e-12, rows.data(), y.data(), norm.data());
    CHECK((y[0] == 0.6f && y[1] == 0.8f && norm[0] == 5 && y[2] == 0));
  }
}

TEST_CASE("norm: float follows double") {
  struct Case {
    Index rows, width;
  };
  const Case cases[] = {{1, 1}, {3, 17}, {97, 33}, {200, 320}, {5, 5003}};
  for (const auto& [rows, width] : cases) {
    INFO(rows << " " << width);
    check_float(
        [r = rows, w = width]<class T>(T) {
          const auto x = numbers<T>(r * w, 1, -1, 3), gamma = numbers<T>(w, 2), beta = numbers<T>(w, 3), dy = numbers<T>(r * w, 4, -1, 1);
          auto y = room<T>(r * w), dx = y, u = y, du = y, m = room<T>(r), s = m, norm = m, dgamma = room<T>(w), dbeta = dgamma;
          layer_norm_forward(r, w, 1e-5, x.data(), gamma.data(), beta.data(), y.data(), m.data(), s.data());
          if (w == 1) s.assign(s.size(), T(1));  // 1 / sqrt(eps): no scale to compare on
          layer_norm_backward(r, w, x.data(), gamma.data(), m.data(), s.data(), dy.data(), dx.data(), dgamma.data(), dbeta.data());
          normalize_rows_forward(r, w, 1e-12, x.data(), u.data(), norm.data());
          normalize_rows_backward(r, w, 1e-12, u.data(), norm.data(), dy.data(), du.data());
          return joined({y, dx, u, norm, du, m, s, dgamma, dbeta});
        },
        1e-5);
  }
  const Group groups[] = {{1, 1, 8, 2, false}, {2, 5, 6, 3, true}, {2, 97, 32, 32, true}, {1, 200, 320, 32, false}, {3, 100, 36, 4, true}, {1, 1000, 64, 8, true}};
  for (const Group& g : groups) {
    INFO(g.n << " " << g.pixels << " " << g.channels << " " << g.groups);
    check_float(
        [g]<class T>(T) {
          const Index size = g.n * g.pixels * g.channels, c = g.channels;
          const auto x = numbers<T>(size, 1, 2, 6), gamma = numbers<T>(c, 2), beta = numbers<T>(c, 3), dy = numbers<T>(size, 4, -1, 1);
          auto y = room<T>(size), dx = y, m = room<T>(g.n * g.groups), s = m, dgamma = room<T>(c), dbeta = dgamma;
          group_norm_forward(g.n, g.pixels, c, g.groups, 1e-5, g.silu, x.data(), gamma.data(), beta.data(), y.data(), m.data(), s.data());
          group_norm_backward(g.n, g.pixels, c, g.groups, g.silu, x.data(), gamma.data(), beta.data(), m.data(), s.data(), dy.data(), dx.data(), dgamma.data(), dbeta.data());
          return joined({y, dx, m, s, dgamma, dbeta});
        },
        1e-5);
  }
}

TEST_CASE("norm: absent gamma, beta and outputs") {
  const Index rows = 100, width = 19;
  const auto x = numbers<float>(rows * width, 1), dy = numbers<float>(rows * width, 2);
  const std::vector<float> ones(19, 1.0f), zeros(19, 0.0f);
  auto y = room<float>(rows * width), y2 = y, dx = y, dx2 = y, m = room<float>(rows), s = m, dgamma = room<float>(width), dgamma2 = dgamma, dbeta = dgamma;
  layer_norm_forward(rows, width, 1e-5, x.data(), nullptr, nullptr, y.data(), m.data(), s.data());
  layer_norm_forward(rows, width, 1e-5, x.data(), ones.data(), zeros.data(), y2.data(), m.data(), s.data());
  CHECK(same_bits(y, y2));
  layer_norm_backward(rows, width, x.data(), nullptr, m.data(), s.data(), dy.data(), dx.data(), nullptr, nullptr);
  layer_norm_backward(rows, width, x.data(), ones.data(), m.data(), s.data(), dy.data(), dx2.data(), dgamma.data(), dbeta.data());
  CHECK(same_bits(dx, dx2));
  layer_norm_backward(rows, width, x.data(), ones.data(), m.data(), s.data(), dy.data(), nullptr, dgamma2.data(), nullptr);
  CHECK(same_bits(dgamma, dgamma2));
  group_norm_forward(2, 50, 19, 1, 1e-5, true, x.data(), nullptr, nullptr, y.data(), m.data(), s.data());
  group_norm_forward(2, 50, 19, 1, 1e-5, true, x.data(), ones.data(), zeros.data(), y2.data(), m.data(), s.data());
  CHECK(same_bits(y, y2));
  group_norm_backward(2, 50, 19, 1, true, x.data(), nullptr, nullptr, m.data(), s.data(), dy.data(), dx.data(), nullptr, nullptr);
  group_norm_backward(2, 50, 19, 1, true, x.data(), ones.data(), zeros.data(), m.data(), s.data(), dy.data(), dx2.data(), dgamma.data(), dbeta.data());
  CHECK(same_bits(dx, dx2));
  group_norm_backward(2, 50, 19, 1, true, x.data(), ones.data(), zeros.data(), m.data(), s.data(), dy.data(), nullptr, dgamma2.data(), nullptr);
  CHECK(same_bits(dgamma, dgamma2));
}

TEST_CASE("norm: gradients") {
  const Index rows = 3, width = 5;
  const auto x = numbers<double>(rows * width, 1), gamma = numbers<double>(width, 2), beta = numbers<double>(width, 3), dy = numbers<double>(rows * width, 4);
  auto y = room<double>(rows * width), dx = y, m = room<double>(rows), s = m, dgamma = room<double>(width), dbeta = dgamma;
  const auto layer = [&](const std::vector<double>& a, const std::vector<double>& g, const std::vector<double>& b) {
    layer_norm_forward(rows, width, 1e-3, a.data(), g.data(), b.data(), y.data(), m.data(), s.data());
    return dot(y, dy);
  };
  layer(x, gamma, beta);
  layer_norm_backward(rows, width, x.data(), gamma.data(), m.data(), s.data(), dy.data(), dx.data(), dgamma.data(), dbeta.data());
  check_gradient([&](const auto& p) { return layer(p, gamma, beta); }, x, dx);
  check_gradient([&](const auto& p) { return layer(x, p, beta); }, gamma, dgamma);
  check_gradient([&](const auto& p) { return layer(x, gamma, p); }, beta, dbeta);

  normalize_rows_forward(rows, width, 1e-12, x.data(), y.data(), m.data());
  const auto unit = y, norm = m;
  normalize_rows_backward(rows, width, 1e-12, unit.data(), norm.data(), dy.data(), dx.data());
  check_gradient(
      [&](const auto& p) {
        normalize_rows_forward(rows, width, 1e-12, p.data(), y.data(), m.data());
        return dot(y, dy);
      },
      x, dx);
  // Below eps the row is only scaled.
  normalize_rows_backward(rows, width, 100, unit.data(), std::vector<double>(3, 100.0).data(), dy.data(), dx.data());
  CHECK(dx[0] == dy[0] / 100);

  for (bool silu : {false, true}) {
    const Index n = 2, pixels = 3, channels = 4, groups = 2, size = n * pixels * channels;
    const auto image = numbers<double>(size, 5), g = numbers<double>(channels, 6), b = numbers<double>(channels, 7), d = numbers<double>(size, 8);
    auto z = room<double>(size), dimage = z, mg = room<double>(n * groups), sg = mg, dg = room<double>(channels), db = dg;
    const auto group = [&](const std::vector<double>& a, const std::vector<double>& p, const std::vector<double>& q) {
      group_norm_forward(n, pixels, channels, groups, 1e-3, silu, a.data(), p.data(), q.data(), z.data(), mg.data(), sg.data());
      return dot(z, d);
    };
    group(image, g, b);
    group_norm_backward(n, pixels, channels, groups, silu, image.data(), g.data(), b.data(), mg.data(), sg.data(), d.data(), dimage.data(), dg.data(), db.data());
    check_gradient([&](const auto& p) { return group(p, g, b); }, image, dimage);
    check_gradient([&](const auto& p) { return group(image, p, b); }, g, dg);
    check_gradient([&](const auto& p) { return group(image, g, p); }, b, db);
  }
}

TEST_CASE("norm: statistics survive a mean far from zero") {
  const Index pixels = 1000, channels = 32;
  const auto base = numbers<double>(pixels * channels, 1);
  std::vector<float> x(base.size()), y(base.size()), m(4), s(4);
  std::vector<double> exact(base.size()), z(base.size()), md(4), sd(4);
  for (std::size_t i = 0; i < x.size(); ++i) exact[i] = x[i] = static_cast<float>(base[i] + 1000);
  group_norm_forward(1, pixels, channels, 4, 1e-5, false, x.data(), nullptr, nullptr, y.data(), m.data(), s.data());
  group_norm_forward(1, pixels, channels, 4, 1e-5, false, exact.data(), nullptr, nullptr, z.data(), md.data(), sd.data());
  for (std::size_t i = 0; i < 4; ++i) CHECK(s[i] == Approx(sd[i]).epsilon(1e-5));
}
