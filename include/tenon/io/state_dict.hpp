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
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, tensor] : tensors_) out.push_back(name);
    return out;
  }
  bool contains(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }
  /// Throws NameError with the nearest names when there is no such tensor.
  const StoredTensor& info(std::string_view name) const {
    const auto at = tensors_.find(name);
    if (at == tensors_.end())
      fail<NameError>("state_dict", source_, ": no tensor ", detail::quoted(name), "; nearest: ", nearest_names(name, names()));
    return at->second;
  }
  /// Throws NameError on an unknown name, FileError on a type that tenon does not read.
  RawTensor raw(std::string_view name) const {
    const StoredTensor& tensor = info(name);
    check<FileError>(tensor.dtype.has_value(), "state_dict", source_, ": tensor ", detail::quoted(name), " has type ", tensor.dtype_name,
                     ", which tenon does not read");
    return tensor.read();
  }

  /// Throws FileError when the name is taken.
  void insert(const std::string& name, StoredTensor tensor) {
    check<FileError>(tensors_.emplace(name, std::move(tensor)).second, "state_dict", source_, ": tensor ", detail::quoted(name), " occurs twice");
  }
  void insert_all(const SafetensorsFile& file) {
    for (const TensorInfo& tensor : file.tensors())
      insert(tensor.name, {tensor.dtype, std::string(tensor.dtype_name), tensor.shape, [file, name = tensor.name] { return file.raw(name); }});
  }
  void insert_all(const StateDict& other) {
    for (const auto& [name, tensor] : other.tensors_) insert(name, tensor);
  }
  void erase(std::string_view name) {
    if (const auto at = tensors_.find(name); at != tensors_.end()) tensors_.erase(at);
  }
  /// Keeps those tensors for which `rename` gives a name, under that name.
  void rename(const std::function<std::optional<std::string>(const std::string&)>& rename) {
    StateDict out(source_);
    for (auto& [name, tensor] : tensors_)
      if (const auto to = rename(name)) out.insert(*to, std::move(tensor));
    *this = std::move(out);
  }
  /// Replaces a tensor [n R, ...] by n tensors [R, ...]: a fused projection into its parts. Throws ShapeError.
  void split(const std::string& name, std::span<const std::string> parts) {
    const StoredTensor whole = info(name);
    const Index count = static_cast<Index>(parts.size());
    check<ShapeError>(whole.shape.rank() > 0 && whole.shape[0] % count == 0, "state_dict", source_, ": ", name, ": expected rows that split in ",
                      count, ", found shape ", whole.shape);
    const Shape shape = whole.shape.with(0, whole.shape[0] / count);
    erase(name);
    for (Index i = 0; i < count; ++i)
      insert(parts[static_cast<std::size_t>(i)], {whole.dtype, whole.dtype_name, shape, [read = whole.read, shape, i] {
               RawTensor raw = read();
               raw.shape = shape;
               raw.bytes = std::shared_ptr<const std::byte>(raw.bytes, raw.bytes.get() + static_cast<std::size_t>(i) * raw.byte_count());
               return raw;
             }});
  }
  /// A matrix [M, N] becomes [N, M]. Throws ShapeError on another rank.
  void transpose(const std::string& name) {
    const StoredTensor from = info(name);
    check<ShapeError>(from.shape.rank() == 2, "state_dict", source_, ": ", name, ": expected a matrix, found shape ", from.shape);
    const Index rows = from.shape[0], columns = from.shape[1];
    erase(name);
    insert(name, {from.dtype, from.dtype_name, Shape{columns, rows}, [read = from.read, rows, columns] {
             const RawTensor raw = read();
             const std::size_t size = bytes_of(raw.dtype);
             const auto buffer = allocate<std::byte>(static_cast<Index>(raw.byte_count()));
             for (Index r = 0; r < rows; ++r)
               for (Index c = 0; c < columns; ++c)
                 std::memcpy(buffer.get() + static_cast<std::size_t>(c * rows + r) * size,
                             raw.bytes.get() + static_cast<std::size_t>(r * columns + c) * size, size);
             return RawTensor{raw.dtype, Shape{columns, rows}, std::shared_ptr<const std::byte>(buffer, buffer.get())};
           }});
  }
  /// The same elements in another shape, [1] as [] for instance. Throws ShapeError when the counts differ.
  void reshape(const std::string& name, const Shape& shape) {
    StoredTensor tensor = info(name);
    check<ShapeError>(tensor.shape.size() == shape.size(), "state_dict", source_, ": ", name, ": expected ", shape.size(), " elements, found shape ",
                      tensor.shape);
    tensor.shape = shape;
    tensor.read = [read = tensor.read, shape] {
      RawTensor raw = read();
      raw.shape = shape;
      return raw;
    };
    erase(name);
    insert(name, std::move(tensor));
  }

 private:
  std::string source_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

}  // namespace tenon::inline TENON_ABI
