// The float bodies of attention.hpp.
#pragma once
#include <tenon/kernels/isa/attention_task.hpp>
#include <tenon/kernels/isa/simd.hpp>

#define TENON_BODY <tenon/kernels/isa/attention_body.inl>
#include <tenon/kernels/isa/foreach.inl>

#include <tenon/kernels/isa/copies.inl>
#if defined(TENON_HAS_AVX512BF16)
#define TENON_INLINE inline __attribute__((always_inline))
#define TENON_IN_AVX512
#define TENON_IN_AVX512BF16
#include <tenon/kernels/isa/region_avx512.inl>
namespace tenon::inline TENON_ABI::kernels::avx512bf16 {
using namespace avx512;
#include <tenon/kernels/isa/attention_narrow.inl>
}
#include <tenon/kernels/isa/region_end.inl>
#undef TENON_IN_AVX512BF16
#undef TENON_IN_AVX512
#undef TENON_INLINE
#endif
#include <tenon/kernels/isa/copies_end.inl>

#include <tenon/kernels/isa/dispatch.inl>

namespace tenon::inline TENON_ABI::kernels {

namespace detail {

/// Calls f(task, scratch) for all tasks, with `floats` of scratch to each thread.
template <class F>
void with_scratch(Index tasks, Index floats, F&& f) {
  const Index workers = std::min<Index>(tasks, thread_count());
  if (workers == 0) return;
  Buffer<float> scratch(workers * floats);
  parallel_for(workers, [&](Index w) {
    for (Index task = tasks * w / workers; task < tasks * (w + 1) / workers; ++task) f(task, scratch.data() + w * floats);
  });
}

/// The part of a task that the inputs decide: sample b, head h, queries from `query` on.
inline HeadTask head_task(const AttentionShape& s, const AttentionInputs<float>& x, Index b, Index h, Index query, Index queries) {
  HeadTask t;
  t.d = s.d, t.query = query, t.queries = queries, t.prefix = s.prefix, t.keys = attention_keys(s, b);
  t.scale = static_cast<float>(s.scale), t.causal = s.causal;
  t.stride_q = s.stride_q, t.stride_k = s.stride_k, t.stride_v = s.stride_v, t.stride_out = s.stride_out;
  t.stride_prefix = s.heads * s.d;
  t.q = x.q + (b * s.lq + query) * s.stride_q + h * s.d;
  t.k = x.k + b * s.lk * s.stride_k + h * s.d;
  t.v = x.v + b * s.lk * s.stride_v + h * s.d;
  if (s.prefix > 0) t.prefix_k = x.prefix_k + h * s.d, t.prefix_v = x.prefix_v + h * s.d;
  return t;
}

/// `part` rounded up to whole strips, halved until there are `tasks` of them over all heads or strips get few.
inline Index attention_chunk(const AttentionShape& s, Index length, Index part, Index tasks) {
  Index chunk = std::min(part, (length + attention_strip - 1) / attention_strip * attention_strip);
  while (chunk > 2 * attention_strip && s.n * s.heads * ((length + chunk - 1) / chunk) < tasks)
    chunk = (chunk / 2 + attention_strip - 1) / attention_strip * attention_strip;
  return chunk;
}

}  // namespace detail

TENON_KERNEL bool attention_rounds(const AttentionShape& shape) {
  return shape.products == DType::bf16 && current_isa() == Isa::avx512 && is_compiled(Isa::avx512) && cpu_features().bf16;
}

TENON_KERNEL void attention_forward(const AttentionShape& shape, const AttentionInputs<float>& x, float* out, float* lse) {
  const AttentionShape s = detail::with_strides(shape);
  if (s.n * s.heads * s.lq == 0) return;
  const Index chunk = detail::attention_chunk(s, s.lq, 1024, 4 * thread_count()), chunks = (s.lq + chunk - 1) / chunk;
  auto forward = TENON_SELECT(attention::forward);
#include <tenon/kernels/isa/copies.inl>
#if defined(TENON_HAS_AVX512BF16)
  if (attention_rounds(s)) forward = &avx512bf16::attention::forward;
#endif
#include <tenon/kernels/isa/copies_end.inl>
  detail::with_scratch(s.n * s.heads * chunks, detail::attention_scratch(s.d, chunk), [&](Index task, float* scratch) {
    const Index b = task / chunks / s.heads, h = task / chunks % s.heads, query = task % chunks * chunk;
    detail::HeadTask t = detail::head_task(s, x, b, h, query, std::min(chunk, s.lq - query));
    t.chunk = chunk;
    t.out = out + (b * s.lq + query) * s.stride_out + h * s.d;
    t.lse = lse + (b * s.heads + h) * s.lq + query;
    t.scratch = scratch;
    forward(t);
  });
}

TENON_KERNEL void attention_backward(const AttentionShape& shape, const AttentionInputs<float>& x, const float* out,
                                     const float* lse, const float* dout, const AttentionGradients<float>& gradients) {
  const AttentionShape s = detail::with_strides(shape);
  const AttentionGradients<float>& g = gradients;
  const Index heads = s.n * s.heads, width = s.heads * s.d, keys = s.prefix + s.lk;
  Buffer<float> delta(heads * s.lq), dprefix_k(g.dprefix_k != nullptr ? s.n * s.prefix * width : 0),
      dprefix_v(g.dprefix_v != nullptr ? s.n * s.prefix * width : 0);
  auto backward = TENON_SELECT(attention::backward);
#include <tenon/kernels/isa/copies.inl>
#if defined(TENON_HAS_AVX512BF16)
  if (attention_rounds(s)) backward = &avx512bf16::attention::backward;
#endif
#include <tenon/kernels/isa/copies_end.inl>
  const auto sum_delta = TENON_SELECT(attention::delta);
  const auto task_of = [&](Index head, Index query, Index queries, float* scratch) {
    const Index b = head / s.heads, h = head % s.heads;
    detail::HeadTask t = detail::head_task(s, x, b, h, query, queries);
    t.out = const_cast<float*>(out) + (b * s.lq + query) * s.stride_out + h * s.d;
    t.dout = dout + (b * s.lq + query) * s.stride_out + h * s.d;
    t.lse = const_cast<float*>(lse) + head * s.lq + query;
    t.delta = delta.data() + head * s.lq + query;
    t.last_key = keys;
    t.scratch = scratch;
    return t;
  };
  const auto want_dq = [&](detail::HeadTask& t, Index head) {
    if (g.dq != nullptr) t.dq = g.dq + (head / s.heads * s.lq + t.query) * s.stride_q + head % s.heads * s.d;
  };
  const auto want_dkv = [&](detail::HeadTask& t, Index head) {
    const Index b = head / s.heads, at = head % s.heads * s.d;
    if (g.dk != nullptr) t.dk = g.dk + b * s.lk * s.stride_k + at;
    if (g.dv != nullptr) t.dv = g.dv + b * s.lk * s.stride_v + at;
    if (g.dprefix_k != nullptr) t.dprefix_k = dprefix_k.data() + b * s.prefix * width + at;
    if (g.dprefix_v != nullptr) t.dprefix_v = dprefix_v.data() + b * s.prefix * width + at;
  };

  parallel_for(heads, [&](Index head) { sum_delta(task_of(head, 0, s.lq, nullptr)); });
  const Index threads = thread_count(), floats = detail::attention_scratch_backward(s.d);
  if (heads % threads == 0 || heads >= 8 * threads) {
    detail::with_scratch(heads, floats, [&](Index head, float* scratch) {
      detail::HeadTask t = task_of(head, 0, s.lq, scratch);
      want_dq(t, head);
      want_dkv(t, head);
      backward(t);
    });
  } else {  // too few heads for the threads: dq by queries, then dk and dv by keys, at the price of scores made twice
    const Index chunk = detail::attention_chunk(s, s.lq, 1024, 4 * threads), chunks = (s.lq + chunk - 1) / chunk;
    if (g.dq != nullptr)
      detail::with_scratch(heads * chunks, floats, [&](Index task, float* scratch) {
        const Index head = task / chunks, query = task % chunks * chunk;
        detail::HeadTask t = task_of(head, query, std::min(chunk, s.lq - query), scratch);
        want_dq(t, head);
        backward(t);
      });
    const Index part = detail::attention_chunk(s, keys, detail::key_block, 4 * threads), parts = (keys + part - 1) / part;
    if (g.dk != nullptr || g.dv != nullptr || g.dprefix_k != nullptr || g.dprefix_v != nullptr)
      detail::with_scratch(heads * parts, floats, [&](Index task, float* scratch) {
        const Index head = task / parts;
        detail::HeadTask t = task_of(head, 0, s.lq, scratch);
        want_dkv(t, head);
        t.first_key = task % parts * part;
        t.last_key = std::min(keys, t.first_key + part);
        backward(t);
      });
  }
  // The prefix is shared: its gradients are summed over the samples in order.
  const auto sum_samples = [&](const Buffer<float>& parts, float* sum) {
    if (sum == nullptr) return;
    parallel_chunks(s.prefix * width, 4096, [&](Index begin, Index end) {
      std::fill(sum + begin, sum + end, 0.0f);
      for (Index b = 0; b < s.n; ++b)
        for (Index i = begin; i < end; ++i) sum[i] += parts[b * s.prefix * width + i];
    });
  };
  sum_samples(dprefix_k, g.dprefix_k);
  sum_samples(dprefix_v, g.dprefix_v);
}

}  // namespace tenon::inline TENON_ABI::kernels

#undef TENON_SELECT
