// Opens a target region for AVX2 with FMA and F16C (every such processor has all three). See foreach.inl.
#if defined(__clang__)
#pragma float_control(push)
#pragma clang fp contract(off)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC optimize("no-fast-math", "fp-contract=off")
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#endif
