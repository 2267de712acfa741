#pragma once
// Scaled dot-product attention by online softmax (Rabe and Staats, arXiv 2112.05682; backward by recomputation as in
// FlashAttention, arXiv 2205.14135): no matrix of scores is ever kept.
//
// float runs on current_isa(), double on plain loops. The same bits for any number of threads: every output element is
// one chain over keys (or queries) in order, restarted at fixed blocks of keys only by the softmax rescaling.
#include <algorithm>
#include <cmath>
#include <limits>

#include <tenon/core/dtype.hpp>
#include <tenon/core/memory.hpp>
#include <tenon/core/parallel.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// Sizes of an attention. A stride is the distance of two tokens, in elements; 0 stands for heads * d.
struct AttentionShape {
  Index n = 0, heads = 1, lq = 0, lk = 0;
  Index d = 0;        ///< width of one head
  Index prefix = 0;   ///< keys that every query of every sample sees, before its own keys
  double scale = 0;   ///< positive; usually 1 / sqrt(d)
  bool causal = false;  ///< query i sees keys 0 .. i (and the prefix)
  const Index* key_lengths = nullptr;  ///< [n]: keys of each sample that count (and the prefix), 0 .. lk; null: all
  Index stride_q = 0, stride_k = 0, stride_v = 0, stride_out = 0;
  /// What is multiplied in: bf16 rounds q, k, v and the weights to it on machines that multiply bfloat16 (AVX-512 BF16), for
  /// speed, and in backward dout and the scores' gradients; softmax and sums stay float32. On others and in double it is the same as f32.
  DType products = DType::f32;
};

/// q [n, lq, heads d], k and v [n, lk, heads d]; prefix_k and prefix_v [prefix, heads d], shared by the batch.
template <Real T>
struct AttentionInputs {
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  const T* prefix_k = nullptr;
  const T* prefix_v = nullptr;
};

/// The gradients, with the shapes and strides of the inputs; written, not added to. Null ones are left out.
template <Real T>
struct AttentionGradients {
  T* dq = nullptr;
  T* dk = nullptr;
  T* dv = nullptr;
  T* dprefix_k = nullptr;
  T* dprefix_v = nullptr;
};

/// out [n, lq, heads d] = softmax(scale q k^T) v per head; lse [n, heads, lq] = log of the sum of exp(scale q k^T),
/// kept for backward. A query that sees no key gives 0 and -inf.
TENON_KERNEL void attention_forward(const AttentionShape& shape, const AttentionInputs<float>& x, float* out, float* lse);
inline void attention_forward(const AttentionShape& shape, const AttentionInputs<double>& x, double* out, double* lse);

/// The gradients from dout [n, lq, heads d], whose stride is that of out.
TENON_KERNEL void attention_backward(const AttentionShape& shape, const AttentionInputs<float>& x, const float* out,
                                     const float* lse, const float* dout, const AttentionGradients<float>& gradients);
inline void attention_backward(const AttentionShape& shape, const AttentionInputs<double>& x, const double* out,
                               const double* lse, const double* dout, const AttentionGradients<double>& gradients);

/// Whether this thread's kernels round q, k and v to bfloat16, forward and backward.
TENON_KERNEL bool attention_rounds(const AttentionShape& shape);

namespace detail {

inline AttentionShape with_strides(AttentionShape s) {
  for (Index* stride : {&s.stride_q, &s.stride_k, &s.stride_v, &s.stride_out})
    if (*stride == 0) *stride = s.heads * s.d;
  return s;
}
/// Keys of sample `b` that count, the prefix among them.
inline Index attention_keys(const AttentionShape& s, Index b) {
  return s.prefix + (s.key_lengths == nullptr ? s.lk : s.key_lengths[b]);
}
/// Keys that query i of sample `b` sees: the first so many, the prefix being the first.
inline Index attention_sees(const AttentionShape& s, Index b, Index i) {
  return s.causal ? std::min(attention_keys(s, b), s.prefix + i + 1) : attention_keys(s, b);
}

/// Calls f(sample, head) for all heads in parallel.
template <class F>
void for_heads(const AttentionShape& s, F&& f) {
  parallel_for(s.n * s.heads, [&](Index task) { f(task / s.heads, task % s.heads); });
}
template <class T>
struct HeadRow {
  const T *k, *v;
};
/// Key and value j of sample `b`, head `h`, of the prefix or of the sample.
template <class T>
HeadRow<T> attention_key(const AttentionShape& s, const AttentionInputs<T>& x, Index b, Index h, Index j) {
  if (j < s.prefix) return {x.prefix_k + (j * s.heads + h) * s.d, x.prefix_v + (j * s.heads + h) * s.d};
  const Index row = b * s.lk + j - s.prefix;
  return {x.k + row * s.stride_k + h * s.d, x.v + row * s.stride_v + h * s.d};
}
template <class T>
T dot(Index d, const T* a, const T* b) {
  T sum = 0;
  for (Index c = 0; c < d; ++c) sum += a[c] * b[c];
  return sum;
}

}  // namespace detail

