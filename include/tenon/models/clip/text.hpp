#pragma once
// CLIP's text tower (transformers: CLIPTextTransformer).
#include <algorithm>

#include <tenon/models/clip/config.hpp>
#include <tenon/models/clip/transformer.hpp>
#include <tenon/nn/embedding.hpp>
#include <tenon/ops/gather.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
struct ClipTextEmbeddings {
  Embedding<T> token_embedding;     ///< [vocabulary, D]
  Embedding<T> position_embedding;  ///< [context, D]

  /// ids [N, L] -> [N, L, D]. Throws ShapeError when L is longer than the context.
  Var<T> operator()(const Tensor<std::int32_t>& ids) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("token_embedding", s.token_embedding);
    f("position_embedding", s.position_embedding);
  }
};

/// What the text tower makes of N texts.
template <class T>
struct ClipTextOutput {
  Var<T> last_hidden_state;  ///< [N, L, D], after the final norm
  Var<T> pooled;             ///< [N, D], the state at each text's end token
};

template <class T>
struct ClipText {
  ClipTextConfig config;
  ClipTextEmbeddings<T> embeddings;
  Encoder<T> encoder;
  LayerNorm<T> final_layer_norm;

  ClipText() = default;
  explicit ClipText(const ClipTextConfig& c);
  void initialize(Generator& generator);

  /// ids [N, L]; a text ends at the first `eos_token_id`, or at its first largest id when there is none; at its first token,
  /// as in transformers, when the vocabulary has no such id. `states` receives the embeddings and the output of each layer,
  /// none of them normed (transformers: hidden_states), when given.
  ClipTextOutput<T> operator()(const Tensor<std::int32_t>& ids, std::vector<Var<T>>* states = nullptr) const;
  /// ids [N, L] -> [N, D]: the pooled state alone, for less work and with the same bits.
  Var<T> pooled(const Tensor<std::int32_t>& ids) const;

  Tensor<std::int32_t> end_positions(const Tensor<std::int32_t>& ids) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("embeddings", s.embeddings);
    f("encoder", s.encoder);
    f("final_layer_norm", s.final_layer_norm);
  }
};

template <class T>
Var<T> ClipTextEmbeddings<T>::operator()(const Tensor<std::int32_t>& ids) const {
  const Index context = position_embedding.weight->shape()[0];
  check<ShapeError>(ids.rank() == 2 && ids.extent(1) <= context, "clip", "expected ids [N, L] of at most ", context, " tokens, got ",
                    ids.shape());
  auto positions = Tensor<std::int32_t>::uninitialized({ids.extent(1)});
  for (Index i = 0; i < positions.size(); ++i) positions.data()[i] = static_cast<std::int32_t>(i);
  return token_embedding(ids) + position_embedding(positions);
}

template <class T>
ClipText<T>::ClipText(const ClipTextConfig& c)
    : config(c),
      embeddings{{c.vocab_size, c.hidden_size}, {c.max_position_embeddings, c.hidden_size}},
      final_layer_norm(c.hidden_size, c.layer_norm_eps) {
  for (Index i = 0; i < c.num_hidden_layers; ++i)
    encoder.layers.emplace_back(c.hidden_size, c.intermediate_size, c.num_attention_heads, c.hidden_act, c.layer_norm_eps, true);
}

template <class T>
void ClipText<T>::initialize(Generator& generator) {
  embeddings.token_embedding.initialize(generator, 0.02);
  embeddings.position_embedding.initialize(generator, 0.01);
  encoder.initialize(generator);
  final_layer_norm.initialize();
}

template <class T>
ClipTextOutput<T> ClipText<T>::operator()(const Tensor<std::int32_t>& ids, std::vector<Var<T>>* states) const {
  const Var<T> last = final_layer_norm(encoder(embeddings(ids), states));
  return {last, take_rows(last, end_positions(ids))};
}

template <class T>
Var<T> ClipText<T>::pooled(const Tensor<std::int32_t>& ids) const { return final_layer_norm(encoder.rows(embeddings(ids), end_positions(ids))); }

template <class T>
Tensor<std::int32_t> ClipText<T>::end_positions(const Tensor<std::int32_t>& ids) const {
  const Index length = ids.extent(1);
  auto out = Tensor<std::int32_t>::uninitialized({ids.extent(0)});
  for (Index n = 0; n < out.size(); ++n) {
    const std::int32_t* const row = ids.data() + n * length;
    const std::int32_t* end = std::find(row, row + length, config.eos_token_id);
    if (end == row + length) end = config.eos_token_id < config.vocab_size ? std::max_element(row, row + length) : row;
    out.data()[n] = static_cast<std::int32_t>(end - row);
  }
  return out;
}

TENON_COMPILED_TEMPLATE(struct ClipTextEmbeddings<float>)
TENON_COMPILED_TEMPLATE(struct ClipText<float>)

}  // namespace tenon::inline TENON_ABI
