#pragma once
// Parallel loops: the only place that knows OpenMP.
//
// Results never depend on the number of threads: a loop hands out whole tasks, a task writes what no other task
// writes, and whoever sums does so over tasks whose number depends on the shape alone.
#include <exception>
#include <thread>
#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {
inline thread_local int scoped_threads = 0;
inline thread_local bool inside_parallel = false;
}  // namespace detail

/// Processors within this process's affinity mask.
inline int available_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n > 0 ? static_cast<int>(n) : 1;
}

/// Threads that a parallel loop of the calling thread uses: the innermost ThreadScope's, else all available.
inline int thread_count() {
#if defined(_OPENMP)
  if (detail::inside_parallel || omp_in_parallel()) return 1;
  if (detail::scoped_threads > 0) return detail::scoped_threads;
  static const int available = available_processors();
  return available;
#else
  return 1;
#endif
}

/// While alive, loops of this thread use `threads` threads (0: all available).
class ThreadScope {
 public:
  explicit ThreadScope(int threads) : before_(detail::scoped_threads) { detail::scoped_threads = threads; }
  ~ThreadScope() { detail::scoped_threads = before_; }
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  int before_;
};

/// Calls `body(i)` for i in [0, tasks), each once, contiguous ranges of i per thread, and returns when all are done.
/// Runs serially inside another parallel loop. The first exception (lowest i) is rethrown after the loop.
template <class Body>
void parallel_for(Index tasks, Body&& body) {
  const int threads = tasks < thread_count() ? static_cast<int>(tasks) : thread_count();
  if (threads <= 1) {
    for (Index i = 0; i < tasks; ++i) body(i);
    return;
  }
#if defined(_OPENMP)
  std::exception_ptr error;
  Index error_at = tasks;
#pragma omp parallel num_threads(threads)
  {
    detail::inside_parallel = true;
    const Index t = omp_get_thread_num(), n = omp_get_num_threads();
    const Index end = tasks * (t + 1) / n;
    for (Index i = tasks * t / n; i < end; ++i) {
      try {
        body(i);
      } catch (...) {
#pragma omp critical(tenon_parallel_error)
        if (i < error_at) {
          error_at = i;
          error = std::current_exception();
        }
        break;
      }
    }
    detail::inside_parallel = false;
  }
  if (error) std::rethrow_exception(error);
#endif
}

/// `parallel_for` over [0, count) cut in chunks of `grain`: `body(begin, end)`. Serial when one chunk covers all.
template <class Body>
void parallel_chunks(Index count, Index grain, Body&& body) {
  const Index chunks = (count + grain - 1) / grain;
  parallel_for(chunks, [&](Index c) {
    const Index begin = c * grain, end = begin + grain < count ? begin + grain : count;
    body(begin, end);
  });
}

}  // namespace tenon::inline TENON_ABI
