#pragma once
// Adapters from adapters: weighted combination, conversion of any weight delta to a LoRA, and extraction of a LoRA from a
// model and its tuned copy.
#include <tenon/peft/layer.hpp>
#include <tenon/peft/svd.hpp>

namespace tenon::inline TENON_ABI {

struct CombineOptions {
  /// sum: exact, ranks add. svd: the best of a rank. linear: A's and B's are summed apart, with the roots of the weights in
  /// each and their signs in A, as peft's "linear" does. That is NOT the sum of the adapters (it has every B_i A_j), keeps the
  /// rank, and wants equal ranks.
  enum class Method { sum, svd, linear } method = Method::sum;
  Index rank = 8;                  ///< of svd
  std::string name = "combined";   ///< the new adapter's
};

/// What was made, and how far each layer's delta is from what was asked for (relative, Frobenius).
struct LowRankReport : AttachReport {
  std::vector<double> errors;  ///< one for each of `sites`
};

namespace detail {

/// What a LoRA that was made of numbers has to know of its layer.
template <class T>
void settle(Lora<T>& lora, const SiteRef<T>& site) {
  lora.base_bias = bias_of(site);
  if (auto* const* conv = std::get_if<Conv2d<T>*>(&site.layer)) lora.conv = (*conv)->options();
}

/// A LoRA of scale 1 for a site from A [R, ...] and B [m, R / groups].
template <class T>
std::unique_ptr<Lora<T>> lora_of_factors(const SiteRef<T>& site, LowRankFactors<T> factors) {
  const Index rank = factors.a.extent(0);
  const Shape& w = site.weight->shape();
  if (std::holds_alternative<Embedding<T>*>(site.layer)) {  // a row of W belongs to a column of A: B A is W^T
    auto lora = std::make_unique<Lora<T>>(Shape{rank, w[0]}, Shape{w[1], rank}, Lora<T>::Layer::embedding, static_cast<double>(rank), false);
    lora->a = Param<T>(Tensor<T>(transpose(Var<T>(std::move(factors.b))).value()));
    lora->b = Param<T>(Tensor<T>(transpose(Var<T>(std::move(factors.a))).value()));
    return lora;
  }
  const bool conv = w.rank() == 4;
  const Shape a = conv ? Shape{rank, w[1], w[2], w[3]} : Shape{rank, w[1]};
  const Shape b = conv ? Shape{w[0], factors.b.extent(1), 1, 1} : Shape{w[0], rank};
  auto lora = std::make_unique<Lora<T>>(a, b, conv ? Lora<T>::Layer::conv2d : Lora<T>::Layer::linear, static_cast<double>(rank), false);
  lora->a = Param<T>(std::move(factors.a).reshape(a));
  lora->b = Param<T>(std::move(factors.b).reshape(b));
  settle(*lora, site);
  return lora;
}

/// The best LoRA of a rank for a delta in the shape of a site's weight.
template <class T>
std::pair<std::unique_ptr<Lora<T>>, double> lora_of_delta(const SiteRef<T>& site, const Tensor<T>& delta, Index rank) {
  const Index groups = groups_of(site);
  check(rank >= 1 && rank % groups == 0, "low_rank", "expected a rank of at least 1 that the ", groups, " groups of ", site.path, " divide, got ", rank);
  auto factors = grouped_low_rank(delta.share(Shape{delta.extent(0), delta.size() / std::max<Index>(1, delta.extent(0))}), rank, groups);
  const double error = factors.error;
  return {lora_of_factors(site, std::move(factors)), error};
}

/// A plain LoRA, or an error that says what the patch is.
template <class T>
const Lora<T>& plain_lora(std::string_view op, const SiteRef<T>& site, const Patch<T>& patch) {
  const auto* lora = dynamic_cast<const Lora<T>*>(&patch);
  check(lora != nullptr && !lora->bias && !lora->layer_bias && !lora->a0, op, "expected a plain LoRA at ", site.path, ", got ",
        lora != nullptr ? "one with biases or PiSSA's first factors" : patch.kind());
  return *lora;
}

}  // namespace detail

/// Attaches the weighted sum of adapters as a new one of scale 1: sum of w_i times what adapter i is at scale 1, whatever its
/// entry's scale and whether it is enabled. The adapters stay as they are; detach or disable them. Only plain LoRA is a
/// sum of low-rank deltas: convert_to_lora comes before for other methods. Throws NameError for an unknown adapter, Error for
/// another method or ranks that do not fit; then nothing is attached.
template <class M>
LowRankReport combine(M& model, const std::vector<std::pair<std::string, double>>& adapters, const CombineOptions& options = {}) {
  using T = scalar_of<M>;
  using Method = CombineOptions::Method;
  check(!adapters.empty(), "combine", "expected at least one adapter");
  for (const auto& [name, weight] : adapters) {
    check(std::isfinite(weight), "combine", "expected a finite weight for '", name, "', got ", weight);
    detail::for_each_named(model, "combine", name, [](const auto&, const auto&) {});
  }
  std::vector<detail::Placement<T>> placements;
  LowRankReport report;
  for (const auto& site : sites(model)) {
    std::vector<std::pair<const Lora<T>*, double>> terms;  // and w s
    for (const auto& adapter : adapters)
      for_each_patch(site, [&](const auto& entry) {
        if (entry.adapter != adapter.first) return;
        const auto& lora = detail::plain_lora<T>("combine", site, *entry.patch);
        terms.emplace_back(&lora, adapter.second * static_cast<double>(lora.scale()));
      });
    if (terms.empty()) continue;
    const bool table = terms.front().first->layer == Lora<T>::Layer::embedding;
    const Index groups = detail::groups_of(site);
    Index total = 0;
    for (const auto& [lora, s] : terms) total += lora->rank();
    const Shape a_shape = terms.front().first->a->shape(), b_shape = terms.front().first->b->shape();
    std::unique_ptr<Lora<T>> made;
    double error = 0;
    if (options.method == Method::linear) {
      Tensor<T> a(a_shape), b(b_shape);
      for (const auto& [lora, s] : terms) {
        check(lora->a->shape() == a_shape, "combine", "linear expects equal ranks, got ", lora->rank(), " and ", a_shape[0], " at ", site.path);
        const double root = std::sqrt(std::abs(s));
        for (Index i = 0; i < a.size(); ++i) a.data()[i] += static_cast<T>((s < 0 ? -root : root) * static_cast<double>(lora->a->value().data()[i]));
        for (Index i = 0; i < b.size(); ++i) b.data()[i] += static_cast<T>(root * static_cast<double>(lora->b->value().data()[i]));
      }
      made = std::make_unique<Lora<T>>(a_shape, b_shape, terms.front().first->layer, static_cast<double>(a_shape[0]), false);
      made->a = Param<T>(std::move(a));
      made->b = Param<T>(std::move(b));
    } else {
      Tensor<T> a(a_shape.with(0, total)), b(b_shape.with(1, total / groups));
      const Index row = a.size() / std::max<Index>(1, total), outs = b_shape[0];
      for (Index g = 0, at = 0; g < groups; ++g)  // the ranks of a group stand together
        for (const auto& [lora, s] : terms) {
          const Index each = lora->rank() / groups;
          check<ShapeError>(lora->a->size() == lora->rank() * row, "combine", "the LoRA at ", site.path, " read different inputs: ", lora->a->shape(), " and ", a_shape);
          std::copy_n(lora->a->value().data() + g * each * row, each * row, a.data() + at * row);
          at += each;
        }
      for (Index o = 0; o < outs; ++o) {
        T* to = b.data() + o * (total / groups);
        for (const auto& [lora, s] : terms)
          for (Index r = 0; r < lora->rank() / groups; ++r)
            *to++ = static_cast<T>(s * static_cast<double>(lora->b->value().data()[o * (lora->rank() / groups) + r]));
      }
      if (options.method == Method::svd && groups == 1) {
        auto factors = low_rank_of_product(std::move(b).reshape(Shape{outs, total}), std::move(a).reshape(Shape{total, row}), options.rank);
        error = factors.error;
        if (table) std::tie(factors.a, factors.b) = std::pair(Tensor<T>(transpose(Var<T>(factors.b)).value()), Tensor<T>(transpose(Var<T>(factors.a)).value()));
        made = detail::lora_of_factors(site, std::move(factors));
      } else if (options.method == Method::svd) {
        Tensor<T> delta(site.weight->shape());
        detail::add_low_rank(a, b, delta);
        std::tie(made, error) = detail::lora_of_delta(site, delta, options.rank);
      } else {
        made = std::make_unique<Lora<T>>(a.shape(), b.shape(), terms.front().first->layer, static_cast<double>(total), false);
        made->a = Param<T>(std::move(a));
        made->b = Param<T>(std::move(b));
      }
    }
    detail::settle(*made, site);
    report.errors.push_back(error);
    placements.push_back({site, {std::move(made), nullptr}});
  }
  static_cast<AttachReport&>(report) = detail::place(std::move(placements), AttachOptions{options.name, 1.0});
  return report;
}

/// Replaces an adapter of any method that is a weight delta (DoRA, LoHa, LoKr, Tucker, PiSSA, full, IA3 at layers without a
/// bias) by the LoRA of a rank that is nearest to it, under the same name and scale; the report says how near. It is what the adapter
/// makes of the base's weight: what a DoRA or IA3 makes of adapters that are attached before it is not in it.
/// Throws NameError for an unknown adapter, Error when it is merged or is no weight delta; then nothing has changed.
template <class M>
LowRankReport convert_to_lora(M& model, const std::string& adapter, Index rank) {
  using T = scalar_of<M>;
  LowRankReport report;
  std::vector<std::pair<PatchEntry<T, OutputPatch<T>>*, std::unique_ptr<Lora<T>>>> made;
  detail::for_each_named(model, "convert_to_lora", adapter, [&](const auto& site, auto& entry) {
    detail::check_unmerged("convert_to_lora", site, entry);
    if constexpr (requires { entry.patch->can_merge(); }) {
      const auto* bias = dynamic_cast<const BiasPatch<T>*>(entry.patch.get());
      check(site.weight != nullptr && entry.patch->can_merge() && !(bias != nullptr && bias->changes_bias() && detail::bias_of(site) != nullptr),
            "convert_to_lora", "adapter '", adapter, "' (", entry.patch->kind(), ") is no delta of the weight alone at ", site.path);
      const Tensor<T> weight = detail::elements_of<T>(site.patches->original ? *site.patches->original : site.weight->stored());
      Tensor<T> delta = *entry.patch->merged(weight, T(1));
      for (Index i = 0; i < delta.size(); ++i) delta.data()[i] -= weight.data()[i];
      auto [lora, error] = detail::lora_of_delta(site, delta, rank);
      report.sites.push_back(site.path);
      report.parameters += lora->a->size() + lora->b->size();
      report.errors.push_back(error);
      lora->apart = detail::behind_reader(*site.patches, static_cast<std::size_t>(&entry - site.patches->entries.data()));
      made.emplace_back(&entry, std::move(lora));
    } else {
      fail("convert_to_lora", "adapter '", adapter, "' (", entry.patch->kind(), ") is no delta of the weight at ", site.path);
    }
  });
  for (auto& [entry, lora] : made) entry->patch = std::move(lora);
  return report;
}

struct ExtractOptions {
  Index rank = 8;
  std::vector<std::string> targets{};  ///< all Linear, Conv2d and Embedding layers that differ when empty
  std::string name = "default";
};

/// Attaches to `base` the LoRA of a rank that is nearest to what `tuned`, a model of the same fields, has in its weights beyond it.
/// Biases and norms stay the base's. Throws NameError when the models' layers differ in name or a target matches nothing,
/// ShapeError when they differ in shape, Error when no layer differs.
template <class M>
LowRankReport extract(M& base, M& tuned, const ExtractOptions& options = {}) {
  using T = scalar_of<M>;
  const auto from = sites(base), to = sites(tuned);
  check<NameError>(from.size() == to.size(), "extract", "expected ", from.size(), " layers, got ", to.size());
  std::set<std::string> fruitless(options.targets.begin(), options.targets.end());
  std::vector<detail::Placement<T>> placements;
  LowRankReport report;
  for (std::size_t i = 0; i < from.size(); ++i) {
    check<NameError>(from[i].path == to[i].path, "extract", "expected ", from[i].path, ", got ", to[i].path);
    if (from[i].weight == nullptr || from[i].weight->shape().rank() < 2 || (!options.targets.empty() && !any_target_matches(options.targets, from[i].path))) continue;
    std::erase_if(fruitless, [&](const auto& target) { return target_matches(target, from[i].path); });
    check<ShapeError>(from[i].weight->shape() == to[i].weight->shape(), "extract", from[i].path, ": expected shape ", from[i].weight->shape(), ", got ",
                      to[i].weight->shape());
    Tensor<T> delta(*to[i].weight->values());
    const auto weight = from[i].weight->values();
    bool differs = false;
    for (Index k = 0; k < delta.size(); ++k) {
      delta.data()[k] -= weight->data()[k];
      differs = differs || delta.data()[k] != T(0);
    }
    if (!differs) continue;
    auto [lora, error] = detail::lora_of_delta(from[i], delta, options.rank);
    report.errors.push_back(error);
    placements.push_back({from[i], {std::move(lora), nullptr}});
  }
  check<NameError>(fruitless.empty(), "extract", "'", fruitless.empty() ? std::string() : *fruitless.begin(), "' matches no layer of the model; nearest: ",
                   fruitless.empty() ? std::string() : nearest_names(*fruitless.begin(), detail::endings_of(from, *fruitless.begin())));
  check(!placements.empty(), "extract", "no weight of the two models differs");
  static_cast<AttachReport&>(report) = detail::place(std::move(placements), AttachOptions{options.name, 1.0});
  return report;
}

}  // namespace tenon::inline TENON_ABI
