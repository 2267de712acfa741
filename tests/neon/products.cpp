// Products and convolutions on each instruction set of this build against sums in double: a program for the cross
// compiler and an emulator, where no test framework is at hand. Returns 1 and a line for each wrong result.
#include <cstdio>

#include <tenon/kernels/winograd.hpp>

#include "kernels/products.hpp"

using namespace tenon;
using namespace tenon::kernels;

namespace {

int failures = 0;

void expect(bool right, const char* what, double error) {
  if (right) return;
  ++failures;
  std::printf("%s, %s: error %g\n", std::string(name_of(current_isa())).c_str(), what, error);
}

std::vector<double> product(bool transpose_a, bool transpose_b, Index m, Index n, Index k, const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<double> c(size_of(m * n));
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j)
      for (Index l = 0; l < k; ++l)
        c[size_of(i * n + j)] += static_cast<double>(a[size_of(transpose_a ? l * m + i : i * k + l)]) *
                                 static_cast<double>(b[size_of(transpose_b ? j * k + l : l * n + j)]);
  return c;
}

void gemm_of(Index m, Index n, Index k) {
  const auto x = random_values<float>(m * k, 1), w = random_values<float>(n * k, 2), dy = random_values<float>(m * n, 3);
  const Guarded<float> gx(x), gdy(dy);
  const auto y_exact = product(false, true, m, n, k, x, w), dx_exact = product(false, false, m, k, n, dy, w);
  const auto dw_exact = product(true, false, n, k, m, dy, x);
  struct { DType storage; double y, dx; } const cases[] = {
      {DType::f32, 1e-5, 1e-5}, {DType::bf16, 0.02, 0.02}, {DType::i8, 0.04, 0.04}};
  for (const auto& c : cases) {
    const PackedMatrix<float> packed(w.data(), n, k, k, c.storage);
    Guarded<float> y(size_of(m * n), 1e30f), dx(size_of(m * k), 1e30f);
    gemm(gx.data(), k, m, packed, y.data(), n);
    double error = largest_error(y, y_exact);
    expect(error <= c.y * std::sqrt(static_cast<double>(k)), "gemm", error);
    gemm_dx(gdy.data(), n, m, packed, dx.data(), k, false);
    error = largest_error(dx, dx_exact);
    expect(error <= c.dx * std::sqrt(static_cast<double>(n)), "gemm_dx", error);
  }
  Guarded<float> dw(size_of(n * k), 1e30f);
  gemm_dw(gdy.data(), n, gx.data(), k, m, n, k, dw.data(), k, false);
  const double error = largest_error(dw, dw_exact);
  expect(error <= 1e-5 * static_cast<double>(m), "gemm_dw", error);
}

// Float convolutions have the same bits as a plain loop over (tap, c) with one fused chain for each output.
void conv_of(const ConvShape& s) {
  const auto x = random_values<float>(s.n * s.h * s.w * s.c, 1), w = random_values<float>(s.out * s.group_c() * s.kh * s.kw, 2);
  std::vector<float> y(size_of(s.pixels() * s.out)), expected(y.size());
  const Index gc = s.group_c(), oh = s.out_h(), ow = s.out_w();
  for (Index at = 0; at < s.pixels() * s.out; ++at) {
    const Index o = at % s.out, ox = at / s.out % ow, oy = at / s.out / ow % oh, image = at / s.out / ow / oh;
    float sum = 0;
    for (Index i = 0; i < s.kh; ++i)
      for (Index j = 0; j < s.kw; ++j)
        for (Index c = 0; c < gc; ++c) {
          const Index iy = oy * s.stride_h - s.pad_h + i * s.dilation_h, ix = ox * s.stride_w - s.pad_w + j * s.dilation_w;
          const bool inside = iy >= 0 && iy < s.h && ix >= 0 && ix < s.w;
          const float v = inside ? x[size_of(((image * s.h + iy) * s.w + ix) * s.c + o / s.group_out() * gc + c)] : 0.0f;
          sum = std::fma(v, w[size_of(((o * gc + c) * s.kh + i) * s.kw + j)], sum);
        }
    expected[size_of(at)] = sum;
  }
  for (DType storage : {DType::f32, DType::bf16, DType::i8}) {
    conv2d_forward(s, x.data(), pack_conv<float>(s, w.data(), DType::f32, storage), y.data());
    const double error = largest_error(y, expected);
    const bool exact = storage == DType::f32 && current_isa() != Isa::generic;
    expect(exact ? same_bits(y, expected) : error <= 0.04 * std::sqrt(static_cast<double>(gc * s.kh * s.kw)), "conv2d", error);
  }
  for (const Index tile : {2, 4}) {
    if (!winograd_fits(s)) continue;
    winograd_forward(s, x.data(), WinogradWeight(tile, s.out, s.c, w.data(), DType::f32), y.data());
    expect(largest_error(y, expected) <= 3e-5, "winograd", largest_error(y, expected));
  }
}

}  // namespace

int main() {
  on_each_isa([&](Isa) {
    gemm_of(1, 1, 1);
    gemm_of(13, 33, 40);
    gemm_of(50, 96, 130);
    gemm_of(5, 7, 2100);
    conv_of({.n = 2, .h = 5, .w = 7, .c = 3, .out = 5, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1});
    conv_of({.n = 1, .h = 9, .w = 8, .c = 20, .out = 33, .kh = 3, .kw = 3, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1});
    conv_of({.n = 1, .h = 4, .w = 5, .c = 12, .out = 6, .kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1, .groups = 3});
  });
  std::printf("products: %d wrong on %s\n", failures, available_isas().c_str());
  return failures > 0;
}
