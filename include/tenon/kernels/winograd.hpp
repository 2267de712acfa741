#pragma once
// Winograd's convolution F(m x m, 3 x 3) (Lavin and Gray 2015, 1509.09308): (m + 2)^2 products for m x m outputs in the place of
// 9 m^2, for a rounding error several times that of the direct convolution.
//
// A tile of outputs is y = A^T [(G w G^T) * (B^T d B)] A with d the (m + 2)^2 pixels under it. The elementwise product, summed over
// channels, is one matrix product for each of the (m + 2)^2 places in a tile ("planes"). Tiles pass in blocks whose planes stay in the
// caches. Each tile's arithmetic is its own: the same bits for any number of threads, and on AVX2 and AVX-512 alike.
#include <vector>

#include <tenon/kernels/conv.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// The two transforms of a tile, on current_isa().
struct WinogradTransforms {
  void (*spread)(const float* const* pixels, Index channels, float* v, Index plane);
  void (*fold)(const float* m, Index plane, Index channels, const float* bias, const float* sample_bias, Index height, Index width, Index line, float* y);
};
TENON_KERNEL WinogradTransforms winograd_transforms(Index tile);

/// A weight [out, c, 3, 3] as G w G^T: one packed matrix [out, c] for each plane.
struct WinogradWeight {
  Index tile = 0;
  std::vector<PackedMatrix<float>> planes;

  /// Throws Error for a tile other than 2 or 4, and for elements that are not floating-point.
  WinogradWeight(Index tile, Index out, Index c, const void* weight, DType dtype);
};

namespace detail {

/// The rows of G, as numbers that the taps are multiplied with.
inline std::vector<std::array<double, 3>> winograd_points(Index tile) {
  std::vector<double> points{0};
  for (const double square : tile == 2 ? std::vector<double>{1} : std::vector<double>{0.5, 2})
    for (const double sign : {1.0, -1.0}) points.push_back(sign * std::sqrt(square));
  std::vector<std::array<double, 3>> rows;
  for (const double p : points) {
    double n = 1;
    for (const double q : points)
      if (q != p) n *= p - q;
    rows.push_back({1 / n, p / n, p * p / n});
  }
  rows.push_back({0, 0, 1});
  return rows;
}

template <class S>
void winograd_plane(const std::array<double, 3>& left, const std::array<double, 3>& right, Index size, const S* weight, float* plane) {
  parallel_chunks(size, 4096, [&](Index begin, Index end) {
    for (Index e = begin; e < end; ++e) {
      double sum = 0;
      for (std::size_t i = 0; i < 3; ++i)
        for (std::size_t j = 0; j < 3; ++j) sum += left[i] * right[j] * static_cast<double>(static_cast<float>(weight[9 * e + static_cast<Index>(3 * i + j)]));
      plane[e] = static_cast<float>(sum);
    }
  });
}

/// Tiles of a convolution by rows of pictures.
struct WinogradTiles {
  Index down, across, count;
  WinogradTiles(const ConvShape& s, Index tile) : down((s.out_h() + tile - 1) / tile), across((s.out_w() + tile - 1) / tile), count(s.n * down * across) {}
};

/// Elements of the planes of one block of tiles, before and after the products.
inline constexpr Index winograd_block = Index{1} << 21;

}  // namespace detail

inline WinogradWeight::WinogradWeight(Index tile_, Index out, Index c, const void* weight, DType dtype) : tile(tile_) {
  check(tile == 2 || tile == 4, "winograd", "expected tiles of 2 or 4, got ", tile);
  const auto rows = detail::winograd_points(tile);
  Buffer<float> plane(out * c);
  for (const auto& left : rows)
    for (const auto& right : rows) {
      if (dtype == DType::f32)
        detail::winograd_plane(left, right, out * c, static_cast<const float*>(weight), plane.data());
      else if (dtype == DType::bf16)
        detail::winograd_plane(left, right, out * c, static_cast<const bfloat16*>(weight), plane.data());
      else if (dtype == DType::f16)
        detail::winograd_plane(left, right, out * c, static_cast<const half*>(weight), plane.data());
      else
        fail("winograd", "expected a float32, bfloat16 or float16 weight, got ", name_of(dtype));
      planes.emplace_back(plane.data(), out, c, c);
    }
}

