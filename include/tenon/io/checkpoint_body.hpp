#pragma once
// The definitions of checkpoint.hpp.
#include <array>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <tenon/io/checkpoint.hpp>
#include <tenon/io/json.hpp>
#include <tenon/io/torch_file.hpp>

namespace tenon::inline TENON_ABI {

TENON_IN_BODY StateDict open_checkpoint(const std::string& path) {
  if (path.ends_with(".json") && path.find(".index.", path.rfind('/') + 1) != std::string::npos) {
    const Json index = Json::read(path);
    const Json weight_map = index.at("weight_map");
    const auto& map = weight_map.value();
    check<FileError>(map.is_object() && !map.empty(), "open_checkpoint", path, ": weight_map: expected names and files");
    std::map<std::string, std::vector<std::string>> shards;
    for (const auto& [name, file] : map.items()) {
      check<FileError>(file.is_string() && file.template get<std::string>().find('/') == std::string::npos, "open_checkpoint", path, ": weight_map: ", name,
                       ": expected the name of a file beside the index, found ", detail::shown(file));
      shards[file.template get<std::string>()].push_back(name);
    }
    StateDict out(path);
    for (const auto& [file, names] : shards) {
      const StateDict shard = open_checkpoint(path.substr(0, path.rfind('/') + 1) + file);
      for (const auto& name : names)
        check<FileError>(shard.contains(name), "open_checkpoint", path, ": expected tensor ", name, " in ", file, ", which does not have it");
      out.insert_all(shard);
    }
    return out;
  }
  std::array<char, 4> magic{};
  const FileReader reader(path);
  if (reader.size() >= magic.size()) reader.read(0, std::as_writable_bytes(std::span(magic)));
  if (std::string_view(magic.data(), 4) == "PK\x03\x04") return read_torch_file(path);
  check<FileError>(!(magic[0] == '\x80' && magic[1] == '\x02' && magic[2] == '\x8a'), "open_checkpoint", path,
                   ": a pickle of torch before 1.6; load it there and save it again");
  return SafetensorsFile::open(path);
}

TENON_IN_BODY StateDict open_checkpoint(const std::string& folder, std::initializer_list<std::string_view> stems) {
  std::string tried;
  for (std::string_view suffix : {".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt"})
    for (std::string_view stem : stems) {
      std::string name = join_text(stem, suffix);
      if (stem.ends_with(".fp16") && suffix.ends_with(".json"))  // model.fp16's index is model.safetensors.index.fp16.json
        name = join_text(stem.substr(0, stem.size() - 5), suffix.substr(0, suffix.size() - 5), ".fp16.json");
      if (::access((folder + "/" + name).c_str(), F_OK) == 0) return open_checkpoint(folder + "/" + name);
      tried += (tried.empty() ? "" : ", ") + name;
    }
  fail<FileError>("open_checkpoint", folder, ": expected one of ", tried);
}

}  // namespace tenon::inline TENON_ABI
