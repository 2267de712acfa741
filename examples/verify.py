"""The reference side of examples/verify: verify.py FOLDER, with FOLDER/job.json and FOLDER/inputs.safetensors; writes FOLDER/reference.safetensors.

Runs diffusers in float32 on the same checkpoint: the text towers, the U-Net block by block on tenon's inputs, the autoencoder, and a
whole picture. Needs torch, diffusers, transformers, and peft for a LoRA.
"""
import json
import pathlib
import resource
import sys
import time
import warnings

import torch
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")
import diffusers  # noqa: E402

diffusers.utils.logging.set_verbosity_error()
folder = pathlib.Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
inputs = load_file(folder / "inputs.safetensors")
torch.set_num_threads(job["threads"])
outputs, seconds = {}, {}


def load():
    path = pathlib.Path(job["model"])
    if path.is_dir():
        return diffusers.DiffusionPipeline.from_pretrained(path, torch_dtype=torch.float32, local_files_only=True)
    kind = diffusers.StableDiffusionXLPipeline if job["xl"] else diffusers.StableDiffusionPipeline
    return kind.from_single_file(str(path), torch_dtype=torch.float32)


pipe = load()
if getattr(pipe, "safety_checker", None) is not None:
    pipe.safety_checker = None
pipe.set_progress_bar_config(disable=True)
if job["lora"]:
    path = pathlib.Path(job["lora"])
    pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="lora")
    pipe.set_adapters("lora", job["lora_scale"])


def timed(name, function):
    start = time.perf_counter()
    out = function()
    seconds[name] = time.perf_counter() - start
    return out


def keep(name):
    def hook(module, arguments, output):
        outputs[name] = (output[0] if isinstance(output, tuple) else output).detach().clone().contiguous()
    return hook


with torch.no_grad():
    encoded = timed("text", lambda: pipe.encode_prompt(job["prompt"], device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True))
    outputs["text"], outputs["text, negative"] = encoded[0], encoded[1]
    if job["xl"]:
        outputs["text, pooled"] = encoded[2]
    unet = pipe.unet
    named = [("conv_in", unet.conv_in)] + [(f"down_blocks.{i}", b) for i, b in enumerate(unet.down_blocks)]
    named += ([("mid_block", unet.mid_block)] if unet.mid_block is not None else []) + [(f"up_blocks.{i}", b) for i, b in enumerate(unet.up_blocks)]
    handles = [block.register_forward_hook(keep(f"unet.{name}")) for name, block in named]
    more = {"added_cond_kwargs": {"text_embeds": inputs["text_embeds"], "time_ids": inputs["time_ids"]}} if job["xl"] else {}
    outputs["unet"] = timed("unet", lambda: unet(inputs["latents"], torch.tensor(float(job["timestep"])), inputs["states"], return_dict=False, **more)[0])
    for handle in handles:
        handle.remove()
    outputs["vae.encode"] = timed("vae.encode", lambda: pipe.vae.encode(inputs["picture"]).latent_dist.mean)
    outputs["vae.decode"] = timed("vae.decode", lambda: pipe.vae.decode(inputs["latents"], return_dict=False)[0])
    images = timed("picture", lambda: pipe(
        job["prompt"], num_inference_steps=job["steps"], guidance_scale=job["guidance"], width=job["width"], height=job["height"],
        generator=torch.Generator().manual_seed(job["seed"]), output_type="np").images)
    outputs["picture"] = torch.from_numpy(images[0]).float()
gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
save_file({k: v.float().contiguous().clone() for k, v in outputs.items()}, folder / "reference.safetensors",
          {"seconds": json.dumps(seconds), "gigabytes": str(gigabytes), "versions": f"diffusers {diffusers.__version__}, torch {torch.__version__}"})
