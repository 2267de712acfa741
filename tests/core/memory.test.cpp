// Blocks from the cache: apart from each other, of pages that come back in blocks of other sizes, and given back when asked.
#include <catch.hpp>

#include <cstring>
#include <thread>
#include <vector>

#include <tenon/core/memory.hpp>

using namespace tenon;

namespace {

constexpr Index mib = Index{1} << 20;

/// A block whose every page begins and ends with a number of its own.
struct Marked {
  Buffer<unsigned char> block;
  unsigned char mark;

  Marked(Index bytes, unsigned char number) : block(bytes), mark(number) {
    for (Index at = 0; at < bytes; at += 4096) block[at] = block[std::min(at + 4095, bytes - 1)] = number;
  }
  bool intact() const {
    for (Index at = 0; at < block.size(); at += 4096)
      if (block.data()[at] != mark || block.data()[std::min(at + 4095, block.size() - 1)] != mark) return false;
    return true;
  }
};

}  // namespace

TEST_CASE("memory: blocks stay apart however they are taken and given", "[core]") {
  std::vector<Marked> live;
  unsigned state = 1;
  const auto random = [&] { return (state = state * 1664525u + 1013904223u) >> 8; };
  for (int step = 0; step < 300; ++step) {
    if (live.size() > 6 || (!live.empty() && random() % 3 == 0)) {
      const std::size_t which = random() % live.size();
      CHECK(live[which].intact());
      std::swap(live[which], live.back());
      live.pop_back();
    } else {
      const Index sizes[] = {1, 4000, 3 * mib, 5 * mib + 17, 33 * mib, 48 * mib - 1, 64 * mib, 90 * mib + 12345};
      live.emplace_back(sizes[random() % std::size(sizes)], static_cast<unsigned char>(random()));
    }
  }
  for (const auto& block : live) CHECK(block.intact());
  live.clear();
  trim_memory();
  CHECK(cached_memory() == 0);
}

#if defined(__linux__)
TEST_CASE("memory: a large block is made of the pages of free ones", "[core]") {
  trim_memory();
  const auto cached = [] { return static_cast<Index>(cached_memory()); };
  { const Marked a(40 * mib, 1), b(8 * mib, 2), c(56 * mib, 3); }
  if (cached() == 0) return;  // under AddressSanitizer every block is the system's
  CHECK(cached() == 104 * mib);
  const Marked large(96 * mib, 4);
  CHECK(cached() == 8 * mib);  // the largest were taken first
  {
    const Marked small(20 * mib, 5);  // too small to be made of others
    CHECK(cached() == 8 * mib);
  }
  const Marked second(64 * mib, 6);  // as far as the pages go
  CHECK(cached() == 0);
  CHECK(large.intact());
  CHECK(second.intact());
}

TEST_CASE("memory: threads take and give large blocks at the same time", "[core]") {
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (std::size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&wrong, t] {
      for (int i = 0; i < 20; ++i) {
        const Marked a((33 + 7 * ((i + static_cast<int>(t)) % 5)) * mib, static_cast<unsigned char>(16 * t + 1)), b(40 * mib, static_cast<unsigned char>(16 * t + 2));
        wrong[t] += !a.intact() || !b.intact();
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4));
  trim_memory();
}
#endif