/// Whether these tiles can compute the convolution: 3x3, stride and dilation 1, one group.
inline bool winograd_fits(const ConvShape& s) {
  return s.kh == 3 && s.kw == 3 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1 && s.groups == 1;
}
/// Whether they are quicker than the direct convolution: enough tiles to a product, and channels enough to outweigh the transforms.
inline bool winograd_pays(const ConvShape& s, Index tile) {
  return winograd_fits(s) && s.c >= 64 && s.out >= 64 && detail::WinogradTiles(s, tile).count >= 96;
}

/// y [pixels, out] = conv(x, w) + the epilogue's biases (its other members are not read). Throws ShapeError where it does not fit.
inline void winograd_forward(const ConvShape& s, const float* x, const WinogradWeight& w, float* y, const Epilogue<float>& epilogue = {}) {
  check_conv("winograd", s);
  const Index tile = w.tile, side = tile + 2, planes = side * side;
  check<ShapeError>(winograd_fits(s) && w.planes[0].n() == s.out && w.planes[0].k() == s.c, "winograd", "expected a convolution 3x3 of stride 1, ", w.planes[0].k(),
                    " channels in and ", w.planes[0].n(), " out");
  const auto kernels = detail::product_kernels(0.0f);
  const WinogradTransforms transforms = winograd_transforms(tile);
  const detail::WinogradTiles tiles(s, tile);
  const Index ldv = detail::apart(s.c), ldm = detail::apart(s.out);
  const Index room = detail::winograd_block / (planes * (ldv + ldm)), most = std::min<Index>(detail::block_rows_max, std::max<Index>(48, room / 12 * 12));
  const Index blocks = (tiles.count + most - 1) / most, block = std::min(tiles.count, ((tiles.count + blocks - 1) / blocks + 11) / 12 * 12);
  const Index plane_v = block * ldv + 16, plane_m = block * ldm + 16;
  Buffer<float> v(planes * plane_v), m(planes * plane_m);
  const auto zeros = detail::constant_row(s.c, 0.0f);
  const Index panels = w.planes[0].panels(), pairs = (panels + 1) / 2, cut = std::clamp<Index>(4 * thread_count() / planes, 1, pairs);
  for (Index first = 0; first < tiles.count; first += block) {
    const Index count = std::min(block, tiles.count - first);
    parallel_for(count, [&](Index t) {
      const Index across = (first + t) % tiles.across, down = (first + t) / tiles.across % tiles.down, image = (first + t) / tiles.across / tiles.down;
      const float* pixels[36];
      for (Index i = 0; i < side; ++i)
        for (Index j = 0; j < side; ++j) {
          const Index py = down * tile + i - s.pad_h, px = across * tile + j - s.pad_w;
          const bool inside = py >= 0 && py < s.in_h() && px >= 0 && px < s.in_w();
          pixels[i * side + j] = inside ? x + ((image * s.h + py / s.upsample) * s.w + px / s.upsample) * s.c : zeros.data();
        }
      transforms.spread(pixels, s.c, v.data() + t * ldv, plane_v);
    });
    parallel_for(planes * cut, [&](Index unit) {
      const Index plane = unit / cut, q = unit % cut;
      const PackedMatrix<float>& weight = w.planes[static_cast<std::size_t>(plane)];
      const float* rows[detail::block_rows_max];
      for (Index t = 0; t < count; ++t) rows[t] = v.data() + plane * plane_v + t * ldv;
      const detail::Stretch<float> stretch{rows, 1, s.c, weight.group(), weight.panel_stride()};
      detail::Product<float> p;
      p.stretches = &stretch;
      p.stretch_count = 1;
      p.rows = count;
      p.first_panel = 2 * (pairs * q / cut);
      p.last_panel = q + 1 == cut ? panels : 2 * (pairs * (q + 1) / cut);
      p.n = s.out;
      p.y = m.data() + plane * plane_m;
      p.ldy = ldm;
      kernels.multiply(p);
    });
    parallel_for(count, [&](Index t) {
      const Index across = (first + t) % tiles.across, down = (first + t) / tiles.across % tiles.down, image = (first + t) / tiles.across / tiles.down;
      const Index oy = down * tile, ox = across * tile, pixel = (image * s.out_h() + oy) * s.out_w() + ox;
      const float* sample = epilogue.sample_bias != nullptr ? epilogue.sample_bias + (epilogue.first_row + pixel) / epilogue.sample_rows * epilogue.lds : nullptr;
      transforms.fold(m.data() + t * ldm, plane_m, s.out, epilogue.bias, sample, s.out_h() - oy, s.out_w() - ox, s.out_w() * s.out, y + pixel * s.out);
    });
  }
}

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/winograd_float.inl>
#endif
