#pragma once
// LoHa (FedPara, Hyeon-Woo et al. 2021, 2108.06098; LyCORIS, Yeh et al. 2023, 2309.14859): a delta that is the element-wise
// product of two low-rank ones, s (w1_a w1_b) * (w2_a w2_b), of a rank up to R^2. Names and shapes of peft and LyCORIS.
#include <tenon/peft/layer.hpp>

namespace tenon::inline TENON_ABI {

struct LohaConfig {
  Index rank = 8;
  double alpha = 8;
  std::vector<std::string> targets{};
  /// Convolutions with kernels larger than 1x1 are factored by mode (Tucker: hada_t1, hada_t2), else as flat matrices.
  bool effective_conv = false;
  /// As in LoraConfig.
  std::vector<std::pair<std::string, Index>> rank_pattern{};
  std::vector<std::pair<std::string, double>> alpha_pattern{};
  /// The shares of outputs, and of the steps, in which a Training leaves the delta out; what is kept of the outputs is scaled up.
  double rank_dropout = 0, module_dropout = 0;
};

template <class T>
struct Loha final : WeightDelta<T> {
  Param<T> w1_a, w1_b, w2_a, w2_b;  ///< [out, R], [R, fan in]; with cores [R, out], [R, in / groups]
  Param<T> t1, t2;                  ///< cores [R, R, kh, kw], or absent
  double alpha = 8;

  Loha(const TunedLayer<T>& tuned, Index rank, bool effective_conv, double alpha_value) : WeightDelta<T>(tuned), alpha(alpha_value) {
    const Shape& w = tuned.shape();
    const bool cores = effective_conv && tuned.is_conv() && w[2] * w[3] > 1;
    for (Param<T>* p : {&w1_a, &w2_a}) *p = Param<T>(cores ? Shape{rank, w[0]} : Shape{w[0], rank});
    for (Param<T>* p : {&w1_b, &w2_b}) *p = Param<T>(Shape{rank, cores ? w[1] : tuned.fan_in()});
    if (cores)
      for (Param<T>* p : {&t1, &t2}) *p = Param<T>(Shape{rank, rank, w[2], w[3]});
  }
  /// As peft: w2_b is zero, so that nothing changes at first.
  void initialize(Generator& generator) {
    for (Param<T>* p : {&w1_a, &w1_b, &w2_a, &t1, &t2}) init::uniform(*p, 1.0 / std::sqrt(static_cast<double>(init::fan_in(**p))), generator);
    init::constant(w2_b, T(0));
  }

  Index rank() const { return w1_b->shape()[0]; }
  T scale() const { return static_cast<T>(alpha / static_cast<double>(rank())); }
  std::string_view kind() const override { return "loha"; }
  std::vector<NamedParam<T>> params() override {
    std::vector<NamedParam<T>> out{{"hada_w1_a", &w1_a}, {"hada_w1_b", &w1_b}, {"hada_w2_a", &w2_a}, {"hada_w2_b", &w2_b}};
    if (t1) out.insert(out.end(), {{"hada_t1", &t1}, {"hada_t2", &t2}});
    return out;
  }
  Var<T> delta() const override {
    const auto factor = [&](const Param<T>& a, const Param<T>& b, const Param<T>& core) {
      return core ? tucker_kernel(core->var(), a->var(), b->var()) : matmul(a->var(), b->var());
    };
    return reshape(factor(w1_a, w1_b, t1) * factor(w2_a, w2_b, t2) * static_cast<double>(scale()), this->layer.shape());
  }
};

template <class T>
bool fits_by_default(const LohaConfig&, const SiteRef<T>&) {
  return false;
}

/// The patch of one site, initialised, or none where the layer is neither Linear nor Conv2d.
template <class T>
NewPatch<T> make_patch(const LohaConfig& config, const SiteRef<T>& site, Generator& generator) {
  const auto layer = tuned_layer(site);
  if (!layer) return {};
  const auto [rank, alpha] = detail::rank_and_alpha("LohaConfig", config, site.path);
  detail::check_dropout("LohaConfig", {config.rank_dropout, config.module_dropout});
  auto patch = std::make_unique<Loha<T>>(*layer, rank, config.effective_conv, alpha);
  patch->drops = {config.rank_dropout, true, config.module_dropout};
  patch->initialize(generator);
  return {std::move(patch), nullptr};
}

}  // namespace tenon::inline TENON_ABI
