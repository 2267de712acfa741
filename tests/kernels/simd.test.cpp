#include <tenon/kernels/isa/simd.hpp>

#include "check.hpp"
#include "guarded.hpp"

#define TENON_BODY "kernels/simd_probe.inl"
#include <tenon/kernels/isa/foreach.inl>

#include <tenon/kernels/isa/dispatch.inl>

using namespace tenon;

namespace {

template <class F>
void on_each_isa(F f) {
  for (Isa isa : all_isas) {
    if (!is_available(isa)) continue;
    INFO("isa " << name_of(isa));
    const IsaScope scope(isa);
    f();
  }
}
std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
const float inf = std::numeric_limits<float>::infinity(), quiet_nan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

namespace tenon::inline TENON_ABI::kernels {

TEST_CASE("simd: every operation is the scalar one in each lane") {
  const float a[] = {1.5f, -2.5f, 0, -0.0f, 3, 1e30f, -7.25f, 0.5f, inf, 2, -2, 1e-40f, 100, -1, 3.5f, 9},
              b[] = {2, 3, -1, 5, 3, -20, 4, -8, 1, 2.5f, -2, 7, 11, -1, 0.25f, -4}, c[] = {0, 1, -1, 2, 5, -6, 7, 8, -9, 1, 2, 3, -4, 5, 6, -7};
  on_each_isa([&] {
    Guarded<float> y(16 * 27);
    TENON_SELECT(probe_operations)(a, b, c, y.data());
    for (std::size_t i = 0; i < 16; ++i) {
      const float p = a[i], q = b[i], r = c[i];
      const auto whole = [](float x) { return std::abs(x) < 2147483648.0f ? static_cast<std::int32_t>(std::nearbyint(x)) : INT32_MIN; };
      const auto sum = [&](float x, float z) {
        return static_cast<float>(static_cast<std::int32_t>(static_cast<std::uint32_t>(whole(x)) + static_cast<std::uint32_t>(whole(z)) - 3u));
      };
      const float want[] = {p + q, p - q, p * q, p / q, -p, std::fma(p, q, r), std::fma(-p, q, r), p < q ? p : q, p > q ? p : q, std::abs(p),
                            std::sqrt(std::abs(p)), std::nearbyint(p), p < q ? r : p, p <= q ? r : p, p > q ? r : p, p >= q ? r : p, p == q ? r : p,
                            !(p < q) && p < r ? q : r, p < q || p < r ? q : r, static_cast<float>(whole(p)), std::ldexp(1.0f, whole(q)),
                            std::bit_cast<float>((bits_of(p) >> 3) ^ (bits_of(q) << 2)), std::bit_cast<float>((bits_of(p) & bits_of(q)) | 7u),
                            sum(p, q), whole(p) == whole(q) ? p : r, a[3], 0};
      for (std::size_t k = 0; k < 27; ++k) {
        if (std::abs(p) > 2e9f && (k == 19 || k == 23 || k == 24)) continue;  // outside of the integers the sets differ
        CAPTURE(i, k, p, q, y[16 * k + i], want[k]);
        if (current_isa() == Isa::generic && (k == 5 || k == 6)) {  // rounds twice where there is no fma instruction
          CHECK((y[16 * k + i] == want[k] || std::nextafter(y[16 * k + i], want[k]) == want[k]));
          continue;
        }
        CHECK(bits_of(y[16 * k + i]) == bits_of(want[k]));
      }
    }
  });
}

TEST_CASE("simd: min and max give the second operand beside a NaN") {
  on_each_isa([&] {
    const std::vector<float> ones(16, 1.0f), nans(16, quiet_nan);
    std::vector<float> y(16 * 27);
    TENON_SELECT(probe_operations)(nans.data(), ones.data(), ones.data(), y.data());
    CHECK((y[16 * 7] == 1 && y[16 * 8] == 1));
    TENON_SELECT(probe_operations)(ones.data(), nans.data(), ones.data(), y.data());
    CHECK((std::isnan(y[16 * 7]) && std::isnan(y[16 * 8])));
  });
}

TEST_CASE("simd: sums fold the lanes 8, 4, 2, 1") {
  // 2^24 swallows a 1 that is added to it alone: the result tells the order.
  float a[16] = {};
  a[0] = 16777216, a[8] = 1, a[1] = 1, a[9] = 1, a[4] = -3;
  float fold[16];
  std::copy(a, a + 16, fold);
  for (std::size_t width = 8; width > 0; width /= 2)
    for (std::size_t i = 0; i < width; ++i) fold[i] += fold[i + width];
  on_each_isa([&] {
    float y[5];
    TENON_SELECT(probe_folds)(a, y);
    CHECK(y[0] == fold[0]);
    CHECK((y[1] == 16777216 && y[2] == -3 && y[3] == 1 && y[4] == 0));
    const std::vector<float> negative(16, -2.0f);
    TENON_SELECT(probe_folds)(negative.data(), y);
    CHECK((y[0] == -32 && y[1] == -2 && y[3] == 1 && y[4] == 1));
  });
}

TEST_CASE("simd: partial loads and stores touch nothing beyond their count") {
  on_each_isa([&] {
    for (std::size_t count = 0; count <= 16; ++count) {
      CAPTURE(count);
      const Guarded<float> x(numbers<float>(static_cast<Index>(count), 5));
      Guarded<float> y(count), whole(16, 3.0f);
      TENON_SELECT(probe_floats)(x.data(), y.data(), static_cast<Index>(count));
      CHECK(y.values() == x.values());
      TENON_SELECT(probe_rest)(x.data(), whole.data(), static_cast<Index>(count));
      for (std::size_t i = 0; i < 16; ++i) CHECK(whole[i] == (i < count ? x[i] : 0));
      Guarded<bfloat16> bx(count), by(count);
      Guarded<half> hx(count), hy(count);
      for (std::size_t i = 0; i < count; ++i) bx[i] = bfloat16(x[i]), hx[i] = half(x[i]);
      TENON_SELECT(probe_bfloat16s)(bx.data(), by.data(), static_cast<Index>(count));
      TENON_SELECT(probe_halves)(hx.data(), hy.data(), static_cast<Index>(count));
      for (std::size_t i = 0; i < count; ++i) CHECK((by[i].bits == bx[i].bits && hy[i].bits == hx[i].bits));
    }
  });
}

TEST_CASE("simd: narrowing rounds as bfloat16 and half do") {
  const float special[] = {0, -0.0f, 1, 1.00390625f, 1.01171875f, 3.3e38f, inf, -inf, quiet_nan, 1e-40f, 65504, 65520, 1e-8f, 6e-8f, -1e-5f, 2049};
  std::vector<float> x(special, special + 16);
  for (float v : numbers<float>(160, 6, -1000, 1000)) x.push_back(v);
  on_each_isa([&] {
    for (std::size_t i = 0; i < x.size(); i += 16) {
      bfloat16 b[16];
      half h[16];
      TENON_SELECT(probe_narrow)(x.data() + i, b, h);
      for (std::size_t j = 0; j < 16; ++j) {
        CAPTURE(x[i + j]);
        CHECK(b[j].bits == bfloat16(x[i + j]).bits);
        CHECK(h[j].bits == half(x[i + j]).bits);
      }
    }
  });
}

TEST_CASE("simd: transpose") {
  std::vector<float> x(256);
  for (std::size_t i = 0; i < 256; ++i) x[i] = static_cast<float>(i);
  on_each_isa([&] {
    std::vector<float> y(256);
    TENON_SELECT(probe_transpose)(x.data(), y.data());
    for (std::size_t i = 0; i < 256; ++i) CHECK(y[i] == x[i % 16 * 16 + i / 16]);
  });
}

}  // namespace tenon::inline TENON_ABI::kernels
