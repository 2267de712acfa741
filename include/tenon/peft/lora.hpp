#pragma once
// LoRA: low-rank adaptation (Hu et al. 2021, 2106.09685) of Linear, Conv2d and Embedding.
//
// h = W0 x + s B A x with s = alpha / r, or alpha / sqrt(r) with rsLoRA (Kalajdzievski 2023, 2312.03732). In training,
// dropout falls on x before A, as in peft (and, as there, not on an Embedding, whose x are ids), on ranks or on the whole.
// Names, shapes and initialisation are those of peft's files.
#include <cmath>

#include <tenon/kernels/gemm.hpp>
#include <tenon/ops/gather.hpp>
#include <tenon/ops/random.hpp>
#include <tenon/ops/linear.hpp>
#include <tenon/peft/bias_delta.hpp>
#include <tenon/peft/layer.hpp>

namespace tenon::inline TENON_ABI {

struct LoraConfig {
  Index rank = 8;
  double alpha = 8;
  /// Names of the layers to tune: full paths, dot-suffixes or globs.
  std::vector<std::string> targets{};
  bool rslora = false;
  /// The share of the inputs of A that a Training drops.
  double dropout = 0;
  /// As in kohya's scripts and not in files: the share of ranks that a Training drops, others for each sample, and that of the
  /// steps in which it leaves a layer's whole adapter out. An Embedding drops nothing.
  double rank_dropout = 0, module_dropout = 0;
  /// standard and gaussian begin with B = 0. orthogonal begins with A and B in orthogonal halves of the ranks, so that B A is
  /// zero to rounding while neither is (even ranks, Linear).
  enum class Init { standard, gaussian, orthogonal } init = Init::standard;
  /// Ranks and alphas of some of the targets; the first pattern that names a layer decides.
  std::vector<std::pair<std::string, Index>> rank_pattern{};
  std::vector<std::pair<std::string, double>> alpha_pattern{};
  /// own: B has a bias, which begins at zero (peft's lora_bias). layer: the layer's bias is trained (peft's "lora_only"); here
  /// as a delta of the patch, so that disabling gives the base back, where peft writes the base's bias. all: so are the biases of
  /// all other layers of the model, of norms too (see BiasDelta).
  enum class Bias { none, own, layer, all } bias = Bias::none;
};

namespace detail {

/// w += b a for rows b [out, R / groups] and a [R, ...] as they lie in files, each element one chain of fused multiply-adds
/// that begins at w. Throws ShapeError for an A that reads every input of a grouped convolution.
template <class T>
void add_low_rank(const Tensor<T>& a, const Tensor<T>& b, Tensor<T>& w) {
  const Index r = a.extent(0), columns = a.size() / r, rows = b.extent(0), each = b.extent(1), groups = r / each;
  check<ShapeError>(columns * rows == w.size(), "merge", "a LoRA whose A [", r, ", ", columns,
                    "] reads every input of a grouped convolution has no place in its weight ", w.shape());
  for (Index g = 0; g < groups; ++g)
    kernels::matmul(false, false, rows / groups, columns, each, b.data() + g * (rows / groups) * each, each, a.data() + g * each * columns,
                    columns, w.data() + g * (rows / groups) * columns, columns, true);
}
/// Rows of an Embedding: `changed` [..., D] for ids of its table, y for those beyond it, which other patches have.
template <class T>
Var<T> within_table(const Tensor<std::int32_t>& ids, Index vocabulary, const Var<T>& changed, const Var<T>& y) {
  if (std::all_of(ids.begin(), ids.end(), [&](std::int32_t id) { return id < vocabulary; })) return changed;
  const Index n = ids.size();
  auto from = Tensor<std::int64_t>::uninitialized({n});
  for (Index i = 0; i < n; ++i) from.data()[i] = ids.data()[i] < vocabulary ? i : n + i;
  const Shape rows{n, y.extent(-1)};
  return reshape(index_select(concat({reshape(changed, rows), reshape(y, rows)}, 0), 0, std::move(from)), y.shape());
}
template <class T>
Tensor<T> scaled(const Tensor<T>& x, T by) {
  auto out = Tensor<T>::uninitialized(x.shape());
  kernels::scale(x.size(), static_cast<double>(by), x.data(), out.data());
  return out;
}

}  // namespace detail

template <class T>
struct Lora final : OutputPatch<T>, BiasPatch<T>, ProductPatch {
  enum class Layer { linear, conv2d, embedding };

