#pragma once
// CLIP: pictures and texts in one space (Radford et al. 2021, 2103.00020).
#include <tenon/models/clip/resnet.hpp>
#include <tenon/models/clip/text.hpp>
#include <tenon/models/clip/vision.hpp>
#include <tenon/ops/arithmetic.hpp>
#include <tenon/ops/loss.hpp>
#include <tenon/ops/matmul.hpp>

namespace tenon::inline TENON_ABI {

/// Similarities of N pictures and M texts.
template <class T>
struct ClipOutput {
  Var<T> image_embeds;      ///< [N, E], of length 1
  Var<T> text_embeds;       ///< [M, E], of length 1
  Var<T> logits_per_image;  ///< [N, M], exp(logit_scale) times the cosines
};

template <class T>
struct Clip {
  ClipConfig config;
  ClipText<T> text_model;
  ClipVision<T> vision_model;           ///< absent parameters when there is a ResNet
  std::optional<ClipResNet<T>> visual;  ///< OpenAI's ResNet, its projection included
  Linear<T> visual_projection;          ///< D -> E, no bias
  Linear<T> text_projection;            ///< D -> E, no bias
  Param<T> logit_scale;                 ///< [], the logarithm of the inverse temperature

  Clip() = default;
  /// Declared: to be loaded or initialised.
  explicit Clip(const ClipConfig& c);
  /// Initialised, to be trained. Throws Error for a ResNet, which is for inference only.
  Clip(const ClipConfig& c, Generator& generator);

  /// pictures [N, H, W, 3], normalised -> features [N, E] of any length.
  Var<T> image_features(const Var<T>& pictures) const;
  /// ids [N, L] -> features [N, E] of any length.
  Var<T> text_features(const Tensor<std::int32_t>& ids) const;

  ClipOutput<T> operator()(const Var<T>& pictures, const Tensor<std::int32_t>& ids) const;

  /// After an optimizer step: the inverse temperature stays between 1 and 100.
  void clamp_logit_scale();

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("text_model", s.text_model);
    f("vision_model", s.vision_model);
    f("visual", s.visual);
    f("visual_projection", s.visual_projection);
    f("text_projection", s.text_projection);
    f("logit_scale", s.logit_scale);
  }
};

/// The symmetric cross-entropy over N pairs: picture i belongs to text i. Throws ShapeError when N and M differ.
template <class T>
Var<T> contrastive_loss(const ClipOutput<T>& output) {
  const Var<T>& logits = output.logits_per_image;
  const Index n = logits.extent(0);
  check<ShapeError>(logits.extent(1) == n, "contrastive_loss", "expected as many texts as pictures, got ", logits.shape());
  auto targets = Tensor<std::int32_t>::uninitialized({n});
  for (Index i = 0; i < n; ++i) targets.data()[i] = static_cast<std::int32_t>(i);
  return (cross_entropy(logits, targets) + cross_entropy(transpose(logits), targets)) * 0.5;
}

template <class T>
Clip<T>::Clip(const ClipConfig& c)
    : config(c), text_model(c.text_config), text_projection(c.text_config.hidden_size, c.projection_dim, false), logit_scale(Shape{}) {
  if (c.resnet_config) {
    visual.emplace(*c.resnet_config, c.projection_dim);
  } else {
    vision_model = ClipVision<T>(c.vision_config);
    visual_projection = Linear<T>(c.vision_config.hidden_size, c.projection_dim, false);
  }
}

template <class T>
Clip<T>::Clip(const ClipConfig& c, Generator& generator)
    : Clip(c) {
  check(!c.resnet_config, "clip", "a ResNet tower is loaded, not trained from scratch");
  text_model.initialize(generator);
  vision_model.initialize(generator);
  init::normal(visual_projection.weight, std::pow(static_cast<double>(c.vision_config.hidden_size), -0.5), generator);
  init::normal(text_projection.weight, std::pow(static_cast<double>(c.text_config.hidden_size), -0.5), generator);
  init::constant(logit_scale, static_cast<T>(c.logit_scale_init_value));
}

template <class T>
Var<T> Clip<T>::image_features(const Var<T>& pictures) const {
  return visual ? (*visual)(pictures) : visual_projection(vision_model.pooled(pictures));
}

template <class T>
Var<T> Clip<T>::text_features(const Tensor<std::int32_t>& ids) const { return text_projection(text_model.pooled(ids)); }

template <class T>
ClipOutput<T> Clip<T>::operator()(const Var<T>& pictures, const Tensor<std::int32_t>& ids) const {
  const Var<T> images = l2_normalize(image_features(pictures)), texts = l2_normalize(text_features(ids));
  return {images, texts, matmul(images, texts, {.transpose_b = true}) * exp(logit_scale->var())};
}

template <class T>
void Clip<T>::clamp_logit_scale() {
  logit_scale->update([](Tensor<T>& value) { value.data()[0] = std::clamp(value.data()[0], T(0), static_cast<T>(4.605170185988092)); });
}

TENON_COMPILED_TEMPLATE(struct Clip<float>)
TENON_COMPILED_FUNCTION(contrastive_loss<float>)
TENON_COMPILED_FUNCTION(detail::walk<Clip<float>>)
TENON_COMPILED_FUNCTION(detail::walk<ClipText<float>>)
TENON_COMPILED_FUNCTION(detail::walk<ClipVision<float>>)

}  // namespace tenon::inline TENON_ABI
