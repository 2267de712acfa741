#pragma once
// The definitions of torch_file.hpp.
#include <tenon/io/pickle.hpp>
#include <tenon/io/torch_file.hpp>
#include <tenon/io/zip.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// Walks a torch pickle and collects its tensors.
class TorchReader {
 public:
  TorchReader(const ZipFile& zip, StateDict& out) : zip_(zip), out_(out) {
    for (const auto& name : zip.names())
      if (name == "data.pkl" || name.ends_with("/data.pkl")) {
        check<FileError>(prefix_.empty() && pickle_name_.empty(), "torch", zip.path(), ": expected one data.pkl, found several");
        pickle_name_ = name;
        prefix_ = name.substr(0, name.size() - 8);
      }
    check<FileError>(!pickle_name_.empty(), "torch", zip.path(), ": a zip archive without data.pkl is no torch checkpoint");
    if (zip.contains(prefix_ + "byteorder")) {
      const auto order = zip.bytes(prefix_ + "byteorder");
      check<FileError>(order.size() == 6 && std::memcmp(order.data(), "little", 6) == 0, "torch", zip.path(), ": expected little-endian storages");
    }
    pickle_ = Pickle::parse(zip.bytes(pickle_name_), zip.path() + ":" + pickle_name_);
    Pickle::Id root = pickle_.root();
    for (std::string_view wrapper : {"state_dict", "model_state_dict"})  // what trainers wrap around the model
      if (const Pickle::Id* inner = pickle_.find(root, wrapper)) root = *inner;
    visit("", root, 0);
    check<FileError>(out_.size() > 0, "torch", zip.path(), ": expected tensors, found none");
  }

 private:
  using Kind = Pickle::Kind;

  std::string_view callee(Pickle::Id id) const {
    const auto& node = pickle_[id];
    return node.kind == Kind::call && pickle_[node.items[0]].kind == Kind::global ? pickle_.text(node.items[0]) : std::string_view();
  }

  void visit(const std::string& path, Pickle::Id id, int depth) {
    check<FileError>(depth < 64 && ++visited_ < 2 * Pickle::max_nodes, "torch", zip_.path(), ": objects nested too deep at ", path);
    const auto& node = pickle_[id];
    const auto child = [&](std::string_view name) {
      if (name == "_parameters" || name == "_buffers" || name == "_modules") return path;  // a pickled nn.Module
      return path.empty() ? std::string(name) : path + "." + std::string(name);
    };
    const std::string_view called = callee(id);
    if (called == "torch._utils _rebuild_tensor_v2" || called == "torch._utils _rebuild_tensor") return add(path, node.items[1]);
    if (called == "torch._utils _rebuild_parameter" || called == "torch._utils _rebuild_parameter_with_state") {
      const auto& arguments = pickle_[node.items[1]].items;
      if (!arguments.empty()) visit(path, arguments[0], depth + 1);
    } else if (node.kind == Kind::dictionary) {
      for (std::size_t i = 0; i + 1 < node.items.size(); i += 2) {
        const auto& key = pickle_[node.items[i]];
        if (key.kind == Kind::text) visit(child(key.text), node.items[i + 1], depth + 1);
        if (key.kind == Kind::integer) visit(child(std::to_string(key.number)), node.items[i + 1], depth + 1);
      }
    } else if (node.kind == Kind::sequence) {
      for (std::size_t i = 0; i < node.items.size(); ++i) visit(child(std::to_string(i)), node.items[i], depth + 1);
    } else if (node.kind == Kind::call) {  // an object: the states it was given
      for (std::size_t i = 2; i < node.items.size(); ++i) visit(path, node.items[i], depth + 1);
    }
  }

