#pragma once
// L-BFGS: minimises a smooth function from its value and gradient (Nocedal, Wright, Numerical Optimization, algorithms 7.4 and 7.5).
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <deque>
#include <vector>

namespace tenon::examples {

struct LbfgsConfig {
  int iterations = 1000;
  std::size_t history = 10;
  double tolerance = 1e-5;  ///< of the gradient's largest element
};

struct LbfgsResult {
  double value;
  double gradient;  ///< its largest element
  int iterations;
};

/// Moves `x` to where `f(x, gradient) -> value` is least, with steps that lower the value enough (Armijo, by halving). Stops at
/// the tolerance, at the number of iterations, or where no step lowers the value any more.
template <class F>
LbfgsResult minimize_lbfgs(std::vector<double>& x, F&& f, const LbfgsConfig& config = {}) {
  using Vector = std::vector<double>;
  struct Pair {
    Vector s, y;  // steps of x and of the gradient
    double inverse;  // 1 / (s . y)
  };
  const auto dot = [](const Vector& a, const Vector& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  };
  const auto largest = [](const Vector& a) {
    double out = 0;
    for (const double v : a) out = std::max(out, std::abs(v));
    return out;
  };
  Vector gradient(x.size()), direction, next(x.size()), next_gradient(x.size());
  double value = f(x, gradient);
  std::deque<Pair> pairs;
  int iteration = 0;
  for (; iteration < config.iterations && largest(gradient) > config.tolerance; ++iteration) {
    direction = gradient;
    std::vector<double> weights;
    for (auto pair = pairs.rbegin(); pair != pairs.rend(); ++pair) {
      weights.push_back(pair->inverse * dot(pair->s, direction));
      for (std::size_t i = 0; i < x.size(); ++i) direction[i] -= weights.back() * pair->y[i];
    }
    const double scale = pairs.empty() ? 1 / std::sqrt(std::max(1.0, dot(gradient, gradient))) : 1 / (pairs.back().inverse * dot(pairs.back().y, pairs.back().y));
    for (double& d : direction) d *= scale;
    for (const auto& pair : pairs) {
      const double weight = weights.back() - pair.inverse * dot(pair.y, direction);
      weights.pop_back();
      for (std::size_t i = 0; i < x.size(); ++i) direction[i] += weight * pair.s[i];
    }
    const double slope = -dot(gradient, direction);
    double step = 1, next_value = value;
    bool lower = false;
    for (int halving = 0; halving < 30 && !lower; ++halving, step /= 2) {
      for (std::size_t i = 0; i < x.size(); ++i) next[i] = x[i] - step * direction[i];
      next_value = f(next, next_gradient);
      lower = next_value <= value + 1e-4 * step * slope && next_value < value;
    }
    if (!lower) {
      if (pairs.empty()) break;
      pairs.clear();  // once more from the gradient itself
      continue;
    }
    Pair pair{x, gradient, 0};
    for (std::size_t i = 0; i < x.size(); ++i) {
      pair.s[i] = next[i] - x[i];
      pair.y[i] = next_gradient[i] - gradient[i];
    }
    const double curvature = dot(pair.s, pair.y);
    std::swap(x, next);
    std::swap(gradient, next_gradient);
    value = next_value;
    if (curvature <= 1e-12 * dot(pair.y, pair.y)) continue;
    pair.inverse = 1 / curvature;
    pairs.push_back(std::move(pair));
    if (pairs.size() > config.history) pairs.pop_front();
  }
  return {value, largest(gradient), iteration};
}

}  // namespace tenon::examples
