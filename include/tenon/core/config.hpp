#pragma once
// The only public macros of tenon, and the ABI namespace.
//
// Everything lives in `inline namespace TENON_ABI`: its name spells the version, OpenMP on or off, static or
// dynamic dispatch, and the baseline instruction set. A unit compiled with other flags therefore fails at link
// instead of running another unit's copy of an inline function.
//
// A user may define before the first include (all units alike):
//   TENON_STATIC_ISA   compile only the kernel body that -march selects; no run-time dispatch
//   TENON_COMPILED     what tenon::compiled holds is declared only; link it
#if defined(_MSC_VER) && !defined(__clang__)
#error "tenon builds with g++ 12 or clang 14 and later, on Linux and macOS; MSVC is not supported"
#endif
#if __cplusplus < 202002L
#error "tenon needs C++20: compile with -std=c++20"
#endif
#if defined(__FAST_MATH__)
#error "tenon promises reproducible bits and tests finiteness: compile without -ffast-math"
#endif

#define TENON_VERSION_MAJOR 0
#define TENON_VERSION_MINOR 1
#define TENON_VERSION_PATCH 0

#if defined(_OPENMP)
#define TENON_ABI_THREADS omp
#else
#define TENON_ABI_THREADS serial
#endif
#if defined(TENON_STATIC_ISA)
#define TENON_ABI_DISPATCH static
#else
#define TENON_ABI_DISPATCH dynamic
#endif
#if defined(__AVX512F__)
#define TENON_ABI_BASE avx512
#elif defined(__AVX2__)
#define TENON_ABI_BASE avx2
#elif defined(__AVX__)
#define TENON_ABI_BASE avx
#else
#define TENON_ABI_BASE base
#endif
#define TENON_ABI_JOIN_(major, minor, threads, dispatch, base) v##major##_##minor##_##threads##_##dispatch##_##base
#define TENON_ABI_JOIN(major, minor, threads, dispatch, base) TENON_ABI_JOIN_(major, minor, threads, dispatch, base)
#define TENON_ABI \
  TENON_ABI_JOIN(TENON_VERSION_MAJOR, TENON_VERSION_MINOR, TENON_ABI_THREADS, TENON_ABI_DISPATCH, TENON_ABI_BASE)

// A function without template parameters of its own that the compiler should look into only where it is called: what it uses
// (JSON, <regex>, maps) then costs other units nothing but reading.
#define TENON_ON_CALL template <class...>
// What is defined in a body (X_body.hpp, X_float.inl): in the header-only form as if it stood in the header; under
// TENON_COMPILED the header shows declarations alone, and tenon::compiled holds the definitions.
#if defined(TENON_COMPILED)
#define TENON_IN_BODY
#define TENON_MEMBER_IN_BODY
#else
#define TENON_IN_BODY TENON_ON_CALL
#define TENON_MEMBER_IN_BODY inline
#endif
#define TENON_KERNEL TENON_IN_BODY
// An instance of a template that tenon::compiled holds: TENON_COMPILED_TEMPLATE(struct Linear<float>), or of a function of
// one name, TENON_COMPILED_FUNCTION(linear<float>). CMake finds these lines, each in namespace tenon, and makes the units.
// Members defined inside a class are inline: only those defined outside are built once.
#if defined(TENON_COMPILED)
#define TENON_COMPILED_TEMPLATE(...) extern template __VA_ARGS__;
#else
#define TENON_COMPILED_TEMPLATE(...)
#endif
#define TENON_COMPILED_FUNCTION(...) TENON_COMPILED_TEMPLATE(decltype(__VA_ARGS__) __VA_ARGS__)

// Unrolls the loop that follows whole; without it -O2 keeps the accumulators of a tile in memory.
#if defined(__clang__)
#define TENON_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TENON_UNROLL _Pragma("GCC unroll 64")
#endif
#define TENON_NOINLINE __attribute__((noinline))
// A function that is called seldom (an error, a file, a configuration): small rather than fast, so that it compiles quickly.
#define TENON_COLD __attribute__((cold, noinline))
