#pragma once
// StateDict: a checkpoint's tensors by name, whatever files they lie in. Renaming, splitting and transposing change how
// they are named and shaped, not the files; elements are read when they are asked for.
#include <functional>

#include <tenon/io/safetensors.hpp>

namespace tenon::inline TENON_ABI {

/// One tensor of a checkpoint.
struct StoredTensor {
  std::optional<DType> dtype;  ///< absent: a type that files may hold and tenon does not read
  std::string dtype_name;      ///< as in the file
  Shape shape{0};
  std::function<RawTensor()> read;
};

class StateDict {
 public:
  /// Empty; `source` stands for it in errors.
  explicit StateDict(std::string source) : source_(std::move(source)) {}
  /// All tensors of a safetensors file.
  StateDict(const SafetensorsFile& file) : source_(file.path()) { insert_all(file); }

  const std::string& source() const { return source_; }
  std::size_t size() const { return tensors_.size(); }
  /// Sorted.
  std::vector<std::string> names() const;
  bool contains(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }
  /// Throws NameError with the nearest names when there is no such tensor.
  const StoredTensor& info(std::string_view name) const;
  /// Throws NameError on an unknown name, FileError on a type that tenon does not read.
  RawTensor raw(std::string_view name) const;

  /// Throws FileError when the name is taken.
  void insert(const std::string& name, StoredTensor tensor);
  void insert_all(const SafetensorsFile& file);
  void insert_all(const StateDict& other);
  void erase(std::string_view name);
  /// Keeps those tensors for which `rename` gives a name, under that name.
  void rename(const std::function<std::optional<std::string>(const std::string&)>& rename);
  /// Replaces a tensor [n R, ...] by n tensors [R, ...]: a fused projection into its parts. Throws ShapeError.
  void split(const std::string& name, std::span<const std::string> parts);
  /// A matrix [M, N] becomes [N, M]. Throws ShapeError on another rank.
  void transpose(const std::string& name);
  /// The same elements in another shape, [1] as [] for instance. Throws ShapeError when the counts differ.
  void reshape(const std::string& name, const Shape& shape);

 private:
  std::string source_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/io/state_dict_body.hpp>
#endif
