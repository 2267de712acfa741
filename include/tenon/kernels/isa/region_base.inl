// Opens a region for the instruction set of the command line: NEON and the generic body. See foreach.inl.
#if defined(__clang__)
#pragma float_control(push)
#pragma clang fp contract(off)
#else
#pragma GCC push_options
#pragma GCC optimize("no-fast-math", "fp-contract=off")
#endif
