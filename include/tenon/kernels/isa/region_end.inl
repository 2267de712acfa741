// Closes the region that a region_*.inl opened.
#if defined(__clang__)
#if defined(TENON_IN_AVX512) || defined(TENON_IN_AVX2)
#pragma clang attribute pop
#endif
#pragma float_control(pop)
#else
#pragma GCC pop_options
#endif
