#pragma once
// The peaks of this machine: multiply and add in registers only, best of several accumulator counts.
#include <algorithm>
#include <array>
#include <chrono>
#include <string>

#include <tenon/core/cpu.hpp>
#include <tenon/core/parallel.hpp>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tenon_benchmark {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Operations done by `accumulators` chains of the instruction; the asm keeps the compiler from folding or reordering them.
#define TENON_PEAK_LOOP(NAME, TARGET, VECTOR, ZERO, INSTRUCTION, OPERATIONS)                                                    \
  template <int accumulators>                                                                                                   \
  __attribute__((target(TARGET), noinline)) double NAME(long rounds) {                                                          \
    VECTOR sum[accumulators], a = ZERO(), b = ZERO();                                                                           \
    _Pragma("GCC unroll 32") for (int i = 0; i < accumulators; ++i) sum[i] = ZERO();                                            \
    for (long r = 0; r < rounds; ++r) {                                                                                         \
      _Pragma("GCC unroll 32") for (int i = 0; i < accumulators; ++i) asm volatile(INSTRUCTION : "+v"(sum[i]) : "v"(a), "v"(b));\
    }                                                                                                                           \
    _Pragma("GCC unroll 32") for (int i = 0; i < accumulators; ++i) asm volatile("" : : "v"(sum[i]));                           \
    return static_cast<double>(OPERATIONS) * accumulators * static_cast<double>(rounds);                                        \
  }
#if defined(__x86_64__)
TENON_PEAK_LOOP(fma_avx512, "avx512f", __m512, _mm512_setzero_ps, "vfmadd231ps %1, %2, %0", 32)
TENON_PEAK_LOOP(fma_avx2, "avx2,fma", __m256, _mm256_setzero_ps, "vfmadd231ps %1, %2, %0", 16)
TENON_PEAK_LOOP(bf16_avx512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps, "vdpbf16ps %1, %2, %0", 64)
TENON_PEAK_LOOP(int8_avx512, "avx512f,avx512vnni", __m512, _mm512_setzero_ps, "vpdpbusd %1, %2, %0", 128)
#endif
#undef TENON_PEAK_LOOP

template <class Loop>
double peak_of(Loop loop, int threads) {
  double best = 0;
  tenon::ThreadScope scope(threads);
  for (int repeat = 0; repeat < 9; ++repeat) {
    std::array<double, 256> operations{};
    const double begin = seconds_now();
    tenon::parallel_for(threads, [&](tenon::Index t) { operations[static_cast<std::size_t>(t)] = loop(600000); });
    const double seconds = seconds_now() - begin;
    double total = 0;
    for (double o : operations) total += o;
    best = std::max(best, total / seconds / 1e9);
  }
  return best;
}

/// GFLOP/s (GOP/s) of `threads` threads, at most 256, on the instruction set that the kernels use; 0 where no loop is written.
struct Peaks {
  double f32 = 0, bf16 = 0, int8 = 0;

  explicit Peaks([[maybe_unused]] int threads) {
#if defined(__x86_64__)
    const auto& cpu = tenon::cpu_features();
    if (tenon::current_isa() == tenon::Isa::avx512) {
      f32 = std::max({peak_of(fma_avx512<12>, threads), peak_of(fma_avx512<16>, threads), peak_of(fma_avx512<24>, threads),
                      peak_of(fma_avx512<28>, threads)});
      if (cpu.bf16)
        bf16 = std::max({peak_of(bf16_avx512<12>, threads), peak_of(bf16_avx512<16>, threads), peak_of(bf16_avx512<24>, threads),
                         peak_of(bf16_avx512<28>, threads)});
      if (cpu.vnni)
        int8 = std::max({peak_of(int8_avx512<12>, threads), peak_of(int8_avx512<16>, threads), peak_of(int8_avx512<24>, threads),
                         peak_of(int8_avx512<28>, threads)});
    } else if (cpu.avx2) {
      f32 = std::max({peak_of(fma_avx2<8>, threads), peak_of(fma_avx2<12>, threads), peak_of(fma_avx2<14>, threads)});
    }
    if (bf16 == 0) bf16 = f32;  // widened to float32
#endif
  }
  double of(const std::string& dtype) const { return dtype == "f32" ? f32 : dtype == "bf16" ? bf16 : int8; }
};

}  // namespace tenon_benchmark
