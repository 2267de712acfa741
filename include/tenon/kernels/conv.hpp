#pragma once
// Channels-last 2-D convolution: the product of gemm.hpp over rows of pointers, with no im2col buffer.
//
// x [n, h, w, c], weight [out, c / groups, kh, kw], y [n, out_h, out_w, out]. Each tap (i, j) of the kernel is a stretch of
// the inner dimension whose rows point into x, or to a row of zeros in the padding. Upsampling is in the pointers too.
//
// GroupNorm and SiLU stay a pass of their own and concatenated inputs a copy. Beside 3x3 convolutions of 320 to 1280 channels, on
// one core of Zen 4, the norm takes 0.3 to 1.8 % of the time of float32 (twice that of bfloat16) and the copy at most 0.4 %:
// while reading x, each pixel would go through SiLU once for every block of rows that sees it, for less than half of that.
#include <algorithm>
#include <optional>

#include <tenon/kernels/gemm.hpp>

namespace tenon::inline TENON_ABI::kernels {

struct ConvShape {
  Index n = 1, h = 1, w = 1, c = 1, out = 1;
  Index kh = 1, kw = 1;
  Index stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1;
  Index groups = 1;
  Index upsample = 1;  ///< the convolution sees each pixel of x as upsample x upsample equal ones

