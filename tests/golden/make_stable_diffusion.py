"""Writes golden/stable_diffusion/: complete runs of diffusers' pipelines (diffusers 0.42, transformers 5.23, torch 2.15) on tiny models.

Each model is a folder of configuration files without weights: `draw` makes the weights from a seed, and tests/models/diffusion
does the same. cases.json has for each case the pipeline's arguments and how far diffusers' float32 latents are from its float64
ones (max|a - b| / max|b|); the float64 latents, and the pictures of some cases, are in finals.safetensors.
Float64 means the models and all arithmetic on latents; noise is drawn as float32, and the schedulers' tables are float32, in both.
A trap is an argument changed to a plausible wrong value: it must move the float64 result 10 times further than the tolerance,
which is 20 times the distance. lora.safetensors is what diffusers writes of an adapter; word.safetensors is a textual inversion.
single_file_*.json say what single files call the parameters of three of the models; diffusers' own converters check them.
"""
import importlib
import json
import math
import pathlib
import shutil
import sys
import tempfile
import warnings

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

warnings.filterwarnings("ignore")
diffusers.utils.logging.set_verbosity_error()
GOLDEN = pathlib.Path(__file__).parent
FOLDER = GOLDEN / "stable_diffusion"
VOCABULARY = GOLDEN.parent.parent / "examples" / "data" / "clip"
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


class Float64Torch:
    """torch for a scheduler's step, where its casts to float32 do nothing."""
    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def canonical(name):
    return name if name.startswith("text_") else "text_model." + name


def draw(model, seed):
    """Every parameter by its name's order: matrices and kernels uniform with variance 1 / fan in, norms about 1, biases small."""
    generator = torch.Generator().manual_seed(seed)
    key = canonical if isinstance(model, (CLIPTextModel, CLIPTextModelWithProjection)) else str
    with torch.no_grad():
        for name, p in sorted(model.named_parameters(), key=lambda item: key(item[0])):
            u = torch.empty(p.shape).uniform_(-1, 1, generator=generator)
            if p.dim() == 1:
                p.copy_(1 + 0.25 * u if name.endswith("weight") else 0.1 * u)
            else:
                p.copy_(u * math.sqrt(3 / p[0].numel()))
    return model.eval()


def tokenizer(pad):
    return CLIPTokenizer.from_pretrained(VOCABULARY, model_max_length=24, pad_token=pad)


