#pragma once
// Zero-shot accuracy among the groups and the subgroups of the emoji.
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <numeric>

#include "emoji.hpp"
#include "program.hpp"

namespace tenon::examples {

/// Shares of pictures, 0..1.
struct Accuracy {
  double group_top1 = 0, group_top5 = 0, subgroup_top1 = 0, subgroup_top5 = 0;
  Index pictures = 0;

  static constexpr auto fields() { return std::array{&Accuracy::group_top1, &Accuracy::group_top5, &Accuracy::subgroup_top1, &Accuracy::subgroup_top5}; }
  /// `groups 51.2 % (top 5 91.0 %), subgroups 37.0 % (60.1 %)`
  std::string text() const {
    return "groups " + fixed(100 * group_top1, 1) + " % (top 5 " + fixed(100 * group_top5, 1) + " %), subgroups " + fixed(100 * subgroup_top1, 1) +
           " % (" + fixed(100 * subgroup_top5, 1) + " %)";
  }
};

inline void to_json(nlohmann::json& out, const Accuracy& a) {
  out = {{"group_top1", a.group_top1}, {"group_top5", a.group_top5}, {"subgroup_top1", a.subgroup_top1}, {"subgroup_top5", a.subgroup_top5}};
}
inline void from_json(const nlohmann::json& in, Accuracy& a) {
  a = {in.at("group_top1"), in.at("group_top5"), in.at("subgroup_top1"), in.at("subgroup_top5"), 0};
}

/// The mean of several runs, and half the distance of the extremes.
template <class Result>
struct Spread;
template <>
struct Spread<double> {
  double mean = 0, half_range = 0;
  explicit Spread(const std::vector<double>& runs)
      : mean(std::accumulate(runs.begin(), runs.end(), 0.0) / static_cast<double>(runs.size())),
        half_range((*std::max_element(runs.begin(), runs.end()) - *std::min_element(runs.begin(), runs.end())) / 2) {}
};
template <>
struct Spread<Accuracy> {
  Accuracy mean, half_range;
  explicit Spread(const std::vector<Accuracy>& runs) {
    for (auto field : Accuracy::fields()) {
      std::vector<double> values;
      for (const auto& run : runs) values.push_back(run.*field);
      const Spread<double> spread(values);
      mean.*field = spread.mean;
      half_range.*field = spread.half_range;
    }
  }
};
Spread(const std::vector<Accuracy>&) -> Spread<Accuracy>;

/// Chance: for top k among n labels, k / n.
inline Accuracy chance(const EmojiSet& set) {
  const double groups = static_cast<double>(set.groups.size()), subgroups = static_cast<double>(set.subgroups.size());
  return {1 / groups, std::min(1.0, 5 / groups), 1 / subgroups, 5 / subgroups, 0};
}

/// Whether the wanted label is among the `k` highest scores of each row [N, labels]; ties go to the lower label.
inline double top_share(const Tensor<float>& scores, const std::vector<Index>& wanted, Index k) {
  const Index labels = scores.extent(1);
  Index hits = 0;
  for (std::size_t n = 0; n < wanted.size(); ++n) {
    const float* row = scores.data() + static_cast<Index>(n) * labels;
    Index better = 0;
    for (Index j = 0; j < labels; ++j) better += row[j] > row[wanted[n]] || (row[j] == row[wanted[n]] && j < wanted[n]);
    hits += better < k;
  }
  return wanted.empty() ? 0.0 : static_cast<double>(hits) / static_cast<double>(wanted.size());
}

/// Picture features [N, E] of some rows, in batches.
inline Tensor<float> features(const Clip<float>& clip, const Tensor<float>& pictures, const std::vector<Index>& ids) {
  const NoGrad no_grad;
  std::vector<Var<float>> parts;
  constexpr std::size_t batch = 128;
  for (std::size_t begin = 0; begin < ids.size(); begin += batch) {
    Tensor<float> part = pick(pictures, std::span(ids).subspan(begin, std::min(batch, ids.size() - begin)));
    normalise(part);
    parts.push_back(clip.image_features(Var<float>(std::move(part))));
  }
  return concat(parts, 0).value();
}

/// The directions of all groups and all subgroups for a model's text tower.
struct Labels {
  Tensor<float> groups, subgroups;
  Labels(const Clip<float>& clip, const Tokenizer& tokenizer, const EmojiSet& set)
      : groups(zero_shot_directions(clip, tokenizer, set.groups, set.label_templates("group"))),
        subgroups(zero_shot_directions(clip, tokenizer, set.subgroups, set.label_templates("subgroup"))) {}
};

/// Scores [N, groups] and [N, subgroups] -> shares of hits.
inline Accuracy accuracy(const EmojiSet& set, const std::vector<Index>& ids, const Tensor<float>& groups, const Tensor<float>& subgroups) {
  std::vector<Index> group, subgroup;
  for (Index id : ids) {
    group.push_back(set.rows[static_cast<std::size_t>(id)].group_label);
    subgroup.push_back(set.rows[static_cast<std::size_t>(id)].subgroup_label);
  }
  return {top_share(groups, group, 1), top_share(groups, group, 5), top_share(subgroups, subgroup, 1), top_share(subgroups, subgroup, 5),
          static_cast<Index>(ids.size())};
}

inline Accuracy evaluate(const Clip<float>& clip, const Labels& labels, const EmojiSet& set, const Tensor<float>& pictures,
                         const std::vector<Index>& ids) {
  const Var<float> images(features(clip, pictures, ids));
  return accuracy(set, ids, zero_shot_probabilities(clip, images, labels.groups), zero_shot_probabilities(clip, images, labels.subgroups));
}
inline Accuracy evaluate(const Clip<float>& clip, const Tokenizer& tokenizer, const EmojiSet& set, const Tensor<float>& pictures,
                         const std::vector<Index>& ids) {
  return evaluate(clip, Labels(clip, tokenizer, set), set, pictures, ids);
}

}  // namespace tenon::examples
