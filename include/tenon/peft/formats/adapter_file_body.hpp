#pragma once
// The definitions of adapter_file.hpp.
#include <algorithm>
#include <cmath>
#include <regex>

#include <nlohmann/json.hpp>

#include <tenon/peft/formats/adapter_file.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

TENON_IN_BODY std::optional<double> pattern_value(const Json& config, const std::string& table, const std::string& path) {
  if (config.is_null(table) || !config.at(table).is_object()) return std::nullopt;
  const Json patterns = config.at(table);
  for (const auto& [key, value] : patterns.value().items()) {
    try {
      if (!std::regex_match(path, std::regex("(.*\\.)?(" + key + ")"))) continue;
    } catch (const std::regex_error&) {
      fail<FileError>("load_adapter", config.file(), ": ", table, ": expected a regular expression, found '", key, "'");
    }
    check<FileError>(value.is_number(), "load_adapter", config.file(), ": ", table, ": expected a number for '", key, "'");
    return value.template get<double>();
  }
  return std::nullopt;
}

TENON_IN_BODY Root find_root(const std::string& file, const std::set<std::string>& modules, const std::vector<std::string>& site_paths) {
  const std::set<std::string> known(site_paths.begin(), site_paths.end());
  std::set<std::string> drops{""}, adds;
  for (const auto& module : modules) {
    for (auto dot = module.find('.'); dot != std::string::npos; dot = module.find('.', dot + 1)) drops.insert(module.substr(0, dot + 1));
    for (const auto& path : site_paths)
      if (path.size() > module.size() && path.ends_with("." + module)) adds.insert(path.substr(0, path.size() - module.size()));
  }
  Root best{"", ""}, rival;
  Index most = 0, second = 0;
  const auto weigh = [&](const Root& root) {
    const Index hits = std::count_if(modules.begin(), modules.end(), [&](const auto& module) {
      const auto site = root.site(module);
      return site && known.contains(*site);
    });
    if (hits > most) {
      second = 0;
      most = hits;
      best = root;
    } else if (hits == most) {
      second = hits;
      rival = root;
    }
  };
  for (const auto& drop : drops) weigh({drop, ""});
  for (const auto& add : adds) weigh({"", add});
  check<FileError>(most == 0 || second < most, "attach", file, ": fits the model in two ways, ", best.drop.empty() ? "under " : "less ",
                   best.drop + best.add, " and ", rival.drop.empty() ? "under " : "less ", rival.drop + rival.add,
                   "; attach it to a part of the model, or to the model that it was made from");
  return best;
}

TENON_IN_BODY const RawTensor* tensor_of(const AdapterFile& file, const LayerTensors& layer, std::string_view part) {
  const auto at = layer.names.find(part);
  return at == layer.names.end() ? nullptr : &file.tensors.at(at->second);
}

TENON_IN_BODY std::optional<double> alpha_of(const AdapterFile& file, const LayerTensors& layer) {
  const RawTensor* raw = tensor_of(file, layer, "alpha");
  if (raw == nullptr) return std::nullopt;
  check<FileError>(raw->shape.size() == 1, "load_adapter", file.path, ": ", layer.module, ".alpha: expected one number, found shape ", raw->shape);
  const double alpha = cast<double>(*raw).data()[0];
  check<FileError>(std::isfinite(alpha), "load_adapter", file.path, ": ", layer.module, ".alpha: expected a finite number");
  return alpha;
}

TENON_IN_BODY bool same_but_ones(const Shape& a, const Shape& b) {
  for (Index axis = 0; axis < std::max(a.rank(), b.rank()); ++axis)
    if ((axis < a.rank() ? a[axis] : 1) != (axis < b.rank() ? b[axis] : 1)) return false;
  return true;
}

}  // namespace detail

}  // namespace tenon::inline TENON_ABI
