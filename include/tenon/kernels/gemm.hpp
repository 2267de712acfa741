#pragma once
// Matrix products: a packed weight forward and backward, and products of two plain matrices.
//
// All matrices are row-major; ld is the distance of two rows. float runs on current_isa(), double on the generic body.
#include <algorithm>
#include <cstring>
#include <span>
#include <type_traits>

#include <tenon/kernels/product.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// t B^T with t [m, rank], already scaled, and B [n, rank] packed: continues the chain of the product it is handed to.
template <Real T>
struct LowRankTerm {
  const T* t = nullptr;
  Index ldt = 0;
  Index rank = 0;
  const PackedMatrix<T>* b = nullptr;
};

namespace detail {

/// Rows and groups of two panels cut for the threads: part (r, c) of rows x columns.
struct Grid {
  Index rows = 1, columns = 1;
};
/// The cut whose largest part is least; `gathered` panels cost as much again as 16 rows, and rows that become lanes of
/// `width` elements, in each part anew, about a quarter of their product with one group.
inline Grid grid_of(Index m, Index n, Index k, bool gathered, Index width = 1) {
  const Index groups = (n + 2 * panel_columns - 1) / (2 * panel_columns);
  const Index threads = m * n * k < 32768 ? 1 : thread_count();
  Grid best;
  if (groups == 0) return best;
  Index least = std::numeric_limits<Index>::max();
  for (Index r = 1; r <= threads && r <= m; ++r) {
    const Index c = threads / r < groups ? threads / r : groups;
    const Index rows = (m + r - 1) / r, tiles = (rows + 11) / 12;
    const Index cost = 4 * (rows + 2 * tiles + (gathered ? 16 : 0)) * ((groups + c - 1) / c) + (width > 1 ? width * rows : 0);
    if (cost < least) least = cost, best = {r, c};
  }
  return best;
}

inline constexpr std::size_t stretches_max = 16;
/// Lines of gathered panels, and rows of a gathered transposed left matrix, that the second-level cache keeps.
inline constexpr Index gathered_lines = 512, gathered_panels = 8, gathered_rows = 192;
/// Elements of rows beyond which they are taken block by block, with panels gathered anew, rather than all for each gathering.
inline constexpr Index cached_elements = 3 << 17;

/// Rows of a block whose rows read `k` elements each: its piece of x stays in the second-level cache, unless weights too
/// large for the third are better read seldom. Whole tiles of 12 rows.
inline Index block_rows_of(Index k, Index weights) {
  const Index rows = 98304 / (k > 0 ? k : 1);
  return rows > block_rows_max || weights > (Index{4} << 20) ? block_rows_max : rows < 96 ? 96 : rows / 12 * 12;
}

/// Whether the rows of a tile, `ld` apart, fall on the same lines of the first-level cache and evict each other.
template <class T>
bool collides(Index ld) {
  return ld * static_cast<Index>(sizeof(T)) % 4096 == 0;
}
/// The distance of rows of k elements that do not: an odd number of cache lines.
inline Index apart(Index k) { return ((k + 15) / 16 | 1) * 16; }

/// The factor that brings numbers up to `most` to bytes; 0 where they are too small to tell, or not finite.
template <class T>
T inverse_scale(T most) {
  return most > T(1e-30) ? 127 / most : T(0);
}
/// strip [rows, ld] = x [rows, k] as lanes of `width` elements; int8 also gets the scale of each row.
template <class T>
void fill_strip(const ProductKernels<T>& kernels, Index width, const T* x, Index ldx, Index rows, Index k, T* strip, Index ld,
                T* scales) {
  for (Index i = 0; i < rows; ++i) {
    const T* from = x + i * ldx;
    T* to = strip + i * ld;
    if (width == 1) {
      std::copy_n(from, k, to);
    } else if (width == 2) {
      kernels.round_row(from, k, to);
    } else {
      const T most = kernels.largest(from, k);
      scales[i] = most / 127;
      kernels.quantize_row(from, k, inverse_scale(most), to);
    }
  }
}

/// A packed W [n, k] as an operand [n, k]; `lines` lines of lanes from `tap` on.
template <class T>
Operand<T> packed_operand(const PackedMatrix<T>& w, Index g, Index tap, Index k) {
  return {PanelSource::packed, w.group(g) + tap * w.tap_lines() * panel_columns, w.panel_stride(), k, nullptr, w.width(),
          w.width() == 4 ? w.scales(g) : nullptr};
}
/// kernels.gather, and the way back from narrow lanes to T.
template <class T>
void gather(const ProductKernels<T>& kernels, const Operand<T>& b, Index panel, Index count, Index first, Index last, T* out) {
  if (b.width == 1) return kernels.gather(b, panel, count, first, last, out);
  const Index bits = 32 / b.width;
  for (Index p = panel; p < panel + count; ++p)
    for (Index l = first; l < last; ++l, out += panel_columns) {
      const T* lanes = b.data + l / panel_columns * b.ld + l % panel_columns;
      for (Index j = 0; j < panel_columns; ++j) {
        const Index c = p * panel_columns + j;
        if (c >= b.n) {
          out[j] = T(0);
        } else if constexpr (std::same_as<T, float>) {
          const auto lane = std::bit_cast<std::uint32_t>(lanes[c / b.width * panel_columns]) >> (c % b.width * bits);
          out[j] = b.width == 2 ? std::bit_cast<float>(lane << 16)
                                : b.scales[l] * static_cast<float>(static_cast<std::int8_t>(lane & 0xff));
        }
      }
    }
}
/// The product of the kernel for panels of that storage.
template <class T>
void multiply(const ProductKernels<T>& kernels, DType storage, const Product<T>& p) {
  if (lane_width(storage) == 1) return kernels.multiply(p);
  kernels.multiply_narrow[storage == DType::bf16 ? 0 : 1](p);
}

/// The epilogue of the rows from `row` on.
template <class T>
Epilogue<T> advance(Epilogue<T> e, Index row) {
  if (e.residual != nullptr) e.residual += row * e.ldr;
  if (e.pre_activation != nullptr) e.pre_activation += row * e.ldp;
  e.first_row += row;
  return e;
}

/// c [m, n] = a b (+ c), b gathered in panels; a [m, k], or [k, m] when `transposed`, then gathered as well. Against packed
/// bfloat16, a is rounded to the same type.
template <class T>
void gathered_product(bool transposed, Index m, Index k, const T* a, Index lda, const Operand<T>& b, T* c, Index ldc,
                      bool accumulate) {
  if (k == 0) {  // an empty sum
    for (Index i = 0; i < m && !accumulate; ++i) std::fill_n(c + i * ldc, b.n, T(0));
    return;
  }
  const ProductKernels<T> kernels = product_kernels(T());
  const Index panels = (b.n + panel_columns - 1) / panel_columns, groups = (panels + 1) / 2;
  const Index width = b.width == 2 ? 2 : 1, total = (k + width - 1) / width;  // lines of `width` elements
  const bool copied = !transposed && (width > 1 || (collides<T>(lda) && m > 1)), held = transposed || copied;
  const Index left_rows = transposed ? gathered_rows : copied ? block_rows_max : 0, left_ld = apart(gathered_lines);
  const Grid grid = grid_of(m, b.n, k, true, width);
  const bool piecewise = m / grid.rows * std::min(total, gathered_lines) > cached_elements;
  const Index each = gathered_lines * gathered_panels * panel_columns + left_rows * left_ld;
  Buffer<T> scratch(grid.rows * grid.columns * each);
  parallel_for(grid.rows * grid.columns, [&](Index part) {
    const Index r = part / grid.columns, q = part % grid.columns;
    const Index row_end = m * (r + 1) / grid.rows;
    const Index panel_end = q + 1 == grid.columns ? panels : 2 * (groups * (q + 1) / grid.columns);
    T* gathered = scratch.data() + part * each;
    T* left = gathered + gathered_lines * gathered_panels * panel_columns;
    const T* rows[block_rows_max];
    for (Index top = m * r / grid.rows, height = 0; top < row_end; top += height) {
      height = std::min(row_end - top, held ? left_rows : piecewise ? block_rows_max : row_end - top);
      Index first = 0, lines = 0;
      do {
        lines = total - first < gathered_lines ? total - first : gathered_lines;
        const Index taken = std::min(k - first * width, lines * width);
        if (transposed) {
          const Operand<T> strip{PanelSource::rows, a + top, lda, height};
          kernels.gather(strip, 0, (height + panel_columns - 1) / panel_columns, first, first + lines, left);
        } else if (copied) {
          fill_strip<T>(kernels, width, a + top * lda + first * width, lda, height, taken, left, left_ld, nullptr);
        }
        for (Index panel = 2 * (groups * q / grid.columns); panel < panel_end; panel += gathered_panels) {
          const Index count = panel_end - panel < gathered_panels ? panel_end - panel : gathered_panels;
          if (width == 2)
            kernels.gather_pairs(b, panel, count, first, first + lines, gathered);
          else
            gather(kernels, b, panel, count, first, first + lines, gathered);
          const Stretch<T> stretch{rows, transposed ? panel_columns : 1, lines, gathered, lines * panel_columns};
          Product<T> p;
          p.stretches = &stretch;
          p.stretch_count = 1;
          p.narrow_count = width > 1 ? 1 : 0;
          p.last_panel = count;
          p.n = b.n - panel * panel_columns;
          p.ldy = ldc;
          p.accumulate = accumulate || first > 0;
          for (Index row = top; row < top + height; row += p.rows) {
            p.rows = top + height - row < block_rows_max ? top + height - row : block_rows_max;
            for (Index i = 0; i < p.rows; ++i)
              rows[i] = transposed ? left + i / panel_columns * stretch.panel_stride + i % panel_columns
                        : copied   ? left + i * left_ld
                                   : a + (row + i) * lda + first;
            p.y = c + row * ldc + panel * panel_columns;
            multiply(kernels, width == 2 ? DType::bf16 : dtype_of<T>, p);
          }
        }
        first += lines;
      } while (first < total);
    }
  });
}

}  // namespace detail

