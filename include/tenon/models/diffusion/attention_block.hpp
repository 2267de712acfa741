#pragma once
// AttentionBlock: the pixels of a feature map attend to each other, in pixel U-Nets and autoencoders (diffusers' Attention with
// a group norm and a residual, once called AttentionBlock; Ho et al. 2020, 2006.11239).
#include <tenon/io/state_dict.hpp>
#include <tenon/models/diffusion/transformer.hpp>

namespace tenon::inline TENON_ABI {

/// x + attention(group_norm(x)).
template <class T>
struct AttentionBlock {
  std::optional<GroupNorm<T>> group_norm;
  Attention<T> attention;

  AttentionBlock() = default;
  /// Declared: to be loaded or initialised. `groups` 0: no norm.
  AttentionBlock(Index channels, Index heads, Index groups = 32, double eps = 1e-6) : attention(channels, heads) {
    if (groups > 0) group_norm.emplace(groups, channels, eps);
  }
  void initialize(Generator& generator) {
    if (group_norm) group_norm->initialize();
    attention.initialize(generator);
  }

  /// x [N, H, W, C] -> the same shape.
  Var<T> operator()(const Var<T>& x) const {
    const Var<T> h = reshape(group_norm ? (*group_norm)(x) : x, {x.extent(0), x.extent(1) * x.extent(2), x.extent(3)});
    return reshape(attention(h), x.shape()) + x;
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("group_norm", s.group_norm);
    f("", s.attention, detail::diffusers_attention());
  }
};

/// Brings the names that diffusers gave an AttentionBlock's layers before 0.17 to today's.
inline void to_current_attention_names(StateDict& dict) {
  static const Renames old{{".query.", ".to_q."}, {".key.", ".to_k."}, {".value.", ".to_v."}, {".proj_attn.", ".to_out.0."}};
  dict.rename([](const std::string& name) -> std::optional<std::string> {
    std::string out = name;
    for (const auto& [from, to] : old)
      if (const auto at = out.find(from); at != std::string::npos) out.replace(at, from.size(), to);
    return out;
  });
}

}  // namespace tenon::inline TENON_ABI
