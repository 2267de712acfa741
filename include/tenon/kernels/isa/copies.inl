// Defines TENON_HAS_* for the instruction sets whose copies this unit holds: the same choice as is_compiled() of
// core/cpu.hpp. copies_end.inl takes the macros back.
#if defined(__x86_64__) && !defined(TENON_STATIC_ISA)
#define TENON_HAS_AVX512
#define TENON_HAS_AVX512BF16
#define TENON_HAS_AVX2
#define TENON_HAS_GENERIC
#elif defined(__aarch64__)
#define TENON_HAS_NEON
#if !defined(TENON_STATIC_ISA)
#define TENON_HAS_GENERIC
#endif
#elif defined(__x86_64__) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define TENON_HAS_AVX512
#define TENON_HAS_AVX512BF16
#elif defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__)
#define TENON_HAS_AVX2
#else
#define TENON_HAS_GENERIC
#endif
