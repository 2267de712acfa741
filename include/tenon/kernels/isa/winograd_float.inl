// The entry points of winograd.hpp.
#pragma once
#include <tenon/kernels/isa/simd.hpp>

#define TENON_BODY <tenon/kernels/isa/winograd_body.inl>
#include <tenon/kernels/isa/foreach.inl>

#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

TENON_KERNEL WinogradTransforms winograd_transforms(Index tile) {
  if (tile == 2) return {TENON_SELECT(winograd::spread_tile<2>), TENON_SELECT(winograd::fold_tile<2>)};
  return {TENON_SELECT(winograd::spread_tile<4>), TENON_SELECT(winograd::fold_tile<4>)};
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
