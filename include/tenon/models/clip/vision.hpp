#pragma once
// CLIP's vision transformer (transformers: CLIPVisionTransformer).
#include <tenon/models/clip/config.hpp>
#include <tenon/models/clip/transformer.hpp>
#include <tenon/nn/conv2d.hpp>
#include <tenon/nn/embedding.hpp>
#include <tenon/ops/shape.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
struct ClipVisionEmbeddings {
  Param<T> class_embedding;         ///< [D]
  Conv2d<T> patch_embedding;        ///< 3 -> D, one step a patch, no bias
  Embedding<T> position_embedding;  ///< [1 + patches, D]

  /// pictures [N, H, W, 3] -> [N, 1 + patches, D].
  Var<T> operator()(const Var<T>& pictures) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("class_embedding", s.class_embedding);
    f("patch_embedding", s.patch_embedding);
    f("position_embedding", s.position_embedding);
  }
};

/// What the vision tower makes of N pictures.
template <class T>
struct ClipVisionOutput {
  Var<T> last_hidden_state;  ///< [N, 1 + patches, D], before the last norm
  Var<T> pooled;             ///< [N, D], the class token after the last norm
};

template <class T>
struct ClipVision {
  ClipVisionConfig config;
  ClipVisionEmbeddings<T> embeddings;
  LayerNorm<T> pre_layernorm;
  Encoder<T> encoder;
  LayerNorm<T> post_layernorm;

  ClipVision() = default;
  explicit ClipVision(const ClipVisionConfig& c);
  void initialize(Generator& generator);

  /// pictures [N, H, W, 3] of the configuration's size, normalised (see preprocess). Throws ShapeError for others.
  ClipVisionOutput<T> operator()(const Var<T>& pictures) const {
    return encode(embed(pictures));
  }
  /// The pooled state alone, for less work; in float32 and double with the same bits.
  Var<T> pooled(const Var<T>& pictures) const { return encode_pooled(embed(pictures)); }
  /// Embedded tokens [N, L, D], the class token first: all of them, or those that patch dropout left (2212.00794).
  ClipVisionOutput<T> encode(const Var<T>& tokens) const;
  /// As `pooled`, of embedded tokens.
  Var<T> encode_pooled(const Var<T>& tokens) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("embeddings", s.embeddings);
    f("pre_layrnorm", s.pre_layernorm);  // spelt so in every checkpoint
    f("encoder", s.encoder);
    f("post_layernorm", s.post_layernorm);
  }

 private:
  Var<T> embed(const Var<T>& pictures) const;
};

template <class T>
Var<T> ClipVisionEmbeddings<T>::operator()(const Var<T>& pictures) const {
  const Index n = pictures.extent(0), width = class_embedding->shape()[0];
  const Var<T> patches = reshape(patch_embedding(pictures), {n, -1, width});
  const Index length = 1 + patches.extent(1);
  auto positions = Tensor<std::int32_t>::uninitialized({length});
  for (Index i = 0; i < length; ++i) positions.data()[i] = static_cast<std::int32_t>(i);
  const Var<T> token = broadcast_to(class_embedding->var(), {n, 1, width});
  return concat({token, patches}, 1) + position_embedding(positions);
}

template <class T>
ClipVision<T>::ClipVision(const ClipVisionConfig& c)
    : config(c), pre_layernorm(c.hidden_size, c.layer_norm_eps), post_layernorm(c.hidden_size, c.layer_norm_eps) {
  check(c.patch_size > 0 && c.grid_height() > 0 && c.grid_width() > 0, "clip", "expected pictures of at least one patch, got ", c.image_size,
        " pixels in patches of ", c.patch_size);
  embeddings.class_embedding = Param<T>(Shape{c.hidden_size});
  embeddings.patch_embedding = Conv2d<T>(c.num_channels, c.hidden_size, c.patch_size, {.stride = c.patch_size, .bias = false});
  embeddings.position_embedding = Embedding<T>(c.grid_height() * c.grid_width() + 1, c.hidden_size);
  for (Index i = 0; i < c.num_hidden_layers; ++i)
    encoder.layers.emplace_back(c.hidden_size, c.intermediate_size, c.num_attention_heads, c.hidden_act, c.layer_norm_eps, false);
}

template <class T>
void ClipVision<T>::initialize(Generator& generator) {
  const double deviation = std::pow(static_cast<double>(config.hidden_size), -0.5);
  init::normal(embeddings.class_embedding, deviation, generator);
  embeddings.patch_embedding.initialize(generator);
  embeddings.position_embedding.initialize(generator, deviation);
  pre_layernorm.initialize();
  encoder.initialize(generator);
  post_layernorm.initialize();
}

template <class T>
ClipVisionOutput<T> ClipVision<T>::encode(const Var<T>& tokens) const {
  const Var<T> last = encoder(pre_layernorm(tokens));
  return {last, post_layernorm(select(last, 1, 0))};
}

template <class T>
Var<T> ClipVision<T>::encode_pooled(const Var<T>& tokens) const {
  return post_layernorm(encoder.rows(pre_layernorm(tokens), Tensor<std::int32_t>({tokens.extent(0)})));
}

template <class T>
Var<T> ClipVision<T>::embed(const Var<T>& pictures) const {
  const auto [height, width] = config.image_size;
  const Index channels = config.num_channels;
  check<ShapeError>(pictures.rank() == 4 && pictures.shape() == Shape{pictures.extent(0), height, width, channels}, "clip",
                    "expected pictures [N, ", height, ", ", width, ", ", channels, "], got ", pictures.shape());
  return embeddings(pictures);
}

TENON_COMPILED_TEMPLATE(struct ClipVisionEmbeddings<float>)
TENON_COMPILED_TEMPLATE(struct ClipVision<float>)

}  // namespace tenon::inline TENON_ABI
