#pragma once
// Matrix products: a packed weight forward and backward, and products of two plain matrices.
//
// All matrices are row-major; ld is the distance of two rows. float runs on current_isa(), double on the generic body.
#include <algorithm>
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
/// The cut whose largest part is least; `gathered` panels cost as much again as 16 rows.
inline Grid grid_of(Index m, Index n, Index k, bool gathered) {
  const Index groups = (n + 2 * panel_columns - 1) / (2 * panel_columns);
  const Index threads = m * n * k < 32768 ? 1 : thread_count();
  Grid best;
  if (groups == 0) return best;
  Index least = std::numeric_limits<Index>::max();
  for (Index r = 1; r <= threads && r <= m; ++r) {
    const Index c = threads / r < groups ? threads / r : groups;
    const Index rows = (m + r - 1) / r, tiles = (rows + 11) / 12;
    const Index cost = (rows + 2 * tiles + (gathered ? 16 : 0)) * ((groups + c - 1) / c);
    if (cost < least) least = cost, best = {r, c};
  }
  return best;
}

inline constexpr std::size_t stretches_max = 16;
/// Lines of gathered panels, and rows of a gathered transposed left matrix, that the second-level cache keeps.
inline constexpr Index gathered_lines = 512, gathered_panels = 8, gathered_rows = 192;

/// Rows of a block whose rows read `k` elements each: its piece of x stays in the second-level cache, unless weights too
/// large for the third are better read seldom.
inline Index block_rows_of(Index k, Index weights) {
  const Index rows = 98304 / (k > 0 ? k : 1);
  return rows > block_rows_max || weights > (Index{4} << 20) ? block_rows_max : rows < 96 ? 96 : rows;
}

/// The epilogue of the rows from `row` on.
template <class T>
Epilogue<T> advance(Epilogue<T> e, Index row) {
  if (e.residual != nullptr) e.residual += row * e.ldr;
  if (e.pre_activation != nullptr) e.pre_activation += row * e.ldp;
  return e;
}

/// c [m, n] = a b (+ c), b gathered in panels; a [m, k], or [k, m] when `transposed`, then gathered as well.
template <class T>
void gathered_product(bool transposed, Index m, Index k, const T* a, Index lda, const Operand<T>& b, T* c, Index ldc,
                      bool accumulate) {
  if (k == 0) {  // an empty sum
    for (Index i = 0; i < m && !accumulate; ++i) std::fill_n(c + i * ldc, b.n, T(0));
    return;
  }
  const ProductKernels<T> kernels = product_kernels(T());
  const Index panels = (b.n + panel_columns - 1) / panel_columns, groups = (panels + 1) / 2;
  const Grid grid = grid_of(m, b.n, k, true);
  const Index each = gathered_lines * (gathered_panels * panel_columns + (transposed ? gathered_rows : 0));
  Buffer<T> scratch(grid.rows * grid.columns * each);
  parallel_for(grid.rows * grid.columns, [&](Index part) {
    const Index r = part / grid.columns, q = part % grid.columns;
    const Index row_end = m * (r + 1) / grid.rows;
    const Index panel_end = q + 1 == grid.columns ? panels : 2 * (groups * (q + 1) / grid.columns);
    T* gathered = scratch.data() + part * each;
    T* left = gathered + gathered_lines * gathered_panels * panel_columns;
    const T* rows[block_rows_max];
    for (Index top = m * r / grid.rows, height = 0; top < row_end; top += height) {
      height = transposed && row_end - top > gathered_rows ? gathered_rows : row_end - top;
      Index first = 0, lines = 0;
      do {
        lines = k - first < gathered_lines ? k - first : gathered_lines;
        if (transposed) {
          const Operand<T> strip{PanelSource::rows, a + top, lda, height};
          kernels.gather(strip, 0, (height + panel_columns - 1) / panel_columns, first, first + lines, left);
        }
        for (Index panel = 2 * (groups * q / grid.columns); panel < panel_end; panel += gathered_panels) {
          const Index count = panel_end - panel < gathered_panels ? panel_end - panel : gathered_panels;
          kernels.gather(b, panel, count, first, first + lines, gathered);
          const Stretch<T> stretch{rows, transposed ? panel_columns : 1, lines, gathered, lines * panel_columns};
          Product<T> p;
          p.stretches = &stretch;
          p.stretch_count = 1;
          p.last_panel = count;
          p.n = b.n - panel * panel_columns;
          p.ldy = ldc;
          p.accumulate = accumulate || first > 0;
          for (Index row = top; row < top + height; row += p.rows) {
            p.rows = top + height - row < block_rows_max ? top + height - row : block_rows_max;
            for (Index i = 0; i < p.rows; ++i)
              rows[i] = transposed ? left + i / panel_columns * stretch.panel_stride + i % panel_columns
                                   : a + (row + i) * lda + first;
            p.y = c + row * ldc + panel * panel_columns;
            kernels.multiply(p);
          }
        }
        first += lines;
      } while (first < k);
    }
  });
}

}  // namespace detail

