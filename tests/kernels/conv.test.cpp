#include <tenon/kernels/conv.hpp>
#include <tenon/kernels/winograd.hpp>

#include "catch.hpp"
#include "kernels/products.hpp"

using namespace tenon;
using namespace tenon::kernels;

namespace {

const ConvShape shapes[] = {
    {.n = 1, .h = 1, .w = 1, .c = 1, .out = 1},
    {.n = 2, .h = 5, .w = 7, .c = 3, .out = 5, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1},
    {.n = 2, .h = 9, .w = 8, .c = 20, .out = 33, .kh = 3, .kw = 3, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1},
    {.n = 1, .h = 16, .w = 16, .c = 3, .out = 20, .kh = 8, .kw = 8, .stride_h = 8, .stride_w = 8},
    {.n = 1, .h = 12, .w = 11, .c = 8, .out = 12, .kh = 3, .kw = 2, .stride_w = 3, .pad_h = 2, .pad_w = 1, .dilation_h = 2, .dilation_w = 3, .groups = 4},
    {.n = 3, .h = 4, .w = 5, .c = 6, .out = 6, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1, .groups = 6},
    {.n = 1, .h = 20, .w = 21, .c = 18, .out = 17, .kh = 3, .kw = 1, .pad_h = 1},
    {.n = 1, .h = 3, .w = 3, .c = 140, .out = 550, .stride_h = 2, .stride_w = 2},
    {.n = 1, .h = 3, .w = 420, .c = 2, .out = 4, .kh = 2, .kw = 2, .stride_h = 2, .groups = 2},
    {.n = 2, .h = 5, .w = 4, .c = 20, .out = 33, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1, .upsample = 2},
    {.n = 2, .h = 3, .w = 2, .c = 6, .out = 4, .kh = 2, .kw = 3, .pad_h = 2, .dilation_w = 2, .groups = 2, .upsample = 3},
    {.n = 1, .h = 2, .w = 3, .c = 17, .out = 5, .upsample = 2},
    {.n = 1, .h = 64, .w = 103, .c = 3, .out = 64, .kh = 1, .kw = 2},  // more rows than the caches keep
    {.n = 1, .h = 127, .w = 202, .c = 2, .out = 16, .kh = 2, .kw = 2, .stride_h = 2, .stride_w = 2},
};

template <class T>
struct Problem {
  ConvShape s;
  std::vector<T> x, w, dy, bias;
  std::vector<double> y, dx, dw;  // the definition
  /// `brain`: of values that bfloat16 holds exactly.
  explicit Problem(const ConvShape& shape, bool brain = false) : s(shape) {
    const Index gc = s.group_c(), go = s.group_out(), oh = s.out_h(), ow = s.out_w();
    x = random_values<T>(s.n * s.h * s.w * s.c, 1);
    w = random_values<T>(s.out * gc * s.kh * s.kw, 2);
    dy = random_values<T>(s.pixels() * s.out, 3);
    bias = random_values<T>(s.out, 4);
    for (auto* values : {&x, &w, &dy})
      for (T& v : *values)
        if (brain) v = static_cast<T>(static_cast<float>(bfloat16(static_cast<float>(v))));
    y.resize(dy.size());
    dx.resize(x.size());
    dw.resize(w.size());
    const auto real = [](T v) { return static_cast<double>(v); };
    for (Index at = 0; at < s.pixels() * s.out; ++at) {
      const Index o = at % s.out, ox = at / s.out % ow, oy = at / s.out / ow % oh, image = at / s.out / ow / oh;
      double sum = real(bias[size_of(o)]);
      for (Index i = 0; i < s.kh; ++i)
        for (Index j = 0; j < s.kw; ++j)
          for (Index c = 0; c < gc; ++c) {
            const Index iy = oy * s.stride_h - s.pad_h + i * s.dilation_h, ix = ox * s.stride_w - s.pad_w + j * s.dilation_w;
            if (iy < 0 || iy >= s.in_h() || ix < 0 || ix >= s.in_w()) continue;
            const std::size_t from = size_of(((image * s.h + iy / s.upsample) * s.w + ix / s.upsample) * s.c + o / go * gc + c);
            const std::size_t weight = size_of(((o * gc + c) * s.kh + i) * s.kw + j);
            sum += real(x[from]) * real(w[weight]);
            dx[from] += real(dy[size_of(at)]) * real(w[weight]);
            dw[weight] += real(dy[size_of(at)]) * real(x[from]);
          }
      y[size_of(at)] = sum;
    }
  }
};

template <class T>
void compare(const Problem<T>& problem) {
  const ConvShape& s = problem.s;
  CAPTURE(s.n, s.h, s.w, s.c, s.out, s.kh, s.kw, s.stride_h, s.stride_w, s.groups);
  const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
  const Index k = s.group_c() * s.kh * s.kw, back = s.group_out() * s.kh * s.kw * s.upsample * s.upsample;
  const auto packed = pack_conv<T>(s, problem.w.data());
  const Guarded<T> x(problem.x), dy(problem.dy), bias(problem.bias);
  Guarded<T> y(problem.y.size(), T(1e30)), dx(problem.x.size(), T(1e30)), dw(problem.w.size(), T(1e30));
  conv2d_forward(s, x.data(), packed, y.data(), {.bias = bias.data()});
  CHECK(largest_error(y, problem.y) <= static_cast<double>(k + 8) * eps);
  conv2d_dx(s, dy.data(), packed, dx.data(), false);
  CHECK(largest_error(dx, problem.dx) <= static_cast<double>(back + 8) * eps);
  conv2d_dw(s, x.data(), dy.data(), dw.data(), false);
  CHECK(largest_error(dw, problem.dw) <= static_cast<double>(s.pixels() + 8) * eps);

  auto twice = problem.dx;
  for (double& d : twice) d *= 2;
  conv2d_dx(s, dy.data(), packed, dx.data(), true);
  CHECK(largest_error(dx, twice) <= 4 * static_cast<double>(back + 8) * eps);
  twice = problem.dw;
  for (double& d : twice) d *= 2;
  conv2d_dw(s, x.data(), dy.data(), dw.data(), true);
  CHECK(largest_error(dw, twice) <= 4 * static_cast<double>(s.pixels() + 8) * eps);
}

std::vector<float> all_results(const Problem<float>& problem) {
  const ConvShape& s = problem.s;
  const auto packed = pack_conv<float>(s, problem.w.data());
  std::vector<float> out(problem.y.size() + problem.x.size() + problem.w.size());
  float* at = out.data();
  conv2d_forward(s, problem.x.data(), packed, at, {.bias = problem.bias.data(), .activation = Activation::silu});
  conv2d_dx(s, problem.dy.data(), packed, at += problem.y.size(), false);
  conv2d_dw(s, problem.x.data(), problem.dy.data(), at += problem.x.size(), false);
  return out;
}

}  // namespace

