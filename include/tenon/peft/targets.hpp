#pragma once
// Names of sites and adapters, matched by pattern.
#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tenon/core/error.hpp>
#include <tenon/core/nearest.hpp>

namespace tenon::inline TENON_ABI {

/// Whether `text` fits `pattern`, in which `*` stands for any characters, none included.
inline bool glob_matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

/// Whether a target names the site at `path`: the full path, a suffix after a dot ("q_proj"), or a glob with `*`.
inline bool target_matches(std::string_view target, std::string_view path) {
  if (target.find('*') != std::string_view::npos) return glob_matches(target, path);
  if (!path.ends_with(target)) return false;
  return path.size() == target.size() || path[path.size() - target.size() - 1] == '.';
}

inline bool any_target_matches(std::span<const std::string> targets, std::string_view path) {
  return std::any_of(targets.begin(), targets.end(), [&](const auto& target) { return target_matches(target, path); });
}

}  // namespace tenon::inline TENON_ABI
