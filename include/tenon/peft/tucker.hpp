#pragma once
// LoRA of a convolution in three parts (LyCORIS, lora_mid): 1x1 down, kxk in between, 1x1 up. Files of LyCORIS only.
#include <tenon/peft/layer.hpp>
#include <tenon/peft/lora.hpp>

namespace tenon::inline TENON_ABI {

struct TuckerConfig {
  Index rank = 8;
  double alpha = 8;
  std::vector<std::string> targets{};
};

/// y += s up(mid(down(x))); the delta is sum over m, n of up[o, m] mid[m, n, kh, kw] down[n, i].
template <class T>
struct Tucker final : WeightDelta<T> {
  Param<T> down;  ///< [R, in, 1, 1]
  Param<T> mid;   ///< [R, R, kh, kw]
  Param<T> up;    ///< [out, R, 1, 1]
  double alpha = 8;

  Tucker(const TunedLayer<T>& tuned, Index rank, double alpha_value)
      : WeightDelta<T>(tuned), down(Shape{rank, tuned.shape()[1], 1, 1}), mid(Shape{rank, rank, tuned.shape()[2], tuned.shape()[3]}),
        up(Shape{tuned.out(), rank, 1, 1}), alpha(alpha_value) {}
  void initialize(Generator& generator) {
    for (Param<T>* p : {&down, &mid}) init::uniform(*p, 1.0 / std::sqrt(static_cast<double>(init::fan_in(**p))), generator);
    init::constant(up, T(0));
  }
  Index rank() const { return down->shape()[0]; }
  T scale() const { return static_cast<T>(alpha / static_cast<double>(rank())); }
  std::string_view kind() const override { return "tucker"; }
  std::vector<NamedParam<T>> params() override { return {{"lora_A.weight", &down}, {"lora_mid.weight", &mid}, {"lora_B.weight", &up}}; }
  Var<T> delta() const override {
    const Index r = rank();
    return tucker_kernel(mid->var(), transpose(reshape(up->var(), Shape{this->layer.out(), r})),
                         reshape(down->var(), Shape{r, this->layer.shape()[1]})) * static_cast<double>(scale());
  }
  Var<T> after(const Var<T>& x, const Var<T>& y, T entry_scale) const override {
    return y + conv2d(conv2d(conv2d(x, *down), *mid, nullptr, this->layer.conv), *up) * static_cast<double>(scale() * entry_scale);
  }
};

template <class T>
bool fits_by_default(const TuckerConfig&, const SiteRef<T>&) {
  return false;
}

/// The patch of one site, initialised, or none where the layer is no Conv2d, or one in groups.
template <class T>
NewPatch<T> make_patch(const TuckerConfig& config, const SiteRef<T>& site, Generator& generator) {
  check(config.rank >= 1, "TuckerConfig", "expected a rank of at least 1, got ", config.rank);
  const auto layer = tuned_layer(site);
  if (!layer || !layer->is_conv() || layer->conv.groups != 1) return {};
  auto patch = std::make_unique<Tucker<T>>(*layer, config.rank, config.alpha);
  patch->initialize(generator);
  return {std::move(patch), nullptr};
}

}  // namespace tenon::inline TENON_ABI
