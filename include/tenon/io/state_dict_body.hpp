#pragma once
// The definitions of state_dict.hpp.
#include <tenon/core/nearest.hpp>
#include <tenon/io/state_dict.hpp>

namespace tenon::inline TENON_ABI {

TENON_MEMBER_IN_BODY std::vector<std::string> StateDict::names() const {
  std::vector<std::string> out;
  for (const auto& [name, tensor] : tensors_) out.push_back(name);
  return out;
}

TENON_MEMBER_IN_BODY const StoredTensor& StateDict::info(std::string_view name) const {
  const auto at = tensors_.find(name);
  if (at == tensors_.end())
    fail<NameError>("state_dict", source_, ": no tensor ", detail::quoted(name), "; nearest: ", nearest_names(name, names()));
  return at->second;
}

TENON_MEMBER_IN_BODY RawTensor StateDict::raw(std::string_view name) const {
  const StoredTensor& tensor = info(name);
  check<FileError>(tensor.dtype.has_value(), "state_dict", source_, ": tensor ", detail::quoted(name), " has type ", tensor.dtype_name,
                   ", which tenon does not read");
  return tensor.read();
}

TENON_MEMBER_IN_BODY void StateDict::insert(const std::string& name, StoredTensor tensor) {
  check<FileError>(tensors_.emplace(name, std::move(tensor)).second, "state_dict", source_, ": tensor ", detail::quoted(name), " occurs twice");
}

TENON_MEMBER_IN_BODY void StateDict::insert_all(const SafetensorsFile& file) {
  const auto kept = std::make_shared<const SafetensorsFile>(file);  // one for all tensors
  for (const TensorInfo& tensor : file.tensors())
    insert(tensor.name, {tensor.dtype, std::string(tensor.dtype_name), tensor.shape, [kept, name = tensor.name] { return kept->raw(name); }});
}

TENON_MEMBER_IN_BODY void StateDict::insert_all(const StateDict& other) {
  for (const auto& [name, tensor] : other.tensors_) insert(name, tensor);
}

TENON_MEMBER_IN_BODY void StateDict::erase(std::string_view name) {
  if (const auto at = tensors_.find(name); at != tensors_.end()) tensors_.erase(at);
}

TENON_MEMBER_IN_BODY void StateDict::rename(const std::function<std::optional<std::string>(const std::string&)>& rename) {
  StateDict out(source_);
  for (auto& [name, tensor] : tensors_)
    if (const auto to = rename(name)) out.insert(*to, std::move(tensor));
  *this = std::move(out);
}

TENON_MEMBER_IN_BODY void StateDict::split(const std::string& name, std::span<const std::string> parts) {
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

TENON_MEMBER_IN_BODY void StateDict::transpose(const std::string& name) {
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

TENON_MEMBER_IN_BODY void StateDict::reshape(const std::string& name, const Shape& shape) {
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

}  // namespace tenon::inline TENON_ABI
