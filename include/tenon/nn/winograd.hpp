#pragma once
// Winograd's convolutions for inference, in float32: with tiles of 4 two and a half to three times as quick as the direct ones on
// large maps, for a rounding error a few times theirs and for copies of the weights four times as large (tiles of 2: twice as quick,
// 1.8 times as large).
//
//   use_winograd(pipe);  // every convolution 3x3 of the U-Net and the autoencoder, from its next call on
#include <tenon/kernels/winograd.hpp>
#include <tenon/nn/conv2d.hpp>

namespace tenon::inline TENON_ABI {

/// F(tile x tile, 3 x 3). It leaves to the direct product what it does not fit (strides, dilation, groups), weights of int8, and maps
/// of few tiles, whose products are too thin. In the place of bfloat16 products its own are float32, and still quicker.
class Winograd final : public ConvAlgorithm<float> {
 public:
  /// Throws Error for a tile other than 2 or 4.
  explicit Winograd(Index tile = 4) : tile_(tile) { check(tile == 2 || tile == 4, "winograd", "expected tiles of 2 or 4, got ", tile); }
  Index tile() const { return tile_; }

  bool forward(const kernels::ConvShape& s, const Weight<float>& weight, const float* x, float* y, const kernels::Epilogue<float>& epilogue) const override {
    if (weight.panels() == DType::i8 || !kernels::winograd_pays(s, tile_)) return false;
    const auto packed = weight.packed<kernels::WinogradWeight>([&] {
      const RawTensor bytes = weight.bytes();
      return kernels::WinogradWeight(tile_, s.out, s.c, bytes.bytes.get(), bytes.dtype);
    });
    if (packed->tile != tile_) {  // of an algorithm before this one
      weight.drop_packed();
      return forward(s, weight, x, y, epilogue);
    }
    kernels::winograd_forward(s, x, *packed, y, epilogue);
    return true;
  }

 private:
  Index tile_;
};

/// Sets (or, with tile 0, takes away) the algorithm of every convolution 3x3 of a model. Returns how many there are.
/// Throws Error for a tile other than 0, 2 or 4.
template <class M>
Index use_winograd(M& model, Index tile = 4) {
  const std::shared_ptr<const ConvAlgorithm<float>> algorithm = tile == 0 ? nullptr : std::make_shared<const Winograd>(tile);
  Index count = 0;
  for (const auto& site : sites(model))
    if (Conv2d<float>* const* conv = std::get_if<Conv2d<float>*>(&site.layer); conv != nullptr && (*conv)->weight->shape()[2] == 3 && (*conv)->weight->shape()[3] == 3) {
      (*conv)->algorithm = algorithm;
      ++count;
    }
  return count;
}

}  // namespace tenon::inline TENON_ABI
