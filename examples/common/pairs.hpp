#pragma once
// Batches of pictures and captions, and CLIP's loss over them.
#include <optional>

#include "augment.hpp"
#include "emoji.hpp"

namespace tenon::examples {

/// Rows of the set, each with a caption made from a template.
struct Pairs {
  std::vector<Index> ids;
  std::vector<std::size_t> templates;
  std::vector<std::string> captions;
};

/// Draws ids: every one once in random order before any comes again.
class Rounds {
 public:
  explicit Rounds(std::vector<Index> ids) : ids_(std::move(ids)) {}

  Index next(Generator& generator) { return *next(generator, [](Index) { return true; }); }
  /// Calls `take(id)` for a batch: the next id, and up to `size` - 1 of those still to come that are `alike(first, id)`. A round
  /// that ends in the batch is followed by another; the batch is smaller where only others are left.
  template <class Alike, class Take>
  void batch(Index size, Generator& generator, Alike&& alike, Take&& take) {
    const Index first = next(generator);
    take(first);
    for (Index i = 1; i < size; ++i) {
      const auto id = next(generator, [&](Index other) { return alike(first, other); });
      if (!id) return;
      take(*id);
    }
  }
  /// Places still to come in this round; with the generator's state all that a resumed run needs.
  std::vector<Index>& order() { return order_; }
  const std::vector<Index>& order() const { return order_; }

 private:
  template <class Fits>
  std::optional<Index> next(Generator& generator, Fits&& fits) {
    if (order_.empty()) order_ = permutation(static_cast<Index>(ids_.size()), generator);
    const auto at = std::find_if(order_.rbegin(), order_.rend(), [&](Index place) { return fits(ids_[static_cast<std::size_t>(place)]); });
    if (at == order_.rend()) return std::nullopt;
    const Index id = ids_[static_cast<std::size_t>(*at)];
    order_.erase(std::next(at).base());
    return id;
  }

  std::vector<Index> ids_, order_;
};

/// The next rows, each with a random template.
inline Pairs draw_pairs(const EmojiSet& set, Rounds& rounds, Index batch, Generator& generator) {
  Pairs out;
  for (Index i = 0; i < batch; ++i) {
    out.ids.push_back(rounds.next(generator));
    out.templates.push_back(static_cast<std::size_t>(generator.integer(0, static_cast<std::int64_t>(set.captions.size()))));
    out.captions.push_back(set.caption(out.ids.back(), out.templates.back()));
  }
  return out;
}

/// Where a caption is true of another picture of the batch too: [N, N], false on the diagonal.
inline Tensor<bool> also_true(const EmojiSet& set, const Pairs& pairs) {
  const auto n = pairs.ids.size();
  Tensor<bool> out({static_cast<Index>(n), static_cast<Index>(n)});
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      const Emoji &picture = set.rows[static_cast<std::size_t>(pairs.ids[i])], &other = set.rows[static_cast<std::size_t>(pairs.ids[j])];
      const int level = set.level(pairs.templates[j]);
      const bool fits = level == 2 ? pairs.ids[i] == pairs.ids[j]
                        : level == 1 ? picture.subgroup_label == other.subgroup_label : picture.group_label == other.group_label;
      out(i, j) = i != j && fits;
    }
  return out;
}

/// CLIP's symmetric loss, in which a caption that is also true of another picture of the batch is left out of that picture's
/// softmax instead of counting as wrong: a batch of captions such as "animals" would punish the right answer otherwise.
inline Var<float> pair_loss(const Clip<float>& clip, const EmojiSet& set, const Pairs& pairs, const Var<float>& image_features,
                            const Var<float>& text_features) {
  const Var<float> images = l2_normalize(image_features), texts = l2_normalize(text_features);
  const Var<float> logits = matmul(images, texts, {.transpose_b = true}) * exp(clip.logit_scale->var());
  const Var<float> left_out(Tensor<float>::scalar(-1e4f));
  return contrastive_loss(ClipOutput<float>{images, texts, where(also_true(set, pairs), left_out, logits)});
}

/// What makes two views of a picture find each other among those of a batch, [N, E] each (SimCLR's loss, 2002.05709, at temperature 0.1).
inline Var<float> view_loss(const Var<float>& one, const Var<float>& other) {
  const Var<float> a = l2_normalize(one), b = l2_normalize(other);
  return contrastive_loss(ClipOutput<float>{a, b, matmul(a, b, {.transpose_b = true}) * 10.0f});
}

/// Embedded tokens [N, 1 + patches, D] of which each picture keeps the class token and a random share of its patches: most of
/// what a step teaches at a part of its cost (FLIP, 2212.00794).
inline Var<float> drop_patches(const Var<float>& tokens, double keep, Generator& generator) {
  const Index n = tokens.extent(0), patches = tokens.extent(1) - 1, kept = std::max<Index>(1, static_cast<Index>(keep * static_cast<double>(patches)));
  auto rows = Tensor<std::int32_t>::uninitialized({n * (kept + 1)});
  std::int32_t* row = rows.data();
  for (Index i = 0; i < n; ++i) {
    const auto order = permutation(patches, generator);
    *row++ = static_cast<std::int32_t>(i * (patches + 1));
    for (Index k = 0; k < kept; ++k) *row++ = static_cast<std::int32_t>(i * (patches + 1) + 1 + order[static_cast<std::size_t>(k)]);
  }
  return reshape(index_select(reshape(tokens, {-1, tokens.extent(-1)}), 0, rows), {n, kept + 1, tokens.extent(-1)});
}

/// Features of normalised pictures [N, 64, 64, 3] in training, with patch dropout when `keep` is below 1.
inline Var<float> training_features(const ClipVision<float>& tower, const Var<float>& pictures, double keep, Generator& generator) {
  const Var<float> tokens = tower.embeddings(pictures);
  return tower.encode(keep < 1 ? drop_patches(tokens, keep, generator) : tokens).pooled;
}

}  // namespace tenon::examples
