#pragma once
// The names that a mistyped name may have meant, for error messages.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <tenon/core/config.hpp>

namespace tenon::inline TENON_ABI {

/// Insertions, deletions and replacements that turn one name into the other.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row[b.size()];
}

/// Up to `count` of the names, nearest to `wanted` first, as `a, b, c`. Only the first 200 bytes of a name count.
template <class Names>
std::string nearest_names(std::string_view wanted, const Names& names, std::size_t count = 3) {
  std::vector<std::pair<std::size_t, std::string_view>> ranked;
  for (const auto& name : names) {
    const std::string_view view(name);
    ranked.emplace_back(edit_distance(wanted.substr(0, 200), view.substr(0, 200)), view);
  }
  std::sort(ranked.begin(), ranked.end());
  std::string out;
  for (std::size_t i = 0; i < ranked.size() && i < count; ++i) out.append(i > 0 ? ", " : "").append(ranked[i].second);
  return out;
}

}  // namespace tenon::inline TENON_ABI
