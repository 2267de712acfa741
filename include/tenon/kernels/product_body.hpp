#pragma once
// The bodies of product.hpp.
#include <tenon/kernels/isa/simd.hpp>
#include <tenon/kernels/product.hpp>

#define TENON_BODY <tenon/kernels/isa/product.inl>
#include <tenon/kernels/isa/foreach.inl>

#define TENON_WITH_BF16
#define TENON_BODY <tenon/kernels/isa/narrow.inl>
#include <tenon/kernels/isa/foreach.inl>
#undef TENON_WITH_BF16

#define TENON_INLINE inline __attribute__((always_inline))
#define TENON_IN_REAL64
#include <tenon/kernels/isa/region_base.inl>
namespace tenon::inline TENON_ABI::kernels::real64 {
#include <tenon/kernels/isa/simd_real64.inl>
#include <tenon/kernels/isa/product.inl>
}
#include <tenon/kernels/isa/region_end.inl>
#undef TENON_IN_REAL64
#undef TENON_INLINE

#include <tenon/kernels/isa/dispatch.inl>


namespace tenon::inline TENON_ABI::kernels {

TENON_KERNEL detail::ProductKernels<float> detail::product_kernels(float) {
  ProductKernels<float> out{TENON_SELECT(multiply<>), {}, nullptr, nullptr, nullptr, TENON_SELECT(gather), nullptr};
#include <tenon/kernels/isa/copies.inl>
#if defined(TENON_HAS_AVX512)
  if (current_isa() == Isa::avx512 && cpu_features().bf16 && cpu_features().vnni) {
    avx512bf16::use_narrow(out);
    return out;
  }
#endif
#if defined(TENON_HAS_AVX512) && defined(TENON_HAS_AVX2)
  (current_isa() == Isa::generic ? &generic::use_narrow<> : &avx2::use_narrow<>)(out);
#else
  TENON_SELECT(use_narrow<>)(out);
#endif
#include <tenon/kernels/isa/copies_end.inl>
  return out;
}
TENON_KERNEL detail::ProductKernels<double> detail::product_kernels(double) {
  return {&real64::multiply<>, {}, nullptr, nullptr, nullptr, &real64::gather, nullptr};
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
