"""Writes golden/clip/: a tiny CLIP model of transformers with random parameters, and what it makes of fixed inputs.

    python make_clip.py        (torch 2.15, transformers 5.23)

Every parameter is random, so norms, biases, activations and eps all show. Expectations are computed in float64 from the
float32 parameters of the file and stored as float32 (gradients) or float64 (features, loss).
"""
import pathlib

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

HERE = pathlib.Path(__file__).parent / "clip"


def model(act, seed):
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config=dict(vocab_size=99, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
                         max_position_embeddings=16, hidden_act=act, layer_norm_eps=3e-2, eos_token_id=98, bos_token_id=97,
                         pad_token_id=98, projection_dim=20),
        vision_config=dict(image_size=24, patch_size=8, hidden_size=32, intermediate_size=56, num_hidden_layers=2,
                           num_attention_heads=2, hidden_act=act, layer_norm_eps=2e-2, projection_dim=20),
        projection_dim=20, logit_scale_init_value=1.3)
    clip = CLIPModel(config)
    with torch.no_grad():
        for name, p in clip.named_parameters():
            torch.nn.init.normal_(p, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.25)
        clip.logit_scale.fill_(1.7)
    return clip.eval()


def inputs():
    torch.manual_seed(5)
    pixels = torch.randn(3, 3, 24, 24)
    ids = torch.randint(0, 97, (3, 11))
    ids[0, 4:] = 98                      # ends at 4, padded with the end token
    ids[1, 7], ids[1, 9] = 98, 98        # ends twice: the first counts
    ids[2, 10] = 98                      # ends at the last place
    return pixels, ids


def features(clip, pixels, ids):
    vision, text = clip.vision_model(pixel_values=pixels), clip.text_model(input_ids=ids)
    return {"vision.last_hidden_state": vision.last_hidden_state, "text.last_hidden_state": text.last_hidden_state,
            "image_features": clip.visual_projection(vision.pooler_output),
            "text_features": clip.text_projection(text.pooler_output)}


GRADIENTS = ["logit_scale", "visual_projection.weight", "text_model.embeddings.token_embedding.weight",
             "text_model.embeddings.position_embedding.weight", "text_model.encoder.layers.0.self_attn.k_proj.weight",
             "text_model.encoder.layers.1.mlp.fc1.bias", "text_model.final_layer_norm.weight",
             "vision_model.embeddings.class_embedding", "vision_model.embeddings.patch_embedding.weight",
             "vision_model.pre_layrnorm.bias", "vision_model.encoder.layers.0.self_attn.q_proj.bias",
             "vision_model.encoder.layers.0.mlp.fc2.weight", "vision_model.encoder.layers.1.layer_norm2.weight"]


def write(act, seed, gradients):
    clip = model(act, seed)
    pixels, ids = inputs()
    if gradients:
        clip.save_pretrained(HERE)
        (HERE / "model.safetensors").chmod(0o644)
    clip = clip.double()
    out = {k: v.detach() for k, v in features(clip, pixels.double(), ids).items()}
    whole = clip(input_ids=ids, pixel_values=pixels.double(), return_loss=True)
    whole.loss.backward()
    out |= {"logits_per_image": whole.logits_per_image.detach(), "loss": whole.loss.detach()}
    if gradients:
        named = dict(clip.named_parameters())
        out |= {"grad." + n: named[n].grad.float() for n in GRADIENTS}
        out |= {"pictures": pixels.permute(0, 2, 3, 1), "ids": ids.int()}
    file = HERE / f"expected_{act}.safetensors"
    save_file({k: v.contiguous() for k, v in out.items()}, file)
    file.chmod(0o644)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    write("quick_gelu", 1, gradients=True)
    write("gelu", 1, gradients=False)  # the same parameters, so the file is not written twice
