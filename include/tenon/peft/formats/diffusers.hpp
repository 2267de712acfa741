#pragma once
// LoRA files of diffusers (pytorch_lora_weights.safetensors), of every age:
//   unet.down_blocks....attn1.to_q.lora_A.weight                           today's, peft's names under the pipeline's part
//   unet....attn1.to_q.lora.down.weight                                    before peft
//   [unet.]...attn1.processor.to_q_lora.down.weight                        attention processors; to_out_lora is to_out.0
//   text_encoder....self_attn.q_proj.lora_linear_layer.down.weight, and ....self_attn.to_q_lora.down.weight before that
// And the state dictionaries of loralib, X.lora_A and X.lora_B of linear layers and embeddings, which hold no alpha: a scale
// other than 1 (lora_alpha / R there) has to be given.
// Names are matched with the model's layers. Alphas come from X.alpha tensors, else from the file's own metadata, else they
// are the rank of each layer.
#include <tenon/peft/formats/kohya.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

struct DiffusersEnding {
  std::string_view ending, part;
  bool processor;  ///< to_q_lora: what stands before the ending is an attention processor's name for a projection
};
inline constexpr DiffusersEnding diffusers_endings[] = {
    {".lora_A.weight", "lora_A.weight", false},
    {".lora_B.weight", "lora_B.weight", false},
    {".lora_B.bias", "lora_B.bias", false},
    {".lora_A", "lora_A.weight", false},
    {".lora_B", "lora_B.weight", false},
    {".lora_magnitude_vector", "lora_magnitude_vector", false},
    {".lora_magnitude_vector.weight", "lora_magnitude_vector", false},
    {".lora.down.weight", "lora_A.weight", false},
    {".lora.up.weight", "lora_B.weight", false},
    {".lora_linear_layer.down.weight", "lora_A.weight", false},
    {".lora_linear_layer.up.weight", "lora_B.weight", false},
    {"_lora.down.weight", "lora_A.weight", true},
    {"_lora.up.weight", "lora_B.weight", true},
    {".alpha", "alpha", false},
};

/// What the layer of a processor's name may be called: `x.attn1.processor.to_out` is x.attn1.to_out.0, or x.attn1.out_proj.
TENON_IN_BODY std::vector<std::string> processor_layers(std::string module);

/// Which tensors of a diffusers file belong to which site.
TENON_IN_BODY LayerMap diffusers_layers(const AdapterFile& file, const std::vector<std::string>& sites, const std::string& only);

template <class T>
void save_diffusers(const std::vector<SiteRef<T>>& all, const std::string& path, const SaveFileOptions& options);

}  // namespace detail

/// Writes one attached LoRA or DoRA as diffusers does today, its alphas and ranks in the metadata that diffusers reads. Throws as save_kohya.
template <class M>
void save_diffusers(M& model, const std::string& path, const SaveFileOptions& options = {}) {
  detail::save_diffusers(sites(model), path, options);
}

TENON_COMPILED_FUNCTION(detail::save_diffusers<float>)
TENON_COMPILED_FUNCTION(detail::save_diffusers<double>)

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/peft/formats/diffusers_body.hpp>
#endif
