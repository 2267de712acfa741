#pragma once
// Parallel loops: the only place that knows OpenMP.
//
// Results never depend on the number of threads: a loop hands out whole tasks, a task writes what no other task
// writes, and whoever sums does so over tasks whose number depends on the shape alone.
#include <exception>
#include <memory>
#include <type_traits>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include <tenon/core/processors.hpp>
#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {
inline thread_local int scoped_threads = 0;
inline thread_local bool inside_parallel = false;
}  // namespace detail

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

namespace detail {
/// Runs tasks [begin, end) of `body` and leaves in `at` the one it is at.
using TaskRange = void (*)(void* body, Index begin, Index end, Index& at);

/// `parallel_for` without the type of its body: OpenMP's part is compiled once, not once for each loop.
inline void run_tasks(Index tasks, int threads, TaskRange range, void* body) {
  Index at = 0;
  if (threads <= 1) return range(body, 0, tasks, at);
#if defined(_OPENMP)
  std::exception_ptr error;
  Index error_at = tasks;
#pragma omp parallel num_threads(threads)
  {
    inside_parallel = true;
    const Index t = omp_get_thread_num(), n = omp_get_num_threads();
    Index i = 0;
    try {
      range(body, tasks * t / n, tasks * (t + 1) / n, i);
    } catch (...) {
#pragma omp critical(tenon_parallel_error)
      if (i < error_at) {
        error_at = i;
        error = std::current_exception();
      }
    }
    inside_parallel = false;
  }
  if (error) std::rethrow_exception(error);
#endif
}
}  // namespace detail

/// Calls `body(i)` for i in [0, tasks), each once, contiguous ranges of i per thread, and returns when all are done.
/// Runs serially inside another parallel loop. The first exception (lowest i) is rethrown after the loop.
template <class Body>
void parallel_for(Index tasks, Body&& body) {
  using Function = std::remove_reference_t<Body>;
  // Always the whole team, though some of it may find nothing to do: GCC's OpenMP ends the threads that a smaller team leaves over,
  // and starts new ones for the next larger one.
  detail::run_tasks(tasks, tasks > 1 ? thread_count() : 1, [](void* f, Index begin, Index end, Index& at) {
    for (Index i = begin; i < end; ++i) (*static_cast<Function*>(f))(at = i);
  }, const_cast<void*>(static_cast<const void*>(std::addressof(body))));
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