  Index in_h() const { return h * upsample; }
  Index in_w() const { return w * upsample; }
  Index out_h() const { return (in_h() + 2 * pad_h - dilation_h * (kh - 1) - 1) / stride_h + 1; }
  Index out_w() const { return (in_w() + 2 * pad_w - dilation_w * (kw - 1) - 1) / stride_w + 1; }
  Index pixels() const { return n * out_h() * out_w(); }
  Index group_c() const { return c / groups; }
  Index group_out() const { return out / groups; }
};

/// Throws ShapeError unless the shape describes a convolution with at least one output pixel per side.
inline void check_conv(std::string_view op, const ConvShape& s) {
  check<ShapeError>(s.kh > 0 && s.kw > 0 && s.stride_h > 0 && s.stride_w > 0 && s.dilation_h > 0 && s.dilation_w > 0 &&
                        s.pad_h >= 0 && s.pad_w >= 0 && s.groups > 0,
                    op, "expected positive kernel, stride, dilation and groups, and padding of at least 0");
  check<ShapeError>(s.upsample == 1 || (s.upsample > 1 && s.stride_h * s.stride_w == 1), op, "expected upsampling only with stride 1");
  check<ShapeError>(s.c % s.groups == 0 && s.out % s.groups == 0, op, "expected channels that ", s.groups,
                    " groups divide, got ", s.c, " in and ", s.out, " out");
  check<ShapeError>(s.in_h() + 2 * s.pad_h > s.dilation_h * (s.kh - 1) && s.in_w() + 2 * s.pad_w > s.dilation_w * (s.kw - 1), op,
                    "a kernel of ", s.kh, " x ", s.kw, " does not fit pictures of ", s.in_h(), " x ", s.in_w());
}

/// The weight [out, c / groups, kh, kw] of type `dtype`, packed as `storage` with the inner dimension over (kh, kw, c).
template <Real T>
PackedMatrix<T> pack_conv(const ConvShape& s, const void* weight, DType dtype = dtype_of<T>, DType storage = dtype_of<T>) {
  const Index taps = s.kh * s.kw;
  return PackedMatrix<T>(PackSource{.data = weight, .dtype = dtype, .groups = s.groups, .n = s.group_out(), .taps = taps,
                                    .c = s.group_c(), .stride_n = s.group_c() * taps, .stride_tap = 1, .stride_c = taps},
                         storage);
}

namespace detail {

/// The taps as the products see them, of `c` elements or lanes: where kernel rows are contiguous in x, a whole row is one
/// wide tap.
struct Taps {
  Index rows, columns, c;
  explicit Taps(const ConvShape& s) : Taps(s, s.group_c(), s.group_c()) {}
  /// Taps of `lanes` lanes of pixels whose groups lie `ld` apart.
  Taps(const ConvShape& s, Index lanes, Index ld) : rows(s.kh), columns(s.kw), c(lanes) {
    if (s.pad_w == 0 && s.dilation_w == 1 && s.groups == 1 && s.upsample == 1 && lanes == ld) c *= columns, columns = 1;
  }
  Index count() const { return rows * columns; }
};

/// rows[t] = the input pixel under tap (i, j) of output pixel first + t, or `zeros`.
template <class T>
void input_rows(const ConvShape& s, Index i, Index j, const T* x, const T* zeros, Index first, Index count, const T** rows) {
  const Index height = s.out_h(), width = s.out_w();
  Index ox = first % width, oy = first / width % height, image = first / width / height;
  for (Index t = 0; t < count; ++t) {
    const Index y = oy * s.stride_h - s.pad_h + i * s.dilation_h, at = ox * s.stride_w - s.pad_w + j * s.dilation_w;
    const bool inside = y >= 0 && y < s.in_h() && at >= 0 && at < s.in_w();
    const Index pixel = s.upsample == 1 ? y * s.w + at : y / s.upsample * s.w + at / s.upsample;
    rows[t] = inside ? x + (image * s.h * s.w + pixel) * s.c : zeros;
    if (++ox == width) {
      ox = 0;
      if (++oy == height) oy = 0, ++image;
    }
  }
}

/// The output coordinate at `offset` / stride, or -1.
inline Index output_of(Index offset, Index stride, Index extent) {
  if (stride == 1) return offset >= 0 && offset < extent ? offset : -1;
  return offset >= 0 && offset % stride == 0 && offset / stride < extent ? offset / stride : -1;
}
/// rows[t] = the output pixel (upsample pixel + offset) / stride of input pixel first + t step, or `zeros`.
template <class T>
void output_rows(const ConvShape& s, Index offset_y, Index offset_x, const T* dy, const T* zeros, Index first, Index step, Index count,
                 const T** rows) {
  const Index height = s.out_h(), width = s.out_w();
  Index x = first % s.w, y = first / s.w % s.h, image = first / s.w / s.h;
  for (Index t = 0; t < count; ++t) {
    const Index oy = output_of(y * s.upsample + offset_y, s.stride_h, height);
    const Index ox = output_of(x * s.upsample + offset_x, s.stride_w, width);
    rows[t] = oy >= 0 && ox >= 0 ? dy + ((image * height + oy) * width + ox) * s.out : zeros;
    x += step;
    if (x >= s.w && t + 1 < count) {
      x -= s.w;
      if (++y == s.h) y = 0, ++image;
    }
  }
}

/// A pixel outside: the lane of `width` zeros, where int8 counts from 128.
template <class T>
T padding(Index width) {
  if constexpr (std::same_as<T, float>)
    if (width == 4) return std::bit_cast<float>(0x80808080u);
  return T(0);
}
template <class T>
Buffer<T> constant_row(Index count, T value) {
  Buffer<T> row(count);
  std::fill_n(row.data(), count, value);
  return row;
}

/// Lanes of `width` elements that a group of pixels takes: whole lines of 16 elements where they are narrower than float32.
inline Index lanes_of(Index group_c, Index width) { return width > 1 ? (group_c + 15) / 16 * 16 / width : group_c; }

/// x as lanes of bfloat16 or int8, each pixel's group padded to whole lines of 16 elements; int8 with a scale for each picture.
template <class T>
struct NarrowInput {
  Buffer<T> lanes, scales;
  NarrowInput(const ProductKernels<T>& kernels, const ConvShape& s, const T* x, Index width, Index ld)
      : lanes(width > 1 ? s.n * s.h * s.w * s.groups * ld : 0), scales(s.n) {
    if (width == 1) return;
    const Index gc = s.group_c();
    Buffer<T> most(s.n * s.h);
    if (width == 4)
      parallel_for(s.n * s.h, [&](Index line) { most[line] = kernels.largest(x + line * s.w * s.c, s.w * s.c); });
    for (Index n = 0; n < s.n && width == 4; ++n) {
      scales[n] = 0;
      for (Index line = n * s.h; line < (n + 1) * s.h; ++line)  // NaN stays
        if (!(most[line] <= scales[n])) scales[n] = most[line] + 0 * scales[n];
    }
    parallel_for(s.n * s.h, [&](Index line) {
      const T inverse = width == 4 ? inverse_scale(scales[line / s.h]) : T(0);
      for (Index at = line * s.w * s.groups; at < (line + 1) * s.w * s.groups; ++at) {
        if (width == 2)
          kernels.round_row(x + at * gc, gc, lanes.data() + at * ld);
        else
          kernels.quantize_row(x + at * gc, gc, inverse, lanes.data() + at * ld);
      }
    });
    for (Index n = 0; n < s.n && width == 4; ++n) scales[n] /= 127;
  }
};

/// The epilogue of the columns from `column` on.
template <class T>
Epilogue<T> advance_columns(Epilogue<T> e, Index column) {
  if (e.column_scale != nullptr) e.column_scale += column;
  if (e.bias != nullptr) e.bias += column;
  if (e.sample_bias != nullptr) e.sample_bias += column;
  if (e.residual != nullptr) e.residual += column;
  if (e.pre_activation != nullptr) e.pre_activation += column;
  return e;
}

/// Groups share the threads when there are several; else the one product is cut.
inline Grid conv_grid(const ConvShape& s, Index m, Index n, Index k, bool gathered) {
  return s.groups > 1 ? Grid{} : grid_of(m, n, k, gathered);
}

}  // namespace detail

/// x [n, h, w, c] as forward reads it: against float32 panels itself, against bfloat16 or int8 ones a copy rounded to the same type
/// first (int8 with one scale for each picture); but where the convolution is a plain matrix product, that rounds as it goes.
template <Real T>
class ConvInput {
 public:
  /// Throws ShapeError on a bad shape.
  ConvInput(const ConvShape& s, const T* x, const PackedMatrix<T>& w) : x_(x) {
    check_conv("conv2d", s);
    plain_ = s.kh * s.kw * s.stride_h * s.stride_w * s.groups * s.upsample == 1 && s.pad_h + s.pad_w == 0;
    if (!plain_ && w.width() > 1) copy_.emplace(detail::product_kernels(T()), s, x, w.width(), detail::lanes_of(s.group_c(), w.width()));
  }
  /// Whether x is not read any more.
  bool copied() const { return copy_.has_value(); }
  bool plain() const { return plain_; }
  const T* data() const { return copy_ ? copy_->lanes.data() : x_; }
  /// Of picture n, in int8.
  T scale(Index n) const { return copy_->scales[n]; }

