#pragma once
// The float32 FMA peak of this machine: registers only, best of several accumulator counts.
#include <algorithm>
#include <chrono>

#include <tenon/core/cpu.hpp>
#include <tenon/core/parallel.hpp>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tenon_benchmark {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The empty asm keeps the compiler from folding the loop.
#define TENON_PEAK_LOOP(NAME, TARGET, VECTOR, SET1, FMA, LANES)                         \
  template <int accumulators>                                                           \
  __attribute__((target(TARGET), noinline)) double NAME(long rounds) {                  \
    VECTOR sum[accumulators], a = SET1(1.0001f), b = SET1(0.9999f);                     \
    _Pragma("GCC unroll 32") for (int i = 0; i < accumulators; ++i) sum[i] = SET1(1.0f + static_cast<float>(i));\
    for (long r = 0; r < rounds; ++r) {                                                 \
      _Pragma("GCC unroll 32") for (int i = 0; i < accumulators; ++i) sum[i] = FMA(sum[i], a, b); \
    }                                                                                   \
    _Pragma("GCC unroll 32") for (int i = 0; i < accumulators; ++i) asm volatile("" : : "x"(sum[i])); \
    return 2.0 * LANES * accumulators * static_cast<double>(rounds);                    \
  }
#if defined(__x86_64__)
TENON_PEAK_LOOP(fma_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)
TENON_PEAK_LOOP(fma_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)
#endif
#undef TENON_PEAK_LOOP

template <class Loop>
double peak_of(Loop loop, int threads) {
  double best = 0;
  tenon::ThreadScope scope(threads);
  for (int repeat = 0; repeat < 9; ++repeat) {
    std::array<double, 256> operations{};
    const double begin = seconds_now();
    tenon::parallel_for(threads, [&](tenon::Index t) { operations[static_cast<std::size_t>(t)] = loop(1000000); });
    const double seconds = seconds_now() - begin;
    double total = 0;
    for (double o : operations) total += o;
    best = std::max(best, total / seconds / 1e9);
  }
  return best;
}

/// GFLOP/s of `threads` threads (at most 256) that multiply and add in registers; 0 where no loop is written.
inline double fma_peak(int threads) {
#if defined(__x86_64__)
  const auto& cpu = tenon::cpu_features();
  if (cpu.avx512)
    return std::max({peak_of(fma_avx512<8>, threads), peak_of(fma_avx512<12>, threads), peak_of(fma_avx512<24>, threads)});
  if (cpu.avx2) return std::max(peak_of(fma_avx2<8>, threads), peak_of(fma_avx2<12>, threads));
#else
  (void)threads;
#endif
  return 0;
}

}  // namespace tenon_benchmark
