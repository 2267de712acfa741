#pragma once
// PackedMatrix: a weight in the one layout that every product reads.
//
// W [n, k] lies in panels of 16 output features (the last one zero padded). A panel is K-major: for each k its 16
// values. bfloat16 keeps pairs of k together ([k/2][16][2]) and int8 fours ([k/4][16][4]): a lane of 32 bits holds `width`
// elements, and the channels of each tap are zero padded to whole lanes. int8 has one scale per output feature.
// A convolution's weight [groups n, c, taps] packs each group apart, with k running over (tap, c), c fastest.
#include <bit>
#include <cmath>

#include <tenon/core/dtype.hpp>
#include <tenon/core/memory.hpp>
#include <tenon/core/parallel.hpp>

namespace tenon::inline TENON_ABI::kernels {

inline constexpr Index panel_columns = 16;

/// Where a weight's elements lie: element (i, tap, c) of group g is at
/// data[(g n + i) stride_n + tap stride_tap + c stride_c], counted in elements of `dtype`.
struct PackSource {
  const void* data = nullptr;
  DType dtype = DType::f32;
  Index groups = 1, n = 0, taps = 1, c = 0;
  Index stride_n = 0, stride_tap = 0, stride_c = 1;
};

/// Elements that a 32-bit lane of a panel holds: 2 of bfloat16, 4 of int8, else 1.
inline constexpr Index lane_width(DType storage) { return storage == DType::bf16 ? 2 : storage == DType::i8 ? 4 : 1; }

/// A packed weight for products in T, its panels stored as T or, for float, as bfloat16 or int8.
template <Real T>
class PackedMatrix {
 public:
  PackedMatrix() = default;
  /// Packs W [n, k], rows `ld` apart, from T.
  PackedMatrix(const T* w, Index n, Index k, Index ld, DType storage = dtype_of<T>)
      : PackedMatrix(PackSource{.data = w, .dtype = dtype_of<T>, .n = n, .c = k, .stride_n = ld}, storage) {}
  /// Packs from float64 (T double), float32, bfloat16 or float16 elements. Throws Error for another source type, and for a
  /// storage that products in T cannot read.
  explicit PackedMatrix(const PackSource& source, DType storage = dtype_of<T>);

  /// Output features and inner size, of one group.
  Index n() const { return n_; }
  Index k() const { return taps_ * c_; }
  Index groups() const { return groups_; }
  /// The element type of the panels, and how many elements each T of them holds.
  DType storage() const { return storage_; }
  Index width() const { return lane_width(storage_); }
  /// Lines of one tap: channels in whole lanes.
  Index tap_lines() const { return (c_ + width() - 1) / width(); }
  /// Panels of one group.
  Index panels() const { return (n_ + panel_columns - 1) / panel_columns; }
  /// Elements (lanes) from one panel to the next.
  Index panel_stride() const { return taps_ * tap_lines() * panel_columns; }
  /// The first panel of a group.
  const T* group(Index g = 0) const { return data_.data() + g * panels() * panel_stride(); }
  /// int8: the scale of each output feature of a group, and -128 times the sum of its bytes as an int32's bits. Both are
  /// padded to whole pairs of panels.
  const T* scales(Index g = 0) const { return columns_.data() + 2 * g * padded_columns(); }
  const T* starts(Index g = 0) const { return scales(g) + padded_columns(); }
  bool empty() const { return data_.size() == 0; }

 private:
  Index padded_columns() const { return (panels() + 1) * panel_columns; }
  template <class S>
  void pack(const PackSource& source);

