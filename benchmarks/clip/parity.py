"""Makes a CLIP of full size with random weights and what torch makes of fixed inputs: parity.py MODEL FOLDER

MODEL is b32, b16 or l14 (by transformers), or rn50 or openclip_b32 (by open_clip: OpenAI's ResNet-50 and ViT-B/32 with exact
GELU). Every parameter and statistic is shaken, so that biases, norms and eps show. FOLDER receives configuration and weights
(float32) and reference.safetensors: pictures and ids, and features and logits in float64, float32 and bfloat16
(`f64.image_features`, ...).
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
torch.manual_seed(7)


def shake(clip):
    with torch.no_grad():
        for key, p in clip.named_parameters():
            if p.ndim >= 1:
                p += torch.randn_like(p) * (0.2 if p.ndim == 1 and ("norm" in key or "ln_" in key or "bn" in key or key.endswith("bias")) else 0.02)
        for key, b in clip.named_buffers():
            if key.endswith("running_mean"):
                b.copy_(0.3 * torch.randn_like(b))
            if key.endswith("running_var"):
                b.copy_(0.5 + torch.rand_like(b))
        clip.logit_scale.fill_(4.6)
    return clip.eval()


def by_transformers():
    from transformers import CLIPConfig, CLIPModel

    wide = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
    vision = {"b32": dict(patch_size=32), "b16": dict(patch_size=16), "l14": dict(patch_size=14, **wide)}[name]
    text = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12) if name == "l14" else {}
    embed = 768 if name == "l14" else 512
    clip = CLIPModel(CLIPConfig(text_config=dict(eos_token_id=49407, bos_token_id=49406, pad_token_id=49407, projection_dim=embed, **text),
                                vision_config=dict(projection_dim=embed, **vision), projection_dim=embed))
    shake(clip).save_pretrained(folder)
    return (clip, 49407, lambda x: clip.visual_projection(clip.vision_model(pixel_values=x).pooler_output),
            lambda ids: clip.text_projection(clip.text_model(input_ids=ids).pooler_output))


def by_open_clip():
    import open_clip

    kind = {"rn50": "RN50-quickgelu", "openclip_b32": "ViT-B-32"}[name]
    clip = shake(open_clip.create_model(kind))
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": open_clip.get_model_config(kind), "preprocess_cfg": {}}))
    return clip, 0, clip.encode_image, clip.encode_text


clip, pad, encode_image, encode_text = by_open_clip() if name in ("rn50", "openclip_b32") else by_transformers()
batch = 3
pictures = torch.randn(batch, 3, 224, 224)
ids = torch.randint(0, 49406, (batch, 77))
ids[:, 0] = 49406
for row, end in enumerate((6, 31, 76)):
    ids[row, end] = 49407
    ids[row, end + 1:] = pad


def outputs(dtype):
    clip.to(dtype)
    with torch.inference_mode():
        image, words = encode_image(pictures.to(dtype)), encode_text(ids)
        unit = torch.nn.functional.normalize
        logits = clip.logit_scale.exp() * unit(image, dim=-1) @ unit(words, dim=-1).T
    return {"image_features": image, "text_features": words, "logits_per_image": logits}


out = {"pictures": pictures.permute(0, 2, 3, 1), "ids": ids.int()}
for label, dtype in (("f32", torch.float32), ("f64", torch.float64), ("bf16", torch.bfloat16)):  # float64 keeps float32's bits
    out |= {f"{label}.{key}": value.double() for key, value in outputs(dtype).items()}
save_file({k: v.contiguous() for k, v in out.items()}, folder / "reference.safetensors")
