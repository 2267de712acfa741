// F16 of the instruction set whose region is open.
#if defined(TENON_IN_AVX512)
#include <tenon/kernels/isa/simd_avx512.inl>
#elif defined(TENON_IN_AVX2)
#include <tenon/kernels/isa/simd_avx2.inl>
#elif defined(TENON_IN_NEON)
#include <tenon/kernels/isa/simd_neon.inl>
#else
#include <tenon/kernels/isa/simd_generic.inl>
#endif
