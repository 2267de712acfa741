#include <tenon/kernels/gemm.hpp>

#include "catch.hpp"
#include "kernels/products.hpp"

using namespace tenon;
using namespace tenon::kernels;

namespace {

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::none: break;
    case Activation::relu: return x > 0 ? x : 0;
    case Activation::gelu: return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case Activation::quick_gelu: return x / (1 + std::exp(-1.702 * x));
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::tanh: return std::tanh(x);
  }
  return x;
}

// c [m, n] = op(a) op(b), all dense, in double.
template <class T>
std::vector<double> naive_product(bool transpose_a, bool transpose_b, Index m, Index n, Index k, const std::vector<T>& a,
                                  const std::vector<T>& b) {
  std::vector<double> c(size_of(m * n));
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j)
      for (Index l = 0; l < k; ++l)
        c[size_of(i * n + j)] += static_cast<double>(a[size_of(transpose_a ? l * m + i : i * k + l)]) *
                                 static_cast<double>(b[size_of(transpose_b ? j * k + l : l * n + j)]);
  return c;
}

// The bound of a chain of k terms of size at most 1, with room for the epilogue.
template <class T>
double tolerance(Index k) {
  return static_cast<double>(k + 8) * static_cast<double>(std::numeric_limits<T>::epsilon());
}

struct Size {
  Index m, n, k;
};
const Size sizes[] = {{1, 1, 1},   {1, 40, 33},  {2, 16, 17},  {3, 17, 5},    {7, 31, 16},  {12, 32, 64},
                      {13, 33, 40}, {25, 48, 7}, {50, 96, 130}, {61, 100, 70}, {5, 7, 2100}, {400, 18, 3}};

template <class T>
void compare_gemm(Size size, Activation activation, bool everything) {
  const auto [m, n, k] = size;
  CAPTURE(m, n, k, everything, static_cast<int>(activation));
  const Index rank = 3;
  const auto x = random_values<T>(m * k, 1), w = random_values<T>(n * k, 2), bias = random_values<T>(n, 3);
  const auto scale = random_values<T>(n, 4), t = random_values<T>(m * rank, 5), b = random_values<T>(n * rank, 6);
  const auto residual = random_values<T>(m * n, 7);
  auto argument = naive_product(false, true, m, n, k, x, w);
  const auto low = naive_product(false, true, m, n, rank, t, b);
  std::vector<double> expected(argument.size());
  for (std::size_t i = 0; i < argument.size(); ++i) {
    const std::size_t j = i % size_of(n);
    if (everything) argument[i] = (argument[i] + low[i]) * static_cast<double>(scale[j]);
    argument[i] += static_cast<double>(bias[j]);
    expected[i] = activated(activation, argument[i]) + (everything ? static_cast<double>(residual[i]) : 0);
  }

  const Guarded<T> gx(x), gbias(bias), gscale(scale), gt(t);
  Guarded<T> y(everything ? residual : std::vector<T>(size_of(m * n), T(1e30))), pre(size_of(m * n));
  const PackedMatrix<T> packed(w.data(), n, k, k), packed_b(b.data(), n, rank, rank);
  Epilogue<T> epilogue{.bias = gbias.data(), .activation = activation};
  std::vector<LowRankTerm<T>> terms;
  if (everything) {
    epilogue.column_scale = gscale.data();
    epilogue.residual = y.data();  // in place
    epilogue.ldr = n;
    epilogue.pre_activation = pre.data();
    epilogue.ldp = n;
    terms.push_back({gt.data(), rank, rank, &packed_b});
  }
  gemm(gx.data(), k, m, packed, y.data(), n, epilogue, terms);
  CHECK(largest_error(y, expected) <= 2 * tolerance<T>(k));
  if (everything) CHECK(largest_error(pre, argument) <= tolerance<T>(k));
}

