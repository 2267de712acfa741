// The tile of the products and the loop over its rows, for one kind of lane. Included by product.inl and narrow.inl.

// out [rows, panels * 16] = start (or 0) + the pieces' products (* scales) (+ bias).
struct TileCall {
  const detail::Stretch<Scalar>* pieces;
  Index count, row;
  const Scalar* start;
  Index ld_start;
  const Scalar *bias, *row_scale, *column_scale;
  Index column_step;  // of column_scale and of a start without rows, from panel to panel
  Scalar* out;
  Index ldo;
  const Scalar* ahead;  // 16 elements for each line that a fetching tile fetches while its sums grow
};

template <class Lane, int rows, int panels, bool fetching = false>
TENON_NOINLINE inline void tile(const TileCall& t) {
  F16 sum[rows][panels];
  const Scalar* start = t.start;
  const Index ld_start = t.ld_start, start_step = ld_start == 0 ? t.column_step : 16;
  TENON_UNROLL
  for (int i = 0; i < rows; ++i) {
    TENON_UNROLL
    for (int j = 0; j < panels; ++j) sum[i][j] = start != nullptr ? load(start + i * ld_start + j * start_step) : zero();
  }
  Scalar* const out = t.out;
  const Index ldo = t.ldo;
  TENON_UNROLL
  for (int i = 0; i < rows; ++i) {  // the lines of y are fetched while the sums grow
    TENON_UNROLL
    for (int j = 0; j < panels; ++j) __builtin_prefetch(out + i * ldo + 16 * j, 1);
  }
  [[maybe_unused]] const Scalar* ahead = t.ahead;
  for (Index s = 0; s < t.count; ++s) {
    const detail::Stretch<Scalar>& piece = t.pieces[s];
    const Scalar* x[rows];
    TENON_UNROLL
    for (int i = 0; i < rows; ++i) x[i] = piece.rows[t.row + i] + piece.offset;
    const Scalar* line = piece.panels;
    const Index step = piece.step, stride = piece.panel_stride;
    for (Index l = 0, at = 0; l < piece.k; ++l, at += step, line += 16) {
      if constexpr (fetching) {
        __builtin_prefetch(ahead, 0, 2);
        ahead += 16;
      }
      F16 w[panels];
      TENON_UNROLL
      for (int j = 0; j < panels; ++j) w[j] = load(line + j * stride);
      TENON_UNROLL
      for (int i = 0; i < rows; ++i) {
        const F16 v = set1(x[i][at]);
        TENON_UNROLL
        for (int j = 0; j < panels; ++j) sum[i][j] = dot(Lane{}, v, w[j], sum[i][j]);
      }
    }
  }
  if constexpr (Lane::integers != 0) {
    if (t.row_scale != nullptr) {
      F16 column[panels];
      TENON_UNROLL
      for (int j = 0; j < panels; ++j) column[j] = load(t.column_scale + j * t.column_step);
      TENON_UNROLL
      for (int i = 0; i < rows; ++i) {
        const F16 row = set1(t.row_scale[t.row + i]);
        TENON_UNROLL
        for (int j = 0; j < panels; ++j) sum[i][j] = scaled(Lane{}, sum[i][j], row * column[j]);
      }
    }
  }
  if (t.bias != nullptr) {
    TENON_UNROLL
    for (int j = 0; j < panels; ++j) {
      const F16 b = load(t.bias + 16 * j);
      TENON_UNROLL
      for (int i = 0; i < rows; ++i) sum[i][j] = sum[i][j] + b;
    }
  }
  TENON_UNROLL
  for (int i = 0; i < rows; ++i) {
    TENON_UNROLL
    for (int j = 0; j < panels; ++j) store(out + i * ldo + 16 * j, sum[i][j]);
  }
}

// The height of the next smaller tile: 12, 8, 4, 2, 1 or 6, 4, 2, 1.
constexpr int smaller(int rows) { return rows > 6 ? rows - 4 : rows > 4 ? 4 : rows / 2; }
template <int rows_max>
TENON_INLINE Index height_of(Index rows) {
  int height = rows_max;
  while (height > rows) height = smaller(height);
  // 13 to 15 rows as 8 and the rest, not as 12 and a thin tile that waits for its own sums
  return rows_max == 12 && rows > 12 && rows < 16 ? 8 : height;
}
template <class Lane, int panels, int rows>
TENON_INLINE void tile_of(Index height, const TileCall& t) {
  if constexpr (rows > 1) {
    if (height < rows) {
      tile_of<Lane, panels, smaller(rows)>(height, t);
      return;
    }
  }
  tile<Lane, rows, panels>(t);
}

