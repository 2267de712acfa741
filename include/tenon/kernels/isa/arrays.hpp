#pragma once
// Loads and stores of up to 16 floats, and the fixed order of sums, for the bodies of element, norm and loss kernels.
#include <tenon/kernels/isa/simd.hpp>

#define TENON_BODY <tenon/kernels/isa/arrays_body.inl>
#include <tenon/kernels/isa/foreach.inl>