  /// A tensor from the arguments (storage, offset, size, stride, ...) of _rebuild_tensor_v2.
  void add(const std::string& path, Pickle::Id arguments) {
    const auto expect = [&](bool condition, const auto&... what) {
      check<FileError>(condition, "torch", zip_.path(), ": tensor ", detail::quoted(path), ": ", what...);
    };
    const auto& items = pickle_[arguments].items;
    expect(items.size() >= 4 && pickle_[items[0]].kind == Kind::persistent, "expected a storage, an offset, a size and a stride");
    const auto& storage = pickle_[pickle_[items[0]].items[0]].items;  // ('storage', type, key, location, elements)
    expect(storage.size() >= 5 && pickle_.text(storage[0]) == "storage", "expected a storage");
    const std::string_view type = pickle_.text(storage[1]);
    const std::string member = prefix_ + "data/" + std::string(pickle_.text(storage[2]));

    const auto integers = [&](Pickle::Id id) {
      std::vector<std::int64_t> out;
      for (Pickle::Id item : pickle_[id].items) {
        expect(pickle_[item].kind == Kind::integer && pickle_[item].number >= 0, "expected extents and strides from 0");
        out.push_back(pickle_[item].number);
      }
      return out;
    };
    const auto extents = integers(items[2]), strides = integers(items[3]);
    expect(extents.size() == strides.size() && extents.size() <= 8, "expected at most 8 extents, each with a stride");
    expect(pickle_[items[1]].kind == Kind::integer && pickle_[items[1]].number >= 0, "expected an offset from 0");

    StoredTensor tensor;
    tensor.dtype_name = type.starts_with("torch ") ? type.substr(6) : type;
    for (const auto& [name, dtype] : {std::pair<std::string_view, DType>{"FloatStorage", DType::f32}, {"DoubleStorage", DType::f64},
                                      {"HalfStorage", DType::f16}, {"BFloat16Storage", DType::bf16}, {"LongStorage", DType::i64},
                                      {"IntStorage", DType::i32}, {"CharStorage", DType::i8}, {"ByteStorage", DType::u8},
                                      {"BoolStorage", DType::boolean}})
      if (tensor.dtype_name == name) tensor.dtype = dtype;
    if (tensor.dtype) {
      const auto bytes = zip_.bytes(member);
      const auto elements = static_cast<std::int64_t>(bytes.size() / bytes_of(*tensor.dtype));
      std::int64_t last = pickle_[items[1]].number, count = 1;
      bool contiguous = true;
      const bool empty = std::find(extents.begin(), extents.end(), 0) != extents.end();
      expect(last <= elements, "starts past the end of ", member);
      for (std::size_t axis = empty ? 0 : extents.size(); axis-- > 0;) {
        contiguous = contiguous && (extents[axis] == 1 || strides[axis] == count);
        expect(extents[axis] <= elements / count, "has more elements than ", member);
        expect(strides[axis] <= elements && (extents[axis] == 1 || strides[axis] == 0 || extents[axis] - 1 <= (elements - last) / strides[axis]),
               "runs past the end of ", member);
        last += (extents[axis] - 1) * strides[axis];
        count *= extents[axis];
      }
      expect(empty || last < elements, "runs past the end of ", member);
      const std::size_t size = bytes_of(*tensor.dtype), offset = static_cast<std::size_t>(pickle_[items[1]].number) * size;
      const std::shared_ptr<const std::byte> first(zip_.memory(), bytes.data() + offset);
      tensor.shape = Shape(std::span<const Index>(extents));
      if (*tensor.dtype == DType::boolean)
        expect(std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b <= std::byte{1}; }), "expected bytes 0 and 1");
      tensor.read = [first, contiguous, strides, dtype = *tensor.dtype, shape = tensor.shape] {
        return contiguous ? RawTensor{dtype, shape, first} : gather(first.get(), dtype, shape, strides);
      };
    }
    out_.insert(path, std::move(tensor));
  }

  static RawTensor gather(const std::byte* from, DType dtype, const Shape& shape, const std::vector<std::int64_t>& strides) {
    const std::size_t size = bytes_of(dtype);
    const auto buffer = allocate<std::byte>(shape.size() * static_cast<Index>(size));
    std::vector<std::int64_t> index(strides.size(), 0);
    for (Index i = 0; i < shape.size(); ++i) {
      std::int64_t offset = 0;
      for (std::size_t axis = 0; axis < index.size(); ++axis) offset += index[axis] * strides[axis];
      std::memcpy(buffer.get() + static_cast<std::size_t>(i) * size, from + static_cast<std::size_t>(offset) * size, size);
      for (std::size_t axis = index.size(); axis-- > 0 && ++index[axis] == shape[static_cast<Index>(axis)];) index[axis] = 0;
    }
    return {dtype, shape, std::shared_ptr<const std::byte>(buffer, buffer.get())};
  }

  const ZipFile& zip_;
  StateDict& out_;
  Pickle pickle_;
  std::string prefix_, pickle_name_;
  std::size_t visited_ = 0;
};

}  // namespace detail

TENON_IN_BODY StateDict read_torch_file(const std::string& path) {
  StateDict out(path);
  const ZipFile zip = ZipFile::open(path);
  detail::TorchReader(zip, out);
  return out;
}

}  // namespace tenon::inline TENON_ABI
