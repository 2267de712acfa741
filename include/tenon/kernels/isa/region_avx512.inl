// Opens a target region for AVX-512 (F, BW, VL, DQ); with BF16 and VNNI when TENON_IN_AVX512BF16. See foreach.inl.
#if defined(__clang__)
#pragma float_control(push)
#pragma clang fp contract(off)
#if __clang_major__ >= 18 && __clang_major__ < 22
#if defined(TENON_IN_AVX512BF16)
#pragma clang attribute push(__attribute__((target("evex512,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,avx2,fma,f16c,bmi,bmi2"))), apply_to = function)
#else
#pragma clang attribute push(__attribute__((target("evex512,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2"))), apply_to = function)
#endif
#elif defined(TENON_IN_AVX512BF16)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,avx2,fma,f16c,bmi,bmi2"))), apply_to = function)
#else
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2"))), apply_to = function)
#endif
#else
#pragma GCC push_options
#pragma GCC optimize("no-fast-math", "fp-contract=off")
#if defined(TENON_IN_AVX512BF16)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,avx2,fma,f16c,bmi,bmi2")
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2")
#endif
#endif
