#pragma once
// The bodies of product.hpp.
#include <tenon/kernels/isa/simd.hpp>
#include <tenon/kernels/product.hpp>

#define TENON_BODY <tenon/kernels/isa/product.inl>
#include <tenon/kernels/isa/foreach.inl>

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
  return {TENON_SELECT(multiply), TENON_SELECT(gather)};
}
TENON_KERNEL detail::ProductKernels<double> detail::product_kernels(double) {
  return {&real64::multiply, &real64::gather};
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
