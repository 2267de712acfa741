// Includes TENON_BODY once per instruction set of this architecture, each copy inside its own namespace
// (tenon::kernels::avx512, avx2, neon, generic) and its own target region:
//
//   #define TENON_BODY <tenon/kernels/isa/norm_body.inl>
//   #include <tenon/kernels/isa/foreach.inl>
//
// Include it at global scope, after <tenon/kernels/isa/simd.hpp>. Inside a body:
//   - no #include, no std:: call, no lambda, no OpenMP, no object at namespace scope (functions and types only);
//   - TENON_INLINE marks helpers (always inlined), TENON_NOINLINE the functions that the parallel loop calls, TENON_MATH
//     long helpers, inlined where they are a few instructions: not in the generic copy, where they are hundreds;
//   - F16 and its functions (simd_*.inl) and the vector math (math.inl) are in scope.
// With TENON_WITH_BF16 defined there is one more copy, avx512bf16 (AVX-512 with BF16 and VNNI instructions), which
// sees everything of namespace avx512. TENON_STATIC_ISA leaves only the copy that -march selects.
#if !defined(TENON_BODY)
#error "define TENON_BODY before including foreach.inl"
#endif
#include <tenon/kernels/isa/copies.inl>
#define TENON_INLINE inline __attribute__((always_inline))
#define TENON_MATH TENON_INLINE

#if defined(TENON_HAS_AVX512)
#define TENON_IN_AVX512
#include <tenon/kernels/isa/region_avx512.inl>
namespace tenon::inline TENON_ABI::kernels::avx512 {
#include TENON_BODY
}
#include <tenon/kernels/isa/region_end.inl>
#if defined(TENON_WITH_BF16) && defined(TENON_HAS_AVX512BF16)
#define TENON_IN_AVX512BF16
#include <tenon/kernels/isa/region_avx512.inl>
namespace tenon::inline TENON_ABI::kernels::avx512bf16 {
using namespace avx512;
#include TENON_BODY
}
#include <tenon/kernels/isa/region_end.inl>
#undef TENON_IN_AVX512BF16
#endif
#undef TENON_IN_AVX512
#endif

#if defined(TENON_HAS_AVX2)
#define TENON_IN_AVX2
#include <tenon/kernels/isa/region_avx2.inl>
namespace tenon::inline TENON_ABI::kernels::avx2 {
#include TENON_BODY
}
#include <tenon/kernels/isa/region_end.inl>
#undef TENON_IN_AVX2
#endif

#if defined(TENON_HAS_NEON)
#define TENON_IN_NEON
#include <tenon/kernels/isa/region_base.inl>
namespace tenon::inline TENON_ABI::kernels::neon {
#include TENON_BODY
}
#include <tenon/kernels/isa/region_end.inl>
#undef TENON_IN_NEON
#endif

#if defined(TENON_HAS_GENERIC)
#define TENON_IN_GENERIC
#undef TENON_MATH
#define TENON_MATH TENON_NOINLINE inline
#include <tenon/kernels/isa/region_base.inl>
namespace tenon::inline TENON_ABI::kernels::generic {
#include TENON_BODY
}
#include <tenon/kernels/isa/region_end.inl>
#undef TENON_IN_GENERIC
#endif

#include <tenon/kernels/isa/copies_end.inl>
#undef TENON_INLINE
#undef TENON_MATH
#undef TENON_BODY
