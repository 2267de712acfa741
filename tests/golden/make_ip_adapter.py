"""Writes golden/ip_adapter/: runs of diffusers' pipelines that look at pictures (diffusers 0.42, transformers 5.23, torch 2.15).

The pipeline is sd1 of make_stable_diffusion.py. image_encoder/ is what transformers writes of a tiny CLIP; linear, plus and full are
IP-Adapters of the three kinds in the files' own names, random. cases.json has the arguments of each run and how far diffusers'
float32 latents are from its float64 ones (max|a - b| / max|b|); those latents, and the tokens of each picture, are in
finals.safetensors. Traps must move the float64 result 10 times further than the tolerance, 20 times the distance.
"""
import json
import shutil

import diffusers
import torch
from make_stable_diffusion import GOLDEN, Float64Torch, N, P, components, draw, picture
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

FOLDER = GOLDEN / "ip_adapter"
CONTEXT, EMBED, HIDDEN = 32, 24, 40


def encoder():
    config = CLIPVisionConfig(hidden_size=HIDDEN, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8,
                              projection_dim=EMBED, hidden_act="gelu")
    return draw(CLIPVisionModelWithProjection(config), 7)


def processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def adapter(kind, seed):
    """A file of one kind for the U-Net of sd1."""
    generator = torch.Generator().manual_seed(seed)
    out = {}

    def add(name, *shape):
        u = torch.empty(shape).uniform_(-1, 1, generator=generator)
        out[name] = (1 + 0.25 * u if name.endswith("weight") else 0.1 * u) if len(shape) == 1 else u * (3 / (u[0].numel() if u.dim() < 3 else 1)) ** 0.5

    def norm(name, width):
        add(name + ".weight", width)
        add(name + ".bias", width)

    def linear(name, rows, columns, bias=True):
        add(name + ".weight", rows, columns)
        if bias:
            add(name + ".bias", rows)

    if kind == "linear":
        linear("image_proj.proj", 4 * CONTEXT, EMBED)
        norm("image_proj.norm", CONTEXT)
    elif kind == "full":
        linear("image_proj.proj.0", HIDDEN, HIDDEN)
        linear("image_proj.proj.2", CONTEXT, HIDDEN)
        norm("image_proj.proj.3", CONTEXT)
    else:
        width, inner = 24, 128
        add("image_proj.latents", 1, 5, width)
        linear("image_proj.proj_in", width, HIDDEN)
        linear("image_proj.proj_out", CONTEXT, width)
        norm("image_proj.norm_out", CONTEXT)
        for i in range(4):
            block = f"image_proj.layers.{i}."
            norm(block + "0.norm1", width)
            norm(block + "0.norm2", width)
            linear(block + "0.to_q", inner, width, False)
            linear(block + "0.to_kv", 2 * inner, width, False)
            linear(block + "0.to_out", width, inner, False)
            norm(block + "1.0", width)
            linear(block + "1.1", 4 * width, width, False)
            linear(block + "1.3", width, 4 * width, False)
    unet = components("sd1")["unet"]
    index = 1
    for name in unet.attn_processors:
        if name.endswith("attn2.processor"):
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            linear(f"ip_adapter.{index}.to_k_ip", width, CONTEXT, False)
            linear(f"ip_adapter.{index}.to_v_ip", width, CONTEXT, False)
            index += 2
    return out


def nested(file):
    out = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in file.items():
        part, _, rest = name.partition(".")
        out[part][rest] = tensor
    return out


def run(case, dtype):
    pipe = diffusers.StableDiffusionPipeline(**components("sd1"), safety_checker=None, feature_extractor=processor(), image_encoder=encoder(),
                                             requires_safety_checker=False)
    pipe.unet._load_ip_adapter_weights([nested(files[kind]) for kind in case["adapters"]])
    pipe.set_ip_adapter_scale(case["scales"])
    pipe.to(dtype)
    pipe.set_progress_bar_config(disable=True)
    import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion as module
    import diffusers.schedulers.scheduling_pndm as steps
    kept = module.randn_tensor if hasattr(module, "randn_tensor") else None
    module.randn_tensor = lambda shape, generator=None, device=None, dtype=None, layout=None: torch.randn(
        shape, generator=generator, dtype=torch.float32).to(dtype)
    if dtype == torch.float64:
        steps.torch = Float64Torch()
    images = [[picture(*size) for size in sizes] for sizes in case["pictures"]]
    try:
        with torch.no_grad():
            latents = pipe(case["prompt"], negative_prompt=case["negative_prompt"], guidance_scale=case["guidance_scale"], width=24, height=16,
                           num_inference_steps=case["steps"], ip_adapter_image=images, generator=torch.Generator().manual_seed(case["seed"]),
                           output_type="latent").images
            embeds = pipe.prepare_ip_adapter_image_embeds(images, None, "cpu", 1, False)
            tokens = [t.flatten(1, 2) for t in pipe.unet.encoder_hid_proj([e.to(dtype) for e in embeds])]
    finally:
        steps.torch = torch
        if kept:
            module.randn_tensor = kept
    assert latents.dtype == dtype
    return latents, tokens


shutil.rmtree(FOLDER, ignore_errors=True)
FOLDER.mkdir()
encoder().save_pretrained(FOLDER / "image_encoder")
processor().save_pretrained(FOLDER / "image_encoder")
files = {kind: adapter(kind, 20 + i) for i, kind in enumerate(("linear", "plus", "full"))}
for kind, file in files.items():
    save_file(file, FOLDER / f"{kind}.safetensors")
torch.save(nested(files["linear"]), FOLDER / "linear.bin")

one, two = [40, 56], [33, 20]
cases = [dict(adapters=[kind], scales=[0.7], pictures=[[one]], guidance_scale=5.0) for kind in files]
cases += [dict(adapters=["linear"], scales=[1.0], pictures=[[one]], guidance_scale=1.0),
          dict(adapters=["linear"], scales=[0.5], pictures=[[one, two]], guidance_scale=5.0),
          dict(adapters=["plus", "linear"], scales=[0.4, 0.9], pictures=[[two], [one]], guidance_scale=3.0)]
finals, distances = {}, []
for n, case in enumerate(cases):
    case |= {"prompt": P, "negative_prompt": N, "steps": 4, "seed": 30 + n}
    exact, tokens = run(case, torch.float64)
    plain, _ = run(case, torch.float32)
    error = lambda a: ((a.double() - exact).abs().max() / exact.abs().max()).item()
    case["distance"] = max(error(plain), 1e-6)
    for name, value in (("scales", [s * 0.8 for s in case["scales"]]), ("pictures", [[two if s == one else [25, 50] for s in p] for p in case["pictures"]])):
        moved = error(run(case | {name: value}, torch.float64)[0])
        assert moved > 10 * 20 * case["distance"], (n, name, moved, case["distance"])
    finals[str(n)] = exact
    for i, t in enumerate(tokens):
        finals[f"{n}.tokens.{i}"] = t
    print(n, case["distance"])
save_file({k: v.contiguous() for k, v in finals.items()}, FOLDER / "finals.safetensors")
(FOLDER / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
