#pragma once
// Learning-rate schedules: a factor of the base rate for each step, counted from 0.
#include <cmath>
#include <numbers>
#include <string_view>

#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI {

/// Linear warm-up over `warmup` steps, then the shape named, down to `floor` at step `total`.
struct Schedule {
  enum class Kind { constant, linear, cosine };
  Kind kind = Kind::cosine;
  Index warmup = 0;
  Index total = 0;
  double floor = 0.0;

  double operator()(Index step) const {
    if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup);
    if (kind == Kind::constant || total <= warmup) return 1.0;
    const double t = std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(total - warmup));
    const double decayed = kind == Kind::linear ? 1.0 - t : 0.5 * (1.0 + std::cos(std::numbers::pi * t));
    return floor + (1.0 - floor) * decayed;
  }
};

/// `constant`, `linear` or `cosine`. Throws NameError for another name.
inline Schedule::Kind schedule_from_name(std::string_view name) {
  if (name == "constant") return Schedule::Kind::constant;
  if (name == "linear") return Schedule::Kind::linear;
  if (name == "cosine") return Schedule::Kind::cosine;
  fail<NameError>("schedule", "expected constant, linear or cosine, got '", name, "'");
}

}  // namespace tenon::inline TENON_ABI
