#pragma once
// What attention's parallel loops hand to the body of an instruction set: one head of one sample.
#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI::kernels::detail {

inline constexpr Index attention_strip = 32;  ///< queries that go through the keys together
/// Keys between two rescalings. The last block takes a rest of up to a quarter block, so that 257 keys are one block.
inline constexpr Index key_block = 256, key_block_max = 320;
inline constexpr Index key_block_count(Index rest) { return rest <= key_block_max ? rest : key_block; }

/// Pointers are at the head's first element: of the task's first query, or of key 0. Strides are those of tokens.
struct HeadTask {
  Index d = 0;
  Index query = 0, queries = 0;          ///< first query, and how many
  Index prefix = 0, keys = 0;            ///< keys that count, the prefix among them
  Index first_key = 0, last_key = 0;     ///< the keys of a task of backward
  float scale = 0;
  bool causal = false;
  Index stride_q = 0, stride_k = 0, stride_v = 0, stride_out = 0, stride_prefix = 0;
  const float *q = nullptr, *k = nullptr, *v = nullptr, *prefix_k = nullptr, *prefix_v = nullptr;
  float *out = nullptr, *lse = nullptr;  ///< written by forward, read by backward
  Index chunk = 0;                       ///< room for queries in the scratch of forward
  const float* dout = nullptr;
  float* delta = nullptr;
  float *dq = nullptr, *dk = nullptr, *dv = nullptr, *dprefix_k = nullptr, *dprefix_v = nullptr;
  float* scratch = nullptr;
};

inline constexpr Index padded_width(Index d) { return (d + 15) / 16 * 16; }
inline constexpr Index keys_stride_max = key_block_max + 16;
inline constexpr Index few_max = 8;  ///< queries beyond whole vectors that forward takes as rows

/// Floats of scratch, as laid out at the head of attention::forward and attention::backward.
inline constexpr Index attention_scratch(Index d, Index chunk) {
  return d * (keys_stride_max + attention_strip) + key_block_max * (padded_width(d) + attention_strip) + few_max * keys_stride_max +
         chunk * (2 + padded_width(d));
}
inline constexpr Index attention_scratch_backward(Index d) {
  return d * (2 * keys_stride_max + 2 * attention_strip) + padded_width(d) * (3 * key_block_max + 2 * attention_strip) +
         3 * key_block_max * attention_strip;
}

}  // namespace tenon::inline TENON_ABI::kernels::detail
