// The tile and its loops, once per instruction set. Described in kernels/product.hpp.
#if defined(TENON_IN_REAL64)
using Scalar = double;
#else
using Scalar = float;
#endif

// A tile of tile_rows x tile_panels keeps its accumulators, the panel lines and one broadcast in registers.
#if defined(TENON_IN_AVX512)
enum : int { tile_rows = 12, tile_panels = 2 };
#elif defined(TENON_IN_AVX2) || defined(TENON_IN_NEON)
enum : int { tile_rows = 6, tile_panels = 1 };
#else
enum : int { tile_rows = 2, tile_panels = 1 };
#endif
// Lines of a panel group that stay in the second-level cache while the rows of a block pass.
enum : Index { block_lines = 1024, short_lines = 32, pieces_max = 64, buffer_columns = 32 };

TENON_NOINLINE inline void activate(Activation activation, Scalar* x) {
  const F16 v = load(x);
  switch (activation) {
    case Activation::none: break;
    case Activation::relu: return store(x, max(zero(), v));
    case Activation::gelu: return store(x, gelu(v));
    case Activation::quick_gelu: return store(x, quick_gelu(v));
    case Activation::silu: return store(x, silu(v));
    case Activation::tanh: return store(x, tanh(v));
  }
}

// What a lane of rows and panels holds; the narrow kinds are in narrow.inl.
struct Float32 {
  enum : int { integers = 0 };
};
TENON_INLINE F16 dot(Float32, F16 x, F16 w, F16 sum) { return fma(x, w, sum); }

TENON_INLINE F16 activated(Activation activation, F16 x) {
  if (activation == Activation::none) return x;
  Scalar lane[16];
  store(lane, x);
  activate(activation, lane);
  return load(lane);
}

// y [rows, columns] = the epilogue of x [rows, buffer_columns], columns counted from `column`; their gates, if any, begin
// at column 16 of x and `gate` further on in the epilogue.
TENON_NOINLINE inline void finish(const Epilogue<Scalar>& e, const Scalar* x, Index row, Index rows, Index column,
                           Index columns, Index gate, Scalar* y, Index ldy) {
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; j += 16) {
      const Index c = column + j, lanes = columns - j < 16 ? columns - j : 16;
      F16 v = load(x + i * buffer_columns + j);
      if (e.column_scale != nullptr) v = v * load_partial(e.column_scale + c, lanes);
      if (e.bias != nullptr) v = v + load_partial(e.bias + c, lanes);
      if (e.sample_bias != nullptr) v = v + load_partial(e.sample_bias + (e.first_row + row + i) / e.sample_rows * e.lds + c, lanes);
      if (e.pre_activation != nullptr) store_partial(e.pre_activation + (row + i) * e.ldp + c, v, lanes);
      if (gate != 0) {
        F16 g = load(x + i * buffer_columns + 16);
        if (e.column_scale != nullptr) g = g * load(e.column_scale + gate + c);
        if (e.bias != nullptr) g = g + load(e.bias + gate + c);
        if (e.pre_activation != nullptr) store(e.pre_activation + (row + i) * e.ldp + gate + c, g);
        v = v * activated(e.activation, g);
      } else {
        v = activated(e.activation, v);
      }
      if (e.residual != nullptr) v = v + load_partial(e.residual + (row + i) * e.ldr + c, lanes);
      store_partial(y + (row + i) * ldy + c, v, lanes);
    }
}

// The pieces of the stretches from (stretch, line) on, up to `end`, that hold at most `lines` lines, moved to `panel`.
struct Cursor { Index stretch, line; };
TENON_INLINE Index cut(const detail::Product<Scalar>& p, Index panel, Index end, Index lines, Cursor& at, detail::Stretch<Scalar>* pieces) {
  Index count = 0;
  while (at.stretch < end && count < pieces_max) {
    const detail::Stretch<Scalar>& whole = p.stretches[at.stretch];
    const Index left = whole.k - at.line, taken = left < lines ? left : lines;
    if (left > 0 && taken == 0) break;
    detail::Stretch<Scalar>& piece = pieces[count++];
    piece = whole;
    piece.k = taken;
    piece.offset = whole.offset + at.line * whole.step;
    piece.panels = whole.panels + panel * whole.panel_stride + at.line * 16;
    lines -= taken;
    if (taken == left)
      at = {at.stretch + 1, 0};
    else
      at.line += taken;
  }
  return count;
}

#include <tenon/kernels/isa/tile.inl>

TENON_INLINE Index lines_of(const detail::Product<Scalar>& p) {
  Index total = 0;
  for (Index s = 0; s < p.stretch_count; ++s) total += p.stretches[s].k;
  const Index chunks = total > block_lines + short_lines ? (total + block_lines - 1) / block_lines : 1;
  return (total + chunks - 1) / chunks;
}