template <class T>
void compare_gradients(Size size) {
  const auto [m, n, k] = size;
  CAPTURE(m, n, k);
  const auto x = random_values<T>(m * k, 1), w = random_values<T>(n * k, 2), dy = random_values<T>(m * n, 3);
  const PackedMatrix<T> packed(w.data(), n, k, k);
  const Guarded<T> gdy(dy), gx(x);
  Guarded<T> dx(size_of(m * k), T(1e30)), dw(size_of(n * k), T(1)), db(size_of(n), T(1));
  gemm_dx(gdy.data(), n, m, packed, dx.data(), k, false);
  CHECK(largest_error(dx, naive_product(false, false, m, k, n, dy, w)) <= tolerance<T>(n));
  auto doubled = naive_product(false, false, m, k, n, dy, w);
  for (double& d : doubled) d *= 2;
  gemm_dx(gdy.data(), n, m, packed, dx.data(), k, true);
  CHECK(largest_error(dx, doubled) <= 4 * tolerance<T>(n));
  auto sums = naive_product(true, false, n, k, m, dy, x);
  for (double& d : sums) d += 1;
  gemm_dw(gdy.data(), n, gx.data(), k, m, n, k, dw.data(), k, true);
  CHECK(largest_error(dw, sums) <= tolerance<T>(m));
  column_sum(gdy.data(), n, m, n, db.data(), true);
  auto columns = naive_product(true, false, 1, n, m, std::vector<T>(size_of(m), T(1)), dy);
  for (double& d : columns) d += 1;
  CHECK(largest_error(db, columns) <= tolerance<T>(m));
}

template <class T>
void compare_matmul(Size size) {
  const auto [m, n, k] = size;
  const auto a = random_values<T>(m * k, 1), b = random_values<T>(k * n, 2);
  const Guarded<T> ga(a), gb(b);
  for (int form = 0; form < 4; ++form) {
    const bool ta = form % 2 == 1, tb = form / 2 == 1;
    CAPTURE(m, n, k, ta, tb);
    Guarded<T> c(size_of(m * n), T(1e30));
    matmul(ta, tb, m, n, k, ga.data(), ta ? m : k, gb.data(), tb ? k : n, c.data(), n);
    CHECK(largest_error(c, naive_product(ta, tb, m, n, k, a, b)) <= tolerance<T>(k));
  }
}

// Every float result of one size, for comparing bits.
std::vector<float> all_results(Size size) {
  const auto [m, n, k] = size;
  const auto x = random_values<float>(m * k, 1), w = random_values<float>(n * k, 2), dy = random_values<float>(m * n, 3);
  const PackedMatrix<float> packed(w.data(), n, k, k);
  std::vector<float> out(size_of(m * n + m * k + n * k + n));
  float* at = out.data();
  gemm(x.data(), k, m, packed, at, n, {.bias = w.data(), .activation = Activation::gelu});
  gemm_dx(dy.data(), n, m, packed, at += m * n, k, false);
  gemm_dw(dy.data(), n, x.data(), k, m, n, k, at += m * k, k, false);
  column_sum(dy.data(), n, m, n, at += n * k, false);
  return out;
}

}  // namespace

TEST_CASE("gemm by hand") {
  // [1 2; 3 4] times the transpose of [5 6; 7 8; 9 10] plus a bias.
  const float x[] = {1, 2, 3, 4}, w[] = {5, 6, 7, 8, 9, 10}, bias[] = {0.5f, 0, -100};
  const PackedMatrix<float> packed(w, 3, 2, 2);
  float y[6];
  gemm(x, 2, 2, packed, y, 3, {.bias = bias, .activation = Activation::relu});
  CHECK(std::vector<float>(y, y + 6) == std::vector<float>{17.5f, 23, 0, 39.5f, 53, 0});
  float dx[4];
  gemm_dx(y, 3, 2, packed, dx, 2, false);
  CHECK(std::vector<float>(dx, dx + 4) == std::vector<float>{248.5f, 289, 568.5f, 661});
  float dw[4];
  gemm_dw(x, 2, x, 2, 2, 2, 2, dw, 2, false);
  CHECK(std::vector<float>(dw, dw + 4) == std::vector<float>{10, 14, 14, 20});
}

TEST_CASE("products with nothing to sum or nothing to write") {
  const float bias[] = {1, 2};
  float y[] = {9, 9};
  gemm<float>(nullptr, 0, 1, PackedMatrix<float>(nullptr, 2, 0, 0), y, 2, {.bias = bias});
  CHECK((y[0] == 1 && y[1] == 2));
  matmul<float>(false, false, 1, 2, 0, nullptr, 0, nullptr, 2, y, 2, true);
  CHECK((y[0] == 1 && y[1] == 2));
  matmul<float>(false, false, 1, 2, 0, nullptr, 0, nullptr, 2, y, 2, false);
  CHECK((y[0] == 0 && y[1] == 0));
  gemm<float>(nullptr, 2, 0, PackedMatrix<float>(bias, 1, 2, 2), nullptr, 1);
}

