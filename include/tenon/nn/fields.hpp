#pragma once
// The one traversal. A layer names each member once, in `fields`; load, save, freeze, count, optimise and attach are
// plain functions over the flat lists that `params` and `sites` make from it.
//
//   template <class Self, class F> static void fields(Self& s, F&& f) {
//     f("q_proj", s.q_proj);                                   // a Param, a layer, a vector (adds .i), an optional
//     f("ff", s.mlp, {{"fc1", "net.0.proj"}, {"fc2", "net.2"}});  // a shared block under a checkpoint's own names
//   }
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <tenon/nn/param.hpp>
#include <tenon/nn/patch.hpp>

namespace tenon::inline TENON_ABI {

template <class T> struct Linear;
template <class T> struct Conv2d;
template <class T> struct Embedding;
template <class T> struct Mlp;
template <class T> struct Attention;
template <class T> struct LayerNorm;
template <class T> struct GroupNorm;

/// A shared block's canonical names and what a checkpoint calls them.
using Renames = std::vector<std::pair<std::string_view, std::string_view>>;

/// A place where patches attach.
template <class T>
struct SiteRef {
  std::string path;
  std::variant<Linear<T>*, Conv2d<T>*, Embedding<T>*, Mlp<T>*, Attention<T>*, LayerNorm<T>*, GroupNorm<T>*> layer;
  Weight<T>* weight = nullptr;              ///< what patches may be merged into; null for Mlp and Attention
  OutputSlot<T>* patches = nullptr;
  KeyValueSlot<T>* key_values = nullptr;    ///< null except for Attention
};

namespace detail {

template <class M> struct ScalarOf;
template <template <class> class M, class T> struct ScalarOf<M<T>> { using type = T; };

template <class M, class V> struct IsAlternative : std::false_type {};
template <class M, class... A> struct IsAlternative<M, std::variant<A...>> : std::bool_constant<(std::same_as<M*, A> || ...)> {};
template <class M, class T>
concept SiteLayer = IsAlternative<M, decltype(SiteRef<T>::layer)>::value;

/// What a walk meets. Virtual, so that each layer is walked by one function whatever for.
template <class T>
struct Visitor {
  virtual void param(const std::string& path, Param<T>& param) = 0;
  virtual void site(SiteRef<T> site) = 0;

 protected:
  ~Visitor() = default;
};

template <class T>
struct Walk {
  Visitor<T>& visitor;

  void visit(const std::string& path, Param<T>& param, const Renames&) const { visitor.param(path, param); }
  template <class M>
  void visit(const std::string& path, std::optional<M>& member, const Renames& renames) const {
    if (member) visit(path, *member, renames);
  }
  template <class M>
  void visit(const std::string& path, std::unique_ptr<M>& member, const Renames& renames) const {
    if (member) visit(path, *member, renames);
  }
  template <class M>
  void visit(const std::string& path, std::vector<M>& members, const Renames& renames) const {
    for (std::size_t i = 0; i < members.size(); ++i) visit(path + "." + std::to_string(i), members[i], renames);
  }
  template <class M>
  void visit(const std::string& path, M& layer, const Renames& renames) const {
    if constexpr (SiteLayer<M, T>) {
      SiteRef<T> site{path, &layer, nullptr, &layer.patches, nullptr};
      if constexpr (requires { layer.weight; }) site.weight = layer.weight.get();
      if constexpr (requires { layer.key_values; }) site.key_values = &layer.key_values;
      visitor.site(std::move(site));
    }
    M::fields(layer, [&](std::string_view name, auto& member, const Renames& inner = {}) {
      visit(child_path(path, name, renames), member, inner);
    });
  }

