#pragma once
// What a U-Net is told besides its latents: the time, the text, SDXL's sizes, and what a ControlNet adds.
#include <map>

#include <tenon/models/diffusion/time_embedding.hpp>
#include <tenon/models/diffusion/unet_config.hpp>
#include <tenon/nn/embedding.hpp>
#include <tenon/ops/arithmetic.hpp>
#include <tenon/ops/shape.hpp>

namespace tenon::inline TENON_ABI {

/// What a ControlNet adds to a U-Net: to every skip, in the order of the way down, and to the mid block's output.
template <class T>
struct ControlResiduals {
  std::vector<Var<T>> down;
  std::optional<Var<T>> mid;

  /// Both together, of two ControlNets. Throws ShapeError unless they fit.
  friend ControlResiduals operator+(const ControlResiduals& a, const ControlResiduals& b) {
    check<ShapeError>(a.down.size() == b.down.size(), "control_net", "expected ", a.down.size(), " residuals, got ", b.down.size());
    ControlResiduals out{{}, a.mid && b.mid ? *a.mid + *b.mid : a.mid ? a.mid : b.mid};
    for (std::size_t i = 0; i < a.down.size(); ++i) out.down.push_back(a.down[i] + b.down[i]);
    return out;
  }
};

template <class T>
struct UnetConditions {
  Var<T> states = {};                                   ///< of the text [N, S, D]
  std::optional<Var<T>> text_embeds = {};               ///< SDXL's pooled text [N, P]
  std::optional<Tensor<float>> time_ids = {};           ///< SDXL's sizes [N, 6]: original, crop and target, each height, width
  std::optional<Var<T>> guidance = {};                  ///< LCM's guidance embedding [N, time_cond_proj_dim]
  std::optional<Tensor<std::int32_t>> class_labels = {};  ///< [N]
  std::optional<ControlResiduals<T>> control = {};
  std::map<std::string, Var<T>> image_tokens = {};      ///< of each attached IP-Adapter, by its name [N, P, D]
};

/// Throws ShapeError unless the text's states fit n samples of a model that attends to them.
inline void check_text_states(std::string_view op, const UnetConfig& config, Index n, const Shape& states) {
  check<ShapeError>(!config.conditional() || (states.rank() == 3 && states[0] == n && states[2] == config.cross_attention_dim.front()), op,
                    "expected text states [", n, ", S, ", config.cross_attention_dim.front(), "], got ", states);
}

/// The embedding [N, D] that every resnet of a U-Net adds: of the time, the class and SDXL's sizes.
template <class T>
struct UnetTime {
  TimestepEmbedding<T> time_embedding;
  std::optional<TimestepEmbedding<T>> add_embedding;
  std::optional<Embedding<T>> class_embedding;
  Index width = 0, addition_width = 0;
  bool cosine_first = true;
  double freq_shift = 0;

  UnetTime() = default;
  /// Declared: to be loaded or initialised.
  explicit UnetTime(const UnetConfig& c)
      : time_embedding(c.block_out_channels.front(), c.time_width(), c.time_cond_proj_dim),
        width(c.block_out_channels.front()),
        addition_width(c.addition_time_embed_dim),
        cosine_first(c.flip_sin_to_cos),
        freq_shift(c.freq_shift) {
    if (addition_width > 0) add_embedding.emplace(c.projection_class_embeddings_input_dim, c.time_width());
    if (c.num_class_embeds > 0) class_embedding.emplace(c.num_class_embeds, c.time_width());
  }
  void initialize(Generator& generator) {
    time_embedding.initialize(generator);
    if (add_embedding) add_embedding->initialize(generator);
    if (class_embedding) class_embedding->initialize(generator);
  }

  /// For n samples at the times [n] or [1] -> [n, 4 width]. Throws ShapeError on a condition that is missing or does not fit.
  Var<T> operator()(Index n, const Tensor<float>& times, const UnetConditions<T>& conditions) const {
    check<ShapeError>(times.rank() == 1 && (times.size() == n || times.size() == 1), "unet", "expected timesteps [", n, "] or [1], got ",
                      times.shape());
    Tensor<float> all({n});
    for (Index i = 0; i < n; ++i) all.data()[i] = times.data()[times.size() == 1 ? 0 : i];
    Var<T> out = time_embedding(timestep_embedding<T>(all, width, cosine_first, freq_shift), conditions.guidance);
    if (class_embedding) {
      check<ShapeError>(conditions.class_labels && conditions.class_labels->shape() == Shape{n}, "unet", "expected class labels [", n, "]");
      out = out + (*class_embedding)(*conditions.class_labels);
    }
    if (add_embedding) {
      const Index rest = add_embedding->linear_1.in();
      const auto& text = conditions.text_embeds;
      const auto& ids = conditions.time_ids;
      check<ShapeError>(text && ids && text->rank() == 2 && ids->rank() == 2 && text->extent(0) == n && ids->extent(0) == n &&
                            text->extent(1) + ids->extent(1) * addition_width == rest,
                        "unet", "expected pooled text [", n, ", P] and time ids [", n, ", K] with P + ", addition_width, " K = ", rest, ", got ",
                        text ? text->shape().text() : "none", " and ", ids ? ids->shape().text() : "none");
      const Tensor<float> flat({ids->size()}, std::vector<float>(ids->begin(), ids->end()));
      const Var<T> sizes = timestep_embedding<T>(flat, addition_width, cosine_first, freq_shift).reshape({n, ids->extent(1) * addition_width});
      out = out + (*add_embedding)(concat({*text, sizes}, 1));
    }
    return out;
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("time_embedding", s.time_embedding);
    f("add_embedding", s.add_embedding);
    f("class_embedding", s.class_embedding);
  }
};

}  // namespace tenon::inline TENON_ABI
