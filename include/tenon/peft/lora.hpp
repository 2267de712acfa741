#pragma once
// LoRA: low-rank adaptation (Hu et al. 2021, 2106.09685) of Linear, Conv2d and Embedding.
//
// h = W0 x + s B A x with s = alpha / r, or alpha / sqrt(r) with rsLoRA (Kalajdzievski 2023, 2312.03732). In training,
// dropout falls on x before A, as in peft (and, as there, not on an Embedding, whose x are ids).
// Names, shapes and initialisation are those of peft's files.
#include <cmath>

#include <tenon/kernels/gemm.hpp>
#include <tenon/ops/random.hpp>
#include <tenon/peft/attach.hpp>

namespace tenon::inline TENON_ABI {

struct LoraConfig {
  Index rank = 8;
  double alpha = 8;
  /// Names of the layers to tune: full paths, dot-suffixes or globs.
  std::vector<std::string> targets{};
  bool rslora = false;
  /// The share of the inputs of A that a Training drops.
  double dropout = 0;
  enum class Init { standard, gaussian } init = Init::standard;
};

template <class T>
struct Lora final : OutputPatch<T> {
  enum class Layer { linear, conv2d, embedding };

  Param<T> a;  ///< Linear [R, in], Conv2d [R, in / groups, kh, kw], Embedding [R, vocabulary]
  Param<T> b;  ///< Linear [out, R], Conv2d [out, R / groups, 1, 1], Embedding [D, R]
  double alpha = 8;
  bool rslora = false;
  double dropout = 0;
  Layer layer = Layer::linear;

  Lora(const Shape& a_shape, const Shape& b_shape, Layer kind, double alpha_value, bool rank_stabilised)
      : a(a_shape), b(b_shape), alpha(alpha_value), rslora(rank_stabilised), layer(kind) {}

  Index rank() const { return a->shape()[0]; }
  T scale() const {
    const double r = static_cast<double>(rank());
    return static_cast<T>(alpha / (rslora ? std::sqrt(r) : r));
  }
  /// B is zero, so that nothing changes at first (for an Embedding A is).
  void initialize(LoraConfig::Init how, Generator& generator) {
    if (layer == Layer::embedding) {
      init::constant(a, T(0));
      init::normal(b, 1.0, generator);
      return;
    }
    if (how == LoraConfig::Init::gaussian)
      init::normal(a, 1.0 / static_cast<double>(rank()), generator);
    else
      init::uniform(a, 1.0 / std::sqrt(static_cast<double>(init::fan_in(*a))), generator);
    init::constant(b, T(0));
  }

  std::string_view kind() const override { return "lora"; }
  void params(const std::function<void(std::string_view, Param<T>&)>& f) override {
    f(layer == Layer::embedding ? "lora_embedding_A" : "lora_A.weight", a);
    f(layer == Layer::embedding ? "lora_embedding_B" : "lora_B.weight", b);
  }
  std::optional<LowRank<T>> low_rank(const Var<T>& x) const override {
    LowRank<T> term{a.get_if(), b.get_if(), scale(), std::nullopt};
    if (dropout > 0 && layer != Layer::embedding && is_training()) term.x = tenon::dropout(x, dropout);
    return term;
  }

  bool can_merge() const override { return true; }
  /// W + s B A, each element one chain of fused multiply-adds that begins at W.
  std::optional<Tensor<T>> merged(const Tensor<T>& weight, T entry_scale) const override {
    const T s = scale() * entry_scale;
    const Index r = rank(), columns = a->size() / r;
    Tensor<T> out(weight);
    if (layer == Layer::embedding) {  // W [vocabulary, D] += s A^T B^T
      Tensor<T> scaled(a->value());
      kernels::scale(scaled.size(), static_cast<double>(s), scaled.data(), scaled.data());
      kernels::matmul(true, true, columns, b->shape()[0], r, scaled.data(), columns, b->value().data(), r, out.data(), b->shape()[0], true);
      return out;
    }
    Tensor<T> scaled(b->value());
    kernels::scale(scaled.size(), static_cast<double>(s), scaled.data(), scaled.data());
    const Index rows = b->shape()[0], each = b->shape()[1], groups = r / each;
    check<ShapeError>(columns * rows == out.size(), "merge", "a LoRA whose A [", r, ", ", columns,
                      "] reads every input of a grouped convolution has no place in its weight ", weight.shape());
    for (Index g = 0; g < groups; ++g)
      kernels::matmul(false, false, rows / groups, columns, each, scaled.data() + g * (rows / groups) * each, each,
                      a->value().data() + g * each * columns, columns, out.data() + g * (rows / groups) * columns, columns, true);
    return out;
  }
};

/// LoRA has no default targets; every method names its layers.
template <class T>
bool fits_by_default(const LoraConfig&, const SiteRef<T>&) {
  return false;
}

/// The patch of one site, initialised, or none where LoRA does not fit.
template <class T>
NewPatch<T> make_patch(const LoraConfig& config, const SiteRef<T>& site, Generator& generator) {
  check(config.rank >= 1, "LoraConfig", "expected a rank of at least 1, got ", config.rank);
  check(0 <= config.dropout && config.dropout < 1, "LoraConfig", "expected a dropout in [0, 1), got ", config.dropout);
  std::unique_ptr<Lora<T>> lora;
  const auto make = [&](const Shape& a, const Shape& b, typename Lora<T>::Layer kind) {
    lora = std::make_unique<Lora<T>>(a, b, kind, config.alpha, config.rslora);
  };
  if (auto* const* linear = std::get_if<Linear<T>*>(&site.layer)) {
    make({config.rank, (*linear)->in()}, {(*linear)->out(), config.rank}, Lora<T>::Layer::linear);
  } else if (auto* const* conv = std::get_if<Conv2d<T>*>(&site.layer)) {
    const Shape& w = (*conv)->weight->shape();
    const Index groups = (*conv)->groups;
    check<ShapeError>(config.rank % groups == 0, "LoraConfig", "expected a rank that the ", groups, " groups of ", site.path, " divide, got ",
                      config.rank);
    make({config.rank, w[1], w[2], w[3]}, {w[0], config.rank / groups, 1, 1}, Lora<T>::Layer::conv2d);
  } else if (auto* const* table = std::get_if<Embedding<T>*>(&site.layer)) {
    const Shape& w = (*table)->weight->shape();
    make({config.rank, w[0]}, {w[1], config.rank}, Lora<T>::Layer::embedding);
  } else {
    return {};
  }
  lora->dropout = config.dropout;
  lora->initialize(config.init, generator);
  return {std::move(lora), nullptr};
}

}  // namespace tenon::inline TENON_ABI
