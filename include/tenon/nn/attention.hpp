#pragma once
// Attention: multi-head scaled dot-product attention (Vaswani et al. 2017, 1706.03762), self and cross.
#include <tenon/nn/linear.hpp>
#include <tenon/ops/attention.hpp>
#include <tenon/ops/shape.hpp>

namespace tenon::inline TENON_ABI {

/// Four Linears around the attention product. Patches attach to each of them, to the whole (`patches`), and to its keys
/// and values (`key_values`).
template <class T>
struct Attention {
  Linear<T> q_proj, k_proj, v_proj, out_proj;
  Index heads = 1;
  bool causal = false;
  OutputSlot<T> patches;
  KeyValueSlot<T> key_values;

  Attention() = default;
  /// Declared: to be loaded or initialised. Keys and values are made from a context of `context_width` (width unless said).
  Attention(Index width, Index head_count, bool is_causal = false, Index context_width = 0, bool qkv_bias = true);
  void initialize(Generator& generator);

  /// x [N, L, D] attends to itself -> [N, L, D].
  Var<T> operator()(const Var<T>& x) const { return (*this)(x, x); }
  /// x [N, L, D] attends to a context [N, S, C] -> [N, L, D].
  Var<T> operator()(const Var<T>& x, const Var<T>& context) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("q_proj", s.q_proj);
    f("k_proj", s.k_proj);
    f("v_proj", s.v_proj);
    f("out_proj", s.out_proj);
  }

 private:
  Var<T> attend(const Var<T>& x, const Var<T>& context) const;
};

template <class T>
Attention<T>::Attention(Index width, Index head_count, bool is_causal, Index context_width, bool qkv_bias)
    : q_proj(width, width, qkv_bias),
      k_proj(context_width > 0 ? context_width : width, width, qkv_bias),
      v_proj(context_width > 0 ? context_width : width, width, qkv_bias),
      out_proj(width, width),
      heads(head_count),
      causal(is_causal) {
  check<ShapeError>(head_count > 0 && width % head_count == 0, "Attention", "expected a width that ", head_count, " heads divide, got ",
                    width);
}

template <class T>
void Attention<T>::initialize(Generator& generator) {
  for (Linear<T>* layer : {&q_proj, &k_proj, &v_proj, &out_proj}) layer->initialize(generator);
}

template <class T>
Var<T> Attention<T>::operator()(const Var<T>& x, const Var<T>& context) const {
  if (const auto groups = row_groups(patches, key_values); !groups.empty()) {
    if (&x == &context) return by_rows(groups, x, [&](const Var<T>& part) { return (*this)(part, part); });
    return by_rows(groups, x, context, [&](const Var<T>& part, const Var<T>& other) { return (*this)(part, other); });
  }
  if (patches.empty()) return attend(x, context);
  return through(
      patches, x,
      [&](const Var<T>& input, std::span<const LowRank<T>>, bool) { return attend(input, &x == &context ? input : context); },
      [](const Var<T>& y) { return y; });
}

template <class T>
Var<T> Attention<T>::attend(const Var<T>& x, const Var<T>& context) const {
  AttentionOptions<T> options;
  options.heads = heads;
  options.causal = causal;
  // Beside Linears whose products round to bfloat16 or int8, attention's products in bfloat16 lose nothing.
  if (q_proj.weight->panels() != dtype_of<T>) options.products = DType::bf16;
  std::vector<Var<T>> keys, values;
  std::vector<typename KeyValuePatch<T>::KeysValues> apart;
  for (const auto& entry : key_values) {
    if (!takes_part(entry)) continue;
    auto source = entry.patch->keys_values();
    if (source.gate) {
      apart.push_back(std::move(source));
      continue;
    }
    keys.push_back(std::move(source.keys));
    values.push_back(std::move(source.values));
  }
  if (!keys.empty()) {
    options.prefix_k = keys.size() == 1 ? keys[0] : concat<T>(keys, 0);
    options.prefix_v = values.size() == 1 ? values[0] : concat<T>(values, 0);
  }
  const Var<T> q = q_proj(x);
  Var<T> seen = attention(q, k_proj(context), v_proj(context), options);
  const Var<T> none(Tensor<T>({x.extent(0), 0, q.extent(2)}));
  for (const auto& source : apart) {
    options.prefix_k = source.keys;
    options.prefix_v = source.values;
    seen = seen + attention(q, none, none, options) * *source.gate;
  }
  return out_proj(seen);
}

TENON_COMPILED_TEMPLATE(struct Attention<float>)

}  // namespace tenon::inline TENON_ABI