TEST_CASE("conv2d by hand") {
  // A 2x2 kernel of ones over 1..9 sums each window; its dx counts the windows that see a pixel.
  const ConvShape s{.h = 3, .w = 3, .kh = 2, .kw = 2};
  const float x[] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, w[] = {1, 1, 1, 1}, dy[] = {1, 1, 1, 1};
  const auto packed = pack_conv<float>(s, w);
  float y[4], dx[9], dw[4];
  conv2d_forward(s, x, packed, y);
  CHECK(std::vector<float>(y, y + 4) == std::vector<float>{12, 16, 24, 28});
  conv2d_dx(s, dy, packed, dx, false);
  CHECK(std::vector<float>(dx, dx + 9) == std::vector<float>{1, 2, 1, 2, 4, 2, 1, 2, 1});
  conv2d_dw(s, x, dy, dw, false);
  CHECK(std::vector<float>(dw, dw + 4) == std::vector<float>{12, 16, 24, 28});
}

TEST_CASE("conv2d and its gradients against the definition in double, on every instruction set") {
  for (const ConvShape& shape : shapes) {
    const Problem<float> problem(shape);
    on_each_isa([&](Isa) { compare(problem); });
    compare(Problem<double>(shape));
  }
}

TEST_CASE("a low-rank term continues the product of each group") {
  const ConvShape s{.n = 1, .h = 4, .w = 3, .c = 4, .out = 34, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1, .groups = 2};
  const Problem<float> problem(s);
  const Index rank = 3;
  const auto t = random_values<float>(s.pixels() * 2 * rank, 5), b = random_values<float>(s.out * rank, 6);
  const auto packed = pack_conv<float>(s, problem.w.data());
  const PackedMatrix<float> packed_b(PackSource{.data = b.data(), .groups = 2, .n = 17, .c = rank, .stride_n = rank});
  const LowRankTerm<float> term{t.data(), 2 * rank, rank, &packed_b};
  std::vector<float> y(problem.y.size());
  conv2d_forward(s, problem.x.data(), packed, y.data(), {.bias = problem.bias.data()}, {&term, 1});
  auto expected = problem.y;
  for (Index p = 0; p < s.pixels(); ++p)
    for (Index o = 0; o < s.out; ++o)
      for (Index r = 0; r < rank; ++r)
        expected[size_of(p * s.out + o)] += static_cast<double>(t[size_of((p * 2 + o / 17) * rank + r)]) *
                                            static_cast<double>(b[size_of(o * rank + r)]);
  CHECK(largest_error(y, expected) < 1e-5);
}

