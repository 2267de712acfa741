#pragma once
// The definitions of part.hpp.
#include <tenon/io/json.hpp>
#include <tenon/peft/formats/part.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

TENON_IN_BODY AdapterFile open_adapter_file(const std::string& path) {
  AdapterFile out;
  out.path = path;
  std::optional<StateDict> tensors;
  if (path.ends_with(".safetensors")) {
    const auto file = SafetensorsFile::open(path);
    const auto at = file.metadata().find("lora_adapter_metadata");
    out.metadata = {file.metadata().begin(), file.metadata().end()};
    if (at != file.metadata().end()) out.config = Json::parse(at->second, path + ", lora_adapter_metadata");
    tensors.emplace(file);
  } else {
    tensors.emplace(open_checkpoint(path));
  }
  for (const auto& name : tensors->names()) out.tensors.emplace(name, tensors->raw(name));
  check<FileError>(!out.tensors.empty(), "load_adapter", path, ": holds no tensors");
  return out;
}

}  // namespace detail

}  // namespace tenon::inline TENON_ABI
