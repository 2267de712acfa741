// Conversions of a run of elements; F16 loads and stores do the work.
template <class From, class To>
TENON_INLINE void cast_run(Index n, const From* x, To* y) {
  Index i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, load(x + i));
  if (i < n) store_partial(y + i, load_partial(x + i, n - i), n - i);
}
TENON_NOINLINE inline void narrow(Index n, const float* x, bfloat16* y) { cast_run(n, x, y); }
TENON_NOINLINE inline void narrow_to_half(Index n, const float* x, half* y) { cast_run(n, x, y); }
TENON_NOINLINE inline void widen(Index n, const bfloat16* x, float* y) { cast_run(n, x, y); }
TENON_NOINLINE inline void widen_from_half(Index n, const half* x, float* y) { cast_run(n, x, y); }