TEST_CASE("the same bits for any number of threads, and on AVX2 and AVX-512") {
  for (const ConvShape& shape : {shapes[2], shapes[4], shapes[9], shapes[13], ConvShape{.n = 2, .h = 9, .w = 11, .c = 40, .out = 70, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1}}) {
    const Problem<float> problem(shape);
    std::vector<float> one;
    {
      const ThreadScope threads(1);
      one = all_results(problem);
    }
    for (int threads : {2, 3, 7}) {
      const ThreadScope scope(threads);
      CHECK(same_bits(all_results(problem), one));
    }
    on_each_isa([&](Isa isa) {
      if (isa != Isa::generic) CHECK(same_bits(all_results(problem), one));
    });
  }
}

TEST_CASE("a bias for each picture, as a time embedding adds it") {
  for (const ConvShape& s : {shapes[1], shapes[5], ConvShape{.n = 3, .h = 9, .w = 15, .c = 7, .out = 20}}) {
    const Problem<float> problem(s);
    const auto each = random_values<float>(s.n * s.out, 9);
    std::vector<float> y(problem.y.size());
    auto expected = problem.y;
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] += static_cast<double>(each[i / size_of(s.out * s.out_h() * s.out_w()) * size_of(s.out) + i % size_of(s.out)]);
    conv2d_forward(s, problem.x.data(), pack_conv<float>(s, problem.w.data()), y.data(),
                   {.bias = problem.bias.data(), .sample_bias = each.data(), .sample_rows = s.out_h() * s.out_w(), .lds = s.out});
    CHECK(largest_error(y, expected) <= 1e-5);
  }
}

TEST_CASE("upsampling gives the bits of the convolution of the enlarged picture") {
  const ConvShape s = shapes[9];
  const Problem<float> problem(s);
  ConvShape large = s;
  large.h = s.in_h(), large.w = s.in_w(), large.upsample = 1;
  std::vector<float> x(size_of(large.n * large.h * large.w * large.c)), y(problem.y.size()), expected(y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Index at = static_cast<Index>(i) / s.c, column = at % large.w / 2, row = at / large.w % large.h / 2, image = at / large.w / large.h;
    x[i] = problem.x[size_of(((image * s.h + row) * s.w + column) * s.c + static_cast<Index>(i) % s.c)];
  }
  for (DType storage : {DType::f32, DType::bf16, DType::i8}) {
    const auto packed = pack_conv<float>(s, problem.w.data(), DType::f32, storage);
    conv2d_forward(s, problem.x.data(), packed, y.data());
    conv2d_forward(large, x.data(), packed, expected.data());
    CHECK(same_bits(y, expected));
  }
}