// One group of columns from `panel` on, from stretch `from` on, over what `buffer` holds when that is not the first.
TENON_NOINLINE inline void multiply_group(const detail::Product<Scalar>& p, Index panel, Index from, Index lines, Scalar* buffer) {
  const Pass pass{panel, from, p.stretch_count, lines, buffer, false};
  if (p.gate != 0)
    run_gated<Float32, tile_rows>(p, pass);
  else if (panel + tile_panels <= p.last_panel)
    run<Float32, tile_rows, tile_panels>(p, pass);
  else
    run<Float32, tile_rows, 1>(p, pass);
}

// Fetches what low-rank terms hold for the group of columns from `panel` on: their few lines would hold up a tile that reaches
// them after the long stretch in front.
TENON_INLINE void fetch_terms(const detail::Product<Scalar>& p, Index panel) {
  for (Index s = 1; s < p.stretch_count; ++s) {
    const detail::Stretch<Scalar>& term = p.stretches[s];
    if (term.k > short_lines) continue;
    for (Index q = panel; q < p.last_panel && q < panel + tile_panels; ++q)
      for (Index l = 0; l < term.k; ++l) __builtin_prefetch(term.panels + q * term.panel_stride + 16 * l);
  }
}

TENON_ON_CALL TENON_NOINLINE void multiply(const detail::Product<Scalar>& p) {
  alignas(64) Scalar buffer[detail::block_rows_max * buffer_columns];
  const Index lines = lines_of(p);
  const Index step = p.gate != 0 ? 1 : tile_panels;
  for (Index panel = p.first_panel; panel < p.last_panel; panel += step) {
    fetch_terms(p, panel);
    multiply_group(p, panel, 0, lines, buffer);
  }
}

// out [16 or fewer lines][16] = the transposed block of `columns` rows of 16 elements, ld apart, of which `lines` count.
TENON_INLINE void transpose_block(const Scalar* from, Index ld, Index columns, Index lines, Scalar* out) {
#if defined(TENON_IN_GENERIC) || defined(TENON_IN_REAL64)
  for (Index l = 0; l < lines; ++l)
    for (Index c = 0; c < 16; ++c) out[16 * l + c] = c < columns ? from[c * ld + l] : Scalar(0);
#else
  F16 block[16];
  if (columns == 16 && lines == 16) {
    TENON_UNROLL
    for (int c = 0; c < 16; ++c) block[c] = load(from + c * ld);
  } else {
    for (Index c = 0; c < 16; ++c) block[c] = c < columns ? load_partial(from + c * ld, lines) : zero();
  }
  transpose(block);
  if (lines == 16) {
    TENON_UNROLL
    for (int c = 0; c < 16; ++c) store(out + 16 * c, block[c]);
  } else {
    for (Index c = 0; c < lines; ++c) store(out + 16 * c, block[c]);
  }
#endif
}

TENON_NOINLINE inline void gather(const detail::Operand<Scalar>& b, Index panel, Index count, Index first, Index last,
                                  Scalar* out) {
  const Index lines = last - first;
  const bool scattered = b.source == detail::PanelSource::lines;
  if (scattered || b.source == detail::PanelSource::rows) {
    const Index column = panel * 16;
    for (Index l = 0; l < lines; ++l, out += 16) {
      const Scalar* from = (scattered ? b.lines[first + l] : b.data + (first + l) * b.ld) + column;
      const Scalar* ahead = scattered ? from : from + 8 * b.ld;
      for (Index p = 0; p < count; ++p) {
        const Index columns = b.n - column - 16 * p;
        __builtin_prefetch(ahead + 16 * p);
        store(out + p * lines * 16, columns >= 16 ? load(from + 16 * p) : load_partial(from + 16 * p, columns));
      }
    }
    return;
  }
  for (Index l = 0; l < lines; l += 16) {
    const Index rest = lines - l < 16 ? lines - l : 16;
    for (Index p = 0; p < count; ++p) {
      const Index column = (panel + p) * 16, columns = b.n - column < 16 ? b.n - column : 16;
      Scalar* to = out + p * lines * 16 + l * 16;
      if (b.source == detail::PanelSource::packed) {
        const Scalar* from = b.data + (first + l) / 16 * b.ld + column * 16;
        TENON_UNROLL
        for (int c = 0; c < 16; ++c) __builtin_prefetch(from + 2 * b.ld + 16 * c);
        transpose_block(from, 16, columns, rest, to);
      } else {
        transpose_block(b.data + column * b.ld + first + l, b.ld, columns, rest, to);
      }
    }
  }
}