inline void attention_forward(const AttentionShape& shape, const AttentionInputs<double>& x, double* out, double* lse) {
  const AttentionShape s = detail::with_strides(shape);
  detail::for_heads(s, [&](Index b, Index h) {
    for (Index i = 0; i < s.lq; ++i) {
      const double* q = x.q + (b * s.lq + i) * s.stride_q + h * s.d;
      double* y = out + (b * s.lq + i) * s.stride_out + h * s.d;
      const Index keys = detail::attention_sees(s, b, i);
      double m = -std::numeric_limits<double>::infinity(), l = 0;
      for (Index j = 0; j < keys; ++j) m = std::max(m, s.scale * detail::dot(s.d, q, detail::attention_key(s, x, b, h, j).k));
      std::fill(y, y + s.d, 0.0);
      for (Index j = 0; j < keys; ++j) {
        const auto key = detail::attention_key(s, x, b, h, j);
        const double p = std::exp(s.scale * detail::dot(s.d, q, key.k) - m);
        l += p;
        for (Index c = 0; c < s.d; ++c) y[c] += p * key.v[c];
      }
      if (keys > 0)
        for (Index c = 0; c < s.d; ++c) y[c] /= l;
      lse[(b * s.heads + h) * s.lq + i] = m + std::log(l);
    }
  });
}

inline void attention_backward(const AttentionShape& shape, const AttentionInputs<double>& x, const double* out,
                               const double* lse, const double* dout, const AttentionGradients<double>& gradients) {
  const AttentionShape s = detail::with_strides(shape);
  const AttentionGradients<double>& g = gradients;
  // One head of all samples is one task, so that the prefix has one writer.
  parallel_for(s.heads, [&](Index h) {
    const auto clear = [&](double* rows, Index count, Index stride) {
      if (rows != nullptr)
        for (Index i = 0; i < count; ++i) std::fill_n(rows + i * stride + h * s.d, s.d, 0.0);
    };
    clear(g.dq, s.n * s.lq, s.stride_q);
    clear(g.dk, s.n * s.lk, s.stride_k);
    clear(g.dv, s.n * s.lk, s.stride_v);
    clear(g.dprefix_k, s.prefix, s.heads * s.d);
    clear(g.dprefix_v, s.prefix, s.heads * s.d);
    for (Index row = 0; row < s.n * s.lq; ++row) {
      const Index b = row / s.lq, i = row % s.lq;
      const double *q = x.q + row * s.stride_q + h * s.d, *dy = dout + row * s.stride_out + h * s.d;
      const double delta = detail::dot(s.d, out + row * s.stride_out + h * s.d, dy);
      for (Index j = 0; j < detail::attention_sees(s, b, i); ++j) {
        const auto key = detail::attention_key(s, x, b, h, j);
        const double p = std::exp(s.scale * detail::dot(s.d, q, key.k) - lse[(b * s.heads + h) * s.lq + i]);
        const double ds = s.scale * p * (detail::dot(s.d, dy, key.v) - delta);
        const Index at = j < s.prefix ? (j * s.heads + h) * s.d : h * s.d, own = b * s.lk + j - s.prefix;
        double* dk = j < s.prefix ? g.dprefix_k : g.dk == nullptr ? nullptr : g.dk + own * s.stride_k;
        double* dv = j < s.prefix ? g.dprefix_v : g.dv == nullptr ? nullptr : g.dv + own * s.stride_v;
        for (Index c = 0; c < s.d; ++c) {
          if (g.dq != nullptr) g.dq[row * s.stride_q + h * s.d + c] += ds * key.k[c];
          if (dk != nullptr) dk[at + c] += ds * q[c];
          if (dv != nullptr) dv[at + c] += p * dy[c];
        }
      }
    }
  });
}

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/attention_float.inl>
#endif