TEST_CASE("conv2d against bfloat16 and int8 panels lies within their rounding, on every instruction set") {
  for (const ConvShape& s : shapes) {
    const Problem<float> problem(s);
    CAPTURE(s.h, s.w, s.c, s.out, s.kh, s.kw, s.groups);
    for (DType storage : {DType::bf16, DType::i8}) {
      CAPTURE(name_of(storage));
      const auto packed = pack_conv<float>(s, problem.w.data(), DType::f32, storage);
      const double step = storage == DType::bf16 ? 0x1p-8 : 1.0 / 127;
      const auto within = [&](Index terms) { return 3 * step * std::sqrt(static_cast<double>(terms)); };
      on_each_isa([&](Isa) {
        const Guarded<float> x(problem.x), dy(problem.dy), bias(problem.bias);
        Guarded<float> y(problem.y.size(), 1e30f), dx(problem.x.size(), 1e30f);
        conv2d_forward(s, x.data(), packed, y.data(), {.bias = bias.data()});
        CHECK(largest_error(y, problem.y) <= within(s.group_c() * s.kh * s.kw));
        conv2d_dx(s, dy.data(), packed, dx.data(), false);
        CHECK(largest_error(dx, problem.dx) <= within(s.group_out() * s.kh * s.kw * s.upsample * s.upsample));
      });
    }
  }
}

TEST_CASE("conv2d and dX of numbers that bfloat16 holds: float32's errors against bfloat16 panels, the same bits for any number of threads") {
  for (const ConvShape& s : shapes) {
    const Problem<float> problem(s, true);
    CAPTURE(s.h, s.w, s.c, s.out, s.kh, s.kw, s.groups, s.upsample);
    const auto packed = pack_conv<float>(s, problem.w.data(), DType::f32, DType::bf16);
    const Index k = s.group_c() * s.kh * s.kw, back = s.group_out() * s.kh * s.kw * s.upsample * s.upsample;
    const auto within = [](Index terms) { return static_cast<double>(terms + 8) * 0x1p-23; };
    on_each_isa([&](Isa) {
      const Guarded<float> x(problem.x), dy(problem.dy), bias(problem.bias);
      Guarded<float> y(problem.y.size(), 1e30f), dx(problem.x.size(), 1e30f);
      conv2d_forward(s, x.data(), packed, y.data(), {.bias = bias.data()});
      CHECK(largest_error(y, problem.y) <= within(k));
      conv2d_dx(s, dy.data(), packed, dx.data(), false);
      CHECK(largest_error(dx, problem.dx) <= within(back));
      conv2d_dx(s, dy.data(), packed, dx.data(), true);
      auto twice = problem.dx;
      for (double& d : twice) d *= 2;
      CHECK(largest_error(dx, twice) <= 4 * within(back));
      std::vector<float> one(problem.x.size()), again(one.size());
      {
        const ThreadScope threads(1);
        conv2d_dx(s, dy.data(), packed, one.data(), false);
      }
      const ThreadScope threads(3);
      conv2d_dx(s, dy.data(), packed, again.data(), false);
      CHECK(same_bits(again, one));
    });
  }
}

TEST_CASE("an impossible convolution is a named error") {
  const float x[4] = {};
  float y[4];
  ConvShape s{.h = 2, .w = 2, .kh = 3, .kw = 3};
  REQUIRE_THROWS_WITH(conv2d_forward(s, x, PackedMatrix<float>(), y), contains("[conv2d]") && contains("3 x 3"));
  s = {.h = 2, .w = 2, .c = 3, .groups = 2};
  REQUIRE_THROWS_AS(conv2d_forward(s, x, PackedMatrix<float>(), y), ShapeError);
  s = {.h = 2, .w = 2, .stride_h = 2, .upsample = 2};
  REQUIRE_THROWS_WITH(conv2d_forward(s, x, PackedMatrix<float>(), y), contains("upsampling only with stride 1"));
  s = {.h = 2, .w = 2, .stride_h = 0};
  REQUIRE_THROWS_AS(conv2d_forward(s, x, PackedMatrix<float>(), y), ShapeError);
}