// Stretches first .. last of the columns from `panel` on: from nothing (or y) when first is 0, else from the buffer;
// into y when last is the last one, else into the buffer.
struct Pass {
  Index panel, first, last, lines;
  Scalar* buffer;  // [rows, buffer_columns]
  bool gates;      // of p.gate: the gates alone
};
template <class Lane, int rows_max, int panels>
TENON_NOINLINE inline void run(const detail::Product<Scalar>& p, const Pass& pass) {
  const Index column = pass.panel * 16 + (pass.gates ? p.gate : 0), room = p.gate != 0 ? 16 : p.n - column;
  const Index columns = room < panels * 16 ? room : panels * 16;
  const Epilogue<Scalar>& e = p.epilogue;
  const bool whole = columns == panels * 16, final = pass.last == p.stretch_count;
  const bool direct = whole && p.gate == 0 && e.column_scale == nullptr && e.sample_bias == nullptr && e.pre_activation == nullptr &&
                      e.activation == Activation::none && e.residual == nullptr;
  detail::Stretch<Scalar> pieces[pieces_max];
  TileCall t;
  t.pieces = pieces;
  Cursor at{pass.first, 0};
  bool fresh = pass.first == 0, done;
  do {
    t.count = cut(p, column / 16, pass.last, pass.lines, at, pieces);
    t.column_step = p.gate != 0 ? p.gate : 16;
    if (p.gate != 0)
      for (Index s = 0; s < t.count; ++s) pieces[s].panel_stride *= p.gate / 16;
    else if (pass.panel + panels > p.last_panel)  // a last single panel fills both halves of the tile
      for (Index s = 0; s < t.count; ++s) pieces[s].panel_stride = 0;
    done = at.stretch == pass.last;
    // The first tiles of full height fetch the lines that come after these into the second-level cache, a panel each: weights
    // that come from memory would hold up the next lines' first tile.
    const Index group = p.gate != 0 ? 1 : panels;
    const detail::Stretch<Scalar>& next = p.stretches[done ? pass.first : at.stretch];
    const bool more = !done || pass.panel + group < p.last_panel;
    const Scalar* ahead = more ? next.panels + (column / 16 + (done ? group : 0)) * next.panel_stride + (done ? 0 : at.line) * 16 : nullptr;
    const Index apart = t.count > 0 ? pieces[0].panel_stride : 0;
    int fetched = 0;
    const bool ends = done && final, straight = ends && direct;
    if constexpr (Lane::integers != 0) {
      t.row_scale = done ? p.quantized.rows : nullptr;
      t.column_scale = p.quantized.columns + column;
    }
    t.bias = straight && e.bias != nullptr ? e.bias + column : nullptr;
    t.ldo = straight ? p.ldy : buffer_columns;
    t.row = 0;
    t.ahead = nullptr;
    for (Index rows; t.row < p.rows; t.row += rows, ++fetched) {
      rows = height_of<rows_max>(p.rows - t.row);
      Scalar* y = p.y + t.row * p.ldy + column;
      Scalar* held = pass.buffer + t.row * buffer_columns + (pass.gates ? 16 : 0);
      t.start = fresh ? nullptr : held;
      t.ld_start = buffer_columns;
      if (fresh && Lane::integers != 0) {
        t.start = p.quantized.start + column;
        t.ld_start = 0;
      } else if (fresh && p.accumulate) {
        if (whole) {
          t.start = y;
          t.ld_start = p.ldy;
        } else {
          for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < columns; j += 16)
              store(held + i * buffer_columns + j, load_partial(y + i * p.ldy + j, columns - j));
          t.start = held;
        }
      }
      t.out = straight ? y : held;
      if (more && fetched < panels && rows == rows_max) {
        t.ahead = ahead + fetched * apart;
        tile<Lane, rows_max, panels, true>(t);
      } else {
        tile_of<Lane, panels, rows_max>(rows, t);
      }
      if (ends && !direct && (p.gate == 0 || panels == 2 || pass.gates))
        finish(e, pass.buffer + t.row * buffer_columns, t.row, rows, pass.panel * 16, columns, p.gate, p.y, p.ldy);
    }
    fresh = false;
  } while (!done);
}
// A panel of values and the panel of their gates.
template <class Lane, int rows_max>
TENON_INLINE void run_gated(const detail::Product<Scalar>& p, Pass pass) {
  if constexpr (tile_panels == 2) {
    run<Lane, rows_max, 2>(p, pass);
  } else {
    run<Lane, rows_max, 1>(p, pass);
    pass.gates = true;
    run<Lane, rows_max, 1>(p, pass);
  }
}
