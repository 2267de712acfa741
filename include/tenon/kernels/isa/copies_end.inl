// Takes back the macros of copies.inl.
#undef TENON_HAS_AVX512
#undef TENON_HAS_AVX512BF16
#undef TENON_HAS_AVX2
#undef TENON_HAS_NEON
#undef TENON_HAS_GENERIC