def text_config(width, layers, act, projection=32):
    return CLIPTextConfig(vocab_size=1500, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
                          num_attention_heads=max(1, width // 64), max_position_embeddings=24, hidden_act=act,
                          eos_token_id=1499, bos_token_id=1498, pad_token_id=0, projection_dim=projection)


def unet(**changes):
    return UNet2DConditionModel(**dict(
        sample_size=12, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")) | changes)


def vae(**changes):
    return AutoencoderKL(**dict(block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
                                up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1, sample_size=24) | changes)


def models(name):
    """The components of a pipeline, without weights."""
    pndm = diffusers.PNDMScheduler(**SD, set_alpha_to_one=False, skip_prk_steps=True)
    if name == "sd1":
        return dict(unet=unet(), vae=vae(), text_encoder=CLIPTextModel(text_config(32, 3, "quick_gelu")), tokenizer=tokenizer("<|endoftext|>"),
                    scheduler=pndm)
    if name == "inpaint":
        return dict(unet=unet(in_channels=9), vae=vae(), text_encoder=CLIPTextModel(text_config(32, 3, "quick_gelu")),
                    tokenizer=tokenizer("<|endoftext|>"), scheduler=pndm)
    if name == "lcm":
        return dict(unet=unet(time_cond_proj_dim=16), vae=vae(), text_encoder=CLIPTextModel(text_config(32, 2, "quick_gelu")),
                    tokenizer=tokenizer("<|endoftext|>"), scheduler=diffusers.LCMScheduler(**SD | {"steps_offset": 0}, set_alpha_to_one=True))
    if name == "sd2":
        return dict(unet=unet(attention_head_dim=[2, 4], use_linear_projection=True, cross_attention_dim=64), vae=vae(),
                    text_encoder=CLIPTextModel(text_config(64, 2, "gelu")), tokenizer=tokenizer("!"),
                    scheduler=diffusers.DDIMScheduler(**SD, set_alpha_to_one=False, clip_sample=False, prediction_type="v_prediction"))
    return dict(  # sdxl
        unet=unet(cross_attention_dim=96, attention_head_dim=[1, 2], use_linear_projection=True, transformer_layers_per_block=[1, 2],
                  down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                  addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=80),
        vae=vae(scaling_factor=0.13025), text_encoder=CLIPTextModel(text_config(32, 2, "quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(text_config(64, 3, "gelu")), tokenizer=tokenizer("<|endoftext|>"), tokenizer_2=tokenizer("!"),
        scheduler=diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="leading"))


def components(name):
    torch.manual_seed(0)
    out = models(name)
    for seed, part in enumerate(("unet", "vae", "text_encoder", "text_encoder_2")):
        if part in out:
            draw(out[part], 100 * len(name) + seed)
    # diffusers asks for text_encoder.text_model, which transformers 5 no longer has
    object.__setattr__(out["text_encoder"], "text_model", out["text_encoder"])
    return out


def picture(height, width):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return Image.fromarray(((y * y * 3 + x * 11 + c * 70 + x * y) % 256).astype(np.uint8))


def mask(height, width):
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return Image.fromarray(np.where((x > width // 3) & (y > height // 4), 255, 20).astype(np.uint8))


CLASSES = {"text": "StableDiffusionPipeline", "image": "StableDiffusionImg2ImgPipeline", "inpaint": "StableDiffusionInpaintPipeline"}


def control_net(xl=False):
    changes = dict(cross_attention_dim=96, attention_head_dim=[1, 2], use_linear_projection=True, transformer_layers_per_block=[1, 2],
                   down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), addition_embed_type="text_time", addition_time_embed_dim=8,
                   projection_class_embeddings_input_dim=80) if xl else {}
    return draw(diffusers.ControlNetModel(**dict(
        block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), conditioning_embedding_out_channels=(16, 32)) | changes), 7)


def pipeline(case):
    parts = components(case["model"])
    name = CLASSES[case["kind"]]
    if case["model"] == "lcm" and "control" not in case:
        name = {"text": "LatentConsistencyModelPipeline", "image": "LatentConsistencyModelImg2ImgPipeline"}[case["kind"]]
    if "control" in case:
        name = name.replace("Diffusion", "DiffusionControlNet")
        parts["controlnet"] = control_net(case["model"] == "sdxl")
    if case["model"] == "sdxl":
        return getattr(diffusers, name.replace("Diffusion", "DiffusionXL"))(**parts)
    return getattr(diffusers, name)(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def run(case, dtype):
    pipe = pipeline(case).to(dtype)
    pipe.set_progress_bar_config(disable=True)
    if "lora" in case:
        object.__delattr__(pipe.text_encoder, "text_model")  # diffusers then leaves the prefix out of names
        pipe.load_lora_weights(FOLDER, weight_name="lora.safetensors", adapter_name="lora")
        pipe.set_adapters("lora", case["lora"])
        object.__setattr__(pipe.text_encoder, "text_model", pipe.text_encoder)
        pipe.to(dtype)
    if "word" in case:
        pipe.load_textual_inversion(FOLDER, weight_name="word.safetensors")
        pipe.to(dtype)
    if "scheduler" in case:
        sys.path.insert(0, str(GOLDEN))
        pipe.scheduler = scheduler_named(case["scheduler"], pipe.scheduler.config)
    modules = [importlib.import_module(m) for m in (type(pipe).__module__, type(pipe.scheduler).__module__, "diffusers.models.autoencoders.vae")]
    kept = [(m, m.randn_tensor) for m in modules if hasattr(m, "randn_tensor")]
    for module, _ in kept:
        module.randn_tensor = lambda shape, generator=None, device=None, dtype=None, layout=None: torch.randn(
            shape, generator=generator, dtype=torch.float32).to(dtype)
    if dtype == torch.float64:
        modules[1].torch = Float64Torch()
    arguments = {k: case[k] for k in ("prompt", "negative_prompt", "guidance_scale", "guidance_rescale", "eta", "strength", "clip_skip", "width",
                                      "height") if k in case}
    for key in ("original_size", "target_size", "crops_coords_top_left"):
        if key in case:
            arguments[key] = tuple(case[key])
    if case["kind"] == "image":
        arguments["image"] = picture(*case["picture"])
    if case["kind"] == "inpaint":
        arguments |= {"image": picture(*case["picture"]), "mask_image": mask(*case["picture"])}
    if "control" in case:
        scale, guess, start, end = case["control"] + [0.0, 1.0][len(case["control"]) - 2:]
        if case["kind"] == "image":
            arguments |= {"height": case["picture"][0], "width": case["picture"][1]}
        arguments |= {"image" if case["kind"] == "text" else "control_image": picture(20, 31), "controlnet_conditioning_scale": scale, "guess_mode": guess,
                      "control_guidance_start": start, "control_guidance_end": end}
    generator = torch.Generator().manual_seed(case["seed"])
    try:
        with torch.no_grad():
            latents = pipe(**arguments, num_inference_steps=case["steps"], generator=generator, output_type="latent").images
            scaled = latents / pipe.vae.config.scaling_factor
            image = (pipe.vae.decode(scaled).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    finally:
        modules[1].torch = torch
        for module, function in kept:
            module.randn_tensor = function
    assert latents.dtype == dtype
    return latents, image


def scheduler_named(name, config):
    classes = {"ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "euler": "EulerDiscreteScheduler", "euler_a": "EulerAncestralDiscreteScheduler",
               "dpmpp_2m": "DPMSolverMultistepScheduler", "unipc": "UniPCMultistepScheduler", "heun": "HeunDiscreteScheduler",
               "ddpm": "DDPMScheduler", "lcm": "LCMScheduler"}
    stem = name.removesuffix("_karras")
    more = {"use_karras_sigmas": True} if stem != name else {"clip_sample": False} if stem in ("ddim", "ddpm") else {}
    return getattr(diffusers, classes[stem]).from_config(config, **more)


def make_files():
    """An adapter of attention, a convolution and the text tower as diffusers writes it, and an embedding of two vectors."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict
    parts = components("sd1")
    pipe = diffusers.StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    torch.manual_seed(3)
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights="gaussian", target_modules=["to_q", "to_out.0", "ff.net.0.proj", "conv1"]))
    pipe.text_encoder.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights="gaussian", target_modules=["q_proj", "fc1"]))
    tensors = {}
    for part in ("unet", "text_encoder"):
        state = get_peft_model_state_dict(getattr(pipe, part))
        for name, tensor in sorted(state.items()):
            where = name if part == "unet" else canonical(name)
            tensors[f"{part}.{where}"] = tensor if "lora_A" in name else torch.randn_like(tensor) * 0.3
    save_file({k: v.contiguous() for k, v in tensors.items()}, FOLDER / "lora.safetensors")
    save_file({"<thing>": torch.randn(2, 32) * 0.3}, FOLDER / "word.safetensors")


P, N = "a red apple on a table", "grinning face"
LONG = "a red apple, a blue book, a green heart, a yellow house, a black cat face, an orange sun with a smiling face"
cases = []


def add(model, kind="text", traps=(), **arguments):
    case = {"model": model, "kind": kind, "prompt": P, "steps": 4, "seed": len(cases) + 1, "width": 24, "height": 16} | arguments
    if kind != "text":
        case.setdefault("picture", [16, 24])
    if kind == "image":
        del case["width"], case["height"]
    cases.append((case, traps))


add("sd1", traps=[("negative_prompt", N), ("seed", 9), ("clip_skip", 1), ("guidance_rescale", 0.5)])
add("sd1", negative_prompt=N, guidance_scale=3.5, guidance_rescale=0.7, traps=[("guidance_rescale", 0.0), ("negative_prompt", "")])
add("sd1", clip_skip=1, negative_prompt=N, traps=[("clip_skip", 2), ("clip_skip", 0)])
add("sd1", guidance_scale=1.0, prompt=LONG, traps=[("prompt", LONG[:40])])
add("sd1", lora=0.8, scheduler="euler", traps=[("lora", 0.7)])
add("sd1", word=True, scheduler="ddim", prompt="a <thing> on a table, a <thing>", traps=[("prompt", "a on a table, a")])
for name in ("ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "heun", "ddpm"):
    add("sd1", scheduler=name, steps=5)
add("sd1", scheduler="ddim", eta=0.6, traps=[("eta", 0.0)])
for name in ("pndm", "euler_a", "dpmpp_2m", "ddim", "heun"):
    add("sd1", "image", scheduler=name, strength=0.6, steps=6, traps=[("strength", 0.8)])
    add("sd1", "inpaint", scheduler=name, strength=0.7, steps=6, traps=[("strength", 0.85)])
add("sd1", "image", scheduler="euler", picture=[31, 20], steps=5)
add("sd1", "inpaint", scheduler="euler_a", picture=[37, 53])
for name in ("pndm", "euler_a"):
    add("inpaint", "inpaint", scheduler=name)
    add("inpaint", "inpaint", scheduler=name, strength=0.7, picture=[37, 51], negative_prompt=N)
add("sd2", traps=[("prompt", P + " and")])
add("sd2", scheduler="euler", negative_prompt=N, clip_skip=1)
add("sd2", "image", scheduler="unipc", strength=0.5)
add("lcm", guidance_scale=6.0, traps=[("guidance_scale", 7.5)])
add("sdxl", traps=[("negative_prompt", ""), ("original_size", [24, 24])])
add("sdxl", negative_prompt=N, guidance_scale=4.0, guidance_rescale=0.5, clip_skip=1, traps=[("clip_skip", 0)])
add("sdxl", original_size=[64, 48], target_size=[16, 20], crops_coords_top_left=[4, 2], scheduler="dpmpp_2m")
add("sdxl", "image", scheduler="euler_a", strength=0.6, negative_prompt="")
add("sdxl", "inpaint", scheduler="euler", strength=0.8)
add("sd1", "image", strength=0.0, traps=[("strength", 0.3)])  # PNDM has one step more than asked for
add("lcm", "image", strength=0.5, steps=3, traps=[("strength", 0.8)])
add("sd1", scheduler="euler", control=[0.8, False], traps=[("control", [0.8, True])])
add("sd1", scheduler="euler", control=[0.8, True], traps=[("control", [0.8, False])])
add("sd1", scheduler="euler", steps=5, control=[0.8, False, 0.2, 0.8], traps=[("control", [0.8, False, 0.4, 0.8]), ("control", [0.8, False, 0.2, 0.6])])
add("sd1", scheduler="heun", steps=3, control=[0.8, True, 0.0, 0.5], traps=[("control", [0.8, True])])
add("sd1", "image", scheduler="heun", steps=5, strength=0.6, control=[0.8, False, 0.25, 0.75], traps=[("control", [0.8, False, 0.25, 0.5])])
add("inpaint", "inpaint", steps=5, strength=0.9, control=[0.8, True, 0.0, 0.6], traps=[("control", [0.8, True, 0.0, 0.4])])
add("sdxl", "image", steps=4, control=[0.8, False], traps=[("strength", 0.3), ("guidance_scale", 7.5)])
add("sdxl", "inpaint", steps=4, control=[0.8, False, 0.5, 1.0], traps=[("guidance_scale", 7.5), ("strength", 1.0)])
add("lcm", steps=3, guidance_scale=6.0, control=[0.8, False], traps=[("guidance_scale", 1.0)])
add("lcm", "image", steps=3, strength=0.7, guidance_scale=6.0, control=[0.8, False], traps=[("guidance_scale", 1.0)])


UNET = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "conv_shortcut": "skip_connection"}


def ldm_unet_name(name, layers=1, attended=()):
    """What a single file calls a parameter of a U-Net."""
    stem, _, ending = name.rpartition(".")
    if stem in UNET:
        return f"{UNET[stem]}.{ending}"
    parts = name.split(".")
    place = 1 if parts[0] == "mid_block" else 2
    kind, j, rest = parts[place], int(parts[place + 1]), ".".join(parts[place + 2:])
    inner, _, end = rest.rpartition(".")
    if kind == "resnets":
        rest = f"{RESNET[inner]}.{end}"
    if parts[0] == "mid_block":
        return f"middle_block.{1 if kind == 'attentions' else 2 * j}.{rest}"
    level, slot = int(parts[1]), 1 if kind == "attentions" else 0
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
    if parts[0] == "down_blocks":
        return f"input_blocks.{level * (layers + 1) + j + 1}.{slot}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{level * (layers + 1) + layers}.{2 if level in attended else 1}.{rest}"
    return f"output_blocks.{level * (layers + 1) + j}.{slot}.{rest}"


def ldm_vae_name(name, levels=2):
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    parts = name.split(".")
    if parts[0] not in ("encoder", "decoder"):
        return name
    side, rest = parts[0], ".".join(parts[1:]).replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    parts = rest.split(".")
    if parts[0] == "mid_block":
        if parts[1] == "resnets":
            return f"{side}.mid.block_{int(parts[2]) + 1}." + ".".join(parts[3:])
        inner, _, end = ".".join(parts[3:]).rpartition(".")
        return f"{side}.mid.attn_1.{attention[inner]}.{end}"
    if parts[0] in ("down_blocks", "up_blocks"):
        down = parts[0] == "down_blocks"
        level = int(parts[1]) if down else levels - 1 - int(parts[1])
        middle = f"block.{parts[3]}" if parts[2] == "resnets" else ("downsample" if down else "upsample")
        return f"{side}.{'down' if down else 'up'}.{level}.{middle}." + ".".join(parts[4:])
    return f"{side}.{rest}"


def open_clip_names(names, prefix, layers, extra):
    """open_clip's names and what each is made of: one parameter, or q, k and v. `extra` layers more, copies of the last."""
    inner = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    out = {}
    for name in map(canonical, names):
        if ".layers." not in name:
            to = {"text_model.embeddings.token_embedding.weight": "token_embedding.weight", "text_projection.weight": "text_projection",
                  "text_model.embeddings.position_embedding.weight": "positional_embedding"}.get(name)
            out[prefix + (to or "ln_final." + name.rpartition(".")[2])] = name
            continue
        at, rest = name.split(".layers.")[1].split(".", 1)
        where, _, end = rest.rpartition(".")
        for layer in [int(at)] + ([layers + i for i in range(extra)] if int(at) == layers - 1 else []):
            stem = f"{prefix}transformer.resblocks.{layer}."
            if where.endswith(("q_proj", "k_proj", "v_proj")):
                out[f"{stem}attn.in_proj_{end}"] = [name.replace(where[-6:], p + "_proj") for p in "qkv"]
            else:
                out[f"{stem}{inner[where]}.{end}"] = name
    return out


def single_file_names(model):
    """A single file's names and, for each, the folder and the parameters that it is made of; checked by diffusers' own converters."""
    from diffusers.loaders import single_file_utils as utils
    parts = components(model)
    names = lambda part: [n for n, _ in parts[part].named_parameters()]
    up = parts["unet"].config.up_block_types
    unet_names = {"model.diffusion_model." + ldm_unet_name(n, attended=[i for i, t in enumerate(up) if "Attn" in t]): n for n in names("unet")}
    vae_names = {"first_stage_model." + ldm_vae_name(n): n for n in names("vae")}
    state = parts["unet"].state_dict()
    back = utils.convert_ldm_unet_checkpoint({k: state[v] for k, v in unet_names.items()}, parts["unet"].config)
    assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)
    state = parts["vae"].state_dict()
    kernels = {k: state[v][..., None, None] if ".attn_1." in k and state[v].dim() == 2 else state[v] for k, v in vae_names.items()}
    back = utils.convert_ldm_vae_checkpoint(kernels, parts["vae"].config)
    assert back.keys() == state.keys() and all(torch.equal(back[k].reshape(state[k].shape), state[k]) for k in state)
    out = {"unet": unet_names, "vae": vae_names}
    if model == "sdxl":
        out["text_encoder"] = {"conditioner.embedders.0.transformer." + canonical(n): canonical(n) for n in names("text_encoder")}
        out["text_encoder_2"] = open_clip_names(names("text_encoder_2"), "conditioner.embedders.1.model.", 3, 0)
    elif model == "sd2":
        out["text_encoder"] = open_clip_names(names("text_encoder"), "cond_stage_model.model.", 2, 1)
    else:
        out["text_encoder"] = {"cond_stage_model.transformer." + canonical(n): canonical(n) for n in names("text_encoder")}
    return out


def error(a, b):
    return ((a.double() - b).abs().max() / b.abs().max()).item()


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    make_files()
    for name in ("sd1", "inpaint", "lcm", "sd2", "sdxl"):
        with tempfile.TemporaryDirectory() as folder:
            pipe = pipeline({"model": name, "kind": "text"})
            pipe.save_pretrained(folder)
            for path in sorted(pathlib.Path(folder).rglob("*.json")):
                to = FOLDER / name / path.relative_to(folder)
                if to.name in ("tokenizer.json", "vocab.json"):
                    continue
                to.parent.mkdir(parents=True, exist_ok=True)
                config = json.loads(path.read_text())
                if to.name == "scheduler_config.json":  # from_config drops what was only a default, and so do the hub's files
                    for key in pipe.scheduler.config["_use_default_values"]:
                        config.pop(key, None)
                    config["clip_sample"] = False  # as Stable Diffusion's own files have it, for a scheduler that asks
                to.write_text(json.dumps(config, indent=1) + "\n")
    control_net().save_config(FOLDER / "control_net")
    control_net(xl=True).save_config(FOLDER / "control_net_xl")
    rows, finals = [], {}
    for n, (case, traps) in enumerate(cases):
        single, _ = run(case, torch.float32)
        final, image = run(case, torch.float64)
        assert final.isfinite().all(), case
        distance = error(single, final)
        for key, value in traps:
            moved = error(run(case | {key: value}, torch.float64)[0], final)
            assert moved > 10 * 20 * distance, (case, key, value, moved, distance)
        rows.append(case | {"distance": float(f"{distance:.3g}")})
        finals[f"{n}"] = final.contiguous()
        if n in (0, 4, 20, 25, 34):
            finals[f"{n}.image"] = image.float().contiguous()
        print(n, case["model"], case["kind"], case.get("scheduler", "own"), f"{distance:.2g}", flush=True)
    (FOLDER / "cases.json").write_text("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]\n")
    save_file(finals, FOLDER / "finals.safetensors")
    for name in ("sd1", "sd2", "sdxl"):
        (FOLDER / f"single_file_{name}.json").write_text(json.dumps(single_file_names(name), indent=0) + "\n")
    for path in FOLDER.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


if __name__ == "__main__":
    main()
