#pragma once
// The pre-norm transformer that both towers of CLIP are made of.
#include <cmath>

#include <tenon/nn/attention.hpp>
#include <tenon/nn/checkpoint.hpp>
#include <tenon/nn/mlp.hpp>
#include <tenon/nn/norm.hpp>
#include <tenon/ops/gather.hpp>

namespace tenon::inline TENON_ABI {

/// x + attention(norm(x)), then x + mlp(norm(x)).
template <class T>
struct EncoderLayer {
  LayerNorm<T> layer_norm1, layer_norm2;
  Attention<T> self_attn;
  Mlp<T> mlp;

  EncoderLayer() = default;
  EncoderLayer(Index width, Index hidden, Index heads, Activation act, double eps, bool causal);

  /// x [N, L, D] -> [N, L, D].
  Var<T> operator()(const Var<T>& x) const;
  /// Row at[n] of each sample of the above: x [N, L, D] -> [N, D]. All rows give keys and values, only these are queries;
  /// the same bits.
  Var<T> rows(const Var<T>& x, const Tensor<std::int32_t>& at) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("layer_norm1", s.layer_norm1);
    f("self_attn", s.self_attn);
    f("layer_norm2", s.layer_norm2);
    f("mlp", s.mlp);
  }
};

template <class T>
struct Encoder {
  std::vector<EncoderLayer<T>> layers;
  bool checkpointing = false;  ///< backward keeps each layer's input only and computes the layer again

  /// OpenAI's scheme (openai/CLIP model.py, initialize_parameters): projections into the residual stream shrink with depth.
  void initialize(Generator& generator);

  /// x [N, L, D] -> [N, L, D]; `states` receives x and the output of each layer when given.
  Var<T> operator()(Var<T> x, std::vector<Var<T>>* states = nullptr) const;
  /// Row at[n] of each sample of the above: x [N, L, D] -> [N, D]. The last layer works on these rows alone, unless a patch
  /// on its attention asks for all of them.
  Var<T> rows(Var<T> x, const Tensor<std::int32_t>& at) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("layers", s.layers);
  }
};

template <class T>
EncoderLayer<T>::EncoderLayer(Index width, Index hidden, Index heads, Activation act, double eps, bool causal)
    : layer_norm1(width, eps), layer_norm2(width, eps), self_attn(width, heads, causal), mlp(width, hidden, act) {}

template <class T>
Var<T> EncoderLayer<T>::operator()(const Var<T>& x) const {
  const auto h = x + self_attn(layer_norm1(x));
  return h + mlp(layer_norm2(h));
}

template <class T>
Var<T> EncoderLayer<T>::rows(const Var<T>& x, const Tensor<std::int32_t>& at) const {
  const Index n = x.extent(0), width = x.extent(2);
  AttentionOptions<T> options;
  options.heads = self_attn.heads;
  if (self_attn.causal)
    for (const Index row : at) options.key_lengths.push_back(row + 1);
  const Var<T> normed = layer_norm1(x), queries = self_attn.q_proj(take_rows(normed, at));
  const Var<T> seen = attention(reshape(queries, {n, 1, width}), self_attn.k_proj(normed), self_attn.v_proj(normed), options);
  const Var<T> h = take_rows(x, at) + self_attn.out_proj(reshape(seen, {n, width}));
  return h + mlp(layer_norm2(h));
}

template <class T>
void Encoder<T>::initialize(Generator& generator) {
  const double depth = std::pow(2.0 * static_cast<double>(layers.size()), -0.5);
  for (auto& layer : layers) {
    const double width = static_cast<double>(layer.self_attn.q_proj.in());
    layer.layer_norm1.initialize();
    layer.layer_norm2.initialize();
    for (Linear<T>* projection : {&layer.self_attn.q_proj, &layer.self_attn.k_proj, &layer.self_attn.v_proj, &layer.self_attn.out_proj}) {
      init::normal(projection->weight, std::pow(width, -0.5) * (projection == &layer.self_attn.out_proj ? depth : 1.0), generator);
      init::constant(projection->bias, T(0));
    }
    init::normal(layer.mlp.fc1.weight, std::pow(2.0 * width, -0.5), generator);
    init::constant(layer.mlp.fc1.bias, T(0));
    init::normal(layer.mlp.fc2.weight, std::pow(width, -0.5) * depth, generator);
    init::constant(layer.mlp.fc2.bias, T(0));
  }
}

template <class T>
Var<T> Encoder<T>::operator()(Var<T> x, std::vector<Var<T>>* states) const {
  if (states != nullptr) states->push_back(x);
  for (const auto& layer : layers) {
    x = checkpointing ? checkpoint(layer, x) : layer(x);
    if (states != nullptr) states->push_back(x);
  }
  return x;
}

template <class T>
Var<T> Encoder<T>::rows(Var<T> x, const Tensor<std::int32_t>& at) const {
  if (layers.empty()) return take_rows(x, at);
  const EncoderLayer<T>& last = layers.back();
  for (const auto& layer : layers)
    if (&layer != &last) x = checkpointing ? checkpoint(layer, x) : layer(x);
  if (last.self_attn.patches.empty() && last.self_attn.key_values.empty()) return last.rows(x, at);
  return take_rows(checkpointing ? checkpoint(last, x) : last(x), at);
}

TENON_COMPILED_TEMPLATE(struct EncoderLayer<float>)
TENON_COMPILED_TEMPLATE(struct Encoder<float>)

}  // namespace tenon::inline TENON_ABI
