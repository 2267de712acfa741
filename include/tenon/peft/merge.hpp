#pragma once
// Merging adapters into the weights, and taking them out again bit for bit; detaching.
#include <tenon/peft/attach.hpp>

namespace tenon::inline TENON_ABI {

/// What a patch has besides OutputPatch when merging changes the layer's bias too.
template <class T>
struct BiasPatch {
  virtual ~BiasPatch() = default;
  /// Whether it changes a bias by itself, not only what others made of it.
  virtual bool changes_bias() const { return true; }
  virtual Tensor<T> merged_bias(const Tensor<T>& bias, T scale) const = 0;
  /// While merged: the bias from before any patch of this layer was.
  std::optional<typename Weight<T>::Stored> original_bias;
};

namespace detail {

template <class T>
Tensor<T> elements_of(const typename Weight<T>::Stored& stored) {
  const RawTensor* raw = std::get_if<RawTensor>(&stored);
  return raw ? cast<T>(*raw) : Tensor<T>(*std::get<typename Weight<T>::Value>(stored));
}

/// What products read of a weight whose panels are of that type: float32, bfloat16, or int8 with a scale for each output.
template <class T>
Tensor<T> rounded_to(const Tensor<T>& weight, DType panels) {
  if (panels == DType::bf16) return cast<T>(cast<bfloat16>(weight));
  Tensor<T> out(weight);
  const Index rows = weight.extent(0), each = weight.size() / std::max<Index>(1, rows);
  for (Index o = 0; panels == DType::i8 && o < rows; ++o) {
    T* const row = out.data() + o * each;
    T most = 0;
    for (Index i = 0; i < each; ++i) most = std::max(most, std::abs(row[i]));
    const T step = most / T(127);
    for (Index i = 0; step > T(0) && i < each; ++i) row[i] = std::nearbyint(row[i] / step) * step;
  }
  return out;
}

/// Calls `f(entry)` for the merged entries in the order in which a forward has them: terms beside the weight, then what
/// changes the output, then what changes the input.
template <class T, class F>
void for_each_merged(const SiteRef<T>& site, F&& f) {
  for (int turn = 0; turn < 3; ++turn)
    for (auto& entry : *site.patches) {
      const int own = dynamic_cast<const InputPatch<T>*>(entry.patch.get()) != nullptr ? 2 : entry.patch->has_after() ? 1 : 0;
      if (entry.merged && own == turn) f(entry);
    }
}

/// What one site's weight has to hold now: the elements of before with every merged entry folded in.
template <class T>
typename Weight<T>::Stored fold(const SiteRef<T>& site) {
  using Stored = typename Weight<T>::Stored;
  const Stored original = site.patches->original ? *site.patches->original : site.weight->stored();
  std::optional<Tensor<T>> folded;
  for_each_merged(site, [&](auto& entry) {
    if (!folded) folded = elements_of<T>(original);
    folded = entry.patch->merged(*folded, entry.scale);
    check(folded.has_value(), "merge", "adapter '", entry.adapter, "' (", entry.patch->kind(), ") cannot be merged at ", site.path);
  });
  if (!folded) return original;
  Weight<T>::drop_pages(original);
  if (site.weight->panels() == DType::bf16) return Stored(raw_copy(cast<bfloat16>(*folded)));
  return Stored(std::make_shared<const Tensor<T>>(std::move(*folded)));
}

/// A layer's bias, or null.
template <class T>
Weight<T>* bias_of(const SiteRef<T>& site) {
  return std::visit([](auto* layer) -> Weight<T>* {
    if constexpr (requires { layer->bias; })
      return layer->bias ? layer->bias.get() : nullptr;
    else
      return nullptr;
  }, site.layer);
}

/// The elements of a layer's bias without what is merged into it, or null.
template <class T>
std::shared_ptr<const Tensor<T>> unmerged_bias(const SiteRef<T>& site) {
  Weight<T>* const bias = bias_of(site);
  if (bias == nullptr) return nullptr;
  for (auto& entry : *site.patches)
    if (auto* patch = dynamic_cast<BiasPatch<T>*>(entry.patch.get()); patch != nullptr && patch->original_bias)
      return std::make_shared<const Tensor<T>>(elements_of<T>(*patch->original_bias));
  return bias->filled() ? std::make_shared<const Tensor<T>>(*bias->values()) : nullptr;
}

/// A bias before and after a change of what is merged; nothing when no patch of the layer has ever touched it.
template <class T>
struct BiasFold {
  typename Weight<T>::Stored original, folded;
};
template <class T>
std::optional<BiasFold<T>> fold_bias(const SiteRef<T>& site) {
  Weight<T>* const bias = bias_of(site);
  if (bias == nullptr) return std::nullopt;
  std::optional<typename Weight<T>::Stored> original;
  bool concerned = false;
  for (auto& entry : *site.patches)
    if (auto* patch = dynamic_cast<BiasPatch<T>*>(entry.patch.get())) {
      if (patch->original_bias) original = patch->original_bias;
      concerned = concerned || patch->original_bias || (entry.merged && patch->changes_bias());
    }
  if (!concerned) return std::nullopt;
  if (!original) original = bias->stored();
  std::optional<Tensor<T>> folded;
  for_each_merged(site, [&](auto& entry) {
    auto* const patch = dynamic_cast<BiasPatch<T>*>(entry.patch.get());
    if (patch == nullptr) return;
    if (!folded) folded = elements_of<T>(*original);
    folded = patch->merged_bias(*folded, entry.scale);
  });
  if (!folded) return BiasFold<T>{*original, *original};
  return BiasFold<T>{*original, std::make_shared<const Tensor<T>>(std::move(*folded))};
}

/// Gives each entry the state that `merged(entry)` says and the weights what follows from it: all of it or, when a fold throws, none.
/// Entries that `leaves(entry)` are gone after it.
template <class M, class F, class Leaves>
void set_merged(M& model, std::string_view op, F&& merged, Leaves&& leaves) {
  using T = scalar_of<M>;
  struct Change {
    SiteRef<T> site;
    std::vector<bool> before;
    typename Weight<T>::Stored stored;
    std::optional<BiasFold<T>> bias;
  };
  std::vector<Change> changes;
  const auto revert = [&] {
    for (auto& change : changes)
      for (std::size_t i = 0; i < change.before.size(); ++i) change.site.patches->entries[i].merged = change.before[i];
  };
  try {
    for (const auto& site : sites(model)) {
      if (site.weight == nullptr) continue;
      Change change{site, {}, {}, {}};
      bool moved = false;
      for (auto& entry : *site.patches) {
        change.before.push_back(entry.merged);
        entry.merged = merged(entry);
        moved = moved || entry.merged != change.before.back();
      }
      if (!moved) continue;
      changes.push_back(std::move(change));
      check_order(op, site, [](const auto& entry) { return entry.merged; }, [&](const auto& entry) { return entry.enabled && !leaves(entry); });
      check(!site.patches->original || site.weight->version() == site.patches->merged_version, "merge", "the weight of ", site.path,
            " was written while an adapter was merged into it, so unmerging would lose that; merge_and_unload keeps it as it is");
      changes.back().stored = fold(site);
      changes.back().bias = fold_bias(site);
    }
  } catch (...) {
    revert();
    throw;
  }
  for (auto& change : changes) {
    auto& slot = *change.site.patches;
    const bool any = std::any_of(slot.begin(), slot.end(), [](const auto& entry) { return entry.merged; });
    if (any && !slot.original) slot.original = change.site.weight->stored();
    if (!any) slot.original.reset();
    change.site.weight->set(std::move(change.stored));
    slot.merged_version = change.site.weight->version();
    if (!change.bias) continue;
    bias_of(change.site)->set(change.bias->folded);
    for (auto& entry : slot)
      if (auto* patch = dynamic_cast<BiasPatch<T>*>(entry.patch.get()))
        patch->original_bias = entry.merged ? std::optional(change.bias->original) : std::nullopt;
  }
}

}  // namespace detail

/// What merging lost by rounding.
struct MergeReport {
  std::vector<std::string> sites;  ///< the layers that hold something merged
  /// For each: how far what its products read is from the base, as they read it, and the delta in float32; relative to the
  /// delta (Frobenius). 0 for a float32 base, some 1e-1 for a small delta on bfloat16, above 1 where int8 drowns it.
  std::vector<double> losses;
  double worst() const { return losses.empty() ? 0 : *std::max_element(losses.begin(), losses.end()); }
};

/// Folds adapters into the weights by name pattern: the same outputs at no cost. A new weight is written and the old
/// elements are kept by handle. A base with bfloat16 or int8 panels keeps them and takes the delta as these can hold it: the
/// report says what is lost; unmerged, the delta is float32 beside the base. Disabled adapters are left as they are. Patches act
/// in the order of attaching: a DoRA or IA3 goes in with those before it, and those behind it with it. A merged
/// weight must not be trained: unmerge and merge throw Error when it was written since. Throws NameError when no adapter fits,
/// Error when all that fit are disabled, a method cannot be merged or one that acts before it is left out; then nothing has changed.
template <class M>
MergeReport merge(M& model, std::string_view pattern = "*") {
  using T = scalar_of<M>;
  bool any = false;
  detail::for_each_named(model, "merge", pattern, [&](const auto& site, auto& entry) {
    if (!entry.enabled) return;
    any = true;
    bool possible = false;
    if constexpr (requires { entry.patch->can_merge(); }) possible = entry.patch->can_merge();
    check(possible, "merge", "adapter '", entry.adapter, "' (", entry.patch->kind(), ") cannot be merged at ", site.path);
  });
  check(any, "merge", "every adapter '", pattern, "' is disabled; enable it first");
  detail::set_merged(model, "merge", [&](const auto& entry) { return entry.merged || (entry.enabled && glob_matches(pattern, entry.adapter)); },
                     [](const auto&) { return false; });
  MergeReport report;
  for (const auto& site : sites(model)) {
    if (site.weight == nullptr || !site.patches->original) continue;
    report.sites.push_back(site.path);
    report.losses.push_back(0);
    const DType panels = site.weight->panels();
    if (panels == dtype_of<T>) continue;
    Tensor<T> folded = detail::elements_of<T>(*site.patches->original);
    const Tensor<T> base(folded), base_read = detail::rounded_to(base, panels);
    detail::for_each_merged(site, [&](auto& entry) { folded = *entry.patch->merged(folded, entry.scale); });
    const Tensor<T> read = detail::rounded_to(folded, panels);
    double missed = 0, delta = 0;
    for (Index i = 0; i < folded.size(); ++i) {
      const double wanted = static_cast<double>(folded.data()[i]) - static_cast<double>(base.data()[i]);
      const double got = static_cast<double>(read.data()[i]) - static_cast<double>(base_read.data()[i]);
      missed += (got - wanted) * (got - wanted);
      delta += wanted * wanted;
    }
    report.losses.back() = delta > 0 ? std::sqrt(missed / delta) : 0;
  }
  return report;
}

/// Takes merged adapters out of the weights by name pattern; the elements of before come back bit for bit. Throws NameError when
/// no adapter fits, Error when one that acts behind it would stay.
template <class M>
void unmerge(M& model, std::string_view pattern = "*") {
  detail::for_each_named(model, "unmerge", pattern, [](const auto&, auto&) {});
  detail::set_merged(model, "unmerge", [&](const auto& entry) { return entry.merged && !glob_matches(pattern, entry.adapter); },
                     [](const auto&) { return false; });
}

/// Removes adapters by name pattern; merged ones are unmerged first. Throws NameError when none fits.
template <class M>
void detach(M& model, std::string_view pattern = "*") {
  detail::for_each_named(model, "detach", pattern, [](const auto&, auto&) {});
  const auto named = [&](const auto& entry) { return glob_matches(pattern, entry.adapter); };
  detail::set_merged(model, "detach", [&](const auto& entry) { return entry.merged && !named(entry); }, named);
  for (const auto& site : sites(model)) {
    std::erase_if(site.patches->entries, named);
    if (site.key_values != nullptr) std::erase_if(site.key_values->entries, named);
  }
}

/// Merges adapters for good by name pattern: their patches are gone and the model is an ordinary one.
/// What `merge` reports. Throws as `merge`, and Error when another adapter is merged and would stay, or one that fits is disabled and would be lost.
template <class M>
MergeReport merge_and_unload(M& model, std::string_view pattern = "*") {
  for (const auto& site : sites(model))
    for_each_patch(site, [&](const auto& entry) {
      const bool named = glob_matches(pattern, entry.adapter);
      check(!entry.merged || named, "merge_and_unload", "adapter '", entry.adapter,
            "' is merged too; unmerge it, or unload it with the same pattern");
      check(entry.enabled || !named, "merge_and_unload", "adapter '", entry.adapter, "' is disabled at ", site.path,
            " and would be lost; enable it or detach it first");
    });
  const MergeReport report = merge(model, pattern);
  for (const auto& site : sites(model)) {
    site.patches->original.reset();
    std::erase_if(site.patches->entries, [&](const auto& entry) { return glob_matches(pattern, entry.adapter); });
  }
  return report;
}

}  // namespace tenon::inline TENON_ABI