 private:
  const T* x_;
  bool plain_ = false;
  std::optional<detail::NarrowInput<T>> copy_;
};

/// y [pixels, out] = the epilogue of conv(x, w) + sum t B^T. t [pixels, groups rank]; B is packed with the same groups.
/// The matrices of the epilogue are [pixels, out].
template <Real T>
void conv2d_forward(const ConvShape& s, const ConvInput<T>& x, const PackedMatrix<T>& w, T* y,
                    const std::type_identity_t<Epilogue<T>>& epilogue = {},
                    std::type_identity_t<std::span<const LowRankTerm<T>>> low_rank = {}) {
  check(!epilogue.gated, "conv2d", "expected an epilogue without gates");
  if (x.plain()) return gemm(x.data(), s.c, s.pixels(), w, y, s.out, epilogue, low_rank);
  for (const auto& term : low_rank) check(term.b->width() == 1, "conv2d", "expected low-rank terms stored as ", name_of(dtype_of<T>));
  const Index width = w.width(), ld = detail::lanes_of(s.group_c(), width);
  ConvShape in = s;  // its channels are lanes
  in.c = s.groups * ld;
  const detail::Taps taps(s, w.tap_lines(), ld);
  // Few channels: short stretches would cost more than copying each block's windows into rows of their own.
  const bool thin = taps.c < 16 && taps.count() > 1;
  const Index terms = static_cast<Index>(low_rank.size()), windows = thin ? 1 : taps.count(), lanes = w.panel_stride() / panel_columns;
  const auto kernels = detail::product_kernels(T());
  const auto zeros = detail::constant_row(taps.c, detail::padding<T>(width));
  const Index m = s.pixels(), panels = w.panels(), pairs = (panels + 1) / 2;
  const detail::Grid grid = detail::conv_grid(s, m, s.group_out(), w.k(), false);
  const Index cut = grid.rows * grid.columns, parts = s.groups * cut;
  const Index strip_rows = detail::block_rows_of(lanes / s.kw, lanes * w.n());
  const Index table = (windows + terms + 1) * strip_rows;
  Buffer<const T*> tables(parts * table);
  Buffer<detail::Stretch<T>> lists(parts * (windows + terms));
  Buffer<T> strips(thin ? parts * strip_rows * lanes : 0), scales(width == 4 ? parts * strip_rows : 0);
  parallel_for(parts, [&](Index part) {
    const Index g = part / cut, r = part % cut / grid.columns, q = part % grid.columns;
    const T** rows = tables.data() + part * table;
    const T** pixels = rows + (windows + terms) * strip_rows;
    T* strip = strips.data() + (thin ? part * strip_rows * lanes : 0);
    detail::Stretch<T>* stretches = lists.data() + part * (windows + terms);
    for (Index k = 0; k < windows; ++k)
      stretches[k] = {rows + k * strip_rows, 1, thin ? lanes : taps.c, w.group(g) + k * taps.c * panel_columns,
                      w.panel_stride()};
    for (Index k = 0; k < terms; ++k) {
      const LowRankTerm<T>& term = low_rank[static_cast<std::size_t>(k)];
      stretches[windows + k] = {rows + (windows + k) * strip_rows, 1, term.rank, term.b->group(g), term.b->panel_stride()};
    }
    detail::Product<T> p;
    p.stretches = stretches;
    p.stretch_count = windows + terms;
    p.first_panel = 2 * (pairs * q / grid.columns);
    p.last_panel = q + 1 == grid.columns ? panels : 2 * (pairs * (q + 1) / grid.columns);
    p.narrow_count = width > 1 ? windows : 0;
    T* const row_scales = width == 4 ? scales.data() + part * strip_rows : nullptr;
    if (width == 4) p.quantized = {row_scales, w.scales(g), w.starts(g)};
    p.n = s.group_out();
    p.ldy = s.out;
    const Index row_end = m * (r + 1) / grid.rows;
    for (Index row = m * r / grid.rows; row < row_end; row += p.rows) {
      p.rows = row_end - row < strip_rows ? row_end - row : strip_rows;
      for (Index k = 0; k < taps.count(); ++k) {
        const T** at = thin ? pixels : rows + k * strip_rows;
        detail::input_rows(in, k / taps.columns, k % taps.columns, x.data() + g * ld, zeros.data(), row, p.rows, at);
        if (thin)
          for (Index i = 0; i < p.rows; ++i) std::copy_n(at[i], taps.c, strip + i * lanes + k * taps.c);
      }
      if (thin)
        for (Index i = 0; i < p.rows; ++i) rows[i] = strip + i * lanes;
      for (Index k = 0; k < terms; ++k) {
        const LowRankTerm<T>& term = low_rank[static_cast<std::size_t>(k)];
        for (Index i = 0; i < p.rows; ++i) rows[(windows + k) * strip_rows + i] = term.t + (row + i) * term.ldt + g * term.rank;
      }
      for (Index i = 0; i < p.rows && width == 4; ++i) row_scales[i] = x.scale((row + i) / (s.out_h() * s.out_w()));
      p.y = y + row * s.out + g * s.group_out();
      p.epilogue = detail::advance_columns<T>(detail::advance<T>(epilogue, row), g * s.group_out());
      detail::multiply(kernels, w.storage(), p);
    }
  });
}

/// The same from x itself. Throws ShapeError on a bad shape.
template <Real T>
void conv2d_forward(const ConvShape& s, const T* x, const PackedMatrix<T>& w, T* y, const std::type_identity_t<Epilogue<T>>& epilogue = {},
                    std::type_identity_t<std::span<const LowRankTerm<T>>> low_rank = {}) {
  conv2d_forward(s, ConvInput<T>(s, x, w), w, y, epilogue, low_rank);
}

namespace detail {

/// gathered = the sum of a weight's taps by which the output pixel at upsample pixel + offset reads an input pixel: one tap, or
/// none between dilated ones, where there is no upsampling; else those that read one of its copies. False where there is none.
/// Lines are features of the output, or pairs of them as bfloat16 lanes (never under upsampling).
template <class T>
bool gather_taps(const ProductKernels<T>& kernels, const ConvShape& s, const PackedMatrix<T>& w, Index g, Index offset_y, Index offset_x,
                 Index panel, Index count, Index first, Index last, bool paired, T* gathered, T* more) {
  bool found = false;
  for (Index i = 0; i < s.kh; ++i) {
    const Index y = offset_y - s.pad_h + i * s.dilation_h;  // which of its copies
    for (Index j = 0; j < s.kw && y >= 0 && y < s.upsample; ++j) {
      const Index x = offset_x - s.pad_w + j * s.dilation_w;
      if (x < 0 || x >= s.upsample) continue;
      const Operand<T> tap = packed_operand(w, g, i * s.kw + j, s.group_c());
      if (paired)
        kernels.gather_pairs(tap, panel, count, first, last, gathered);
      else
        gather(kernels, tap, panel, count, first, last, found ? more : gathered);
      for (Index e = 0; found && e < count * (last - first) * panel_columns; ++e) gathered[e] += more[e];
      found = true;
    }
  }
  return found;
}

}  // namespace detail

/// dx [n, h, w, c] = the gradient of x (+ dx when `accumulate`), dy [pixels, out], from the panels that forward reads: bfloat16
/// ones round dy to bfloat16 (but not under upsampling, where weights are added up first), int8 ones are widened to float32.
template <Real T>
void conv2d_dx(const ConvShape& s, const T* dy, const PackedMatrix<T>& w, T* dx, bool accumulate) {
  check_conv("conv2d", s);
  const auto kernels = detail::product_kernels(T());
  const bool paired = w.width() == 2 && s.upsample == 1;
  const Index m = s.n * s.h * s.w, gc = s.group_c(), width = paired ? 2 : 1, ld = detail::lanes_of(s.group_out(), width);
  const Index out = (s.group_out() + width - 1) / width;  // lines of `width` features
  ConvShape lanes = s;  // its features are lanes
  lanes.out = s.groups * ld;
  const detail::NarrowInput<T> narrow(kernels, {.n = s.n, .h = s.out_h(), .w = s.out_w(), .c = s.out, .groups = s.groups}, dy, width, ld);
  const T* const gradient = paired ? narrow.lanes.data() : dy;
  const auto zeros = detail::constant_row(ld, T(0));
  const Index offsets_y = s.upsample + (s.kh - 1) * s.dilation_h, offsets_x = s.upsample + (s.kw - 1) * s.dilation_w;
  const bool strided = s.stride_h > 1 || s.stride_w > 1;
  if (strided && !accumulate) std::fill_n(dx, m * s.c, T(0));  // some pixels may have no tap
  // Blocks of input pixels that share their taps: any in a row, or under a stride those of one phase of one line.
  const Index runs = strided ? s.stride_w : 1, blocks = strided ? s.n * s.h * runs : (m + detail::block_rows_max - 1) / detail::block_rows_max;
  const Index panels = (gc + panel_columns - 1) / panel_columns, pairs = (panels + 1) / 2;
  const detail::Grid grid = detail::conv_grid(s, m, gc, out * s.kh * s.kw, true);
  const Index cut = grid.rows * grid.columns, parts = s.groups * cut;
  // Rows of dy and dx that do not fit into the second-level cache pass it once for each block, not for each tap; panels are gathered anew.
  const Index rows_each = strided ? (s.w + runs - 1) / runs : detail::block_rows_max, taken = std::min(out, detail::gathered_lines);
  const bool piecewise = blocks * rows_each / grid.rows * taken > detail::cached_elements;
  const Index span = piecewise ? std::max<Index>(1, detail::block_rows_max / rows_each) : blocks;
  const Index panel_lines = detail::gathered_lines * detail::gathered_panels * panel_columns, each = s.upsample > 1 ? 2 * panel_lines : panel_lines;
  Buffer<T> scratch(parts * each);
  parallel_for(parts, [&](Index part) {
    const Index g = part / cut, r = part % cut / grid.columns, q = part % grid.columns;
    const Index panel_begin = 2 * (pairs * q / grid.columns), panel_end = q + 1 == grid.columns ? panels : 2 * (pairs * (q + 1) / grid.columns);
    T* gathered = scratch.data() + part * each;
    const T* rows[detail::block_rows_max];
    detail::Stretch<T> stretch{rows, 1, 0, gathered, 0};
    detail::Product<T> p;
    p.stretches = &stretch;
    p.stretch_count = 1;
    p.narrow_count = paired ? 1 : 0;
    const Index block_end = blocks * (r + 1) / grid.rows;
    for (Index top = blocks * r / grid.rows, panel = panel_begin; top < block_end && panel < panel_end;) {
      const Index bottom = std::min(top + span, block_end);
      p.last_panel = panel_end - panel < detail::gathered_panels ? panel_end - panel : detail::gathered_panels;
      p.n = gc - panel * panel_columns;
      for (Index offset = 0; offset < offsets_y * offsets_x; ++offset) {
        const Index offset_y = s.pad_h + s.upsample - 1 - offset / offsets_x, offset_x = s.pad_w + s.upsample - 1 - offset % offsets_x;
        for (Index first = 0; first < out; first += detail::gathered_lines) {
          stretch.k = out - first < detail::gathered_lines ? out - first : detail::gathered_lines;
          stretch.panel_stride = stretch.k * panel_columns;
          if (!detail::gather_taps(kernels, s, w, g, offset_y, offset_x, panel, p.last_panel, first, first + stretch.k, paired, gathered,
                                   gathered + panel_lines))
            break;
          p.accumulate = accumulate || strided || offset > 0 || first > 0;
          const T* from = gradient + g * ld + first;
          for (Index b = top; b < bottom; ++b) {
            const Index line = b / runs, phase = b % runs;
            const Index pixel = strided ? line * s.w + phase : b * detail::block_rows_max;
            if (strided) {
              const Index y = line % s.h + offset_y, x = phase + offset_x;
              if (y % s.stride_h != 0 || x % s.stride_w != 0) continue;
            }
            const Index total = strided ? (s.w - phase + runs - 1) / runs : m - pixel;
            const Index limit = strided ? total : std::min(total, detail::block_rows_max);
            for (Index done = 0; done < limit; done += p.rows) {
              p.rows = std::min(limit - done, detail::block_rows_max);
              detail::output_rows(lanes, offset_y, offset_x, from, zeros.data(), pixel + done * runs, runs, p.rows, rows);
              p.y = dx + (pixel + done * runs) * s.c + g * gc + panel * panel_columns;
              p.ldy = runs * s.c;
              detail::multiply(kernels, paired ? DType::bf16 : dtype_of<T>, p);
            }
          }
        }
      }
      panel += p.last_panel;
      if (panel == panel_end) panel = panel_begin, top = bottom;
    }
  });
}

namespace detail {

/// Columns column .. column + columns of taps begin .. end, sum [rows, taps, width], put into dw [rows, c, kh kw] (+ dw when `accumulate`).
template <class T>
void put_dw(const T* sum, const Taps& taps, Index width, Index rows, Index begin, Index end, Index column, Index columns, Index c, T* dw,
            bool accumulate) {
  const Index step = taps.c / c, area = taps.count() * step;  // a tap holds a row of the kernel where its pixels lie side by side
  for (Index row = 0; row < rows; ++row, sum += taps.count() * width, dw += area * c)
    for (Index i = 0, channel = column % c, side = column / c; i < columns; ++i) {
      T* const to = dw + channel * area + side;
      __builtin_prefetch(to + area * c, 1);  // the next row lies far off
      for (Index tap = begin; tap < end; ++tap) to[tap * step] = accumulate ? to[tap * step] + sum[tap * width + i] : sum[tap * width + i];
      if (++channel == c) channel = 0, ++side;
    }
}

}  // namespace detail

/// dw [out, c / groups, kh, kw] = the gradient of the weight (+ dw when `accumulate`): a chain over the pixels in order.
template <Real T>
void conv2d_dw(const ConvShape& s, const T* x, const T* dy, T* dw, bool accumulate) {
  check_conv("conv2d", s);
  const detail::Taps taps(s);
  const auto kernels = detail::product_kernels(T());
  const auto zeros = detail::constant_row(taps.c, T(0));
  const Index gc = s.group_c(), m = s.pixels(), out = s.group_out(), k = taps.count() * taps.c;
  // A unit of work is one tap of a batch of columns. The sums of a batch, all its taps, stay in the second-level cache.
  const Index panels = taps.count() > 1 ? detail::gathered_panels / 2 : detail::gathered_panels, width = panels * panel_columns;
  const Index units = (taps.c + width - 1) / width * taps.count();
  detail::Grid grid = detail::conv_grid(s, out, k, m, true);
  if (grid.columns > units) grid = {std::min(out, grid.rows * grid.columns / units), units};
  const Index cut = grid.rows * grid.columns, parts = s.groups * cut;
  const Index each = detail::gathered_lines * (width + detail::gathered_rows), most_rows = std::min(out, detail::gathered_rows);
  Buffer<T> scratch(parts * each), sums(parts * most_rows * taps.count() * width);
  parallel_for(parts, [&](Index part) {
    const Index g = part / cut, r = part % cut / grid.columns, q = part % grid.columns;
    T* gathered = scratch.data() + part * each;
    T* left = gathered + detail::gathered_lines * width;
    T* const sum = sums.data() + part * most_rows * taps.count() * width;  // [rows, taps, width]
    const T* lines[detail::gathered_lines];
    const T* rows[detail::block_rows_max];
    detail::Stretch<T> stretch{rows, panel_columns, 0, gathered, 0};
    detail::Product<T> p;
    p.stretches = &stretch;
    p.stretch_count = 1;
    p.ldy = taps.count() * width;
    const Index row_end = out * (r + 1) / grid.rows, unit_end = units * (q + 1) / grid.columns;
    for (Index row = out * r / grid.rows; row < row_end; row += p.rows) {
      p.rows = std::min(row_end - row, most_rows);
      const detail::Operand<T> strip{detail::PanelSource::rows, dy + g * out + row, s.out, p.rows};
      for (Index unit = units * q / grid.columns, taken; unit < unit_end; unit += taken) {
        const Index column = unit / taps.count() * width, tap_begin = unit % taps.count();
        taken = std::min(taps.count() - tap_begin, unit_end - unit);
        p.n = taps.c - column;
        p.last_panel = std::min((p.n + panel_columns - 1) / panel_columns, panels);
        Index first = 0;
        do {
          stretch.k = std::min(m - first, detail::gathered_lines);
          stretch.panel_stride = stretch.k * panel_columns;
          p.accumulate = first > 0;
          kernels.gather(strip, 0, (p.rows + panel_columns - 1) / panel_columns, first, first + stretch.k, left);
          for (Index i = 0; i < p.rows; ++i)
            rows[i] = left + i / panel_columns * stretch.panel_stride + i % panel_columns;
          for (Index tap = tap_begin; tap < tap_begin + taken; ++tap) {
            detail::input_rows(s, tap / taps.columns, tap % taps.columns, x + g * gc, zeros.data(), first, stretch.k, lines);
            detail::Operand<T> window{detail::PanelSource::lines, nullptr, 0, taps.c, lines};
            kernels.gather(window, column / panel_columns, p.last_panel, 0, stretch.k, gathered);
            p.y = sum + tap * width;
            kernels.multiply(p);
          }
          first += stretch.k;
        } while (first < m);
        detail::put_dw(sum, taps, width, p.rows, tap_begin, tap_begin + taken, column, std::min(p.n, width), gc, dw + (g * out + row) * k, accumulate);
      }
    }
  });
}

}  // namespace tenon::inline TENON_ABI::kernels
