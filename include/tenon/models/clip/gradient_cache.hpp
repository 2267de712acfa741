#pragma once
// Contrastive training on batches larger than memory: gradient caching (Gao et al. 2021, 2101.06983).
//
// The loss compares every picture with every text, so its gradient needs all features at once, but not how they were made.
// First all features are made, in micro-batches that record nothing; the loss gives their gradients, and logit_scale's; then
// each micro-batch is made again, recorded, and its part of the gradients flows on. The gradients are those of the whole
// batch, for a second forward pass.
#include <functional>

#include <tenon/autograd/training.hpp>
#include <tenon/models/clip/clip.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// One side of a contrastive batch: features [N, E] of length 1, of rows that `embed(begin, end)` makes a part at a time.
template <class T, class Embed>
class CachedFeatures {
 public:
  CachedFeatures(Index n, Index part, Embed embed) : part_(part), embed_(std::move(embed)) {
    const NoGrad no_grad;
    Tensor<T> all;
    for (Index begin = 0; begin < n; begin += part) {
      draws_.push_back(training_state);
      const Index end = std::min(n, begin + part);
      const Var<T> rows = embed_(begin, end);
      check<ShapeError>(rows.rank() == 2 && rows.extent(0) == end - begin, "contrastive_backward", "expected ", end - begin,
                        " pictures and texts from ", begin, " on, got features ", rows.shape());
      if (begin == 0) all = Tensor<T>::uninitialized({n, rows.extent(1)});
      std::copy_n(rows.value().data(), rows.size(), all.data() + begin * rows.extent(1));
    }
    features_ = variable(std::move(all));
  }
  /// A leaf, whose gradient `backward` passes on.
  const Var<T>& features() const { return features_; }
  /// Whether there was anything that wants a gradient.
  bool backward() const {
    const Index n = features_.extent(0);
    for (Index begin = 0; begin < n; begin += part_) {
      const TrainingScope same_draws(draws_[static_cast<std::size_t>(begin / part_)]);
      const Index end = std::min(n, begin + part_);
      const Var<T> rows = embed_(begin, end);
      if (!rows.requires_grad()) return false;
      tenon::backward(rows, copy(features_.grad().view().sliced(0, begin, end)));
    }
    return true;
  }

 private:
  Index part_;
  Embed embed_;
  std::vector<TrainingState> draws_;
  Var<T> features_;
};

/// Features of length 1 of n pairs, made a micro-batch at a time; `differentiate(images, texts)` adds the loss's gradients to them, leaves
/// [n, E], and returns the loss; they flow on into the towers.
template <class T, class Pictures, class Ids, class Differentiate>
T cached_backward(const Clip<T>& clip, Index n, Index micro_batch, Pictures& pictures, Ids& ids, Differentiate&& differentiate) {
  const CachedFeatures<T, std::function<Var<T>(Index, Index)>> images(
      n, micro_batch, [&](Index begin, Index end) { return l2_normalize(clip.image_features(Var<T>(pictures(begin, end)))); });
  const CachedFeatures<T, std::function<Var<T>(Index, Index)>> texts(
      n, micro_batch, [&](Index begin, Index end) { return l2_normalize(clip.text_features(ids(begin, end))); });
  const double loss = differentiate(images.features(), texts.features());
  const bool image_side = images.backward(), text_side = texts.backward();
  check<GraphError>(image_side || text_side || clip.logit_scale->trainable(), "contrastive_backward", "nothing in the model is trainable");
  return static_cast<T>(loss);
}

inline void check_micro_batch(Index n, Index micro_batch) {
  check(n > 0 && micro_batch > 0, "contrastive_backward", "expected at least one pair and a micro-batch of at least 1, got ", n, " and ", micro_batch);
}

}  // namespace detail

