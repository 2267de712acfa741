// Parallel loops: each task once, contiguous ranges, the lowest failing task's exception whatever the number of threads.
#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include <tenon/core/parallel.hpp>

#include "catch.hpp"

using namespace tenon;

TEST_CASE("parallel_for runs each task once, serially inside another loop") {
  for (int threads : {1, 2, 3, 7})
    for (Index tasks : {0, 1, 2, 5, 64, 1000}) {
      const ThreadScope scope(threads);
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
      std::atomic<int> inner_threads{0};
      parallel_for(tasks, [&](Index i) {
        ++runs[static_cast<std::size_t>(i)];
        if (tasks > 1 && threads > 1) inner_threads = std::max(inner_threads.load(), thread_count());
      });
      for (const auto& n : runs) CHECK(n == 1);
      CHECK(inner_threads <= 1);
      CHECK(thread_count() == threads);
    }
}

TEST_CASE("parallel_for rethrows the exception of the lowest failing task, and works again afterwards") {
  for (int threads : {1, 2, 3, 7}) {
    const ThreadScope scope(threads);
    for (const std::vector<Index>& failing : {std::vector<Index>{0}, {99}, {50, 51}, {13, 57, 99}, {99, 1}}) {
      const Index lowest = *std::min_element(failing.begin(), failing.end());
      std::string caught;
      try {
        parallel_for(100, [&](Index i) {
          for (Index bad : failing)
            if (i == bad) throw std::runtime_error(std::to_string(i));
        });
      } catch (const std::runtime_error& error) {
        caught = error.what();
      }
      CHECK(caught == std::to_string(lowest));
      CHECK(thread_count() == threads);
    }
    std::atomic<Index> sum{0};
    parallel_for(100, [&](Index i) { sum += i; });
    CHECK(sum == 4950);
  }
}

TEST_CASE("loops of few and of many tasks share one team, and start no threads after its first") {
  static std::atomic<int> born{0};
  const ThreadScope scope(4);
  std::atomic<int> ran{0};
  for (int round = 0; round < 50; ++round)
    for (Index tasks : {4, 3, 2, 64})
      parallel_for(tasks, [&](Index) {
        thread_local const int number = ++born;
        ran += number > 0;
      });
  CHECK(ran == 50 * (4 + 3 + 2 + 64));
  CHECK(born <= 4);
}

TEST_CASE("parallel_chunks covers a range in chunks of its grain") {
  for (int threads : {1, 3})
    for (Index count : {0, 1, 7, 8, 9, 100}) {
      const ThreadScope scope(threads);
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      std::atomic<bool> whole{true};  // Catch's assertions are for one thread
      parallel_chunks(count, 8, [&](Index begin, Index end) {
        if (begin % 8 != 0 || (end - begin != 8 && end != count)) whole = false;
        for (Index i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      CHECK(whole);
      for (const auto& n : seen) CHECK(n == 1);
    }
}
