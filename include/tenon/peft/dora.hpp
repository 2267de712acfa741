#pragma once
// DoRA: weight-decomposed low-rank adaptation (Liu et al. 2024, 2402.09353) of Linear, Conv2d and Embedding.
//
// W' = m / ||W + s B A|| (W + s B A), norms and magnitudes m by output (of an Embedding: by column). As in the paper (4.3) and in peft the norm is a
// constant in training. It comes from ||W||^2 + 2 s (W A^T) . B + s^2 (B A A^T) . B, so W + s B A is never built.
// Two differences from peft on purpose: the entry's scale e means W + e (W' - W), so that 0 is the base (peft scales B A
// inside the norm and leaves m / ||W|| behind), and dropout falls on the low-rank path alone.
#include <tenon/peft/lora.hpp>

namespace tenon::inline TENON_ABI {

struct DoraConfig {
  Index rank = 8;
  double alpha = 8;
  std::vector<std::string> targets{};
  bool rslora = false;
  double dropout = 0;
  /// As in LoraConfig; B has no bias of its own here.
  LoraConfig::Init init = LoraConfig::Init::standard;
  std::vector<std::pair<std::string, Index>> rank_pattern{};
  std::vector<std::pair<std::string, double>> alpha_pattern{};
  LoraConfig::Bias bias = LoraConfig::Bias::none;
};

template <class T>
struct Dora final : OutputPatch<T>, BiasPatch<T>, ReadsOutput {
  TunedLayer<T> layer;
  Lora<T> lora;
  Param<T> magnitude;  ///< Linear [out], Conv2d [1, out, 1, 1], Embedding [D]

  /// W is the layer's weight as it stands now, without what is merged into it; what later merges put there does not count.
  Dora(const TunedLayer<T>& tuned, Lora<T> low_rank)
      : layer(tuned), lora(std::move(low_rank)), magnitude(tuned.is_conv() ? Shape{1, tuned.out(), 1, 1} : Shape{tuned.out()}),
        base_(tuned.base()) {
    layer.unmerged.reset();
  }
  /// m = ||W + s B A||: nothing changes at first.
  void initialize() {
    magnitude->set(norms()->share(magnitude->shape()));
    magnitude->set_trainable(true);
  }

  std::string_view kind() const override { return "dora"; }
  std::vector<NamedParam<T>> params() override {
    auto out = lora.params();
    out.push_back({"lora_magnitude_vector", &magnitude});
    return out;
  }
  bool has_after() const override { return true; }
  /// y + e ((c - 1) (y - b) + c s B A x) with c = m / norm.
  Var<T> after(const Var<T>& x, const Var<T>& y, T scale) const override {
    const double e = static_cast<double>(scale), s = static_cast<double>(lora.scale());
    const Var<T> c = factor();
    const Var<T> input = lora.dropout > 0 && is_training() ? tenon::dropout(x, lora.dropout) : x;
    const Weight<T> up(lora.b->var() * reshape(c * (e * s), layer.is_conv() ? Shape{layer.out(), 1, 1, 1} : Shape{layer.out(), 1}));
    std::unique_ptr<Weight<T>> shift;
    if (layer.bias != nullptr) {
      const Var<T> kept = first_bias() * ((c - 1.0) * -e);
      shift = std::make_unique<Weight<T>>(lora.layer_bias ? kept + lora.bias_delta() * e : kept);
    }
    const Var<T> delta = layer.is_conv() ? conv2d(conv2d(input, *lora.a, nullptr, layer.conv), up, shift.get(), {.groups = layer.conv.groups})
                                         : linear(linear(input, *lora.a), up, shift.get());
    return y * ((c - 1.0) * e + 1.0) + delta;
  }
  /// The same for rows [..., D] of a table: y + e ((c - 1) y + c s A^T[ids] B^T).
  Var<T> after_rows(const Tensor<std::int32_t>& ids, const Var<T>& y, T scale) const override {
    const double e = static_cast<double>(scale);
    const Var<T> c = factor();
    const Var<T> out = y * ((c - 1.0) * e + 1.0) + lora.table_rows(ids, y.shape()) * (c * (e * static_cast<double>(lora.scale())));
    return detail::within_table(ids, layer.fan_in(), out, y);
  }
  bool can_merge() const override { return true; }
  std::optional<Tensor<T>> merged(const Tensor<T>& weight, T scale) const override {
    const NoGrad none;
    const Tensor<T> c = factor().value();
    Tensor<T> out(weight), rows(lora.b->value());
    if (layer.table) {
      const Index d = layer.out(), r = lora.rank();
      const Tensor<T> keep = ((Var<T>(c) - 1.0) * static_cast<double>(scale) + 1.0).value();
      for (Index i = 0; i < out.size(); ++i) out.data()[i] *= keep.data()[i % d];
      for (Index o = 0; o < d; ++o) kernels::scale(r, static_cast<double>(scale * lora.scale() * c.data()[o]), rows.data() + o * r, rows.data() + o * r);
      kernels::matmul(true, true, layer.fan_in(), d, r, lora.a->value().data(), layer.fan_in(), rows.data(), r, out.data(), d, true);
      return out;
    }
    const Index k = layer.fan_in(), each = rows.size() / std::max<Index>(1, layer.out());
    for (Index o = 0; o < layer.out(); ++o) {
      const double keep = 1 + static_cast<double>(scale) * (static_cast<double>(c.data()[o]) - 1);
      kernels::scale(k, keep, out.data() + o * k, out.data() + o * k);
      kernels::scale(each, static_cast<double>(scale * lora.scale() * c.data()[o]), rows.data() + o * each, rows.data() + o * each);
    }
    detail::add_low_rank(lora.a->value(), rows, out);
    return out;
  }
  bool changes_bias() const override { return static_cast<bool>(lora.layer_bias); }
  /// What other patches have added to the bias takes part in the output that is scaled.
  Tensor<T> merged_bias(const Tensor<T>& before, T scale) const override {
    const NoGrad none;
    const double e = static_cast<double>(scale);
    const Var<T> b(before);
    const Var<T> out = b + (b - first_bias()) * ((factor() - 1.0) * e);
    return (lora.layer_bias ? out + lora.bias_delta() * e : out).value();
  }

