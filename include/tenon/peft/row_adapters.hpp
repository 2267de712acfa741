#pragma once
// A different adapter for each row of a batch, in one forward (Chen et al. 2023, 2310.18547, on the CPU).
#include <string>
#include <vector>

#include <tenon/core/nearest.hpp>
#include <tenon/nn/row_groups.hpp>
#include <tenon/peft/attach.hpp>

namespace tenon::inline TENON_ABI {

/// While alive, row n of the batch (axis 0 of every layer's input) is tuned by the adapter names[n] alone, or by none where
/// that is empty; which of them are enabled counts as ever, others are off. Each row has the bits that it has alone.
///
///   const RowAdapters rows(model, {"anna", "ben", "", "anna"});
///   auto y = model(x);  // x [4, ...]
///
/// Throws NameError for an adapter that the model does not have. A layer throws ShapeError for an input of another extent,
/// Error for an adapter that is merged.
class RowAdapters {
 public:
  template <class M>
  RowAdapters(M& model, std::vector<std::string> names) : scope_(detail::row_names(known(adapter_names(model), std::move(names)))) {}

 private:
  template <class Names>
  static std::vector<std::string> known(const Names& attached, std::vector<std::string> names) {
    for (const auto& name : names)
      check<NameError>(name.empty() || attached.contains(name), "RowAdapters", "no adapter '", name, "' is attached; nearest: ", nearest_names(name, attached));
    return names;
  }

  detail::RowScope scope_;
};

}  // namespace tenon::inline TENON_ABI
