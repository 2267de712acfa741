#pragma once
// The definitions of safetensors.hpp.
#include <algorithm>
#include <cstring>

#include <tenon/core/nearest.hpp>
#include <tenon/io/safetensors.hpp>

namespace tenon::inline TENON_ABI {

TENON_MEMBER_IN_BODY SafetensorsFile SafetensorsFile::open(const std::string& path, OpenOptions options) {
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

TENON_MEMBER_IN_BODY SafetensorsFile SafetensorsFile::parse(std::shared_ptr<const std::byte> bytes, std::size_t size, const std::string& name) {
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

TENON_MEMBER_IN_BODY std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> out;
  for (const auto& t : header_.tensors) out.push_back(t.name);
  return out;
}

TENON_MEMBER_IN_BODY const TensorInfo& SafetensorsFile::info(std::string_view name) const {
  const auto* t = find(name);
  if (t == nullptr)
    fail<NameError>("safetensors", path_, ": no tensor ", detail::quoted(name), "; nearest: ", nearest_names(name, names()));
  return *t;
}

TENON_MEMBER_IN_BODY RawTensor SafetensorsFile::raw(std::string_view name) const {
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

TENON_MEMBER_IN_BODY const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto& all = header_.tensors;
  const auto at = std::lower_bound(all.begin(), all.end(), name, [](const auto& t, std::string_view n) { return t.name < n; });
  return at != all.end() && at->name == name ? &*at : nullptr;
}

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

TENON_IN_BODY SafetensorsLayout layout_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
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

TENON_IN_BODY void save_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                             const std::map<std::string, std::string>& metadata, FileOperations& files) {
  const auto layout = detail::layout_safetensors(path, tensors, metadata);
  atomic_write(path, [&](FileSink& sink) { layout.write([&](auto bytes) { sink.write(bytes); }); }, files);
}

}  // namespace tenon::inline TENON_ABI
