// A row of GEGLU: x holds n values, then n gates.
TENON_NOINLINE inline void geglu_row(Index n, const float* x, float* y) {
  for (Index i = 0; i < n; i += 16) store_next(y + i, load_next(x + i, n - i) * gelu(load_next(x + n + i, n - i)), n - i);
}
TENON_NOINLINE inline void geglu_row_backward(Index n, const float* x, const float* dy, float* dx) {
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    const F16 value = load_next(x + i, rest), gate = load_next(x + n + i, rest), d = load_next(dy + i, rest);
    store_next(dx + i, d * gelu(gate), rest);
    store_next(dx + n + i, d * value * gelu_derivative(gate), rest);
  }
}