namespace {
const ConvShape winograd_shapes[] = {
    {.n = 1, .h = 1, .w = 1, .c = 1, .out = 1, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1},
    {.n = 2, .h = 5, .w = 7, .c = 3, .out = 5, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1},
    {.n = 1, .h = 9, .w = 6, .c = 20, .out = 33, .kh = 3, .kw = 3},
    {.n = 1, .h = 8, .w = 4, .c = 32, .out = 16, .kh = 3, .kw = 3, .pad_h = 2, .pad_w = 3},
    {.n = 2, .h = 5, .w = 4, .c = 17, .out = 40, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1, .upsample = 2},
    {.n = 3, .h = 70, .w = 39, .c = 18, .out = 34, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1},  // several blocks
};
}  // namespace

TEST_CASE("Winograd's convolution against the definition in double, on every instruction set; a bias for each picture") {
  for (const ConvShape& s : winograd_shapes)
    for (const Index tile : {2, 4}) {
      const Problem<float> problem(s);
      CAPTURE(s.h, s.w, s.c, s.out, s.upsample, tile);
      const auto each = random_values<float>(s.n * s.out, 9);
      auto expected = problem.y;
      for (std::size_t i = 0; i < expected.size(); ++i)
        expected[i] += static_cast<double>(each[i / size_of(s.out * s.out_h() * s.out_w()) * size_of(s.out) + i % size_of(s.out)]);
      const WinogradWeight weight(tile, s.out, s.c, problem.w.data(), DType::f32);
      on_each_isa([&](Isa) {
        const Guarded<float> x(problem.x), bias(problem.bias), own(each);
        Guarded<float> y(problem.y.size(), 1e30f);
        winograd_forward(s, x.data(), weight, y.data(), {.bias = bias.data()});
        CHECK(largest_error(y, problem.y) <= (tile == 2 ? 1e-5 : 3e-5));
        winograd_forward(s, x.data(), weight, y.data(), {.bias = bias.data(), .sample_bias = own.data(), .sample_rows = s.out_h() * s.out_w(), .lds = s.out});
        CHECK(largest_error(y, expected) <= (tile == 2 ? 1e-5 : 3e-5));
      });
    }
}

TEST_CASE("Winograd's convolution gives the same bits for any number of threads, and on AVX2 and AVX-512") {
  const ConvShape& s = winograd_shapes[5];
  const Problem<float> problem(s);
  for (const Index tile : {2, 4}) {
    const WinogradWeight weight(tile, s.out, s.c, problem.w.data(), DType::f32);
    const auto run = [&] {
      std::vector<float> y(problem.y.size());
      winograd_forward(s, problem.x.data(), weight, y.data(), {.bias = problem.bias.data()});
      return y;
    };
    std::vector<float> one;
    {
      const ThreadScope threads(1);
      one = run();
    }
    for (int threads : {2, 3, 7, 80}) {
      const ThreadScope scope(threads);
      CHECK(same_bits(run(), one));
    }
    on_each_isa([&](Isa isa) {
      if (isa != Isa::generic) CHECK(same_bits(run(), one));
    });
  }
}

TEST_CASE("Winograd refuses other kernels, strides, groups, tiles and types") {
  std::vector<float> w(9 * 4 * 4), x(64 * 4), y(64 * 4);
  const WinogradWeight weight(4, 4, 4, w.data(), DType::f32);
  const ConvShape fits{.h = 8, .w = 8, .c = 4, .out = 4, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1};
  for (const auto& change : {+[](ConvShape& s) { s.stride_h = s.stride_w = 2; }, +[](ConvShape& s) { s.dilation_w = 2; }, +[](ConvShape& s) { s.groups = 2; },
                             +[](ConvShape& s) { s.kh = 1; }, +[](ConvShape& s) { s.out = 3; }, +[](ConvShape& s) { s.c = 3; }}) {
    ConvShape s = fits;
    change(s);
    CHECK_THROWS_AS(winograd_forward(s, x.data(), weight, y.data()), ShapeError);
  }
  CHECK_THROWS_AS(WinogradWeight(3, 4, 4, w.data(), DType::f32), Error);
  CHECK_THROWS_AS(WinogradWeight(4, 4, 4, w.data(), DType::i64), Error);
}
