#pragma once
// Attaching fine-tuning to a model by name, and taking it off again. Models stay as they were compiled.
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

/// Puts patches in their slots: all, or none when a name is taken or a scale is asked of one that takes none.
template <class T>
AttachReport place(std::vector<Placement<T>> placements, const AttachOptions& options) {
  AttachReport report;
  for (auto& placement : placements) {
    const SiteRef<T>& site = placement.site;
    NewPatch<T>& made = placement.patch;
    for_each_patch(site, [&](const auto& entry) {
      check<NameError>(entry.adapter != options.name, "attach", "an adapter named '", options.name, "' is attached to ", site.path,
                       " already; detach it first or give another name");
    });
    check(made.output || takes_scale(*made.key_value) || options.scale == 1.0, "attach", "a ", made.patch().kind(), " takes no scale; got ", options.scale, " for ", site.path);
    for (const auto& named : made.patch().params()) report.parameters += (*named.param)->size();
    report.sites.push_back(site.path);
  }
  for (auto& [site, made] : placements) {
    const T scale = static_cast<T>(options.scale);
    if (auto* input = dynamic_cast<InputPatch<T>*>(&made.patch())) input->entry_scale = scale;
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

}  // namespace detail

/// Attaches a method to every site that `config.targets` names (see target_matches), or where there are none to every
/// site that the method fits by itself. `make_patch(config, site, generator)` belongs to the method.
/// Throws NameError for a target that matches nothing, or only layers that the method does not fit; Error for a name that is
/// taken. Then nothing is attached.
template <class M, class Config>
AttachReport attach(M& model, const Config& config, Generator& generator, const AttachOptions& options = {}) {
  auto placements = detail::patches_for(model, config.targets, [&](const auto& site) { return fits_by_default(config, site); },
                                        [&](const auto& site) { return make_patch(config, site, generator); });
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

/// Switches adapters on or off by name pattern (`*`). Throws NameError when none fits, Error when one to switch off is merged.
template <class M>
void enable(M& model, std::string_view pattern, bool on = true) {
  detail::for_each_named(model, on ? "enable" : "disable", pattern, [&](const auto& site, auto& entry) {
    if (!on) detail::check_unmerged("disable", site, entry);
  });
  detail::for_each_named(model, "enable", pattern, [&](const auto&, auto& entry) { entry.enabled = on; });
}
template <class M>
void disable(M& model, std::string_view pattern) {
  enable(model, pattern, false);
}
/// Leaves exactly the named adapters on: swapping one for another is `activate(model, {"other"})`; `{}` is the base.
/// Throws NameError when a name fits none, Error when one to switch off is merged.
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
  for (const auto& site : all) for_each_patch(site, [&](auto& entry) { entry.enabled = named(entry); });
}
/// Sets the scale of adapters by name pattern. Throws NameError when none fits, Error when one is merged or has no scale.
template <class M>
void set_scale(M& model, std::string_view pattern, double scale) {
  using T = scalar_of<M>;
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
