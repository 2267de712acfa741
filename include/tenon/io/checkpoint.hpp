#pragma once
// Checkpoints: a model's parameters from files and to safetensors, all or nothing.
#include <algorithm>
#include <functional>

#include <tenon/io/state_dict.hpp>
#include <tenon/nn/param.hpp>

namespace tenon::inline TENON_ABI {

/// The tensors of a checkpoint: a safetensors file, the index (`*.index.json`) of a sharded one, or what torch.save wrote.
/// Throws FileError on a file that is none of these or breaks its format's rules, and on an index that its shards do not fit.
TENON_IN_BODY StateDict open_checkpoint(const std::string& path);

/// The first checkpoint in a folder among `stems` ("model", "pytorch_model"), as one file or sharded, safetensors before
/// torch's. Throws FileError that lists what was looked for, and as the other form.
TENON_IN_BODY StateDict open_checkpoint(const std::string& folder, std::initializer_list<std::string_view> stems);

struct LoadOptions {
  /// The file's name for a model's path; the same by default.
  std::function<std::string(const std::string&)> rename{};
  /// Names in the file that the model may ignore.
  std::function<bool(const std::string&)> ignore{};
  /// Names in the file that the model does not have are an error.
  bool strict = true;
  /// How matrices and kernels are multiplied: bfloat16 or int8 (one scale for each output feature), rounded from the file's
  /// elements; such a parameter is frozen for good. T when not given.
  std::optional<DType> weights{};
};

namespace detail {

/// A file's elements as a weight for products in T holds them: matrices and kernels where they lie, in the file's type, and
/// vectors as T.
template <class T>
typename Weight<T>::Stored stored_from(RawTensor raw) {
  const bool stays = raw.shape.rank() > 1 && reinterpret_cast<std::uintptr_t>(raw.bytes.get()) % bytes_of(raw.dtype) == 0;
  if (stays && raw.dtype == dtype_of<T>) {
    const auto bytes = std::const_pointer_cast<std::byte>(raw.bytes);
    return std::make_shared<const Tensor<T>>(Tensor<T>::adopt(raw.shape, std::shared_ptr<T[]>(bytes, reinterpret_cast<T*>(bytes.get()))));
  }
  if (stays && std::same_as<T, float> && raw.dtype != DType::f64) return raw;
  return std::make_shared<const Tensor<T>>(cast<T>(raw));
}

}  // namespace detail

/// Fills every parameter of a list from a checkpoint and freezes it. Nothing is written unless everything fits. Matrices and
/// kernels of a mapped file stay in it: they take memory in their packed form only, and the file must stay as it is.
/// Throws one FileError that lists every missing, misshapen, not floating-point and (when strict) unexpected name.
template <class T>
void load_params(const std::vector<ParamRef<T>>& list, const StateDict& file, const LoadOptions& options = {}) {
  std::string problems;
  std::vector<std::string> used;
  const auto names = file.names();
  const auto floating = [](std::optional<DType> d) { return d == DType::f16 || d == DType::bf16 || d == DType::f32 || d == DType::f64; };
  for (const auto& ref : list) {
    const std::string name = options.rename ? options.rename(ref.path) : ref.path;
    used.push_back(name);
    if (!std::binary_search(names.begin(), names.end(), name)) {
      problems += "\n  missing " + name;
      continue;
    }
    const StoredTensor& info = file.info(name);
    if (info.shape != ref.weight->shape())
      problems += "\n  " + name + ": expected shape " + ref.weight->shape().text() + ", found " + info.shape.text();
    else if (!floating(info.dtype))
      problems += "\n  " + name + ": expected floating-point elements, found " + info.dtype_name;
  }
  std::sort(used.begin(), used.end());
  if (options.strict)
    for (const auto& name : names)
      if (!std::binary_search(used.begin(), used.end(), name) && !(options.ignore && options.ignore(name))) problems += "\n  unexpected " + name;
  check<FileError>(problems.empty(), "load", file.source(), " does not fit the model:", problems);

  std::vector<typename Weight<T>::Stored> stored;
  for (const auto& ref : list) {
    const std::string name = options.rename ? options.rename(ref.path) : ref.path;
    stored.push_back(detail::stored_from<T>(file.raw(name)));
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    list[i].weight->set_trainable(false);
    list[i].weight->set(std::move(stored[i]));
    if (list[i].weight->shape().rank() > 1) list[i].weight->set_panels(options.weights.value_or(dtype_of<T>));
  }
}

/// Writes every parameter of a list, floating-point ones as `dtype` (as they are stored when not given).
template <class T>
void save_params(const std::string& path, const std::vector<ParamRef<T>>& list, const std::map<std::string, std::string>& metadata = {},
                 std::optional<DType> dtype = std::nullopt) {
  std::vector<NamedTensor> tensors;
  for (const auto& ref : list) {
    RawTensor raw = ref.weight->bytes();
    if (dtype && *dtype != raw.dtype)
      raw = visit_dtype(*dtype, [&]<class To>() { return raw_copy(cast<To>(raw)); });
    tensors.push_back({ref.path, std::move(raw)});
  }
  save_safetensors(path, std::move(tensors), metadata);
}

TENON_COMPILED_FUNCTION(load_params<float>)
TENON_COMPILED_FUNCTION(save_params<float>)

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/io/checkpoint_body.hpp>
#endif