  Param<T> a;  ///< Linear [R, in], Conv2d [R, in / groups, kh, kw], Embedding [R, vocabulary]
  Param<T> b;  ///< Linear [out, R], Conv2d [out, R / groups, 1, 1], Embedding [D, R]
  Param<T> bias;        ///< [out], of B, or absent
  Param<T> layer_bias;  ///< [out], what the layer's own bias has become, or absent
  const Weight<T>* base_bias = nullptr;  ///< the layer's own, null when it has none
  std::shared_ptr<const Tensor<T>> first_bias;  ///< its elements when this was attached, without what is merged
  Param<T> a0, b0;      ///< PiSSA: the frozen first A and B, whose product is taken off, or absent
  double alpha = 8;
  bool rslora = false;
  double dropout = 0, rank_dropout = 0, module_dropout = 0;
  Layer layer = Layer::linear;
  Conv2dOptions conv{};  ///< the layer's own, of a Conv2d

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
    if (how == LoraConfig::Init::orthogonal) return initialize_orthogonal(generator);
    if (how == LoraConfig::Init::gaussian)
      init::normal(a, 1.0 / static_cast<double>(rank()), generator);
    else
      init::uniform(a, 1.0 / std::sqrt(static_cast<double>(init::fan_in(*a))), generator);
    init::constant(b, T(0));
    init::constant(bias, T(0));
  }

  std::string_view kind() const override { return "lora"; }
  std::vector<NamedParam<T>> params() override {
    std::vector<NamedParam<T>> out{{layer == Layer::embedding ? "lora_embedding_A" : "lora_A.weight", &a},
                                   {layer == Layer::embedding ? "lora_embedding_B" : "lora_B.weight", &b}};
    if (bias) out.push_back({"lora_B.bias", &bias});
    if (layer_bias) out.push_back({"base_layer.bias", &layer_bias});
    return out;
  }
  std::optional<LowRank<T>> low_rank(const Var<T>& x) const override {
    if (beside_product()) return std::nullopt;
    LowRank<T> term{a.get_if(), b.get_if(), scale(), std::nullopt};
    if (drops(dropout)) term.x = tenon::dropout(x, dropout);
    return term;
  }
  bool has_after() const override { return beside_product() || a0 || bias || layer_bias; }
  Var<T> after(const Var<T>& x, const Var<T>& y, T entry_scale) const override {
    const double e = static_cast<double>(entry_scale), s = e * static_cast<double>(scale());
    Var<T> out = y;
    if (beside_product()) {
      Var<T> h = down(drops(dropout) ? tenon::dropout(x, dropout) : x, *a);
      if (drops(rank_dropout)) {
        Shape each = h.shape();
        for (Index axis = 1; axis < each.rank() - 1; ++axis) each = each.with(axis, 1);
        h = h * tenon::dropout(Var<T>(Tensor<T>::full(each, T(1))), rank_dropout);
      }
      out = out + up(h, *b) * s;
    }
    if (a0) out = out - up(down(x, *a0), *b0) * s;
    if (bias) out = out + bias->var() * s;
    if (layer_bias) out = out + bias_delta() * e;
    if (!drops(module_dropout)) return out;
    const Var<T> kept = tenon::dropout(Var<T>(Tensor<T>::full(Shape{1}, T(1))), module_dropout) * (1 - module_dropout);  // 0 or 1
    return y + (out - y) * kept;
  }
  Var<T> after_rows(const Tensor<std::int32_t>& ids, const Var<T>& y, T entry_scale) const override {
    if (!this->apart) return y;
    return detail::within_table(ids, a->shape()[1], y + table_rows(ids, y.shape()) * static_cast<double>(entry_scale * scale()), y);
  }
  /// The rows of A^T B^T that belong to ids, in a shape; some row for an id beyond them.
  Var<T> table_rows(const Tensor<std::int32_t>& ids, const Shape& shape) const {
    Tensor<std::int32_t> known(ids);
    for (auto& id : known) id = id < a->shape()[1] ? id : 0;
    const Var<T> picked = index_select(a->var(), 1, std::move(known).reshape(Shape{ids.size()}));  // [R, n]
    return reshape(matmul(picked, b->var(), {.transpose_a = true, .transpose_b = true}), shape);
  }
  /// What the layer's own bias has become beyond what it was.
  Var<T> bias_delta() const { return layer_bias->var() - Var<T>(first_bias, nullptr); }

  /// A bias of B has no place in a layer without one.
  bool can_merge() const override { return !bias || base_bias != nullptr; }
  bool changes_bias() const override { return bias || layer_bias; }
  /// W + s B A.
  std::optional<Tensor<T>> merged(const Tensor<T>& weight, T entry_scale) const override {
    const T s = scale() * entry_scale;
    Tensor<T> out(weight);
    if (layer == Layer::embedding) {  // W [vocabulary, D] += s A^T B^T
      const Index r = rank(), columns = a->size() / r;
      const Tensor<T> rows = detail::scaled(a->value(), s);
      kernels::matmul(true, true, columns, b->shape()[0], r, rows.data(), columns, b->value().data(), r, out.data(), b->shape()[0], true);
      return out;
    }
    detail::add_low_rank(a->value(), detail::scaled(b->value(), s), out);
    if (a0) detail::add_low_rank(a0->value(), detail::scaled(b0->value(), -s), out);
    return out;
  }
  Tensor<T> merged_bias(const Tensor<T>& before, T entry_scale) const override {
    const NoGrad none;
    Var<T> out(before);
    const double e = static_cast<double>(entry_scale);
    if (bias) out = out + bias->var() * (e * static_cast<double>(scale()));
    if (layer_bias) out = out + bias_delta() * e;
    return out.value();
  }

