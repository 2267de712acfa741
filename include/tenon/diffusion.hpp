#pragma once
// Stable Diffusion with everything around it: pipelines, schedulers, adapters, textual inversions, pictures.
#include <tenon/tenon.hpp>

#include <tenon/io/image.hpp>
#include <tenon/models/diffusion/control_net.hpp>
#include <tenon/models/diffusion/save_like.hpp>
#include <tenon/models/diffusion/stable_diffusion.hpp>
#include <tenon/nn/winograd.hpp>
#include <tenon/peft/formats/textual_inversion.hpp>

namespace tenon::inline TENON_ABI {

/// Attaches a textual inversion to the text towers and lets `word` (the file's own when empty) stand for it in prompts; its
/// vectors are an adapter of that name. Throws NameError when the word is taken, ShapeError when the file is for another base.
template <class T>
void add_textual_inversion(StableDiffusion<T>& pipe, const TextualInversion& inversion, std::string word = {}) {
  Conditioner<T>& text = pipe.conditioner;
  if (word.empty()) word = inversion.token;
  check<NameError>(!text.tokenizer.has(word), "textual_inversion", "the word '", word, "' is taken");
  const auto vectors = [&](const char* tower) -> const Tensor<float>& {
    const auto at = inversion.vectors.find(tower);
    check<ShapeError>(at != inversion.vectors.end() && inversion.vectors.size() == (text.text_encoder_2 ? 2u : 1u), "textual_inversion", "'", word,
                      "' is not for ", name_of(pipe.family));
    return at->second;
  };
  const auto place = [&](TextEncoder<T>& tower, PromptTokenizer& tokenizer, const Tensor<float>& rows) {
    attach(tower, rows, "text_model.embeddings.token_embedding", {.name = word});
    tokenizer.add(word, token_ids(tower, word));
  };
  if (!text.text_encoder_2) return place(text.text_encoder, text.tokenizer, vectors(""));
  const auto &first = vectors("clip_l"), &second = vectors("clip_g");
  place(text.text_encoder, text.tokenizer, first);
  place(*text.text_encoder_2, text.tokenizer_2, second);
}

/// Reads an IP-Adapter (safetensors, or torch's .bin) and attaches it, frozen, to every cross-attention of a U-Net; scale, enable and
/// detach it by its name. From then on calls of the U-Net need its tokens (GenerationOptions::image_prompts). Throws as
/// read_ip_adapter, and NameError for a name that is taken; then nothing is attached.
template <class T>
IpAdapter<T> attach_ip_adapter(Unet2d<T>& unet, const std::string& path, const AttachOptions& options = {.name = "ip_adapter"}) {
  IpAdapterParts<T> parts = read_ip_adapter(unet, path, options.name);
  std::vector<detail::Placement<T>> placements;
  for (auto& [site, patch] : parts.layers) placements.push_back({site, {nullptr, std::move(patch)}});
  detail::place(std::move(placements), options);
  return std::move(parts.adapter);
}

}  // namespace tenon::inline TENON_ABI