/// y [m, n] = act(x W^T + sum t B^T + bias) + residual, x [m, k].
template <Real T>
void gemm(const T* x, Index ldx, Index m, const PackedMatrix<T>& w, T* y, Index ldy,
          const std::type_identity_t<Epilogue<T>>& epilogue = {},
          std::type_identity_t<std::span<const LowRankTerm<T>>> low_rank = {}) {
  check(low_rank.size() < detail::stretches_max, "gemm", "expected at most 15 low-rank terms, got ", low_rank.size());
  const auto kernels = detail::product_kernels(T());
  const Index panels = w.panels(), groups = (panels + 1) / 2;
  const detail::Grid grid = detail::grid_of(m, w.n(), w.k(), false);
  const Index strip_rows = detail::block_rows_of(w.k(), w.k() * w.n());
  parallel_for(grid.rows * grid.columns, [&](Index part) {
    const Index r = part / grid.columns, q = part % grid.columns;
    const Index row_begin = m * r / grid.rows, row_end = m * (r + 1) / grid.rows;
    const Index blocks = (row_end - row_begin + strip_rows - 1) / strip_rows;
    const T* rows[detail::stretches_max][detail::block_rows_max];
    detail::Stretch<T> stretches[detail::stretches_max];
    stretches[0] = {rows[0], 1, w.k(), w.group(), w.panel_stride()};
    for (std::size_t t = 0; t < low_rank.size(); ++t)
      stretches[t + 1] = {rows[t + 1], 1, low_rank[t].rank, low_rank[t].b->group(), low_rank[t].b->panel_stride()};
    detail::Product<T> p;
    p.stretches = stretches;
    p.stretch_count = static_cast<Index>(low_rank.size()) + 1;
    p.first_panel = 2 * (groups * q / grid.columns);
    p.last_panel = q + 1 == grid.columns ? panels : 2 * (groups * (q + 1) / grid.columns);
    p.n = w.n();
    p.ldy = ldy;
    for (Index b = 0; b < blocks; ++b) {
      const Index row = row_begin + (row_end - row_begin) * b / blocks;
      p.rows = row_begin + (row_end - row_begin) * (b + 1) / blocks - row;
      for (Index i = 0; i < p.rows; ++i) rows[0][i] = x + (row + i) * ldx;
      for (std::size_t t = 0; t < low_rank.size(); ++t)
        for (Index i = 0; i < p.rows; ++i)
          rows[t + 1][i] = low_rank[t].t + (row + i) * low_rank[t].ldt;
      p.y = y + row * ldy;
      p.epilogue = detail::advance<T>(epilogue, row);
      kernels.multiply(p);
    }
  });
}

/// dx [m, k] = dy W (+ dx when `accumulate`), dy [m, n], from the panels that forward reads.
template <Real T>
void gemm_dx(const T* dy, Index lddy, Index m, const PackedMatrix<T>& w, T* dx, Index lddx, bool accumulate) {
  const detail::Operand<T> panels{detail::PanelSource::packed, w.group(), w.panel_stride(), w.k()};
  detail::gathered_product(false, m, w.n(), dy, lddy, panels, dx, lddx, accumulate);
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
