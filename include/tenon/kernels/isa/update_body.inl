// Optimizer updates of a run of parameters; formulas in update.hpp.
TENON_NOINLINE inline void adamw_run(Index n, const AdamwNumbers<float>& s, const float* g, float* p, float* m, float* v) {
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    const F16 grad = set1(s.scale) * load_next(g + i, rest);
    const F16 m0 = load_next(m + i, rest), m1 = fma(set1(s.keep1), grad - m0, m0);
    const F16 v1 = fma(set1(s.keep2) * grad, grad, set1(s.beta2) * load_next(v + i, rest));
    const F16 step = m1 / (sqrt(v1) / set1(s.root) + set1(s.eps));
    store_next(m + i, m1, rest);
    store_next(v + i, v1, rest);
    store_next(p + i, fnma(set1(s.rate), step, set1(s.decay) * load_next(p + i, rest)), rest);
  }
}

TENON_NOINLINE inline void sgd_run(Index n, const SgdNumbers<float>& s, const float* g, float* p, float* velocity) {
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    const F16 p0 = load_next(p + i, rest);
    F16 d = fma(set1(s.decay), p0, set1(s.scale) * load_next(g + i, rest));
    if (velocity != nullptr) {
      const F16 v = s.first ? d : fma(set1(s.momentum), load_next(velocity + i, rest), set1(s.keep) * d);
      store_next(velocity + i, v, rest);
      d = s.nesterov ? fma(set1(s.momentum), v, d) : v;
    }
    store_next(p + i, fnma(set1(s.rate), d, p0), rest);
  }
}

TENON_NOINLINE inline void ema_run(Index n, float keep, const float* p, float* average) {
  for (Index i = 0; i < n; i += 16) {
    const Index rest = n - i;
    const F16 a = load_next(average + i, rest);
    store_next(average + i, fma(set1(keep), load_next(p + i, rest) - a, a), rest);
  }
}