 private:
  bool drops(double share) const { return share > 0 && layer != Layer::embedding && is_training(); }
  /// Whether B A x is added behind the layer's product, not with it.
  bool beside_product() const { return this->apart || drops(rank_dropout) || drops(module_dropout); }
  Var<T> down(const Var<T>& x, const Weight<T>& w) const { return layer == Layer::conv2d ? conv2d(x, w, nullptr, conv) : linear(x, w); }
  Var<T> up(const Var<T>& h, const Weight<T>& w) const { return layer == Layer::conv2d ? conv2d(h, w, nullptr, {.groups = conv.groups}) : linear(h, w); }
  /// As peft's: rows of a random orthogonal Q [R, R] taken by turns mix random vectors into A and B.
  void initialize_orthogonal(Generator& generator) {
    const Index r = rank(), half = r / 2;
    Tensor<double> q({r, r});
    fill_normal(q.span(), 0.0, 1.0, generator);
    for (Index i = 0; i < r; ++i) {  // Gram-Schmidt, each row twice
      double* const row = q.data() + i * r;
      for (int pass = 0; pass < 2; ++pass)
        for (Index j = 0; j < i; ++j) {
          const double* const other = q.data() + j * r;
          double dot = 0;
          for (Index c = 0; c < r; ++c) dot += row[c] * other[c];
          for (Index c = 0; c < r; ++c) row[c] -= dot * other[c];
        }
      double square = 0;
      for (Index c = 0; c < r; ++c) square += row[c] * row[c];
      for (Index c = 0; c < r; ++c) row[c] /= std::sqrt(square);
    }
    const auto mix = [&](Param<T>& param, Index width, Index first, bool columns) {
      Tensor<double> random({width, half});
      fill_normal(random.span(), 0.0, 1.0, generator);
      auto out = Tensor<T>::uninitialized(param->shape());
      for (Index i = 0; i < width; ++i)
        for (Index c = 0; c < r; ++c) {
          double sum = 0;
          for (Index h = 0; h < half; ++h) sum += random.data()[i * half + h] * q.data()[(2 * h + first) * r + c];
          out.data()[columns ? c * width + i : i * r + c] = static_cast<T>(sum / 10);
        }
      param->set(std::move(out));
      param->set_trainable(true);
    };
    mix(a, a->shape()[1], 0, true);
    mix(b, b->shape()[0], 1, false);
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
  detail::check_dropout("LoraConfig", {config.dropout, config.rank_dropout, config.module_dropout});
  const auto ours = detail::rank_and_alpha("LoraConfig", config, site.path);
  const Index rank = ours.first;
  const double alpha = ours.second;
  std::unique_ptr<Lora<T>> lora;
  const auto make = [&](const Shape& a, const Shape& b, typename Lora<T>::Layer kind) {
    lora = std::make_unique<Lora<T>>(a, b, kind, alpha, config.rslora);
  };
  if (auto* const* linear = std::get_if<Linear<T>*>(&site.layer)) {
    make({rank, (*linear)->in()}, {(*linear)->out(), rank}, Lora<T>::Layer::linear);
  } else if (auto* const* conv = std::get_if<Conv2d<T>*>(&site.layer)) {
    const Shape& w = (*conv)->weight->shape();
    const Index groups = (*conv)->groups;
    check<ShapeError>(rank % groups == 0, "LoraConfig", "expected a rank that the ", groups, " groups of ", site.path, " divide, got ",
                      rank);
    make({rank, w[1], w[2], w[3]}, {w[0], rank / groups, 1, 1}, Lora<T>::Layer::conv2d);
    lora->conv = (*conv)->options();
  } else if (auto* const* table = std::get_if<Embedding<T>*>(&site.layer)) {
    const Shape& w = (*table)->weight->shape();
    make({rank, w[0]}, {w[1], rank}, Lora<T>::Layer::embedding);
  } else {
    return {};
  }
  lora->dropout = config.dropout, lora->rank_dropout = config.rank_dropout, lora->module_dropout = config.module_dropout;
  const bool table = lora->layer == Lora<T>::Layer::embedding;
  if (config.bias == LoraConfig::Bias::own && !table) lora->bias = Param<T>(Shape{lora->b->shape()[0]});
  lora->base_bias = detail::bias_of(site);
  lora->first_bias = detail::unmerged_bias(site);
  if ((config.bias == LoraConfig::Bias::layer || config.bias == LoraConfig::Bias::all) && lora->base_bias != nullptr) {
    if (!lora->first_bias) lora->first_bias = lora->base_bias->values();  // throws
    lora->layer_bias = Param<T>(Tensor<T>(*lora->first_bias));
  }
  check(config.init != LoraConfig::Init::orthogonal || (rank % 2 == 0 && lora->layer == Lora<T>::Layer::linear), "LoraConfig",
        "orthogonal initialisation expects an even rank and a linear layer, got rank ", rank, " for ", site.path, " (", kind_of(site), ")");
  lora->initialize(config.init, generator);
  return {std::move(lora), nullptr};
}

}  // namespace tenon::inline TENON_ABI
