// One copy for each instruction set: what simd.test.cpp asks of F16. Each function takes 16 lanes.
inline void probe_operations(const float* a, const float* b, const float* c, float* y) {
  const F16 p = load(a), q = load(b), r = load(c);
  const F16 results[] = {p + q, p - q, p * q, p / q, -p, fma(p, q, r), fnma(p, q, r), min(p, q), max(p, q), abs(p), sqrt(abs(p)), round(p),
                         select(p < q, r, p), select(p <= q, r, p), select(p > q, r, p), select(p >= q, r, p), select(p == q, r, p),
                         select(~(p < q) & (p < r), q, r), select((p < q) | (p < r), q, r), to_float(to_int(p)), pow2(to_int(q)),
                         from_bits(shift_right<3>(bits(p)) ^ shift_left<2>(bits(q))), from_bits((bits(p) & bits(q)) | set1_int(7)),
                         to_float(to_int(p) + to_int(q) - set1_int(3)), select(to_int(p) == to_int(q), p, r), set1(a[3]), zero()};
  for (const F16& x : results) store(y, x), y += 16;
}

inline void probe_folds(const float* a, float* y) {
  y[0] = reduce_add(load(a));
  y[1] = reduce_max(load(a));
  y[2] = reduce_min(load(a));
  y[3] = any(load(a) < zero()) ? 1.0f : 0.0f;
  y[4] = all(load(a) < zero()) ? 1.0f : 0.0f;
}

template <class Storage>
inline void probe_memory(const Storage* x, Storage* y, Index count) {
  if (count == 16)
    store(y, load(x));
  else
    store_partial(y, load_partial(x, count), count);
}
inline void probe_floats(const float* x, float* y, Index count) { probe_memory(x, y, count); }
inline void probe_bfloat16s(const bfloat16* x, bfloat16* y, Index count) { probe_memory(x, y, count); }
inline void probe_halves(const half* x, half* y, Index count) { probe_memory(x, y, count); }
inline void probe_rest(const float* x, float* y, Index count) { store(y, load_partial(x, count)); }
inline void probe_narrow(const float* x, bfloat16* y, half* z) {
  store(y, load(x));
  store(z, load(x));
}

inline void probe_transpose(const float* x, float* y) {
  F16 rows[16];
  for (int i = 0; i < 16; ++i) rows[i] = load(x + 16 * i);
  transpose(rows);
  for (int i = 0; i < 16; ++i) store(y + 16 * i, rows[i]);
}
