#include <tenon/kernels/isa/simd.hpp>

#include <numbers>

#include "check.hpp"

namespace tenon::inline TENON_ABI::kernels {
enum class Function {
  exp, exp_nonpositive, exp2_nonpositive, log, tanh, sigmoid, erf, sin, cos, rsqrt, silu, silu_derivative, quick_gelu, quick_gelu_derivative,
  gelu, gelu_derivative
};
}

#define TENON_BODY "kernels/math_probe.inl"
#include <tenon/kernels/isa/foreach.inl>

#include <tenon/kernels/isa/dispatch.inl>

using namespace tenon;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

/// |y - exact| in units of the last place of a float at `exact`.
double ulps(float y, double exact) {
  const float nearest = static_cast<float>(exact);
  if (std::isnan(y) || std::isnan(nearest)) return std::isnan(y) && std::isnan(nearest) ? 0 : inf;
  if (std::isinf(y) || std::isinf(nearest)) return y == nearest ? 0 : inf;
  int exponent;
  std::frexp(exact, &exponent);
  return std::abs(static_cast<double>(y) - exact) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

}  // namespace

namespace tenon::inline TENON_ABI::kernels {

namespace {

struct Row {
  const char* name;
  Function function;
  double (*exact)(double);
  double low, high;  ///< tested on floats of all sizes within
  double ulp;        ///< largest error in ulp of the result; 0: of max(1, |x|), by `absolute`
  double absolute;
};
const Row table[] = {
    {"exp", Function::exp, [](double x) { return std::exp(x); }, -inf, inf, 1, 0},
    {"exp_nonpositive", Function::exp_nonpositive, [](double x) { return x < -86.6 ? 0 : std::exp(x); }, -86.5, 0, 1, 0},
    {"exp2_nonpositive", Function::exp2_nonpositive, [](double x) { return std::exp2(x); }, -125.9, 0, 1, 0},
    {"log", Function::log, [](double x) { return std::log(x); }, -inf, inf, 1, 0},
    {"tanh", Function::tanh, [](double x) { return std::tanh(x); }, -inf, inf, 2, 0},
    {"sigmoid", Function::sigmoid, sigmoid, -inf, inf, 2.5, 0},
    {"erf", Function::erf, [](double x) { return std::erf(x); }, -inf, inf, 2, 0},
    {"sin", Function::sin, [](double x) { return std::sin(x); }, -1e5, 1e5, 2, 0},
    {"cos", Function::cos, [](double x) { return std::cos(x); }, -1e5, 1e5, 2, 0},
    {"rsqrt", Function::rsqrt, [](double x) { return 1 / std::sqrt(x); }, 0, inf, 2, 0},
    {"silu", Function::silu, [](double x) { return x * sigmoid(x); }, -1e30, 1e30, 0, 2e-7},
    {"silu'", Function::silu_derivative, [](double x) { return sigmoid(x) + x * sigmoid(x) * sigmoid(-x); }, -1e30, 1e30, 0, 2e-7},
    {"quick_gelu", Function::quick_gelu, [](double x) { return x * sigmoid(1.702 * x); }, -1e30, 1e30, 0, 2e-7},
    {"quick_gelu'", Function::quick_gelu_derivative,
     [](double x) { return sigmoid(1.702 * x) + 1.702 * x * sigmoid(1.702 * x) * sigmoid(-1.702 * x); }, -1e30, 1e30, 0, 3e-7},
    {"gelu", Function::gelu, [](double x) { return x * normal_cdf(x); }, -1e30, 1e30, 0, 2e-7},
    {"gelu'", Function::gelu_derivative,
     [](double x) { return normal_cdf(x) + x * std::exp(-0.5 * x * x) * std::numbers::inv_sqrtpi / std::numbers::sqrt2; }, -1e30, 1e30, 0, 2e-7}};

/// Floats over all exponents within [low, high], and evenly in [-20, 20].
std::vector<float> arguments(double low, double high) {
  std::vector<float> x;
  for (std::uint32_t u = 0; x.size() < 40000; u += 0x9e3779b1u) {
    const float v = std::bit_cast<float>(u);
    if (v >= low && v <= high) x.push_back(v);
  }
  for (float v : numbers<float>(60000, 9, std::max(low, -20.0), std::min(high, 20.0))) x.push_back(v);
  x.resize(x.size() / 16 * 16);
  return x;
}

}  // namespace

TEST_CASE("math: errors against double, the same bits on AVX2 and AVX-512") {
  for (const Row& row : table) {
    const std::vector<float> x = arguments(row.low, row.high);
    std::vector<float> y(x.size());
    std::optional<std::vector<float>> vector_bits;
    for (Isa isa : all_isas) {
      if (!is_available(isa)) continue;
      const IsaScope scope(isa);
      TENON_SELECT(probe_math)(row.function, static_cast<Index>(x.size()), x.data(), y.data());
      double worst = 0;
      std::size_t at = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double exact = row.exact(x[i]);
        const double e = row.ulp > 0 ? ulps(y[i], exact) / row.ulp
                                     : std::abs(static_cast<double>(y[i]) - exact) / std::max(1.0, std::abs(static_cast<double>(x[i]))) / row.absolute;
        if (!(e <= worst)) worst = e, at = i;
      }
      INFO(row.name << " on " << name_of(isa) << " worst at " << x[at] << ": " << y[at]);
      CHECK(worst <= 1);
      if (isa == Isa::generic) continue;
      if (vector_bits) CHECK(same_bits(y, *vector_bits));
      vector_bits = y;
    }
  }
}

