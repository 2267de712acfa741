#pragma once
// Attention: multi-head scaled dot-product attention (Vaswani et al. 2017, 1706.03762), self and cross.
#include <utility>

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
  /// x [N, L, D] attends to a context [N, S, C] -> [N, L, D]. The last `own_rows()` of the S are for patches alone.
  Var<T> operator()(const Var<T>& x, const Var<T>& context) const;

  /// Rows of the context that its patches ask for (see KeyValuePatch::context_rows).
  Index own_rows() const {
    Index rows = 0;
    for (const auto& entry : key_values) rows += entry.patch->context_rows();
    return rows;
  }

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
Var<T> Attention<T>::attend(const Var<T>& x, const Var<T>& whole) const {
  const Index own = own_rows(), length = whole.extent(1);
  check<ShapeError>(own == 0 || own < length, "Attention", "expected a context whose last ", own, " rows are for patches, got ", whole.shape());
  const Var<T> context = own == 0 ? whole : slice(whole, 1, 0, length - own);
  Index next = length - own;  // where the next patch's rows begin
  AttentionOptions<T> options;
  options.heads = heads;
  options.causal = causal;
  // Beside Linears whose products round to bfloat16 or int8, attention's products in bfloat16 lose nothing.
  if (q_proj.weight->panels() != dtype_of<T>) options.products = DType::bf16;
  std::vector<Var<T>> keys, values;
  std::vector<typename KeyValuePatch<T>::KeysValues> apart;
  std::vector<T> scales;
  for (const auto& entry : key_values) {
    const Index rows = entry.patch->context_rows(), first = std::exchange(next, next + rows);
    if (!takes_part(entry)) continue;
    auto source = entry.patch->keys_values(rows == 0 ? Var<T>() : slice(whole, 1, first, first + rows));
    if (entry.patch->apart()) {
      apart.push_back(std::move(source));
      scales.push_back(entry.scale);
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
  for (std::size_t i = 0; i < apart.size(); ++i) {
    const auto& [keys_apart, values_apart, gate] = apart[i];
    AttentionOptions<T> beside;
    beside.heads = heads;
    beside.products = options.products;
    const bool each = keys_apart.rank() == 3;  // of each sample
    if (!each) beside.causal = causal, beside.prefix_k = keys_apart, beside.prefix_v = values_apart;
    Var<T> found = attention(q, each ? keys_apart : none, each ? values_apart : none, beside);
    if (gate) found = found * *gate;
    seen = seen + (scales[i] == T(1) ? found : found * scales[i]);
  }
  return out_proj(seen);
}

TENON_COMPILED_TEMPLATE(struct Attention<float>)

}  // namespace tenon::inline TENON_ABI