  /// ||W + s B A|| of each output [out], kept until A or B is written.
  std::shared_ptr<const Tensor<T>> norms() const {
    const std::lock_guard lock(mutex_);
    const std::pair versions{lora.a->version(), lora.b->version()};
    if (!norms_ || versions != norms_version_) {
      norms_ = std::make_shared<const Tensor<T>>(compute_norms());
      norms_version_ = versions;
    }
    return norms_;
  }

 private:
  /// What the magnitudes leave alone: the layer's bias as it was; what others add to that is scaled.
  Var<T> first_bias() const { return lora.first_bias ? Var<T>(lora.first_bias, nullptr) : layer.bias->var(); }
  Var<T> factor() const { return reshape(magnitude->var(), Shape{layer.out()}) / Var<T>(norms(), nullptr); }

  Tensor<T> compute_norms() const {
    const RawTensor* raw = std::get_if<RawTensor>(&base_);
    const auto weight = raw != nullptr ? std::make_shared<const Tensor<T>>(cast<T>(*raw)) : std::get<typename Weight<T>::Value>(base_);
    const Tensor<T>&w = *weight, &a = lora.a->value(), &b = lora.b->value();
    const Index out = layer.out(), k = layer.fan_in(), rank = lora.rank(), groups = rank / b.extent(1), each = rank / groups;
    auto wa = Tensor<T>::uninitialized({out, rank}), aa = Tensor<T>::uninitialized({rank, rank});
    kernels::matmul(layer.table, true, out, rank, k, w.data(), layer.table ? out : k, a.data(), k, wa.data(), rank, false);
    kernels::matmul(false, true, rank, rank, k, a.data(), k, a.data(), k, aa.data(), rank, false);
    if (squares_.empty()) {  // W does not change
      squares_.assign(static_cast<std::size_t>(out), 0);
      parallel_for(out, [&](Index o) {
        double sum = 0;
        for (Index i = 0; i < k; ++i) {
          const double v = static_cast<double>(w.data()[layer.table ? i * out + o : o * k + i]);
          sum += v * v;
        }
        squares_[static_cast<std::size_t>(o)] = sum;
      });
    }
    auto result = Tensor<T>::uninitialized({out});
    const double s = static_cast<double>(lora.scale());
    for (Index o = 0; o < out; ++o) {
      const Index first = o / (out / groups) * each;  // the ranks of this output's group
      double cross = 0, square = 0;
      for (Index r = 0; r < each; ++r) {
        const double br = static_cast<double>(b.data()[o * each + r]);
        cross += br * static_cast<double>(wa.data()[o * rank + first + r]);
        for (Index q = 0; q < each; ++q)
          square += br * static_cast<double>(b.data()[o * each + q]) * static_cast<double>(aa.data()[(first + r) * rank + first + q]);
      }
      result.data()[o] = static_cast<T>(std::sqrt(std::max(0.0, squares_[static_cast<std::size_t>(o)] + 2 * s * cross + s * s * square)));
    }
    return result;
  }

  typename Weight<T>::Stored base_;
  mutable std::mutex mutex_;
  mutable std::vector<double> squares_;
  mutable std::shared_ptr<const Tensor<T>> norms_;
  mutable std::pair<std::uint64_t, std::uint64_t> norms_version_;
};

template <class T>
bool fits_by_default(const DoraConfig&, const SiteRef<T>&) {
  return false;
}

/// The patch of one site, initialised, or none where the layer is no Linear, Conv2d or Embedding. Throws Error for a layer whose
/// weight has no elements yet: its norms are the first magnitudes.
template <class T>
NewPatch<T> make_patch(const DoraConfig& config, const SiteRef<T>& site, Generator& generator) {
  const auto layer = tuned_layer_or_table(site);
  if (!layer) return {};
  check(layer->weight->filled(), "DoraConfig", site.path, " has no elements yet: load a checkpoint or initialise before DoRA");
  check(config.bias != LoraConfig::Bias::own, "DoraConfig", "a DoRA's B has no bias of its own");
  const LoraConfig low_rank{.rank = config.rank, .alpha = config.alpha, .targets = {}, .rslora = config.rslora, .dropout = config.dropout, .init = config.init,
                            .rank_pattern = config.rank_pattern, .alpha_pattern = config.alpha_pattern, .bias = config.bias};
  NewPatch<T> made = make_patch(low_rank, site, generator);
  auto patch = std::make_unique<Dora<T>>(*layer, std::move(static_cast<Lora<T>&>(*made.output)));
  patch->initialize();
  return {std::move(patch), nullptr};
}

}  // namespace tenon::inline TENON_ABI
