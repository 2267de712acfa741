// The tiles of attention's products, for one kind of lane. Included by attention_body.inl and attention_narrow.inl, which
// say what multiply_add is.

/// c [rows, columns] = sum over p < k of a(row, p) b[p], added to c when `accumulate`, to c scale[column] when `scale`.
/// a(row, p) is a[32 row + p] when the rows are keys, a[row + a_step p] else.
struct TileProduct {
  Index rows, columns, k;
  const float* a;
  Index a_step;
  const float* b;
  Index b_step, b_vector;  ///< distances of two lines and of two vectors of 16 columns
  float* c;
  Index ldc;
  bool accumulate;
  const float* scale;
};

template <int R, int V, bool rows_are_keys>
TENON_NOINLINE inline void tile(const TileProduct& t, Index row, Index column) {
  const float* a = t.a + (rows_are_keys ? strip * row : row);
  const float* b = t.b + column / 16 * t.b_vector;
  float* c = t.c + row * t.ldc + column;
  const Index a_step = rows_are_keys ? 1 : t.a_step, last = t.columns - column - 16 * (V - 1);
  F16 sum[R][V];
  if (t.accumulate) {
    TENON_UNROLL
    for (int i = 0; i < R; ++i) {
      TENON_UNROLL
      for (int j = 0; j < V; ++j)
        sum[i][j] = j < V - 1 || last >= 16 ? load(c + i * t.ldc + 16 * j) : load_partial(c + i * t.ldc + 16 * j, last);
    }
    if (t.scale != nullptr) {
      TENON_UNROLL
      for (int i = 0; i < R; ++i) {
        TENON_UNROLL
        for (int j = 0; j < V; ++j) sum[i][j] = sum[i][j] * load(t.scale + column + 16 * j);
      }
    }
  } else {
    TENON_UNROLL
    for (int i = 0; i < R; ++i) {
      TENON_UNROLL
      for (int j = 0; j < V; ++j) sum[i][j] = zero();
    }
  }
  for (Index p = 0; p < t.k; ++p) {
    F16 line[V];
    TENON_UNROLL
    for (int j = 0; j < V; ++j) line[j] = load(b + j * t.b_vector);
    TENON_UNROLL
    for (int i = 0; i < R; ++i) {
      const F16 x = set1(a[rows_are_keys ? strip * i : i]);
      TENON_UNROLL
      for (int j = 0; j < V; ++j) sum[i][j] = multiply_add(x, line[j], sum[i][j]);
    }
    a += a_step;
    b += t.b_step;
  }
  TENON_UNROLL
  for (int i = 0; i < R; ++i) {
    TENON_UNROLL
    for (int j = 0; j < V; ++j) {
      if (j < V - 1 || last >= 16)
        store(c + i * t.ldc + 16 * j, sum[i][j]);
      else
        store_partial(c + i * t.ldc + 16 * j, sum[i][j], last);
    }
  }
}

template <int V, bool rows_are_keys>
inline void tile_column(const TileProduct& t, Index column) {
  constexpr int whole = attention::tile_rows * V > 24 ? 24 / V : attention::tile_rows;
  Index row = 0;
  for (; row + whole <= t.rows; row += whole) tile<whole, V, rows_are_keys>(t, row, column);
  if constexpr (whole > 8)
    if (row + 8 <= t.rows) tile<8, V, rows_are_keys>(t, row, column), row += 8;
  if constexpr (whole > 4)
    if (row + 4 <= t.rows) tile<4, V, rows_are_keys>(t, row, column), row += 4;
  if (row + 2 <= t.rows) tile<2, V, rows_are_keys>(t, row, column), row += 2;
  if (row < t.rows) tile<1, V, rows_are_keys>(t, row, column);
}

template <bool rows_are_keys>
inline void multiply(const TileProduct& t) {
  for (Index column = 0; column < t.columns;) {
    const Index left = (t.columns - column + 15) / 16;
    if constexpr (tile_vectors == 3) {
      if constexpr (rows_are_keys)  // else the columns are a strip of queries
        if (left == 3 || (left > 4 && left % 2 == 1)) {
          tile_column<3, rows_are_keys>(t, column);
          column += 48;
          continue;
        }
      if (left >= 2) {
        tile_column<2, rows_are_keys>(t, column);
        column += 32;
        continue;
      }
    }
    tile_column<1, rows_are_keys>(t, column);
    column += 16;
  }
}
