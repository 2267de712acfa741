#pragma once
// Half and double the size, as U-Nets and autoencoders do it (diffusers models/{downsampling,upsampling}.py).
#include <tenon/nn/conv2d.hpp>
#include <tenon/ops/resample.hpp>
#include <tenon/ops/shape.hpp>

namespace tenon::inline TENON_ABI {

/// A 3x3 convolution of stride 2: U-Nets pad one pixel on every side, autoencoders right and bottom only.
template <class T>
struct Downsample {
  Conv2d<T> conv;
  bool asymmetric = false;

  Downsample() = default;
  /// Declared: to be loaded or initialised. `asymmetric`: the padding lies right and bottom only.
  explicit Downsample(Index channels, bool asymmetric_padding = false)
      : conv(channels, channels, 3, {.stride = 2, .padding = asymmetric_padding ? 0 : 1}), asymmetric(asymmetric_padding) {}
  void initialize(Generator& generator) { conv.initialize(generator); }

  /// x [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C]; asymmetric: [N, floor(H / 2), floor(W / 2), C].
  Var<T> operator()(const Var<T>& x) const { return conv(asymmetric ? pad(x, {{0, 0}, {0, 1}, {0, 1}, {0, 0}}) : x); }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv", s.conv);
  }
};

/// Every pixel repeated, then a 3x3 convolution.
template <class T>
struct Upsample {
  Conv2d<T> conv;

  Upsample() = default;
  /// Declared: to be loaded or initialised.
  explicit Upsample(Index channels) : conv(channels, channels, 3, {.padding = 1}) {}
  void initialize(Generator& generator) { conv.initialize(generator); }

  /// x [N, H, W, C] -> [N, 2 H, 2 W, C].
  Var<T> operator()(const Var<T>& x) const {
    if (!conv.patches.empty()) return (*this)(x, 2 * x.extent(1), 2 * x.extent(2));
    Conv2dOptions enlarged = conv.options();  // in the convolution, without a copy
    enlarged.upsample = 2;
    return conv2d(x, *conv.weight, conv.bias.get_if(), enlarged);
  }
  /// x [N, H, W, C] -> [N, height, width, C]: a U-Net's way back to a size that was odd.
  Var<T> operator()(const Var<T>& x, Index height, Index width) const {
    if (conv.patches.empty() && height == 2 * x.extent(1) && width == 2 * x.extent(2)) return (*this)(x);
    return conv(upsample_nearest(x, height, width));
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv", s.conv);
  }
};

}  // namespace tenon::inline TENON_ABI
