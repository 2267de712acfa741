#pragma once
// How a layer runs the rows of a batch that have adapters of their own (RowAdapters): products of layers without a patch run
// whole; a layer with patches runs its rows adapter by adapter, so that each row has the bits that it has alone.
// Templates where a function could be none: a unit that runs no layer does not pay for them.
#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tenon/ops/gather.hpp>
#include <tenon/ops/shape.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// The adapter that each row of the batch takes; empty for the base.
struct RowNames {
  std::vector<std::string> of_row;
  bool uniform = false;  // all rows take the same

  bool names(std::string_view adapter) const {
    for (const auto& name : of_row) {
      if (name == adapter) return true;
      if (uniform) break;
    }
    return false;
  }
};
inline thread_local std::shared_ptr<const RowNames> row_adapters;

/// While alive, layers that this thread runs look `rows` up.
class RowScope {
 public:
  explicit RowScope(std::shared_ptr<const RowNames> rows) : before_(std::exchange(row_adapters, std::move(rows))) {}
  ~RowScope() { row_adapters = std::move(before_); }
  RowScope(const RowScope&) = delete;
  RowScope& operator=(const RowScope&) = delete;

 private:
  std::shared_ptr<const RowNames> before_;
};

}  // namespace detail

/// Rows that a layer runs together.
struct RowGroup {
  std::vector<Index> rows;
  std::shared_ptr<const detail::RowNames> names;
};

namespace detail {

template <class Name>
std::shared_ptr<const RowNames> row_names(std::vector<Name> of_row) {
  const bool uniform = std::all_of(of_row.begin(), of_row.end(), [&](const Name& name) { return name == of_row.front(); });
  return std::make_shared<const RowNames>(RowNames{std::move(of_row), uniform});
}

/// Rows by adapter in the order of first use; those whose adapter is not `here` are one group. Nothing when all are of one group.
template <class Name>
std::vector<RowGroup> group_rows(const RowNames& all, const std::vector<Name>& here) {
  std::vector<Name> adapters;  // one for each group
  std::vector<std::vector<Index>> rows;
  for (std::size_t n = 0; n < all.of_row.size(); ++n) {
    const Name known = all.of_row[n], name = std::find(here.begin(), here.end(), known) != here.end() ? known : Name();
    const auto at = static_cast<std::size_t>(std::find(adapters.begin(), adapters.end(), name) - adapters.begin());
    if (at == adapters.size()) adapters.push_back(name), rows.emplace_back();
    rows[at].push_back(static_cast<Index>(n));
  }
  std::vector<RowGroup> out;
  if (rows.size() < 2) return out;
  for (auto& list : rows) {
    std::vector<std::string> names;
    for (const Index n : list) names.push_back(all.of_row[static_cast<std::size_t>(n)]);
    out.push_back({std::move(list), row_names(std::move(names))});
  }
  return out;
}

inline bool consecutive(const std::vector<Index>& rows) { return rows.back() - rows.front() + 1 == static_cast<Index>(rows.size()); }

template <class T>
Var<T> take(const Var<T>& x, const std::vector<Index>& rows) {
  if (consecutive(rows)) return slice(x, 0, rows.front(), rows.back() + 1);
  return index_select(x, 0, Tensor<std::int64_t>({static_cast<Index>(rows.size())}, std::span<const std::int64_t>(rows)));
}
template <class Id>
Tensor<Id> take(const Tensor<Id>& x, const std::vector<Index>& rows) {
  const Index each = x.size() / std::max<Index>(1, x.extent(0));
  auto out = Tensor<Id>::uninitialized(x.shape().with(0, static_cast<Index>(rows.size())));
  for (std::size_t i = 0; i < rows.size(); ++i) std::copy_n(x.data() + rows[i] * each, each, out.data() + static_cast<Index>(i) * each);
  return out;
}

template <class Run, class... X>
auto run_groups(const std::vector<RowGroup>& groups, const Run& run, const X&... x) {
  std::size_t total = 0;
  for (const auto& group : groups) total += group.rows.size();
  const auto fits = [&](const auto& input) {
    check<ShapeError>(input.rank() > 0 && input.extent(0) == static_cast<Index>(total), "RowAdapters", "expected ", total, " rows, one for each adapter, got ",
                      input.shape());
  };
  (fits(x), ...);
  std::vector<decltype(run(take(x, groups.front().rows)...))> parts;
  std::vector<std::int64_t> places(total);
  std::int64_t next = 0;
  bool in_order = true;
  for (const auto& group : groups) {
    const RowScope scope(group.names);
    parts.push_back(run(take(x, group.rows)...));
    for (const Index row : group.rows) {
      in_order = in_order && row == next;
      places[static_cast<std::size_t>(row)] = next++;
    }
  }
  const auto y = concat(parts, 0);
  return in_order ? y : index_select(y, 0, Tensor<std::int64_t>({static_cast<Index>(total)}, std::span<const std::int64_t>(places)));
}

}  // namespace detail

/// `run(part)` for the rows of each group, and its results in the order of the rows of x.
template <class X, class Run>
auto by_rows(const std::vector<RowGroup>& groups, const X& x, Run&& run) {
  return detail::run_groups(groups, run, x);
}
/// The same for two inputs of the same rows.
template <class X, class Y, class Run>
auto by_rows(const std::vector<RowGroup>& groups, const X& x, const Y& y, Run&& run) {
  return detail::run_groups(groups, run, x, y);
}

}  // namespace tenon::inline TENON_ABI
