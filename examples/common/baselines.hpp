#pragma once
// What a CLIP is measured against: a classifier from labels alone, and the nearest picture.
#include <tenon/core/parallel.hpp>

#include "evaluate.hpp"

namespace tenon::examples {

/// The labels of some rows, as the targets of a cross-entropy.
struct Targets {
  Tensor<std::int32_t> groups, subgroups;
  Targets(const EmojiSet& set, const std::vector<Index>& ids)
      : groups(Shape{static_cast<Index>(ids.size())}), subgroups(Shape{static_cast<Index>(ids.size())}) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      groups(i) = static_cast<std::int32_t>(set.rows[static_cast<std::size_t>(ids[i])].group_label);
      subgroups(i) = static_cast<std::int32_t>(set.rows[static_cast<std::size_t>(ids[i])].subgroup_label);
    }
  }
};

/// CLIP's vision tower with a linear head for groups and one for subgroups.
template <class T>
struct Classifier {
  ClipVision<T> tower;
  Linear<T> groups, subgroups;

  Classifier(const ClipVisionConfig& config, const EmojiSet& set, Generator& generator) : tower(config) {
    tower.initialize(generator);
    groups = Linear<T>(config.hidden_size, static_cast<Index>(set.groups.size()), generator);
    subgroups = Linear<T>(config.hidden_size, static_cast<Index>(set.subgroups.size()), generator);
  }

  Var<T> loss(const Var<T>& pooled, const Targets& targets) const {
    return cross_entropy(groups(pooled), targets.groups) + cross_entropy(subgroups(pooled), targets.subgroups);
  }
  Accuracy accuracy_on(const EmojiSet& set, const Tensor<T>& pictures, const std::vector<Index>& ids) const {
    const NoGrad no_grad;
    Tensor<T> batch = pick(pictures, ids);
    normalise(batch);
    const Var<T> pooled = tower(Var<T>(std::move(batch))).pooled;
    return accuracy(set, ids, groups(pooled).value(), subgroups(pooled).value());
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("tower", s.tower);
    f("groups", s.groups);
    f("subgroups", s.subgroups);
  }
};

/// The label of the training drawing that differs least, pixel by pixel.
inline Accuracy nearest_neighbour(const EmojiSet& set) {
  const auto train = set.split(false, true), held_out = set.split(true, true);
  constexpr float far = -1e9f;
  auto groups = Tensor<float>::full({static_cast<Index>(held_out.size()), static_cast<Index>(set.groups.size())}, far);
  auto subgroups = Tensor<float>::full({static_cast<Index>(held_out.size()), static_cast<Index>(set.subgroups.size())}, far);
  const Index each = set.line_art.size() / set.line_art.extent(0);
  parallel_for(static_cast<Index>(held_out.size()), [&](Index n) {
    const float* a = set.line_art.data() + held_out[static_cast<std::size_t>(n)] * each;
    for (Index id : train) {
      const float* b = set.line_art.data() + id * each;
      float distance = 0;
      for (Index i = 0; i < each; ++i) distance += (a[i] - b[i]) * (a[i] - b[i]);
      const Emoji& row = set.rows[static_cast<std::size_t>(id)];
      groups(n, row.group_label) = std::max(groups(n, row.group_label), -distance);
      subgroups(n, row.subgroup_label) = std::max(subgroups(n, row.subgroup_label), -distance);
    }
  });
  return accuracy(set, held_out, groups, subgroups);
}

}  // namespace tenon::examples
