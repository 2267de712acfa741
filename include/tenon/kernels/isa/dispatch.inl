// Defines TENON_SELECT(f): the address of f in the copy of the calling thread's Isa. Use it outside parallel loops,
// inside namespace tenon::kernels, once per call of an entry point, and `#undef TENON_SELECT` at the end of the header:
//
//   const auto rows = TENON_SELECT(softmax_rows);
//   parallel_for(n, [&](Index i) { rows(...); });
#include <tenon/core/cpu.hpp>

#include <tenon/kernels/isa/copies.inl>
#if defined(TENON_HAS_AVX512) && defined(TENON_HAS_AVX2)
#define TENON_SELECT(f)                                          \
  (::tenon::current_isa() == ::tenon::Isa::avx512 ? &avx512::f   \
   : ::tenon::current_isa() == ::tenon::Isa::avx2 ? &avx2::f     \
                                                  : &generic::f)
#elif defined(TENON_HAS_AVX512)
#define TENON_SELECT(f) (&avx512::f)
#elif defined(TENON_HAS_AVX2)
#define TENON_SELECT(f) (&avx2::f)
#elif defined(TENON_HAS_NEON) && defined(TENON_HAS_GENERIC)
#define TENON_SELECT(f) (::tenon::current_isa() == ::tenon::Isa::neon ? &neon::f : &generic::f)
#elif defined(TENON_HAS_NEON)
#define TENON_SELECT(f) (&neon::f)
#else
#define TENON_SELECT(f) (&generic::f)
#endif
#include <tenon/kernels/isa/copies_end.inl>
