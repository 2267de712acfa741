"""Makes a U-Net of full size with random weights and what torch makes of fixed inputs: unet_parity.py sd15|sd21|sdxl SIDE FOLDER

Every parameter is shaken, so that biases, norms and eps show. FOLDER receives config.json, diffusion_pytorch_model.safetensors
(float32) and reference.safetensors: latents [2, SIDE, SIDE, 4], the conditions, and the output in float64, float32 and bfloat16
(`f64.sample`, ...).
float64 takes no more memory than float32: each layer is widened while it runs.
"""
import pathlib
import sys

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

name, side, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
down, cross, up, up_cross = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"
config = {
    "sd15": dict(cross_attention_dim=768, attention_head_dim=8),
    "sd21": dict(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True),
    "sdxl": dict(cross_attention_dim=2048, attention_head_dim=[5, 10, 20], use_linear_projection=True, block_out_channels=[320, 640, 1280],
                 down_block_types=[down, cross, cross], up_block_types=[up_cross, up_cross, up], transformer_layers_per_block=[1, 2, 10],
                 addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816),
}[name]
torch.manual_seed(7)
unet = UNet2DConditionModel(**config).eval()
with torch.no_grad():
    for key, p in unet.named_parameters():
        if "norm" in key or key.endswith("bias"):
            p += torch.randn_like(p) * 0.1
unet.save_pretrained(folder, max_shard_size="100GB")

given = dict(latents=torch.randn(2, 4, side, side), states=torch.randn(2, 77, config["cross_attention_dim"]))
times = torch.tensor([981.0, 313.1875])
if name == "sdxl":
    given |= dict(text_embeds=torch.randn(2, 1280), time_ids=torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]] * 2))


def output(dtype):
    added = {k: given[k].to(dtype) for k in ("text_embeds", "time_ids") if k in given}
    with torch.inference_mode():
        sample = unet(given["latents"].to(dtype), times, given["states"].to(dtype), added_cond_kwargs=added or None).sample
    return sample.double().permute(0, 2, 3, 1)


out = {"latents": given["latents"].permute(0, 2, 3, 1), "times": times} | {k: v for k, v in given.items() if k != "latents"}
out["f32.sample"] = output(torch.float32)
hooks = []
for layer in unet.modules():
    if not list(layer.children()) and list(layer.parameters()):
        hooks.append(layer.register_forward_pre_hook(lambda m, _: m.double() and None))
        hooks.append(layer.register_forward_hook(lambda m, *_: m.float() and None))
out["f64.sample"] = output(torch.float64)
for hook in hooks:
    hook.remove()
unet.to(torch.bfloat16)
out["bf16.sample"] = output(torch.bfloat16)
save_file({k: v.contiguous() for k, v in out.items()}, folder / "reference.safetensors")