TEST_CASE("gemm against the definition in double, on every instruction set") {
  int turn = 0;
  for (const Size& size : sizes) {
    const Activation activation = static_cast<Activation>(turn++ % 6);
    on_each_isa([&](Isa) {
      compare_gemm<float>(size, activation, false);
      compare_gemm<float>(size, activation, true);
      compare_gemm<float>(size, Activation::none, false);
    });
    compare_gemm<double>(size, activation, true);
    compare_gemm<double>(size, Activation::none, false);
  }
}

TEST_CASE("gradients of gemm against the definition in double, on every instruction set") {
  for (const Size& size : sizes) {
    on_each_isa([&](Isa) { compare_gradients<float>(size); });
    compare_gradients<double>(size);
  }
}

TEST_CASE("matmul in its four forms") {
  for (const Size& size : sizes) {
    on_each_isa([&](Isa) { compare_matmul<float>(size); });
    compare_matmul<double>(size);
  }
}

TEST_CASE("batched matmul shares an operand under stride 0, and strides of rows are kept") {
  const Index batch = 5, m = 3, n = 4, k = 6, ldc = 7;
  const auto a = random_values<float>(batch * m * k, 1), b = random_values<float>(k * n, 2);
  std::vector<float> c(size_of(batch * m * ldc), -5.0f);
  batched_matmul(batch, false, false, m, n, k, a.data(), k, m * k, b.data(), n, Index{0}, c.data(), ldc, m * ldc);
  const auto expected = naive_product(false, false, batch * m, n, k, a, b);
  for (Index i = 0; i < batch * m; ++i)
    for (Index j = 0; j < ldc; ++j) {
      const double at = static_cast<double>(c[size_of(i * ldc + j)]);
      CHECK(at == Approx(j < n ? expected[size_of(i * n + j)] : -5.0));
    }
}

TEST_CASE("a weight packs from bfloat16 and float16, and from nothing else") {
  const auto w = random_values<float>(18 * 5, 1);
  std::vector<bfloat16> brain(w.size());
  std::vector<half> halves(w.size());
  for (std::size_t i = 0; i < w.size(); ++i) brain[i] = bfloat16(w[i]), halves[i] = half(w[i]);
  const auto source = [](const void* data, DType dtype) { return PackSource{.data = data, .dtype = dtype, .n = 18, .c = 5, .stride_n = 5}; };
  const PackedMatrix<float> from_brain(source(brain.data(), DType::bf16)), from_half(source(halves.data(), DType::f16));
  REQUIRE(from_brain.panels() == 2);
  for (Index i = 0; i < 32; ++i)
    for (Index j = 0; j < 5; ++j) {
      const Index at = i / 16 * from_brain.panel_stride() + j * 16 + i % 16;
      CHECK(from_brain.group()[at] == (i < 18 ? static_cast<float>(brain[size_of(i * 5 + j)]) : 0.0f));
      CHECK(from_half.group()[at] == (i < 18 ? static_cast<float>(halves[size_of(i * 5 + j)]) : 0.0f));
    }
  REQUIRE_THROWS_WITH(PackedMatrix<float>(source(w.data(), DType::i32)), contains("[pack]") && contains("int32"));
}

TEST_CASE("gemm: the same bits for any number of threads, and on AVX2 and AVX-512") {
  for (const Size& size : {Size{61, 100, 70}, Size{129, 33, 1500}, Size{300, 260, 40}}) {
    std::vector<float> one;
    {
      const ThreadScope threads(1);
      one = all_results(size);
    }
    for (int threads : {2, 3, 7}) {
      const ThreadScope scope(threads);
      CHECK(same_bits(all_results(size), one));
    }
    on_each_isa([&](Isa isa) {
      if (isa != Isa::generic) CHECK(same_bits(all_results(size), one));
    });
  }
}

namespace {

// A storage type and its relative step.
struct Narrow {
  DType storage;
  double step;
};
const Narrow narrow_types[] = {{DType::bf16, 0x1p-8}, {DType::i8, 1.0 / 127}};

// x rounded as the product does: to bfloat16, or to 127ths of the largest of each row of k.
std::vector<float> rounded(const std::vector<float>& x, Index k, DType storage) {
  std::vector<float> out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (storage == DType::bf16) {
      out[i] = static_cast<float>(bfloat16(x[i]));
      continue;
    }
    const std::size_t row = i / size_of(k) * size_of(k);
    float most = 0;
    for (std::size_t j = row; j < row + size_of(k); ++j) most = std::max(most, std::abs(x[j]));
    out[i] = std::nearbyint(x[i] * (127 / most)) * (most / 127);
  }
  return out;
}

