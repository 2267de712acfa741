#pragma once
// The one product behind gemm, matmul and conv: rows of x times panels of 16 columns, one body per instruction set.
//
// Every output element is one unbroken chain of fused multiply-adds, whatever the tile, the blocking or the number of
// threads: float results are the same bits on AVX2 and AVX-512. Under TENON_COMPILED only this header is seen.
#include <tenon/kernels/activation_kind.hpp>
#include <tenon/kernels/pack.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// What follows a product p [m, n]: y = act(p * column_scale + bias + sample_bias) + residual. Null members are left out.
/// gated (GEGLU and kin): y [m, n / 2] = (left half of the argument of act) * act(right half) + residual.
template <Real T>
struct Epilogue {
  const T* column_scale = nullptr;  ///< [n]
  const T* bias = nullptr;          ///< [n]
  /// A bias for each run of sample_rows rows, as the time embedding of a picture's pixels: row i adds
  /// sample_bias[i / sample_rows * lds + column].
  const T* sample_bias = nullptr;
  Index sample_rows = 1, lds = 0;
  Activation activation = Activation::none;
  bool gated = false;
  const T* residual = nullptr;  ///< shaped as y, may be y itself
  Index ldr = 0;
  T* pre_activation = nullptr;  ///< [m, n], receives the argument of act
  Index ldp = 0;
  Index first_row = 0;  ///< what row 0 of the matrices is called in sample_bias
};

namespace detail {

/// A stretch of the inner dimension: k elements of each row, `step` apart, times k lines of each panel.
template <class T>
struct Stretch {
  const T* const* rows;  ///< one pointer to each row of the block
  Index step;
  Index k;
  const T* panels;  ///< line 0 of panel 0
  Index panel_stride;
  Index offset = 0;  ///< of the first element within a row
};

inline constexpr Index block_rows_max = 384;

/// What turns an int8 product into floats: (start + sum) * rows * columns.
template <class T>
struct Quantized {
  const T* rows = nullptr;     ///< scale of each row of the block
  const T* columns = nullptr;  ///< scale of each column, whole panel pairs
  const T* start = nullptr;    ///< int32 bits: -128 times the sum of each column, whole panel pairs
};

/// y [rows, n], columns of panels first_panel .. last_panel = the chain over all stretches (from y when `accumulate`),
/// then the epilogue.
template <Real T>
struct Product {
  const Stretch<T>* stretches = nullptr;
  Index stretch_count = 0;
  Index narrow_count = 0;  ///< stretches at the front that hold bfloat16 pairs or int8 fours in each element
  Quantized<T> quantized;  ///< for int8
  Index rows = 0;  ///< at most block_rows_max
  Index first_panel = 0, last_panel = 0;
  Index n = 0;     ///< cuts the last panel
  Index gate = 0;  ///< gated: columns from a value to its gate, whole panels; panels and n then count values
  T* y = nullptr;
  Index ldy = 0;
  bool accumulate = false;
  Epilogue<T> epilogue;  ///< its matrices begin at this block's first row
};

/// A matrix [k, n] to be read in panels: element (l, j) is data[l ld + j] (rows), data[j ld + l] (columns), lines[l][j]
/// (lines), or that of a packed W [k, n] with panels ld apart (packed; then lines are read from multiples of 16 on).
enum class PanelSource { rows, columns, lines, packed };
template <class T>
struct Operand {
  PanelSource source;
  const T* data;
  Index ld;
  Index n;
  const T* const* lines = nullptr;
  Index width = 1;            ///< packed: elements in a lane; above 1 the gathered panels hold floats again
  const T* scales = nullptr;  ///< packed, int8: scale of each line
};

template <Real T>
struct ProductKernels {
  void (*multiply)(const Product<T>&);
  void (*multiply_narrow[2])(const Product<T>&);  ///< bfloat16, int8
  /// Elements of the panels = a row of floats in bfloat16 pairs, or in bytes 128 + x / scale; to a multiple of 16 x.
  void (*round_row)(const T* x, Index count, T* lanes);
  void (*quantize_row)(const T* x, Index count, T inverse_scale, T* lanes);
  T (*largest)(const T* x, Index count);  ///< |x|; NaN when an element is not finite
  /// out [count][last - first][16]: the lines first .. last of `count` panels of the operand from `panel` on.
  void (*gather)(const Operand<T>&, Index panel, Index count, Index first, Index last, T* out);
  /// As `gather`, from a packed bfloat16 operand: a line of the result is a pair of lines, both elements in each lane.
  /// `first` is a multiple of 8.
  void (*gather_pairs)(const Operand<T>&, Index panel, Index count, Index first, Index last, T* out);
};

/// The bodies that the calling thread's Isa selects; double has the generic one.
TENON_KERNEL ProductKernels<float> product_kernels(float);
TENON_KERNEL ProductKernels<double> product_kernels(double);

}  // namespace detail
}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/product_body.hpp>
#endif
