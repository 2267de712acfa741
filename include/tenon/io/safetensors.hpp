#pragma once
// safetensors files, read (mapped or copied) and written.
//
//   auto file = SafetensorsFile::open("model.safetensors");
//   auto weight = file.load<float>("text_model.final_layer_norm.weight");
//   save_safetensors("out.safetensors", {{"weight", raw_copy(weight)}});
//
// A file is judged whole when it is opened (io/safetensors_header.hpp); after that only names can be wrong.
#include <tenon/core/nearest.hpp>
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
  static SafetensorsFile open(const std::string& path, OpenOptions options = {}) {
    SafetensorsFile out(path);
    const auto reader = std::make_shared<const FileReader>(path);
    check<FileError>(reader->size() >= 8, "safetensors", path, ": rule file-size: expected at least 8 bytes, found ", reader->size());
    std::uint64_t prefix = 0;
    reader->read(0, std::as_writable_bytes(std::span(&prefix, 1)));
    std::string header(static_cast<std::size_t>(validate_safetensors_prefix(prefix, reader->size(), path)), '\0');
    reader->read(8, std::as_writable_bytes(std::span(header)));
    out.data_begin_ = 8 + prefix;
    out.header_ = validate_safetensors(header, reader->size() - out.data_begin_, path);
    if (options.mapped) {
      out.memory_ = map_file(*reader);
    } else {
      out.reader_ = reader;
    }
    return out;
  }
  /// A file that is in memory already; `name` stands for it in errors. Throws FileError as `open`.
  static SafetensorsFile parse(std::shared_ptr<const std::byte> bytes, std::size_t size, const std::string& name) {
    SafetensorsFile out(name);
    check<FileError>(size >= 8, "safetensors", name, ": rule file-size: expected at least 8 bytes, found ", size);
    std::uint64_t prefix = 0;
    std::memcpy(&prefix, bytes.get(), 8);
    const auto length = static_cast<std::size_t>(validate_safetensors_prefix(prefix, size, name));
    const std::string_view header(reinterpret_cast<const char*>(bytes.get()) + 8, length);
    out.data_begin_ = 8 + prefix;
    out.header_ = validate_safetensors(header, size - out.data_begin_, name);
    out.memory_ = std::move(bytes);
    return out;
  }

  const std::string& path() const { return path_; }
  /// All tensors, sorted by name.
  std::span<const TensorInfo> tensors() const& { return header_.tensors; }
  void tensors() && = delete;  // they would not outlive the temporary
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& t : header_.tensors) out.push_back(t.name);
    return out;
  }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }

  bool contains(std::string_view name) const { return find(name) != nullptr; }
  /// Throws NameError with the nearest names when there is no such tensor.
  const TensorInfo& info(std::string_view name) const {
    const auto* t = find(name);
    if (t == nullptr)
      fail<NameError>("safetensors", path_, ": no tensor ", detail::quoted(name), "; nearest: ", nearest_names(name, names()));
    return *t;
  }

  /// The bytes of one tensor: within the mapping (aligned to nothing), or read into a buffer.
  /// Throws NameError on an unknown name, FileError on a type that tenon does not read or a bool that is not 0 or 1.
  RawTensor raw(std::string_view name) const {
    const auto& t = info(name);
    check<FileError>(t.dtype.has_value(), "safetensors", path_, ": tensor ", detail::quoted(name), " has type ", t.dtype_name,
                     ", which tenon does not read");
    const auto size = static_cast<std::size_t>(t.end - t.begin);
    RawTensor out{*t.dtype, t.shape, nullptr};
    if (memory_) {
      out.bytes = std::shared_ptr<const std::byte>(memory_, memory_.get() + data_begin_ + t.begin);
    } else {
      auto buffer = allocate<std::byte>(static_cast<Index>(size));
      reader_->read(data_begin_ + t.begin, {buffer.get(), size});
      out.bytes = std::shared_ptr<const std::byte>(buffer, buffer.get());
    }
    if (*t.dtype == DType::boolean)
      check<FileError>(std::all_of(out.bytes.get(), out.bytes.get() + size, [](std::byte b) { return b <= std::byte{1}; }),
                       "safetensors", path_, ": tensor ", detail::quoted(name), ": rule bool: expected bytes 0 and 1, found others");
    return out;
  }

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
  const TensorInfo* find(std::string_view name) const {
    const auto& all = header_.tensors;
    const auto at = std::lower_bound(all.begin(), all.end(), name, [](const auto& t, std::string_view n) { return t.name < n; });
    return at != all.end() && at->name == name ? &*at : nullptr;
  }

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

inline void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      constexpr std::string_view digits = "0123456789abcdef";
      const auto u = static_cast<unsigned char>(c);
      out += "\\u00";
      out += digits[u >> 4];
      out += digits[u & 15u];
    } else {
      out += c;
    }
  }
  out += '"';
}

inline std::string_view safetensors_name(DType dtype) {
  for (const auto& type : safetensors_types)
    if (type.dtype == dtype) return type.name;
  return {};
}

/// The header, padded to eight bytes, for tensors in the order in which their data follows.
inline std::string safetensors_header(std::span<const NamedTensor* const> tensors, const std::map<std::string, std::string>& metadata) {
  std::string out = "{";
  if (!metadata.empty()) {
    out += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (out.back() != '{') out += ',';
      append_json_string(out, key);
      out += ':';
      append_json_string(out, value);
    }
    out += '}';
  }
  std::size_t offset = 0;
  for (const auto* t : tensors) {
    if (out.size() > 1) out += ',';
    append_json_string(out, t->name);
    out += join_text(":{\"dtype\":\"", safetensors_name(t->tensor.dtype), "\",\"shape\":[");
    for (Index i = 0; i < t->tensor.shape.rank(); ++i) out += join_text(i > 0 ? "," : "", t->tensor.shape[i]);
    const std::size_t end = offset + t->tensor.byte_count();
    out += join_text("],\"data_offsets\":[", offset, ',', end, "]}");
    offset = end;
  }
  out += '}';
  return out.append((8 - out.size() % 8) % 8, ' ');
}

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
inline SafetensorsLayout layout_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                                            const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensor*> order;
  for (const auto& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    const auto size_a = bytes_of(a->tensor.dtype), size_b = bytes_of(b->tensor.dtype);
    return size_a != size_b ? size_a > size_b : a->name < b->name;
  });
  auto header = safetensors_header(order, metadata);
  check<FileError>(header.size() <= safetensors_max_header, "save_safetensors", path, ": expected a header of at most ",
                   safetensors_max_header, " bytes, got ", header.size());
  std::uint64_t size = 0;
  for (const auto* t : order) size += t->tensor.byte_count();
  validate_safetensors(header, size, path);
  return {std::move(header), std::move(order)};
}

}  // namespace detail

/// Writes the tensors, largest element size first and then by name, so that the same tensors give the same bytes. Goes
/// through atomic_write: the path may be the file that the tensors are mapped from.
/// Throws FileError on a full disk, and on names that occur twice, hold NUL or broken UTF-8, or are "__metadata__".
inline void save_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                             const std::map<std::string, std::string>& metadata = {}, FileOperations& files = system_files()) {
  const auto layout = detail::layout_safetensors(path, tensors, metadata);
  atomic_write(path, [&](FileSink& sink) { layout.write([&](auto bytes) { sink.write(bytes); }); }, files);
}

}  // namespace tenon::inline TENON_ABI