  static std::string child_path(const std::string& path, std::string_view name, const Renames& renames) {
    for (const auto& [canonical, renamed] : renames)
      if (name == canonical) name = renamed;
    std::string child = path;
    if (!child.empty() && !name.empty()) child += '.';
    return child += name;
  }
};

template <class M>
void walk(M& model, Visitor<typename ScalarOf<M>::type>& visitor) {
  Walk<typename ScalarOf<M>::type>{visitor}.visit("", model, {});
}

template <class T>
struct ParamList final : Visitor<T> {
  std::vector<ParamRef<T>> list;
  void param(const std::string& path, Param<T>& param) override {
    if (param) list.push_back({path, param.get()});
  }
  void site(SiteRef<T>) override {}
};
template <class T>
struct SiteList final : Visitor<T> {
  std::vector<SiteRef<T>> list;
  void param(const std::string&, Param<T>&) override {}
  void site(SiteRef<T> site) override { list.push_back(std::move(site)); }
};

}  // namespace detail

template <class M>
using scalar_of = typename detail::ScalarOf<M>::type;

/// Every present parameter of the model itself, in the order of its fields. Patches are not among them.
template <class M>
std::vector<ParamRef<scalar_of<M>>> params(M& model) {
  detail::ParamList<scalar_of<M>> out;
  detail::walk(model, out);
  return std::move(out.list);
}

/// Every place where patches attach, outer layers before the layers inside them.
template <class M>
std::vector<SiteRef<scalar_of<M>>> sites(M& model) {
  detail::SiteList<scalar_of<M>> out;
  detail::walk(model, out);
  return std::move(out.list);
}

/// Calls `f(entry)` for every attached patch of one site, output patches first.
template <class T, class F>
void for_each_patch(const SiteRef<T>& site, F&& f) {
  for (auto& entry : *site.patches) f(entry);
  if (site.key_values != nullptr)
    for (auto& entry : *site.key_values) f(entry);
}

/// The parameters of all attached patches, by `site path.parameter`; of one adapter when its name is given.
template <class M>
std::vector<ParamRef<scalar_of<M>>> patch_params(M& model, std::string_view adapter = {}) {
  using T = scalar_of<M>;
  std::vector<ParamRef<T>> out;
  for (const auto& site : sites(model))
    for_each_patch(site, [&](auto& entry) {
      if (!adapter.empty() && entry.adapter != adapter) return;
      for (const auto& [name, param] : entry.patch->params())
        if (*param) out.push_back({site.path.empty() ? std::string(name) : site.path + "." + std::string(name), param->get()});
    });
  return out;
}

/// All parameters that want a gradient, the model's and its patches'.
template <class M>
std::vector<ParamRef<scalar_of<M>>> trainable(M& model) {
  std::vector<ParamRef<scalar_of<M>>> out;
  for (auto& list : {params(model), patch_params(model)})
    for (const auto& ref : list)
      if (ref.weight->trainable()) out.push_back(ref);
  return out;
}

/// Makes the model's own parameters constants; patches keep what they are.
template <class M>
void freeze(M& model) {
  for (const auto& ref : params(model)) ref.weight->set_trainable(false);
}
template <class M>
void unfreeze(M& model) {
  for (const auto& ref : params(model)) ref.weight->set_trainable(true);
}

/// Copies elements, what products read of them, and whether they are trainable, into another model of the same fields; patches
/// are not copied, and a merged weight is copied merged. Throws NameError or ShapeError when the models differ; then nothing has changed.
template <class M>
void copy_params(M& from, M& to) {
  const auto source = params(from), target = params(to);
  check<NameError>(source.size() == target.size(), "copy_params", "expected ", target.size(), " parameters, got ", source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    check<NameError>(source[i].path == target[i].path, "copy_params", "expected ", target[i].path, ", got ", source[i].path);
    check<ShapeError>(source[i].weight->shape() == target[i].weight->shape(), "copy_params", target[i].path, ": expected shape ",
                      target[i].weight->shape(), ", got ", source[i].weight->shape());
    check(source[i].weight->filled(), "copy_params", source[i].path, " has no elements: load a checkpoint or initialise first");
  }
  for (std::size_t i = 0; i < source.size(); ++i) {
    const Weight<scalar_of<M>>& weight = *source[i].weight;
    target[i].weight->set_trainable(false);
    if (std::holds_alternative<RawTensor>(weight.stored()))
      target[i].weight->set(weight.stored());  // bytes that nobody writes: shared
    else
      target[i].weight->set(Tensor<scalar_of<M>>(weight.value()));
    if (target[i].weight->panels() != weight.panels()) target[i].weight->set_panels(weight.panels());
    target[i].weight->set_trainable(weight.trainable());
  }
}

/// Elements in all parameters of a list.
template <class T>
Index count(const std::vector<ParamRef<T>>& list) {
  Index total = 0;
  for (const auto& ref : list) total += ref.weight->size();
  return total;
}

}  // namespace tenon::inline TENON_ABI
