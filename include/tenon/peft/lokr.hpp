#pragma once
// LoKr (LyCORIS, Yeh et al. 2023, 2309.14859): a delta that is a Kronecker product, s w1 (x) w2, each factor full or of low
// rank. Names and shapes of peft and LyCORIS. A Linear never builds the delta: (w1 (x) w2) x is w1 X w2^T of x as a matrix.
#include <tenon/peft/layer.hpp>

namespace tenon::inline TENON_ABI {

struct LokrConfig {
  Index rank = 8;
  double alpha = 8;
  std::vector<std::string> targets{};
  /// The smaller factor of each extent where it divides; -1 splits an extent near its square root.
  Index factor = -1;
  /// The small factor w1 is of low rank too, where that is smaller.
  bool decompose_both = false;
  /// As in LohaConfig (lokr_t2).
  bool effective_conv = false;
  /// As in LoraConfig.
  std::vector<std::pair<std::string, Index>> rank_pattern{};
  std::vector<std::pair<std::string, double>> alpha_pattern{};
  /// As in LohaConfig, but that what is kept is scaled up only with rank_dropout_scale, as in peft.
  double rank_dropout = 0, module_dropout = 0;
  bool rank_dropout_scale = false;
};

/// An extent as two divisors, the smaller first: near its square root, or `factor` where that divides.
inline std::pair<Index, Index> kronecker_split(Index extent, Index factor) {
  if (factor > 0 && extent % factor == 0) return {factor, extent / factor};  // as it is asked for, larger or not: peft's rule
  Index best = 1;
  for (Index m = 1; m * m <= extent; ++m)
    if (extent % m == 0 && (factor == -1 || m <= factor)) best = m;
  return {best, extent / best};
}

template <class T>
struct Lokr final : WeightDelta<T> {
  Param<T> w1, w1_a, w1_b;  ///< w1 [L, M], or w1_a [L, R] and w1_b [R, M]
  Param<T> w2, w2_a, w2_b;  ///< w2 [K, N(, kh, kw)], or w2_a [K, R] and w2_b [R, N kh kw]; with a core [R, K] and [R, N]
  Param<T> t2;              ///< core [R, R, kh, kw], or absent
  double alpha = 8;
  Index rank = 8;
  Index factor = -1;

  explicit Lokr(const TunedLayer<T>& tuned) : WeightDelta<T>(tuned) {}
  Lokr(const TunedLayer<T>& tuned, const LokrConfig& config, Index rank_value, double alpha_value)
      : WeightDelta<T>(tuned), alpha(alpha_value), rank(rank_value), factor(config.factor) {
    const Shape& w = tuned.shape();
    const auto [l, k] = kronecker_split(w[0], config.factor);
    const auto [m, n] = kronecker_split(w[1], config.factor);
    const Index pixels = tuned.is_conv() ? w[2] * w[3] : 1;
    if (config.decompose_both && 2 * rank < std::max(l, m)) {
      w1_a = Param<T>(Shape{l, rank});
      w1_b = Param<T>(Shape{rank, m});
    } else {
      w1 = Param<T>(Shape{l, m});
    }
    if (2 * rank >= std::max(k, n)) {
      w2 = Param<T>(tuned.is_conv() ? Shape{k, n, w[2], w[3]} : Shape{k, n});
    } else if (config.effective_conv && pixels > 1) {
      t2 = Param<T>(Shape{rank, rank, w[2], w[3]});
      w2_a = Param<T>(Shape{rank, k});
      w2_b = Param<T>(Shape{rank, n});
    } else {
      w2_a = Param<T>(Shape{k, rank});
      w2_b = Param<T>(Shape{rank, n * pixels});
    }
  }
  /// As peft: w1 (or w1_a) is zero, so that nothing changes at first.
  void initialize(Generator& generator) {
    for (Param<T>* p : {&w1_b, &w2, &w2_a, &w2_b, &t2})
      if (*p) init::uniform(*p, 1.0 / std::sqrt(static_cast<double>(init::fan_in(**p))), generator);
    init::constant(w1, T(0));
    init::constant(w1_a, T(0));
  }

  T scale() const { return static_cast<T>(alpha / static_cast<double>(rank)); }
  std::string_view kind() const override { return "lokr"; }
  std::vector<NamedParam<T>> params() override {
    std::vector<NamedParam<T>> out{{"lokr_w1", &w1}, {"lokr_w1_a", &w1_a}, {"lokr_w1_b", &w1_b}, {"lokr_w2", &w2}, {"lokr_w2_a", &w2_a}, {"lokr_w2_b", &w2_b}, {"lokr_t2", &t2}};
    std::erase_if(out, [](const auto& named) { return !*named.param; });
    return out;
  }
  Var<T> left() const { return w1 ? w1->var() : matmul(w1_a->var(), w1_b->var()); }
  /// w2 as [K, N, ...].
  Var<T> right() const {
    if (w2) return w2->var();
    return t2 ? tucker_kernel(t2->var(), w2_a->var(), w2_b->var()) : matmul(w2_a->var(), w2_b->var());
  }
  Var<T> delta() const override {
    const Shape& w = this->layer.shape();
    const Var<T> a = left(), b = right();
    const Index l = a.extent(0), m = a.extent(1), k = w[0] / l;
    const Var<T> product = reshape(a * static_cast<double>(scale()), Shape{l, 1, m, 1}) * reshape(b, Shape{1, k, 1, b.size() / k});
    return reshape(product, w);
  }
  Var<T> after(const Var<T>& x, const Var<T>& y, T entry_scale) const override {
    if (this->layer.is_conv()) return WeightDelta<T>::after(x, y, entry_scale);
    const Var<T> a = left() * static_cast<double>(scale() * entry_scale), b = right();
    const Index tokens = x.size() / std::max<Index>(1, x.extent(-1));
    const Var<T> inner = linear(reshape(x, Shape{tokens, a.extent(1), b.extent(1)}), Weight<T>(b));  // [tokens, M, K]
    return y + this->dropped(reshape(matmul(a, inner), y.shape()));
  }
};

template <class T>
bool fits_by_default(const LokrConfig&, const SiteRef<T>&) {
  return false;
}

/// The patch of one site, initialised, or none where the layer is neither Linear nor Conv2d.
template <class T>
NewPatch<T> make_patch(const LokrConfig& config, const SiteRef<T>& site, Generator& generator) {
  check(config.factor >= 1 || config.factor == -1, "LokrConfig", "expected a factor of at least 1, or -1, got ", config.factor);
  const auto layer = tuned_layer(site);
  if (!layer) return {};
  const auto [rank, alpha] = detail::rank_and_alpha("LokrConfig", config, site.path);
  detail::check_dropout("LokrConfig", {config.rank_dropout, config.module_dropout});
  auto patch = std::make_unique<Lokr<T>>(*layer, config, rank, alpha);
  patch->drops = {config.rank_dropout, config.rank_dropout_scale, config.module_dropout};
  patch->initialize(generator);
  return {std::move(patch), nullptr};
}

}  // namespace tenon::inline TENON_ABI
