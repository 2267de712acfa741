#pragma once
// Checkpoints: a model's parameters to and from safetensors, all or nothing.
#include <algorithm>
#include <functional>

#include <tenon/core/nearest.hpp>
#include <tenon/io/safetensors.hpp>
#include <tenon/nn/param.hpp>

namespace tenon::inline TENON_ABI {

struct LoadOptions {
  /// The file's name for a model's path; the same by default.
  std::function<std::string(const std::string&)> rename{};
  /// Names in the file that the model may ignore.
  std::function<bool(const std::string&)> ignore{};
  /// Names in the file that the model does not have are an error.
  bool strict = true;
  /// Keep bfloat16 matrices and kernels as they are (the parameter is then frozen for good); otherwise everything becomes T.
  bool keep_bf16 = false;
};

/// Fills every parameter of a list from a file and freezes it. Nothing is written unless everything fits.
/// Throws one FileError that lists every missing, misshapen, not floating-point and (when strict) unexpected name.
template <class T>
void load_params(const std::vector<ParamRef<T>>& list, const SafetensorsFile& file, const LoadOptions& options = {}) {
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
    const TensorInfo& info = file.info(name);
    if (info.shape != ref.weight->shape())
      problems += "\n  " + name + ": expected shape " + ref.weight->shape().text() + ", found " + info.shape.text();
    else if (!floating(info.dtype))
      problems += "\n  " + name + ": expected floating-point elements, found " + std::string(info.dtype_name);
  }
  std::sort(used.begin(), used.end());
  if (options.strict)
    for (const auto& name : names)
      if (!std::binary_search(used.begin(), used.end(), name) && !(options.ignore && options.ignore(name))) problems += "\n  unexpected " + name;
  check<FileError>(problems.empty(), "load", file.path(), " does not fit the model:", problems);

  std::vector<typename Weight<T>::Stored> stored;
  for (const auto& ref : list) {
    const std::string name = options.rename ? options.rename(ref.path) : ref.path;
    RawTensor raw = file.raw(name);
    if (options.keep_bf16 && raw.dtype == DType::bf16 && raw.shape.rank() > 1)
      stored.emplace_back(std::move(raw));
    else
      stored.emplace_back(std::make_shared<const Tensor<T>>(cast<T>(raw)));
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    list[i].weight->set_trainable(false);
    list[i].weight->set(std::move(stored[i]));
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

}  // namespace tenon::inline TENON_ABI