/// y [m, n] (gated: [m, n / 2]) = the epilogue of x W^T + sum t B^T, x [m, k]. Against panels of bfloat16 or int8 the rows of x are
/// rounded to the same type first (int8 with a scale for each row); sums, low-rank terms and epilogue are float32.
template <Real T>
void gemm(const T* x, Index ldx, Index m, const PackedMatrix<T>& w, T* y, Index ldy,
          const std::type_identity_t<Epilogue<T>>& epilogue = {},
          std::type_identity_t<std::span<const LowRankTerm<T>>> low_rank = {}) {
  check(low_rank.size() < detail::stretches_max, "gemm", "expected at most 15 low-rank terms, got ", low_rank.size());
  for (const auto& term : low_rank) check(term.b->width() == 1, "gemm", "expected low-rank terms stored as ", name_of(dtype_of<T>));
  const Index gate = epilogue.gated ? w.n() / 2 : 0, n = epilogue.gated ? gate : w.n();
  check<ShapeError>(gate % panel_columns == 0 && (!epilogue.gated || (gate > 0 && w.n() % 2 == 0 && epilogue.sample_bias == nullptr)), "gemm",
                    "expected values and gates in whole panels of 16 columns and no sample bias, got ", w.n(), " columns");
  const auto kernels = detail::product_kernels(T());
  const Index panels = (n + panel_columns - 1) / panel_columns, groups = (panels + 1) / 2, width = w.width(), lanes = w.tap_lines();
  const detail::Grid grid = detail::grid_of(m, n, w.k(), false, width);
  const Index strip_rows = detail::block_rows_of(lanes, lanes * w.n());
  const bool copied = width > 1 || (detail::collides<T>(ldx) && m > 1);
  const Index ld = copied ? detail::apart(lanes) : ldx, strip_size = copied ? std::min(m, strip_rows) * (ld + 1) : 0;
  Buffer<T> strips(grid.rows * grid.columns * strip_size);
  parallel_for(grid.rows * grid.columns, [&](Index part) {
    const Index r = part / grid.columns, q = part % grid.columns;
    const Index row_begin = m * r / grid.rows, row_end = m * (r + 1) / grid.rows;
    const Index blocks = (row_end - row_begin + strip_rows - 1) / strip_rows;
    const Index block = blocks > 0 ? ((row_end - row_begin + blocks - 1) / blocks + 11) / 12 * 12 : 1;
    const T* rows[detail::stretches_max][detail::block_rows_max];
    detail::Stretch<T> stretches[detail::stretches_max];
    stretches[0] = {rows[0], 1, lanes, w.group(), w.panel_stride()};
    for (std::size_t t = 0; t < low_rank.size(); ++t)
      stretches[t + 1] = {rows[t + 1], 1, low_rank[t].rank, low_rank[t].b->group(), low_rank[t].b->panel_stride()};
    T* const own = strips.data() + part * strip_size;
    detail::Product<T> p;
    p.stretches = stretches;
    p.stretch_count = static_cast<Index>(low_rank.size()) + 1;
    p.narrow_count = width > 1 ? 1 : 0;
    if (width == 4) p.quantized = {own + std::min(m, strip_rows) * ld, w.scales(), w.starts()};
    p.first_panel = 2 * (groups * q / grid.columns);
    p.last_panel = q + 1 == grid.columns ? panels : 2 * (groups * (q + 1) / grid.columns);
    p.n = n;
    p.gate = gate;
    p.ldy = ldy;
    for (Index row = row_begin; row < row_end; row += block) {
      p.rows = std::min(block, row_end - row);
      const T* strip = x + row * ldx;
      if (copied) detail::fill_strip(kernels, width, strip, ldx, p.rows, w.k(), own, ld, own + std::min(m, strip_rows) * ld);
      if (copied) strip = own;
      for (Index i = 0; i < p.rows; ++i) rows[0][i] = strip + i * ld;
      for (std::size_t t = 0; t < low_rank.size(); ++t)
        for (Index i = 0; i < p.rows; ++i)
          rows[t + 1][i] = low_rank[t].t + (row + i) * low_rank[t].ldt;
      p.y = y + row * ldy;
      p.epilogue = detail::advance<T>(epilogue, row);
      detail::multiply(kernels, w.storage(), p);
    }
  });
}

