#pragma once
// PackedMatrix: a weight in the one layout that every product reads.
//
// W [n, k] lies in panels of 16 output features (the last one zero padded). A panel is K-major: for each k its 16
// values. bfloat16 keeps pairs of k together ([k/2][16][2]) and int8 fours ([k/4][16][4]), k zero padded to match.
// A convolution's weight [groups n, c, taps] packs each group apart, with k running over (tap, c), c fastest.
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

/// A packed weight for products in T.
template <Real T>
class PackedMatrix {
 public:
  PackedMatrix() = default;
  /// Packs W [n, k], rows `ld` apart, from T.
  PackedMatrix(const T* w, Index n, Index k, Index ld)
      : PackedMatrix(PackSource{.data = w, .dtype = dtype_of<T>, .n = n, .c = k, .stride_n = ld}) {}
  /// Packs from float64 (T double), float32, bfloat16 or float16 elements. Throws Error for another source type.
  explicit PackedMatrix(const PackSource& source);

  /// Output features and inner size, of one group.
  Index n() const { return n_; }
  Index k() const { return k_; }
  Index groups() const { return groups_; }
  /// The element type of the panels.
  DType dtype() const { return dtype_; }
  /// Panels of one group.
  Index panels() const { return (n_ + panel_columns - 1) / panel_columns; }
  /// Elements from one panel to the next.
  Index panel_stride() const { return k_ * panel_columns; }
  /// The first panel of a group.
  const T* group(Index g = 0) const { return data_.data() + g * panels() * panel_stride(); }
  bool empty() const { return data_.size() == 0; }

 private:
  DType dtype_ = dtype_of<T>;
  Index n_ = 0, k_ = 0, groups_ = 1;
  Buffer<T> data_;
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
template <class S, class T>
void pack_panels(const PackSource& s, T* panels) {
  const Index each = (s.n + panel_columns - 1) / panel_columns, stride = s.taps * s.c * panel_columns;
  parallel_for(s.groups * each, [&](Index p) {
    const Index first = p % each * panel_columns, lanes = s.n - first < panel_columns ? s.n - first : panel_columns;
    const S* rows = static_cast<const S*>(s.data) + (p / each * s.n + first) * s.stride_n;
    pack_panel(s, rows, lanes, panels + p * stride);
  });
}
}  // namespace detail

template <Real T>
PackedMatrix<T>::PackedMatrix(const PackSource& source)
    : n_(source.n), k_(source.taps * source.c), groups_(source.groups) {
  const DType from = source.dtype;
  check(from == dtype_of<T> || from == DType::f32 || from == DType::bf16 || from == DType::f16, "pack",
        "expected a float32, bfloat16 or float16 weight, got ", name_of(from));
  data_ = Buffer<T>(groups_ * panels() * panel_stride());
  T* panels = data_.data();
  if (from == DType::f32)
    detail::pack_panels<float>(source, panels);
  else if (from == DType::bf16)
    detail::pack_panels<bfloat16>(source, panels);
  else if (from == DType::f16)
    detail::pack_panels<half>(source, panels);
  else if constexpr (std::same_as<T, double>)
    detail::pack_panels<double>(source, panels);
}

}  // namespace tenon::inline TENON_ABI::kernels