/// A loss over n pairs, its gradients added to the trainable parameters, with the memory of `micro_batch` pairs and of the features.
/// `loss(images, texts)` gives a scalar of features [n, E] of length 1; it may use logit_scale.
/// `pictures(begin, end)` gives Tensor<T> [end - begin, H, W, 3], normalised; `ids(begin, end)` gives Tensor<std::int32_t>
/// [end - begin, L], and L may differ from part to part. Both are asked twice for the same part and must answer the same.
/// Dropout drops the same elements both times. Throws ShapeError on a part of another size, GraphError when nothing is trainable.
template <class T, class Pictures, class Ids, class Loss>
  requires std::invocable<Pictures&, Index, Index> && std::invocable<Ids&, Index, Index> && std::invocable<Loss&, const Var<T>&, const Var<T>&>
T contrastive_backward(const Clip<T>& clip, Index n, Index micro_batch, Pictures&& pictures, Ids&& ids, Loss&& loss) {
  detail::check_micro_batch(n, micro_batch);
  const auto differentiate = [&](const Var<T>& images, const Var<T>& texts) {
    const Var<T> value = loss(images, texts);
    backward(value);
    return static_cast<double>(value.item());
  };
  if (n <= micro_batch)
    return static_cast<T>(differentiate(l2_normalize(clip.image_features(Var<T>(pictures(Index{0}, n)))), l2_normalize(clip.text_features(ids(Index{0}, n)))));
  return detail::cached_backward(clip, n, micro_batch, pictures, ids, differentiate);
}
/// The same of the contrastive loss, as `backward(contrastive_loss(clip(pictures, ids)))` does.
template <class T, class Pictures, class Ids>
  requires std::invocable<Pictures&, Index, Index> && std::invocable<Ids&, Index, Index>
T contrastive_backward(const Clip<T>& clip, Index n, Index micro_batch, Pictures&& pictures, Ids&& ids) {
  detail::check_micro_batch(n, micro_batch);
  if (n <= micro_batch) {
    const Var<T> loss = contrastive_loss(clip(Var<T>(pictures(Index{0}, n)), ids(Index{0}, n)));
    backward(loss);
    return loss.item();
  }
  return detail::cached_backward(clip, n, micro_batch, pictures, ids, [&](const Var<T>& images, const Var<T>& texts) {
    double loss = 0;
    for (Index begin = 0; begin < n; begin += micro_batch) {  // a part of the rows and the same part of the columns at a time
      const Index end = std::min(n, begin + micro_batch);
      auto targets = Tensor<std::int32_t>::uninitialized({end - begin});
      for (Index i = begin; i < end; ++i) targets.data()[i - begin] = static_cast<std::int32_t>(i);
      const Var<T> scale = exp(clip.logit_scale->var());
      const auto side = [&](const Var<T>& from, const Var<T>& to) {
        return cross_entropy(matmul(slice(from, 0, begin, end), to, {.transpose_b = true}) * scale, targets);
      };
      const double share = 0.5 * static_cast<double>(end - begin) / static_cast<double>(n);
      const Var<T> part = (side(images, texts) + side(texts, images)) * share;
      loss += static_cast<double>(part.item());
      backward(part);
    }
    return loss;
  });
}
/// As above, of pictures [N, H, W, 3] and ids [N, L] that are at hand.
template <class T>
T contrastive_backward(const Clip<T>& clip, const Tensor<T>& pictures, const Tensor<std::int32_t>& ids, Index micro_batch) {
  check<ShapeError>(pictures.rank() == 4 && ids.rank() == 2 && pictures.extent(0) == ids.extent(0), "contrastive_backward",
                    "expected as many texts as pictures, got ", pictures.shape(), " and ", ids.shape());
  const auto part = [](const auto& all) { return [&all](Index begin, Index end) { return copy(all.view().sliced(0, begin, end)); }; };
  return contrastive_backward(clip, pictures.extent(0), micro_batch, part(pictures), part(ids));
}

}  // namespace tenon::inline TENON_ABI
