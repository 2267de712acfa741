#pragma once
// safetensors files, read (mapped or copied) and written.
//
//   auto file = SafetensorsFile::open("model.safetensors");
//   auto weight = file.load<float>("text_model.final_layer_norm.weight");
//   save_safetensors("out.safetensors", {{"weight", raw_copy(weight)}});
//
// A file is judged whole when it is opened (io/safetensors_header.hpp); after that only names can be wrong.
#include <tenon/io/mapped_file.hpp>
#include <tenon/io/safetensors_header.hpp>
#include <tenon/tensor/cast.hpp>

namespace tenon::inline TENON_ABI {

struct OpenOptions {
  /// Map the file: tensors cost no memory of their own. Otherwise each access reads and copies, which a file that others
  /// may cut short needs.
  bool mapped = true;
};

/// A safetensors file open for reading. Copies share it; tensors taken from it keep the mapping alive.
class SafetensorsFile {
 public:
  /// Throws FileError, with the rule that the file breaks.
  static SafetensorsFile open(const std::string& path, OpenOptions options = {});
  /// A file that is in memory already; `name` stands for it in errors. Throws FileError as `open`.
  static SafetensorsFile parse(std::shared_ptr<const std::byte> bytes, std::size_t size, const std::string& name);

  const std::string& path() const { return path_; }
  /// All tensors, sorted by name.
  std::span<const TensorInfo> tensors() const& { return header_.tensors; }
  void tensors() && = delete;  // they would not outlive the temporary
  std::vector<std::string> names() const;
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }

  bool contains(std::string_view name) const { return find(name) != nullptr; }
  /// Throws NameError with the nearest names when there is no such tensor.
  const TensorInfo& info(std::string_view name) const;

  /// The bytes of one tensor: within the mapping (aligned to nothing), or read into a buffer.
  /// Throws NameError on an unknown name, FileError on a type that tenon does not read or a bool that is not 0 or 1.
  RawTensor raw(std::string_view name) const;

  /// One tensor, copied, and converted between floating-point types where the file's differs.
  /// Throws as `raw`, and FileError when one of the two types is not floating-point and they differ.
  template <class T>
  Tensor<T> load(std::string_view name) const {
    const auto tensor = raw(name);
    const auto floating = [](DType d) { return d == DType::f16 || d == DType::bf16 || d == DType::f32 || d == DType::f64; };
    check<FileError>(tensor.dtype == dtype_of<T> || (floating(tensor.dtype) && floating(dtype_of<T>)), "safetensors", path_,
                     ": tensor ", detail::quoted(name), ": expected ", name_of(dtype_of<T>), ", found ", name_of(tensor.dtype));
    return cast<T>(tensor);
  }

 private:
  explicit SafetensorsFile(const std::string& path) : path_(path) {}
  const TensorInfo* find(std::string_view name) const;

  std::string path_;
  SafetensorsHeader header_;
  std::uint64_t data_begin_ = 0;
  std::shared_ptr<const std::byte> memory_;   // the whole file, or
  std::shared_ptr<const FileReader> reader_;  // what to read it with
};

/// A tensor to be written.
struct NamedTensor {
  std::string name;
  RawTensor tensor;
};

namespace detail {

/// A file about to be written, judged by the reader's rules: names twice, NUL, broken UTF-8, "__metadata__" as a name.
struct SafetensorsLayout {
  std::string header;
  std::vector<const NamedTensor*> order;

  template <class Write>
  void write(Write&& write) const {
    const std::uint64_t prefix = header.size();
    write(std::as_bytes(std::span(&prefix, 1)));
    write(std::as_bytes(std::span(header)));
    for (const auto* t : order) write(std::span(t->tensor.bytes.get(), t->tensor.byte_count()));
  }
};
TENON_IN_BODY SafetensorsLayout layout_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                                                   const std::map<std::string, std::string>& metadata);

}  // namespace detail

/// Writes the tensors, largest element size first and then by name, so that the same tensors give the same bytes. Goes
/// through atomic_write: the path may be the file that the tensors are mapped from.
/// Throws FileError on a full disk, and on names that occur twice, hold NUL or broken UTF-8, or are "__metadata__".
TENON_IN_BODY void save_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                             const std::map<std::string, std::string>& metadata = {}, FileOperations& files = system_files());

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/io/safetensors_body.hpp>
#endif
