#pragma once
// The two seams through which fine-tuning enters a layer: OutputPatch and KeyValuePatch.
//
// A layer that can be tuned holds a slot: a short list of named patches, empty by default at the cost of one branch.
// A method (LoRA, bottleneck adapter, prefix, ...) is a class in peft/ that overrides some of these functions; layers
// never name a method. Patches apply in the order of attaching.
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <tenon/nn/param.hpp>
#include <tenon/ops/arithmetic.hpp>
#include <tenon/nn/row_groups.hpp>
#include <tenon/ops/low_rank.hpp>

namespace tenon::inline TENON_ABI {

/// What every patch has: a kind, its own parameters, and perhaps a weight delta that can be merged.
template <class T>
struct Patch {
  virtual ~Patch() = default;
  /// The method's name, as "lora".
  virtual std::string_view kind() const = 0;
  /// The parameters, by the names they have in peft's files, as "lora_A.weight".
  virtual std::vector<NamedParam<T>> params() = 0;
};

/// Changes what a Linear, Conv2d, Embedding, Mlp or Attention puts out. All functions are the identity by default.
template <class T>
struct OutputPatch : Patch<T> {
  /// The layer's input, changed.
  virtual Var<T> before(const Var<T>& x) const { return x; }
  /// A low-rank weight delta that the layer's product takes along.
  /// `x` is the layer's input (an empty constant for an Embedding).
  virtual std::optional<LowRank<T>> low_rank(const Var<T>& /*x*/) const { return std::nullopt; }
  /// A factor for each output column, before the bias (DoRA); may read the layer's weight.
  virtual std::optional<Var<T>> column_scale() const { return std::nullopt; }
  /// Whether `after` does anything; a layer fuses its activation only when no patch does.
  virtual bool has_after() const { return false; }
  /// The layer's output y, changed; x is the layer's input. `scale` is the entry's scale.
  virtual Var<T> after(const Var<T>& /*x*/, const Var<T>& y, T /*scale*/) const { return y; }
  /// `after` for an Embedding, whose input are ids: y [..., D] of ids [...].
  virtual Var<T> after_rows(const Tensor<std::int32_t>& /*ids*/, const Var<T>& y, T scale) const { return after(Var<T>(), y, scale); }
  /// Ids beyond an Embedding's table for which `after_rows` has rows of its own, as [first, last); the table's row 0 stands in.
  virtual std::pair<Index, Index> own_ids() const { return {0, 0}; }
  /// Whether this patch can be folded into the layer's weight.
  virtual bool can_merge() const { return false; }
  /// The weight with this patch folded in; nothing unless can_merge.
  virtual std::optional<Tensor<T>> merged(const Tensor<T>& /*weight*/, T /*scale*/) const { return std::nullopt; }
};

/// A second source of keys and values that every query of an Attention sees: in front of its own, or attended apart and added.
template <class T>
struct KeyValuePatch : Patch<T> {
  struct KeysValues {
    Var<T> keys, values;         // [P, D] each; apart also [N, P, D], of each sample
    std::optional<Var<T>> gate;  // [1], a factor of what is attended apart
  };
  /// Whether it is attended apart; the entry's scale is then a factor of what comes of it.
  virtual bool apart() const { return false; }
  /// How many rows at the end of the Attention's context are this patch's: no other keys and values are made from them.
  virtual Index context_rows() const { return 0; }
  /// `own` [N, context_rows, C]: those rows.
  virtual KeysValues keys_values(const Var<T>& own = {}) const = 0;
};

/// A patch as attached: its adapter's name, its scale, and whether it takes part.
template <class T, class P>
struct PatchEntry {
  std::string adapter;
  std::unique_ptr<P> patch;
  T scale = T(1);
  bool enabled = true;
  bool merged = false;  // folded into the layer's weight, so it takes no part of its own

  bool active() const { return enabled && !merged; }
};

/// The patches of one layer, in the order of attaching.
template <class T, class P>
struct PatchSlot {
  std::vector<PatchEntry<T, P>> entries;
  /// While something is merged: the layer's elements from before, which unmerge puts back.
  std::optional<typename Weight<T>::Stored> original;
  std::uint64_t merged_version = 0;  ///< the weight's, as merging left it

  bool empty() const { return entries.empty(); }
  auto begin() { return entries.begin(); }
  auto end() { return entries.end(); }
  auto begin() const { return entries.begin(); }
  auto end() const { return entries.end(); }
};

template <class T>
using OutputSlot = PatchSlot<T, OutputPatch<T>>;
template <class T>
using KeyValueSlot = PatchSlot<T, KeyValuePatch<T>>;

/// Whether an entry takes part in this call. Throws Error when it is in the weights although rows choose their adapters.
template <class T, class P>
bool takes_part(const PatchEntry<T, P>& entry) {
  const auto* rows = detail::row_adapters.get();
  if (rows == nullptr) return entry.active();
  check(!entry.merged, "RowAdapters", "adapter '", entry.adapter, "' is merged, so every row would have it; unmerge it first");
  return entry.active() && rows->names(entry.adapter);
}

/// The rows of each adapter, where the slots hold one that some rows take and others do not; else nothing.
template <class... Slot>
std::vector<RowGroup> row_groups(const Slot&... slots) {
  const auto* rows = detail::row_adapters.get();
  if (rows == nullptr || rows->uniform) return {};
  std::vector<std::string_view> here;
  const auto look = [&](const auto& slot) {
    for (const auto& entry : slot)
      if (takes_part(entry)) here.push_back(entry.adapter);
  };
  (look(slots), ...);
  return here.empty() ? std::vector<RowGroup>{} : detail::group_rows(*rows, here);
}

/// Runs a layer through its slot. `product(x, low_rank, with_bias)` is the layer itself, `add_bias(y)` its bias alone.
template <class T, class Product, class AddBias>
Var<T> through(const OutputSlot<T>& slot, Var<T> x, Product&& product, AddBias&& add_bias) {
  std::vector<LowRank<T>> low_rank;
  std::optional<Var<T>> column_scale;
  for (const auto& entry : slot) {
    if (!takes_part(entry)) continue;
    x = entry.patch->before(x);
    if (auto term = entry.patch->low_rank(x)) {
      term->scale *= entry.scale;
      low_rank.push_back(std::move(*term));
    }
    if (auto scale = entry.patch->column_scale()) column_scale = column_scale ? *column_scale * *scale : *scale;
  }
  Var<T> y = column_scale ? add_bias(product(x, low_rank, false) * *column_scale) : product(x, low_rank, true);
  for (const auto& entry : slot)
    if (takes_part(entry) && entry.patch->has_after()) y = entry.patch->after(x, y, entry.scale);
  return y;
}

/// Whether the output of a layer is changed after its product, so that nothing may be fused behind the product.
template <class T>
bool changes_output(const OutputSlot<T>& slot) {
  for (const auto& entry : slot)
    if (takes_part(entry) && (entry.patch->has_after() || entry.patch->column_scale())) return true;
  return false;
}

}  // namespace tenon::inline TENON_ABI
