"""Writes golden/shipped_diffusion.safetensors: what diffusers makes of the small model in examples/data/diffusion (diffusers 0.42, torch 2.15).

Final latents of two prompts in float64, weights as the float16 files have them, and as metadata the distance of float32 from that,
max|a - b| / max|b|; and the picture of the first, decoded in float64.
"""
import pathlib
import warnings

import diffusers
import torch
from make_stable_diffusion import Float64Torch
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
GOLDEN = pathlib.Path(__file__).parent
FOLDER = GOLDEN.parent.parent / "examples" / "data" / "diffusion"
PROMPTS = ["red apple", "blue book"]


def run(dtype):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(FOLDER, torch_dtype=dtype, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion as module
    import diffusers.schedulers.scheduling_ddim as steps
    for place in (module, steps):
        place.randn_tensor = lambda shape, generator=None, device=None, dtype=None, layout=None: torch.randn(
            shape, generator=generator, dtype=torch.float32).to(dtype)
    steps.torch = Float64Torch() if dtype == torch.float64 else torch
    out = {}
    with torch.no_grad():
        for prompt in PROMPTS:
            latents = pipe(prompt, num_inference_steps=10, guidance_scale=3.0, generator=torch.Generator().manual_seed(4), output_type="latent").images
            assert latents.dtype == dtype
            out[prompt] = latents
        image = pipe.vae.decode(out[PROMPTS[0]] / pipe.vae.config.scaling_factor).sample
        out["picture"] = (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    return out


exact, plain = run(torch.float64), run(torch.float32)
distance = {k: ((plain[k].double() - v).abs().max() / v.abs().max()).item() for k, v in exact.items()}
print(distance)
save_file({k: v.contiguous() for k, v in exact.items()}, GOLDEN / "shipped_diffusion.safetensors", {k: repr(max(d, 1e-6)) for k, d in distance.items()})
