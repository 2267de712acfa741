#pragma once
// F16: sixteen floats, on every instruction set the same logical vector (1 zmm, 2 ymm, 4 q registers, float[16]), and
// with it the vector math. One copy per instruction set; kernels reach them through foreach.inl.
//
//   F16, I16, M16                           floats, int32, lane mask
//   zero() set1(x) set1_int(i) load(p) store(p, x) load_partial(p, count) store_partial(p, x, count)
//                                           p: float, bfloat16, half; count 0..16 lanes, the others read as 0; no alignment needed
//   + - * /  -x  fma(a, b, c) = a*b + c  fnma(a, b, c) = c - a*b  abs sqrt round (to nearest even)
//   min max                                 a < b ? a : b, a > b ? a : b: the second operand when either is NaN
//   < <= > >= ==  & | ~  any all  select(m, a, b)
//   to_int (nearest even, |x| < 2^31) to_float bits from_bits  + - & | ^ ==  shift_left<n> shift_right<n> (logical)
//   pow2(n) = 2^n for n in -126..127
//   reduce_add (lanes folded 8, 4, 2, 1) reduce_max reduce_min  transpose(rows[16])
#include <tenon/core/dtype.hpp>
#include <tenon/core/shape.hpp>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define TENON_BODY <tenon/kernels/isa/simd_body.inl>
#include <tenon/kernels/isa/foreach.inl>
#define TENON_BODY <tenon/kernels/isa/math.inl>
#include <tenon/kernels/isa/foreach.inl>