  DType storage_ = dtype_of<T>;
  Index n_ = 0, taps_ = 1, c_ = 0, groups_ = 1;
  Buffer<T> data_, columns_;
};

namespace detail {
template <class S, class T>
void pack_panel(const PackSource& s, const S* rows, Index lanes, T* panel) {
  for (Index tap = 0; tap < s.taps; ++tap)
    for (Index c = 0; c < s.c; ++c, panel += panel_columns) {
      const S* from = rows + tap * s.stride_tap + c * s.stride_c;
      for (Index lane = 0; lane < lanes; ++lane) panel[lane] = static_cast<T>(from[lane * s.stride_n]);
      for (Index lane = lanes; lane < panel_columns; ++lane) panel[lane] = T(0);
    }
}
/// Lanes of `width` elements, each encoded by encode(lane, value) in the low 32 / width bits.
template <class S, class Encode>
void pack_lanes(const PackSource& s, const S* rows, Index lanes, Index width, float* panel, Encode encode) {
  for (Index tap = 0; tap < s.taps; ++tap)
    for (Index c = 0; c < s.c; c += width, panel += panel_columns)
      for (Index lane = 0; lane < panel_columns; ++lane) {
        const S* from = rows + lane * s.stride_n + tap * s.stride_tap;
        std::uint32_t bits = 0;
        for (Index i = 0; i < width && lane < lanes && c + i < s.c; ++i)
          bits |= static_cast<std::uint32_t>(encode(lane, static_cast<float>(from[(c + i) * s.stride_c]))) << (32 / width * i);
        panel[lane] = std::bit_cast<float>(bits);
      }
}
/// Bytes of one panel: row i is scales[i] times them, the largest 127; a row that is not finite gets the scale NaN.
template <class S>
void pack_bytes(const PackSource& s, const S* rows, Index lanes, float* panel, float* scales, float* starts) {
  float inverse[panel_columns] = {};
  std::int32_t sums[panel_columns] = {};
  for (Index lane = 0; lane < panel_columns; ++lane) {
    float most = 0;
    bool finite = true;
    for (Index tap = 0; tap < s.taps && lane < lanes; ++tap)
      for (Index c = 0; c < s.c; ++c) {
        const float v = std::abs(static_cast<float>(rows[lane * s.stride_n + tap * s.stride_tap + c * s.stride_c]));
        finite = finite && std::isfinite(v);
        most = v > most ? v : most;
      }
    scales[lane] = finite ? most / 127 : std::nanf("");
    inverse[lane] = finite && most > 1e-30f ? 127 / most : 0;
  }
  pack_lanes(s, rows, lanes, 4, panel, [&](Index lane, float value) {
    const auto byte = static_cast<std::int32_t>(inverse[lane] > 0 ? std::nearbyint(value * inverse[lane]) : 0);
    sums[lane] += byte;
    return static_cast<std::uint8_t>(byte);
  });
  for (Index lane = 0; lane < panel_columns; ++lane) starts[lane] = std::bit_cast<float>(-128 * sums[lane]);
}
}  // namespace detail

template <Real T>
template <class S>
void PackedMatrix<T>::pack(const PackSource& s) {
  parallel_for(groups_ * panels(), [&](Index p) {
    const Index g = p / panels(), first = p % panels() * panel_columns;
    const Index lanes = n_ - first < panel_columns ? n_ - first : panel_columns;
    const S* rows = static_cast<const S*>(s.data) + (g * n_ + first) * s.stride_n;
    T* panel = data_.data() + p * panel_stride();
    if (width() == 1) return detail::pack_panel(s, rows, lanes, panel);
    if constexpr (std::same_as<T, float>) {
      if (width() == 2) {
        detail::pack_lanes(s, rows, lanes, 2, panel, [](Index, float value) { return bfloat16(value).bits; });
      } else {
        T* scales = columns_.data() + 2 * g * padded_columns() + first;
        detail::pack_bytes(s, rows, lanes, panel, scales, scales + padded_columns());
      }
    }
  });
}

template <Real T>
PackedMatrix<T>::PackedMatrix(const PackSource& source, DType storage)
    : storage_(storage), n_(source.n), taps_(source.taps), c_(source.c), groups_(source.groups) {
  const DType from = source.dtype;
  check(from == dtype_of<T> || from == DType::f32 || from == DType::bf16 || from == DType::f16, "pack",
        "expected a float32, bfloat16 or float16 weight, got ", name_of(from));
  check(storage == dtype_of<T> || (std::same_as<T, float> && width() > 1), "pack", "expected storage as ", name_of(dtype_of<T>),
        std::same_as<T, float> ? ", bfloat16 or int8, got " : ", got ", name_of(storage));
  data_ = Buffer<T>(groups_ * panels() * panel_stride());
  if (storage == DType::i8) {
    columns_ = Buffer<T>(2 * groups_ * padded_columns());
    for (Index i = 0; i < columns_.size(); ++i) columns_[i] = T(0);
  }
  if (from == DType::f32)
    pack<float>(source);
  else if (from == DType::bf16)
    pack<bfloat16>(source);
  else if (from == DType::f16)
    pack<half>(source);
  else if constexpr (std::same_as<T, double>)
    pack<double>(source);
}

}  // namespace tenon::inline TENON_ABI::kernels
