#pragma once
// Attaching fine-tuning to a model by name, and taking it off again. Models stay as they were compiled.
#include <cmath>
#include <map>
#include <set>

#include <tenon/nn/attention.hpp>
#include <tenon/nn/conv2d.hpp>
#include <tenon/nn/embedding.hpp>
#include <tenon/nn/mlp.hpp>
#include <tenon/nn/norm.hpp>
#include <tenon/peft/targets.hpp>

namespace tenon::inline TENON_ABI {

struct AttachOptions {
  /// The adapter's name in this model: what enable, detach, merge and save refer to.
  std::string name = "default";
  double scale = 1.0;
};

/// What attaching did.
struct AttachReport {
  std::vector<std::string> sites;
  Index parameters = 0;
};

/// What a patch has besides OutputPatch when its `before` depends on the entry's scale, which it is told here. Merging folds
/// such a patch after those that change the weight beside it.
template <class T>
struct InputPatch {
  T entry_scale = T(1);
};

/// What a patch has besides OutputPatch when what it adds depends on the output that it finds (DoRA, IA3, bottlenecks).
struct ReadsOutput {};

/// What a patch has besides OutputPatch when its low-rank term goes with the layer's product. Behind a patch that reads the
/// output it has to be added apart, so that patches act in the order of attaching.
struct ProductPatch {
  bool apart = false;
};

/// One patch of a method for one site, of either seam.
template <class T>
struct NewPatch {
  std::unique_ptr<OutputPatch<T>> output;
  std::unique_ptr<KeyValuePatch<T>> key_value;
  explicit operator bool() const { return output || key_value; }
  Patch<T>& patch() { return output ? static_cast<Patch<T>&>(*output) : *key_value; }
};

/// `linear`, `conv2d`, `embedding`, `mlp`, `attention`, `layer_norm` or `group_norm`.
template <class T>
std::string_view kind_of(const SiteRef<T>& site) {
  constexpr std::string_view kinds[] = {"linear", "conv2d", "embedding", "mlp", "attention", "layer_norm", "group_norm"};
  return kinds[site.layer.index()];
}

namespace detail {

template <class T>
std::vector<std::string> paths_of(const std::vector<SiteRef<T>>& list) {
  std::vector<std::string> out;
  for (const auto& site : list) out.push_back(site.path);
  return out;
}

/// The paths' endings of as many parts as `target` has: what it may have been meant to be.
template <class T>
std::vector<std::string> endings_of(const std::vector<SiteRef<T>>& list, std::string_view target) {
  std::set<std::string> out;
  for (const auto& site : list) {
    auto parts = std::count(target.begin(), target.end(), '.') + 1;
    std::size_t begin = site.path.size();
    while (parts-- > 0 && begin != std::string::npos && begin > 0) begin = site.path.rfind('.', begin - 1);
    out.insert(begin == std::string::npos || begin == 0 ? site.path : site.path.substr(begin + 1));
  }
  return {out.begin(), out.end()};
}

template <class T>
struct Placement {
  SiteRef<T> site;
  NewPatch<T> patch;
};

/// A scale is a factor of what a patch adds; keys and values in front of an Attention's own have none.
template <class T>
bool takes_scale(const OutputPatch<T>&) {
  return true;
}
template <class T>
bool takes_scale(const KeyValuePatch<T>& patch) {
  return patch.apart();
}

/// Whether one of a slot's first entries reads the output.
template <class T>
bool behind_reader(const OutputSlot<T>& slot, std::size_t first) {
  return std::any_of(slot.begin(), slot.begin() + static_cast<std::ptrdiff_t>(first),
                     [](const auto& entry) { return dynamic_cast<const ReadsOutput*>(entry.patch.get()) != nullptr; });
}

/// What is in the weight acts before what is not. Throws Error where that is another order than that of attaching and puts out
/// something else; `merged(entry)` and `enabled(entry)` say how things are to be.
template <class T, class Merged, class Enabled>
void check_order(std::string_view op, const SiteRef<T>& site, Merged&& merged, Enabled&& enabled) {
  const PatchEntry<T, OutputPatch<T>>*beside = nullptr, *reader = nullptr, *input = nullptr;
  const auto fits = [&](const auto* first, const auto& second) {
    check(first == nullptr, op, "at ", site.path, " '", first == nullptr ? std::string() : first->adapter, "' acts before '", second.adapter,
          "', which cannot be in the weight without it; merge both, or unmerge '", second.adapter, "'");
  };
  for (const auto& entry : *site.patches) {
    const bool reads = dynamic_cast<const ReadsOutput*>(entry.patch.get()) != nullptr, takes_input = dynamic_cast<const InputPatch<T>*>(entry.patch.get()) != nullptr;
    if (merged(entry)) {
      fits(reader != nullptr ? reader : reads ? beside : nullptr, entry);
      if (takes_input) input = &entry;
    } else if (enabled(entry) && !takes_input && entry.patch->own_ids() == std::pair<Index, Index>()) {  // rows of their own stand apart
      if (beside == nullptr) beside = &entry;
      if (reads && reader == nullptr) reader = &entry;
    }
  }
  if (input != nullptr) fits(beside, *input);
}

/// Puts patches in their slots: all, or none when a name is taken or a scale is asked of one that takes none.
template <class T>
AttachReport place(std::vector<Placement<T>> placements, const AttachOptions& options) {
  AttachReport report;
  check(std::isfinite(static_cast<T>(options.scale)), "attach", "expected a finite scale, got ", options.scale);
  for (auto& placement : placements) {
    const SiteRef<T>& site = placement.site;
    NewPatch<T>& made = placement.patch;
    for_each_patch(site, [&](const auto& entry) {
      check<NameError>(entry.adapter != options.name, "attach", "an adapter named '", options.name, "' is attached to ", site.path,
                       " already; detach it first or give another name");
    });
    for (const auto& entry : *site.patches)
      check(!entry.merged || dynamic_cast<const InputPatch<T>*>(entry.patch.get()) == nullptr || dynamic_cast<const InputPatch<T>*>(&made.patch()) != nullptr,
            "attach", "adapter '", entry.adapter, "', which changes what ", site.path, " takes in, is merged there; unmerge it first");
    check(made.output || takes_scale(*made.key_value) || options.scale == 1.0, "attach", "a ", made.patch().kind(), " takes no scale; got ", options.scale, " for ", site.path);
    for (const auto& named : made.patch().params()) report.parameters += (*named.param)->size();
    report.sites.push_back(site.path);
  }
  for (auto& [site, made] : placements) {
    const T scale = static_cast<T>(options.scale);
    if (auto* input = dynamic_cast<InputPatch<T>*>(&made.patch())) input->entry_scale = scale;
    if (auto* product = dynamic_cast<ProductPatch*>(&made.patch())) product->apart = behind_reader(*site.patches, site.patches->entries.size());
    if (made.output) site.patches->entries.push_back({options.name, std::move(made.output), scale});
    if (made.key_value) site.key_values->entries.push_back({options.name, std::move(made.key_value), scale});
  }
  return report;
}

/// What `make(site)` makes for every site that the targets name, or where there are none for every site that `by_default` takes.
template <class M, class ByDefault, class Make>
std::vector<Placement<scalar_of<M>>> patches_for(M& model, const std::vector<std::string>& targets, ByDefault&& by_default, Make&& make) {
  using T = scalar_of<M>;
  const auto all = sites(model);
  std::vector<Placement<T>> placements;
  std::set<std::string> fruitless(targets.begin(), targets.end());
  std::map<std::string, std::string> misfits;  // a target and a layer it names that the method does not fit
  for (const auto& site : all) {
    if (targets.empty() ? !by_default(site) : !any_target_matches(targets, site.path)) continue;
    NewPatch<T> made = make(site);
    if (!made) {
      for (const auto& target : targets)
        if (target_matches(target, site.path)) misfits.emplace(target, join_text(site.path, " (", kind_of(site), ")"));
      continue;
    }
    std::erase_if(fruitless, [&](const auto& target) { return target_matches(target, site.path); });
    placements.push_back({site, std::move(made)});
  }
  for (const auto& [target, misfit] : misfits)
    check<NameError>(!fruitless.contains(target), "attach", "'", target, "' names only layers that this method does not fit, such as ", misfit);
  check<NameError>(fruitless.empty(), "attach", "'", fruitless.empty() ? std::string() : *fruitless.begin(),
                   "' matches no layer of the model; nearest: ",
                   fruitless.empty() ? std::string() : nearest_names(*fruitless.begin(), endings_of(all, *fruitless.begin())));
  check<NameError>(!placements.empty(), "attach", "the model has no layer that this method fits");
  return placements;
}

/// Each of the patterns (name and value) names one of the layers that are tuned.
template <class T, class Patterns>
void check_patterns(std::string_view what, const Patterns& patterns, const std::vector<Placement<T>>& placements) {
  std::vector<SiteRef<T>> tuned;
  for (const auto& placement : placements) tuned.push_back(placement.site);
  for (const auto& pattern : patterns) {
    const std::string& name = pattern.first;
    check<NameError>(std::any_of(tuned.begin(), tuned.end(), [&](const auto& site) { return target_matches(name, site.path); }), "attach",
                     "'", name, "' of the ", what, " matches no layer that the targets name; nearest: ", nearest_names(name, endings_of(tuned, name)));
  }
}

}  // namespace detail

/// Attaches a method to every site that `config.targets` names (see target_matches), or where there are none to every
/// site that the method fits by itself. `make_patch(config, site, generator)` belongs to the method.
/// Throws NameError for a target that matches nothing, or only layers that the method does not fit, for a rank or alpha pattern
/// that matches none of the targets' layers, and for a feedforward name that matches nothing; Error for a name that is taken. Then nothing is attached.
template <class M, class Config>
AttachReport attach(M& model, const Config& config, Generator& generator, const AttachOptions& options = {}) {
  auto placements = detail::patches_for(model, config.targets, [&](const auto& site) { return fits_by_default(config, site); },
                                        [&](const auto& site) { return make_patch(config, site, generator); });
  if constexpr (requires { config.rank_pattern; }) {
    detail::check_patterns("rank pattern", config.rank_pattern, placements);
    detail::check_patterns("alpha pattern", config.alpha_pattern, placements);
  }
  if constexpr (requires { config.feedforward; }) {  // of the model's layers: the targets may be a part of those
    const auto all = sites(model);
    for (const auto& name : config.feedforward)
      check<NameError>(std::any_of(all.begin(), all.end(), [&](const auto& site) { return target_matches(name, site.path); }), "attach", "'", name,
                       "' of feedforward matches no layer of the model; nearest: ", nearest_names(name, detail::endings_of(all, name)));
  }
  if constexpr (requires { config.bias; })
    if (config.bias == decltype(config.bias)::all) {
      std::set<std::string> taken;
      for (const auto& placement : placements) taken.insert(placement.site.path);
      for (const auto& site : sites(model))
        if (taken.contains(site.path)) continue;
        else if (auto delta = bias_delta(site)) placements.push_back({site, {std::move(delta), nullptr}});
    }
  return detail::place(std::move(placements), options);
}

namespace detail {
/// Calls `f(site, entry)` for every patch whose adapter fits the pattern; throws NameError when there is none.
template <class T, class F>
void for_each_named(const std::vector<SiteRef<T>>& all, std::string_view op, std::string_view pattern, F&& f) {
  std::set<std::string> known;
  bool found = false;
  for (const auto& site : all)
    for_each_patch(site, [&](auto& entry) {
      known.insert(entry.adapter);
      if (!glob_matches(pattern, entry.adapter)) return;
      found = true;
      f(site, entry);
    });
  std::string names;
  for (const auto& name : known) names += (names.empty() ? "" : ", ") + name;
  check<NameError>(found, op, "no adapter '", pattern, "' is attached; attached: ", names.empty() ? std::string("none") : names);
}
template <class M, class F>
void for_each_named(M& model, std::string_view op, std::string_view pattern, F&& f) {
  for_each_named(sites(model), op, pattern, std::forward<F>(f));
}
}  // namespace detail

/// Names of the attached adapters.
template <class M>
std::set<std::string> adapter_names(M& model) {
  std::set<std::string> out;
  for (const auto& site : sites(model))
    for_each_patch(site, [&](const auto& entry) { out.insert(entry.adapter); });
  return out;
}

namespace detail {
/// A merged adapter is in the weights whatever its flags say.
template <class T, class Entry>
void check_unmerged(std::string_view op, const SiteRef<T>& site, const Entry& entry) {
  check(!entry.merged, op, "adapter '", entry.adapter, "' is merged at ", site.path, "; unmerge it first");
}
}  // namespace detail

/// Switches adapters on or off by name pattern (`*`). Throws NameError when none fits, Error when one to switch off is merged,
/// or one to switch on acts before a merged one.
template <class M>
void enable(M& model, std::string_view pattern, bool on = true) {
  detail::for_each_named(model, on ? "enable" : "disable", pattern, [&](const auto& site, auto& entry) {
    if (!on) detail::check_unmerged("disable", site, entry);
  });
  const auto enabled = [&](const auto& entry) { return entry.enabled || glob_matches(pattern, entry.adapter); };
  if (on)
    for (const auto& site : sites(model)) detail::check_order("enable", site, [](const auto& entry) { return entry.merged; }, enabled);
  detail::for_each_named(model, "enable", pattern, [&](const auto&, auto& entry) { entry.enabled = on; });
}
template <class M>
void disable(M& model, std::string_view pattern) {
  enable(model, pattern, false);
}
/// Leaves exactly the named adapters on: swapping one for another is `activate(model, {"other"})`; `{}` is the base.
/// Throws NameError when a name fits none, Error when one to switch off is merged or one to switch on acts before a merged one.
template <class M>
void activate(M& model, const std::vector<std::string>& names) {
  for (const auto& name : names) detail::for_each_named(model, "activate", name, [](const auto&, auto&) {});
  const auto named = [&](const auto& entry) {
    return std::any_of(names.begin(), names.end(), [&](const auto& name) { return glob_matches(name, entry.adapter); });
  };
  const auto all = sites(model);
  for (const auto& site : all)
    for_each_patch(site, [&](auto& entry) {
      if (!named(entry)) detail::check_unmerged("activate", site, entry);
    });
  for (const auto& site : all) detail::check_order("activate", site, [](const auto& entry) { return entry.merged; }, named);
  for (const auto& site : all) for_each_patch(site, [&](auto& entry) { entry.enabled = named(entry); });
}
/// Sets the scale of adapters by name pattern. Throws NameError when none fits, Error when one is merged or has no scale.
template <class M>
void set_scale(M& model, std::string_view pattern, double scale) {
  using T = scalar_of<M>;
  check(std::isfinite(static_cast<T>(scale)), "set_scale", "expected a finite scale, got ", scale);
  detail::for_each_named(model, "set_scale", pattern, [](const auto& site, auto& entry) {
    detail::check_unmerged("set_scale", site, entry);
    check(detail::takes_scale(*entry.patch), "set_scale", "adapter '", entry.adapter, "' (", entry.patch->kind(), ") takes no scale");
  });
  detail::for_each_named(model, "set_scale", pattern, [&](const auto&, auto& entry) {
    entry.scale = static_cast<T>(scale);
    Patch<T>* const patch = entry.patch.get();
    if (auto* input = dynamic_cast<InputPatch<T>*>(patch)) input->entry_scale = entry.scale;
  });
}

}  // namespace tenon::inline TENON_ABI