void compare_narrow(Size size, DType storage) {
  const auto [m, n, k] = size;
  CAPTURE(m, n, k, name_of(storage));
  const Index rank = 3;
  const auto x = random_values<float>(m * k, 1), w = random_values<float>(n * k, 2), bias = random_values<float>(n, 3);
  const auto t = random_values<float>(m * rank, 5), b = random_values<float>(n * rank, 6), residual = random_values<float>(m * n, 7);
  const auto rounded_w = rounded(w, k, storage);
  const auto product = naive_product(false, true, m, n, k, rounded(x, k, storage), rounded_w);
  const auto low = naive_product(false, true, m, n, rank, t, b);
  const PackedMatrix<float> packed(w.data(), n, k, k, storage), packed_b(b.data(), n, rank, rank);
  const Guarded<float> gx(x), gbias(bias), gt(t);
  const LowRankTerm<float> term{gt.data(), rank, rank, &packed_b};
  for (bool everything : {false, true}) {
    Guarded<float> y(residual);
    Epilogue<float> epilogue{.bias = gbias.data()};
    if (everything) epilogue.activation = Activation::relu, epilogue.residual = y.data(), epilogue.ldr = n;
    gemm(gx.data(), k, m, packed, y.data(), n, epilogue, everything ? std::span(&term, 1) : std::span<const LowRankTerm<float>>());
    auto expected = product;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] += static_cast<double>(bias[i % size_of(n)]);
      if (everything) expected[i] = std::max(expected[i] + low[i], 0.0) + static_cast<double>(residual[i]);
    }
    CHECK(largest_error(y, expected) <= 4 * tolerance<float>(k));
  }
  const auto dy = random_values<float>(m * n, 8);
  const Guarded<float> gdy(dy);
  Guarded<float> dx(size_of(m * k), 1e30f);
  gemm_dx(gdy.data(), n, m, packed, dx.data(), k, false);
  const auto read = storage == DType::bf16 ? rounded(dy, n, storage) : dy;
  auto exact = naive_product(false, false, m, k, n, read, rounded_w);
  CHECK(largest_error(dx, exact) <= 4 * tolerance<float>(n));
  gemm_dx(gdy.data(), n, m, packed, dx.data(), k, true);
  for (double& v : exact) v *= 2;
  CHECK(largest_error(dx, exact) <= 8 * tolerance<float>(n));
}

}  // namespace

TEST_CASE("gemm by hand against bytes: scales are exact where the largest is 127") {
  const float x[] = {127, -2, 3, 0}, w[] = {-127, 4, 1, 127, 127, 127};
  const PackedMatrix<float> packed(w, 2, 3, 3, DType::i8);
  float y[2];
  gemm(x, 3, 1, packed, y, 2);
  CHECK((y[0] == -127 * 127 - 8 + 3 && y[1] == 127 * 127 - 2 * 127 + 3 * 127));
  const float zero[] = {0, 0, 0};
  gemm(zero, 3, 1, packed, y, 2);
  CHECK((y[0] == 0 && y[1] == 0));
  const float bad[] = {1, HUGE_VALF, 2};
  gemm(bad, 3, 1, packed, y, 2);
  CHECK((std::isnan(y[0]) && std::isnan(y[1])));
}

TEST_CASE("gemm against bfloat16 and int8 panels is the product of the rounded matrices, on every instruction set") {
  for (const Size& size : {Size{1, 1, 1}, Size{3, 17, 5}, Size{13, 33, 40}, Size{50, 96, 130}, Size{5, 7, 9001}, Size{5, 2100, 9}, Size{400, 18, 3}})
    for (const Narrow& type : narrow_types) on_each_isa([&](Isa) { compare_narrow(size, type.storage); });
}

TEST_CASE("bfloat16 and int8 products: the same bits for any number of threads") {
  const Index m = 129, n = 70, k = 330;
  const auto x = random_values<float>(m * k, 1), w = random_values<float>(n * k, 2);
  for (const Narrow& type : narrow_types) {
    const PackedMatrix<float> packed(w.data(), n, k, k, type.storage);
    std::vector<float> one(size_of(m * n)), y(one.size());
    {
      const ThreadScope threads(1);
      gemm(x.data(), k, m, packed, one.data(), n);
    }
    for (int threads : {2, 3, 7}) {
      const ThreadScope scope(threads);
      gemm(x.data(), k, m, packed, y.data(), n);
      CHECK(same_bits(y, one));
    }
    CHECK(largest_error(y, naive_product(false, true, m, n, k, x, w)) <= 4 * std::sqrt(static_cast<double>(k)) * type.step);
  }
}