TEST_CASE("math: infinities, NaN, zeros and denormals") {
  const float big = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto value = [](Function f, float x) {
    const std::vector<float> a(16, x);
    std::vector<float> y(16);
    TENON_SELECT(probe_math)(f, 16, a.data(), y.data());
    return y[0];
  };
  for (Isa isa : all_isas) {
    if (!is_available(isa)) continue;
    INFO("isa " << name_of(isa));
    const IsaScope scope(isa);
    for (const Row& row : table) {
      INFO(row.name);
      CHECK(std::isnan(value(row.function, nan)));
    }
    CHECK((value(Function::exp, big) == big && value(Function::exp, -big) == 0 && value(Function::exp, 0) == 1));
    CHECK((value(Function::exp_nonpositive, -big) == 0 && value(Function::exp_nonpositive, 0) == 1));
    CHECK((value(Function::log, big) == big && value(Function::log, 0) == -big && value(Function::log, 1) == 0));
    CHECK(std::isnan(value(Function::log, -1)));
    CHECK(value(Function::log, 1e-45f) == Approx(std::log(1.401298464324817e-45)));
    CHECK((value(Function::tanh, big) == 1 && value(Function::tanh, -big) == -1 && std::signbit(value(Function::tanh, -0.0f))));
    CHECK((value(Function::erf, big) == 1 && value(Function::erf, -big) == -1 && std::signbit(value(Function::erf, -0.0f))));
    CHECK((value(Function::sigmoid, big) == 1 && value(Function::sigmoid, -big) == 0));
    CHECK((std::isnan(value(Function::sin, big)) && std::isnan(value(Function::cos, -big))));
    CHECK((std::abs(value(Function::sin, 1e30f)) <= 1 && std::abs(value(Function::cos, 1e30f)) <= 1));
    CHECK((value(Function::sin, 0) == 0 && std::signbit(value(Function::sin, -0.0f)) && value(Function::cos, 0) == 1));
    CHECK((value(Function::rsqrt, big) == 0 && value(Function::rsqrt, 0) == big));
    for (Function f : {Function::silu, Function::quick_gelu, Function::gelu}) CHECK((value(f, big) == big && value(f, -big) == 0));
    for (Function f : {Function::silu_derivative, Function::quick_gelu_derivative, Function::gelu_derivative})
      CHECK((value(f, big) == 1 && value(f, -big) == 0));
  }
}

}  // namespace tenon::inline TENON_ABI::kernels