/// dx [m, k] = dy W (+ dx when `accumulate`), dy [m, n], from the panels that forward reads: bfloat16 ones round dy to
/// bfloat16, int8 ones are widened to float32.
template <Real T>
void gemm_dx(const T* dy, Index lddy, Index m, const PackedMatrix<T>& w, T* dx, Index lddx, bool accumulate) {
  detail::gathered_product(false, m, w.n(), dy, lddy, detail::packed_operand(w, 0, 0, w.k()), dx, lddx, accumulate);
}

/// c [m, n] = op(a) op(b) (+ c when `accumulate`): a [m, k], or [k, m] when transpose_a; b [k, n], or [n, k] when
/// transpose_b.
template <Real T>
void matmul(bool transpose_a, bool transpose_b, Index m, Index n, Index k, const T* a, Index lda, const T* b, Index ldb,
            T* c, Index ldc, bool accumulate = false) {
  const detail::Operand<T> right{transpose_b ? detail::PanelSource::columns : detail::PanelSource::rows, b, ldb, n};
  detail::gathered_product(transpose_a, m, k, a, lda, right, c, ldc, accumulate);
}

/// `matmul` of `batch` triples that lie stride_a, stride_b and stride_c elements apart (0 shares an input).
template <Real T>
void batched_matmul(Index batch, bool transpose_a, bool transpose_b, Index m, Index n, Index k, const T* a, Index lda,
                    Index stride_a, const T* b, Index ldb, Index stride_b, T* c, Index ldc, Index stride_c,
                    bool accumulate = false) {
  const auto one = [&](Index i) {
    matmul(transpose_a, transpose_b, m, n, k, a + i * stride_a, lda, b + i * stride_b, ldb, c + i * stride_c, ldc,
           accumulate);
  };
  if (batch >= thread_count()) return parallel_for(batch, one);
  for (Index i = 0; i < batch; ++i) one(i);
}

