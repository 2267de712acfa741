#pragma once
// What the kernel tests share: equal inputs in float and double, float bodies against the double one on every
// instruction set and number of threads, and finite differences.
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include <tenon/core/cpu.hpp>
#include <tenon/core/parallel.hpp>

#include "catch.hpp"

using tenon::Index;

/// n numbers in [low, high], the same for every T (each is a float).
template <class T>
std::vector<T> numbers(Index n, unsigned seed, double low = -2, double high = 2) {
  std::vector<T> out(static_cast<std::size_t>(n));
  std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (T& x : out) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = static_cast<T>(static_cast<float>(low + (high - low) * static_cast<double>(state >> 40) / 16777216.0));
  }
  return out;
}

template <class T>
std::vector<T> joined(std::initializer_list<std::vector<T>> parts) {
  std::vector<T> out;
  for (const auto& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

template <class T>
std::vector<T> room(Index n) {
  return std::vector<T>(static_cast<std::size_t>(n), T(-77));
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

/// `run(T{})` returns all outputs of a kernel as std::vector<T>. Its float results must lie within
/// tolerance (1 + |exact|) of the double ones on every instruction set, and have the same bits for 1, 2, 3 and 7
/// threads and on AVX2 and AVX-512.
template <class Run>
void check_float(Run run, double tolerance) {
  const std::vector<double> exact = run(double{});
  std::optional<std::vector<float>> vector_bits;
  for (tenon::Isa isa : tenon::all_isas) {
    if (!tenon::is_available(isa)) continue;
    INFO("isa " << tenon::name_of(isa));
    const tenon::IsaScope isa_scope(isa);
    std::optional<std::vector<float>> first;
    for (int threads : {1, 2, 3, 7}) {
      INFO("threads " << threads);
      const tenon::ThreadScope thread_scope(threads);
      const std::vector<float> got = run(float{});
      REQUIRE(got.size() == exact.size());
      if (first) {
        REQUIRE(same_bits(got, *first));
        continue;
      }
      first = got;
      if (got.empty()) continue;
      double worst = 0;
      std::size_t at = 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double error = std::abs(static_cast<double>(got[i]) - exact[i]) / (1 + std::abs(exact[i]));
        if (!(error <= worst)) worst = error, at = i;
      }
      INFO("worst at " << at << ": " << got[at] << " for " << exact[at]);
      REQUIRE(worst <= tolerance);
    }
    if (isa == tenon::Isa::generic) continue;
    if (vector_bits) REQUIRE(same_bits(*first, *vector_bits));
    vector_bits = first;
  }
}

/// The gradient of `f(x)`, a number, by central differences, against `gradient`.
template <class F>
void check_gradient(F f, std::vector<double> x, const std::vector<double>& gradient, double tolerance = 1e-7) {
  REQUIRE(gradient.size() == x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i], h = 1e-5;
    x[i] = kept + h;
    const double above = f(x);
    x[i] = kept - h;
    const double below = f(x);
    x[i] = kept;
    INFO("element " << i);
    REQUIRE(gradient[i] == Approx((above - below) / (2 * h)).margin(tolerance).epsilon(tolerance));
  }
}

/// <a, b>: turns an output into a number whose gradient is b.
inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
