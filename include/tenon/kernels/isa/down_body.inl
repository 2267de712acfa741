// A tile of down_project: its accumulators, the lanes of x and one of A stay in registers.
#if defined(TENON_IN_AVX512)
enum : int { down_rows = 4, down_ranks = 4 };
#else
enum : int { down_rows = 2, down_ranks = 2 };
#endif

/// t [rows, rank] = scale x A^T. A tile that hangs over repeats its last row, or rank.
TENON_NOINLINE inline void down_project_rows(Index rows, Index k, Index rank, const float* x, Index ldx, const float* a, float scale, float* t) {
  for (Index row = 0; row < rows; row += down_rows)
    for (Index first = 0; first < rank; first += down_ranks) {
      const float *from[down_rows], *to[down_ranks];
      TENON_UNROLL
      for (int i = 0; i < down_rows; ++i) from[i] = x + (row + i < rows ? row + i : rows - 1) * ldx;
      TENON_UNROLL
      for (int j = 0; j < down_ranks; ++j) to[j] = a + (first + j < rank ? first + j : rank - 1) * k;
      F16 sum[down_rows][down_ranks];
      TENON_UNROLL
      for (int i = 0; i < down_rows; ++i) {
        TENON_UNROLL
        for (int j = 0; j < down_ranks; ++j) sum[i][j] = zero();
      }
      Index l = 0;
      for (; l + 16 <= k; l += 16) {
        F16 v[down_rows];
        TENON_UNROLL
        for (int i = 0; i < down_rows; ++i) v[i] = load(from[i] + l);
        TENON_UNROLL
        for (int j = 0; j < down_ranks; ++j) {
          const F16 w = load(to[j] + l);
          TENON_UNROLL
          for (int i = 0; i < down_rows; ++i) sum[i][j] = fma(v[i], w, sum[i][j]);
        }
      }
      if (l < k) {
        TENON_UNROLL
        for (int i = 0; i < down_rows; ++i) {
          const F16 v = load_partial(from[i] + l, k - l);
          TENON_UNROLL
          for (int j = 0; j < down_ranks; ++j) sum[i][j] = fma(v, load_partial(to[j] + l, k - l), sum[i][j]);
        }
      }
      TENON_UNROLL
      for (int i = 0; i < down_rows; ++i) {
        TENON_UNROLL
        for (int j = 0; j < down_ranks; ++j)
          if (row + i < rows && first + j < rank) t[(row + i) * rank + first + j] = scale * reduce_add(sum[i][j]);
      }
    }
}
