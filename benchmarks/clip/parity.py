"""Makes a CLIP of full size with random weights and what torch makes of fixed inputs: parity.py b32|b16|l14 FOLDER

Every parameter is shaken, so that biases, norms and eps show. FOLDER receives config.json, model.safetensors (float32) and
reference.safetensors: pictures and ids, and features and logits in float64, float32 and bfloat16 (`f64.image_features`, ...).
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
wide = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
vision = {"b32": dict(patch_size=32), "b16": dict(patch_size=16), "l14": dict(patch_size=14, **wide)}[name]
text = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12) if name == "l14" else {}
embed = 768 if name == "l14" else 512
torch.manual_seed(7)
clip = CLIPModel(CLIPConfig(text_config=dict(eos_token_id=49407, bos_token_id=49406, pad_token_id=49407, projection_dim=embed, **text),
                            vision_config=dict(projection_dim=embed, **vision), projection_dim=embed)).eval()
with torch.no_grad():
    for key, p in clip.named_parameters():
        if p.ndim >= 1:
            p += torch.randn_like(p) * (0.2 if "norm" in key or key.endswith("bias") else 0.02)
    clip.logit_scale.fill_(4.6)
clip.save_pretrained(folder)

batch = 3
pictures = torch.randn(batch, 3, 224, 224)
ids = torch.randint(0, 49406, (batch, 77))
ids[:, 0] = 49406
for row, end in enumerate((6, 31, 76)):
    ids[row, end:] = 49407


def outputs(dtype):
    clip.to(dtype)
    with torch.inference_mode():
        image = clip.visual_projection(clip.vision_model(pixel_values=pictures.to(dtype)).pooler_output)
        words = clip.text_projection(clip.text_model(input_ids=ids).pooler_output)
        logits = clip(pixel_values=pictures.to(dtype), input_ids=ids).logits_per_image
    return {"image_features": image, "text_features": words, "logits_per_image": logits}


out = {"pictures": pictures.permute(0, 2, 3, 1), "ids": ids.int()}
for label, dtype in (("f32", torch.float32), ("f64", torch.float64), ("bf16", torch.bfloat16)):  # float64 keeps float32's bits
    out |= {f"{label}.{key}": value.double() for key, value in outputs(dtype).items()}
save_file({k: v.contiguous() for k, v in out.items()}, folder / "reference.safetensors")
