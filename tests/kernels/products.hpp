#pragma once
// What the tests of products share: random numbers, errors, and a run on every instruction set.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <tenon/core/cpu.hpp>
#include <tenon/core/shape.hpp>

#include "guarded.hpp"

inline std::size_t size_of(tenon::Index count) { return static_cast<std::size_t>(count); }

/// Uniform in [-1, 1), the same on every machine.
template <class T>
std::vector<T> random_values(tenon::Index count, std::uint32_t seed) {
  std::vector<T> out(size_of(count));
  for (T& x : out) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<T>(static_cast<double>(seed >> 8) / 8388608.0 - 1.0);
  }
  return out;
}

/// The largest |a - b|; NaN in `a` counts as infinite.
template <class A, class B>
double largest_error(const A& a, const B& b) {
  double worst = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double error = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = error <= worst ? worst : std::isnan(error) ? HUGE_VAL : error;
  }
  return worst;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Calls body(isa) with each available instruction set forced.
template <class Body>
void on_each_isa(Body body) {
  for (tenon::Isa isa : tenon::all_isas)
    if (tenon::is_available(isa)) {
      const tenon::IsaScope scope(isa);
      body(isa);
    }
}
