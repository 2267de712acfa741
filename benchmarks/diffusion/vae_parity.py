"""Makes an autoencoder of full size with random weights and what torch makes of fixed inputs: vae_parity.py sd|sdxl SIDE FOLDER

Biases and norms are shaken, so that they and eps show. FOLDER receives config.json, diffusion_pytorch_model.safetensors (float32)
and reference.safetensors: pictures [1, SIDE, SIDE, 3], latents [1, SIDE / 8, SIDE / 8, 4] as a U-Net gives them, and the pictures'
means and log variances and the latents' picture in float64, float32 and bfloat16 (`f64.mean`, ...).
"""
import pathlib
import sys

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

name, side, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
config = {"sd": dict(sample_size=512, scaling_factor=0.18215), "sdxl": dict(sample_size=1024, scaling_factor=0.13025)}[name]
torch.manual_seed(7)
vae = AutoencoderKL(block_out_channels=[128, 256, 512, 512], down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
                    layers_per_block=2, latent_channels=4, norm_num_groups=32, **config).eval()
with torch.no_grad():
    for key, p in vae.named_parameters():
        if "norm" in key or key.endswith("bias"):
            p += torch.randn_like(p) * 0.1
vae.save_pretrained(folder)

pictures, latents = torch.rand(1, 3, side, side) * 2 - 1, torch.randn(1, 4, side // 8, side // 8)


def outputs(dtype):
    vae.to(dtype)
    with torch.inference_mode():
        encoded = vae.encode(pictures.to(dtype)).latent_dist
        picture = vae.decode(latents.to(dtype) / vae.config.scaling_factor).sample
    return {"mean": encoded.mean, "logvar": encoded.logvar, "picture": picture}


out = {"pictures": pictures, "latents": latents}
for label, dtype in (("f32", torch.float32), ("f64", torch.float64), ("bf16", torch.bfloat16)):  # float64 keeps float32's bits
    out |= {f"{label}.{key}": value.double() for key, value in outputs(dtype).items()}
save_file({k: v.permute(0, 2, 3, 1).contiguous() for k, v in out.items()}, folder / "reference.safetensors")