/// dw [n, k] = dy^T x (+ dw when `accumulate`), dy [m, n], x [m, k]: a chain over the rows in order.
template <Real T>
void gemm_dw(const T* dy, Index lddy, const T* x, Index ldx, Index m, Index n, Index k, T* dw, Index lddw,
             bool accumulate) {
  matmul(true, false, n, k, m, dy, lddy, x, ldx, dw, lddw, accumulate);
}

/// db [n] = the sum of the rows of dy [m, n] (+ db when `accumulate`): rows in order inside blocks of 96, blocks joined
/// in a fixed tree.
template <Real T>
void column_sum(const T* dy, Index lddy, Index m, Index n, T* db, bool accumulate) {
  constexpr Index block = 96;
  const Index blocks = m > block ? (m + block - 1) / block : 1;
  Buffer<T> sums(blocks * n);
  parallel_for(blocks, [&](Index b) {
    T* sum = sums.data() + b * n;
    for (Index j = 0; j < n; ++j) sum[j] = T(0);
    for (Index i = b * block; i < m && i < (b + 1) * block; ++i)
      for (Index j = 0; j < n; ++j) sum[j] += dy[i * lddy + j];
  });
  for (Index step = 1; step < blocks; step *= 2)
    for (Index b = 0; b + step < blocks; b += 2 * step)
      for (Index j = 0; j < n; ++j) sums[b * n + j] += sums[(b + step) * n + j];
  for (Index j = 0; j < n; ++j) db[j] = accumulate ? db[j] + sums[j] : sums[j];
}

}  // namespace tenon::inline TENON_ABI::kernels
