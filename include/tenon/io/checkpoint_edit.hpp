#pragma once
// CheckpointEdit: a checkpoint written anew with other elements in some of its tensors, everything else as it is.
//
//   CheckpointEdit edit(open_checkpoint("model.safetensors"));
//   StateDict names = edit.tensors();
//   names.rename(...);                       // to the model's names
//   edit.replace(params(model), names);
//   edit.save("tuned.safetensors");
#include <algorithm>

#include <tenon/io/checkpoint.hpp>

namespace tenon::inline TENON_ABI {

/// The tensors of a checkpoint and what is to take the place of their elements.
class CheckpointEdit {
 public:
  /// Throws FileError on a tensor of a type that tenon does not read.
  explicit CheckpointEdit(StateDict tensors) : tensors_(std::move(tensors)) {
    for (const auto& name : tensors_.names()) {
      const RawTensor raw = tensors_.raw(name);
      originals_.push_back({name, raw});
      if (raw.byte_count() > 0) by_address_.emplace(raw.bytes.get(), originals_.size() - 1);
    }
  }

  /// As in the file. Renamed, split or reshaped in a copy they are still found by `replace`; transposed they are not.
  const StateDict& tensors() const { return tensors_; }

  /// Puts a list's elements, rounded to the file's types, in the place of those that `view` has under the list's names. A list's
  /// name that the view lacks is an error, as is a changed tensor that the view transposes. Throws NameError, ShapeError, FileError.
  template <class T>
  void replace(const std::vector<ParamRef<T>>& list, const StateDict& view) {
    for (const auto& ref : list) {
      const RawTensor old = view.raw(ref.path);
      check<ShapeError>(old.shape == ref.weight->shape(), "checkpoint", tensors_.source(), ": ", ref.path, ": expected shape ", old.shape, ", got ", ref.weight->shape());
      RawTensor fresh = ref.weight->bytes();
      if (fresh.dtype != old.dtype) fresh = visit_dtype(old.dtype, [&]<class To>() { return raw_copy(cast<To>(fresh)); });
      if (fresh.byte_count() == 0 || std::memcmp(fresh.bytes.get(), old.bytes.get(), old.byte_count()) == 0) continue;
      auto at = by_address_.upper_bound(old.bytes.get());
      const bool within = at != by_address_.begin() && [&] {
        const RawTensor& whole = originals_[(--at)->second].tensor;
        return old.bytes.get() + old.byte_count() <= whole.bytes.get() + whole.byte_count();
      }();
      check<FileError>(within, "checkpoint", tensors_.source(), ": ", ref.path, ": the file holds it in another order, so it cannot be replaced there");
      const NamedTensor& whole = originals_[at->second];
      auto& copy = edited_[at->second];
      if (!copy) {
        copy = allocate<std::byte>(static_cast<Index>(whole.tensor.byte_count()));
        std::memcpy(copy.get(), whole.tensor.bytes.get(), whole.tensor.byte_count());
      }
      std::memcpy(copy.get() + (old.bytes.get() - whole.tensor.bytes.get()), fresh.bytes.get(), fresh.byte_count());
    }
  }
  /// How many of the file's tensors have other elements now.
  Index edited() const { return static_cast<Index>(edited_.size()); }

  /// Writes all tensors as safetensors. Throws FileError.
  void save(const std::string& path, const std::map<std::string, std::string>& metadata = {{"format", "pt"}}) const {
    std::vector<NamedTensor> all = originals_;
    for (const auto& [i, copy] : edited_) all[i].tensor.bytes = std::shared_ptr<const std::byte>(copy, copy.get());
    save_safetensors(path, all, metadata);
  }

 private:
  StateDict tensors_;
  std::vector<NamedTensor> originals_;
  std::map<const std::byte*, std::size_t> by_address_;  // where an original's elements begin
  std::map<std::size_t, std::shared_ptr<std::byte[]>> edited_;
};

}  // namespace tenon::inline TENON_ABI
