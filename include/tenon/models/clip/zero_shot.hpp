#pragma once
// Zero-shot classification: one direction for each label, the mean over templates (Radford et al. 2021, section 3.1.4).
#include <tenon/models/clip/clip.hpp>
#include <tenon/models/clip/tokenizer.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/ops/softmax.hpp>

namespace tenon::inline TENON_ABI {

/// `template` with its "{}" replaced by `label`. Throws Error when there is no "{}".
inline std::string fill_template(const std::string& text, const std::string& label) {
  const auto at = text.find("{}");
  check(at != std::string::npos, "zero_shot", "expected {} in the template '", text, "'");
  return text.substr(0, at) + label + text.substr(at + 2);
}

/// Texts as ids [N, L] of the shortest length that holds them all, at most the model's context: the text tower is causal
/// and reads the first end token, so padding costs time and changes nothing. Throws Error on a text of more than 1 MiB.
template <class T>
Tensor<std::int32_t> tokenize(const Clip<T>& clip, const Tokenizer& tokenizer, std::span<const std::string> texts) {
  constexpr std::size_t most = 1 << 20;
  for (const auto& text : texts) check(text.size() <= most, "tokenize", "expected texts of at most ", most, " bytes, got one of ", text.size());
  const Tensor<std::int32_t> ids = tokenizer(texts, clip.config.text_config.max_position_embeddings);
  const Tensor<std::int32_t> ends = clip.text_model.end_positions(ids);
  const Index length = ends.size() == 0 ? ids.extent(1) : 1 + *std::max_element(ends.begin(), ends.end());
  return copy(ids.view().sliced(1, 0, length));
}

/// Directions [labels, E] of length 1: each template's feature normalised, their mean normalised again.
/// Throws Error on a template without "{}".
template <class T>
Tensor<T> zero_shot_directions(const Clip<T>& clip, const Tokenizer& tokenizer, std::span<const std::string> labels,
                               std::span<const std::string> templates) {
  check(!labels.empty() && !templates.empty(), "zero_shot", "expected at least one label and one template");
  const NoGrad no_grad;
  const Index count = static_cast<Index>(labels.size()), each = static_cast<Index>(templates.size());
  std::vector<Var<T>> parts;
  constexpr Index batch = 64;  // labels at a time
  for (Index begin = 0; begin < count; begin += batch) {
    std::vector<std::string> texts;
    for (Index i = begin; i < std::min(count, begin + batch); ++i)
      for (const auto& text : templates) texts.push_back(fill_template(text, labels[static_cast<std::size_t>(i)]));
    const Var<T> features = l2_normalize(clip.text_features(tokenize(clip, tokenizer, texts)));
    parts.push_back(l2_normalize(mean(reshape(features, {-1, each, clip.config.projection_dim}), 1)));
  }
  return concat(parts, 0).value();
}

/// Probabilities [N, labels] for picture features [N, E] of any length.
template <class T>
Tensor<T> zero_shot_probabilities(const Clip<T>& clip, const Var<T>& image_features, const Tensor<T>& directions) {
  const NoGrad no_grad;
  const Var<T> cosines = matmul(l2_normalize(image_features), Var<T>(directions), {.transpose_b = true});
  return softmax(cosines * exp(clip.logit_scale->var())).value();
}

}  // namespace tenon::inline TENON_ABI
