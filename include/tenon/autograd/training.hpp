#pragma once
// Training: the scope in which dropout drops. Outside of it every layer is its own average.
#include <utility>

#include <tenon/core/random.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {
/// The numbers of the calling thread's Training: (seed, step) and how many draws were made. A value, so that checkpoint
/// can keep it and draw the same numbers again.
struct TrainingState {
  bool on = false;
  std::uint64_t seed = 0, step = 0, draws = 0;
};
inline thread_local TrainingState training_state;

/// While alive, the calling thread draws from `state` on.
class TrainingScope {
 public:
  explicit TrainingScope(const TrainingState& state) : before_(std::exchange(training_state, state)) {}
  ~TrainingScope() { training_state = before_; }
  TrainingScope(const TrainingScope&) = delete;
  TrainingScope& operator=(const TrainingScope&) = delete;

 private:
  TrainingState before_;
};
}  // namespace detail

/// While alive, computations of this thread are a training step: dropout drops, by the numbers of (seed, step) alone.
///
///   for (Index step = 0; step < steps; ++step) {
///     const Training training(seed, step);
///     backward(loss(model(x)));
///     optimizer.step();
///   }
class Training {
 public:
  Training(std::uint64_t seed, std::uint64_t step) : scope_({true, seed, step, 0}) {}

 private:
  detail::TrainingScope scope_;
};

inline bool is_training() { return detail::training_state.on; }

/// The numbers of one more draw of this step: its number stands above the step's 40 bits.
inline Philox next_draw() {
  detail::TrainingState& state = detail::training_state;
  return Philox(state.seed, state.draws++ << 40 | state.step);
}

}  // namespace tenon::inline TENON_ABI