TEST_CASE("a storage that the products cannot read is a named error") {
  const double w[2] = {};
  REQUIRE_THROWS_WITH(PackedMatrix<double>(w, 1, 2, 2, DType::bf16), contains("[pack]") && contains("bfloat16"));
  REQUIRE_THROWS_WITH(PackedMatrix<float>(nullptr, 0, 0, 0, DType::f16), contains("[pack]") && contains("float16"));
}

TEST_CASE("a bias for each sample is added before the activation, whatever the block of rows") {
  const Index samples = 5, rows = 130, m = samples * rows, n = 35, k = 20, lds = 40;
  const auto x = random_values<float>(m * k, 1), w = random_values<float>(n * k, 2), each = random_values<float>(samples * lds, 3);
  const PackedMatrix<float> packed(w.data(), n, k, k);
  auto expected = naive_product(false, true, m, n, k, x, w);
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) {
      double& v = expected[size_of(i * n + j)];
      v = std::max(v + static_cast<double>(each[size_of(i / rows * lds + j)]), 0.0);
    }
  for (int threads : {1, 3}) {
    const ThreadScope scope(threads);
    on_each_isa([&](Isa) {
      std::vector<float> y(size_of(m * n));
      gemm(x.data(), k, m, packed, y.data(), n, {.sample_bias = each.data(), .sample_rows = rows, .lds = lds, .activation = Activation::relu});
      CHECK(largest_error(y, expected) <= tolerance<float>(k));
    });
  }
}

TEST_CASE("GEGLU: values times the GELU of their gates, in every storage type") {
  const Index m = 53, half = 48, n = 2 * half, k = 70, rank = 2;
  const auto x = random_values<float>(m * k, 1), w = random_values<float>(n * k, 2), bias = random_values<float>(n, 3);
  const auto t = random_values<float>(m * rank, 4), b = random_values<float>(n * rank, 5);
  const PackedMatrix<float> packed_b(b.data(), n, rank, rank);
  const LowRankTerm<float> term{t.data(), rank, rank, &packed_b};
  const auto low = naive_product(false, true, m, n, rank, t, b);
  for (DType storage : {DType::f32, DType::bf16, DType::i8}) {
    CAPTURE(name_of(storage));
    const bool exact = storage == DType::f32;
    const PackedMatrix<float> packed(w.data(), n, k, k, storage);
    auto argument = exact ? naive_product(false, true, m, n, k, x, w)
                          : naive_product(false, true, m, n, k, rounded(x, k, storage), rounded(w, k, storage));
    std::vector<double> expected(size_of(m * half));
    for (std::size_t i = 0; i < argument.size(); ++i) argument[i] += low[i] + static_cast<double>(bias[i % size_of(n)]);
    for (Index i = 0; i < m; ++i)
      for (Index j = 0; j < half; ++j)
        expected[size_of(i * half + j)] = argument[size_of(i * n + j)] * activated(Activation::gelu, argument[size_of(i * n + half + j)]);
    for (int threads : {1, 2}) {
      const ThreadScope scope(threads);
      on_each_isa([&](Isa) {
        Guarded<float> y(expected.size(), 1e30f), pre(argument.size(), 1e30f);
        const Epilogue<float> epilogue{.bias = bias.data(), .activation = Activation::gelu, .gated = true, .pre_activation = pre.data(), .ldp = n};
        gemm(x.data(), k, m, packed, y.data(), half, epilogue, {&term, 1});
        CHECK(largest_error(pre, argument) <= 4 * tolerance<float>(k));
        CHECK(largest_error(y, expected) <= 40 * tolerance<float>(k));
      });
    }
  }
  float y[2];
  REQUIRE_THROWS_AS(gemm(x.data(), k, 1, PackedMatrix<float>(w.data(), 24, k, k), y, 12, {.gated = true}), ShapeError);
}

TEST_CASE("rows that fall on the same cache lines are copied apart") {
  on_each_isa([&](Isa) {
    compare_gemm<float>({29, 40, 1024}, Activation::none, true);
    compare_gradients<float>({29, 1024, 40});
  });
}
