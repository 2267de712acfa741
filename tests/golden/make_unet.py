"""Writes golden/unet/: configurations of tiny U-Nets of diffusers, and what they make of fixed inputs.

    python make_unet.py        (torch 2.15, diffusers 0.42.1, peft 0.20)

Parameters and inputs come from a formula (`numbers` below, `unet_numbers.hpp` in the tests), so no file holds them. Norms
and biases are shaken too. Expectations are computed in float64 and stored so. `trap.*` says how far the output of a case
moves, as max|a - b| / max|b|, when one detail of the reference is made wrong: an eps, tanh in gelu.
"""
import json
import math
import pathlib
import zlib

import diffusers.models.activations
import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel, UNet2DModel
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "unet"
TINY = ("conv_in", "conv1", "conv2", "time_emb_proj", "proj_in", "to_out", "net.2")  # what feeds a norm


def numbers(name, shape):
    """Uniform in [-1, 1), by a hash of the name and the place."""
    h = np.arange(math.prod(shape), dtype=np.uint64) * 2654435761 + zlib.crc32(name.encode())
    h &= 0xFFFFFFFF
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        h ^= h >> np.uint64(shift)
        h = h * np.uint64(factor) & np.uint64(0xFFFFFFFF)
    return (h.astype(np.float64) / 2**31 - 1.0).reshape(shape)


def value(name, shape, tiny=1.0):
    """The float32 parameter of this name."""
    u = numbers(name, shape)
    if "norm" in name and name.endswith("weight"):
        out = 1.0 + 0.5 * u
    elif len(shape) == 1:
        out = 0.3 * u
    else:
        out = u * math.sqrt(3.0 / math.prod(shape[1:]))
    if tiny != 1.0 and any(part in name for part in TINY):
        out = out * tiny
    return torch.from_numpy(out.astype(np.float32))


def fill(model, tiny=1.0):
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(value(name, tuple(p.shape), tiny))
    return model.double().eval()


def inputs(name, shape):
    return torch.from_numpy((2.0 * numbers("input." + name, shape)).astype(np.float32)).double()


SMALL = dict(sample_size=16, block_out_channels=[16, 32, 32, 32], norm_num_groups=4, layers_per_block=2)
X, D, U = "CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D"
V = "CrossAttnUpBlock2D"
CASES = {
    "sd15": dict(SMALL, cross_attention_dim=12, attention_head_dim=8),
    "sd21": dict(SMALL, cross_attention_dim=20, attention_head_dim=[2, 4, 4, 8], use_linear_projection=True, upcast_attention=True),
    "sdxl": dict(SMALL, block_out_channels=[16, 32, 32], down_block_types=[D, X, X], up_block_types=[V, V, U], cross_attention_dim=20,
                 attention_head_dim=[1, 2, 4], transformer_layers_per_block=[1, 2, 10], use_linear_projection=True,
                 addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=72),
    "inpainting": dict(SMALL, block_out_channels=[16, 32], down_block_types=[X, D], up_block_types=[U, V], cross_attention_dim=12, in_channels=9),
    "lcm": dict(SMALL, block_out_channels=[16, 32], down_block_types=[X, D], up_block_types=[U, V], cross_attention_dim=12, time_cond_proj_dim=16),
    "small_stream": dict(SMALL, block_out_channels=[16, 32], down_block_types=[X, X], up_block_types=[V, V], cross_attention_dim=12,
                         layers_per_block=1, attention_head_dim=4),
    "upscaler": dict(SMALL, block_out_channels=[16, 32, 32], down_block_types=[D, X, X], up_block_types=[V, V, U], cross_attention_dim=12,
                     only_cross_attention=[True, True, False], num_class_embeds=9, in_channels=7, resnet_time_scale_shift="scale_shift",
                     attention_head_dim=4, layers_per_block=[1, 2, 1], norm_eps=1e-3),
    "distilled": dict(SMALL, block_out_channels=[16, 32, 32], down_block_types=[D, X, X], up_block_types=[V, V, U], mid_block_type=None,
                      cross_attention_dim=[12, 12, 12], attention_head_dim=4, transformer_layers_per_block=[1, [2, 1], [1, 3]],
                      reverse_transformer_layers_per_block=[[1, 2, 1], [2, 1, 1], 1], center_input_sample=True),
    "bare_mid": dict(SMALL, block_out_channels=[16, 32], down_block_types=[X, D], up_block_types=[U, V], mid_block_type="UNetMidBlock2D",
                     cross_attention_dim=12, layers_per_block=1, attention_head_dim=4, flip_sin_to_cos=False, freq_shift=1),
}
A, B = "AttnDownBlock2D", "AttnUpBlock2D"
PIXELS = {
    "ddpm": dict(sample_size=16, block_out_channels=[16, 32, 32], down_block_types=[D, A, D], up_block_types=[U, B, U], norm_num_groups=4,
                 attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6),
    "ddpm_heads": dict(sample_size=16, block_out_channels=[16, 32], down_block_types=[D, A], up_block_types=[B, U], norm_num_groups=4,
                       attention_head_dim=8, layers_per_block=1, num_class_embeds=5, resnet_time_scale_shift="scale_shift",
                       attn_norm_num_groups=2),
    "ddpm_plain": dict(sample_size=16, block_out_channels=[16, 32], down_block_types=[D, D], up_block_types=[U, U], norm_num_groups=4,
                       add_attention=False, layers_per_block=1),
}
SIZES = {"sd15": [(16, 16), (12, 20), (9, 7)], "sdxl": [(8, 8), (5, 6)]}


def conditions(config, n=2):
    out = dict(encoder_hidden_states=inputs("states", (n, 7, np.max(config.cross_attention_dim))))
    if config.addition_embed_type:
        out["added_cond_kwargs"] = dict(text_embeds=inputs("text_embeds", (n, 24)),
                                        time_ids=torch.tensor([[64, 48, 0, 8, 64, 48], [1024, 1024, 0, 0, 768, 512]], dtype=torch.float32))
    if config.time_cond_proj_dim:
        out["timestep_cond"] = inputs("guidance", (n, config.time_cond_proj_dim))
    if config.num_class_embeds:
        out["class_labels"] = torch.tensor([3, 0])
    return out


def run(unet, height, width):
    c = unet.config
    times = torch.tensor([981.0, 313.1875])
    return unet(inputs("latents", (2, c.in_channels, height, width)), times, **conditions(c)).sample.detach()


def far(a, b):
    return float((a - b).abs().max() / b.abs().max())


def traps(unet):
    """How far wrong details move the output."""
    right = run(unet, 16, 16)
    out = {}
    of = {"transformer_eps": lambda n, m: isinstance(m, torch.nn.GroupNorm) and "attentions" in n,
          "resnet_eps": lambda n, m: isinstance(m, torch.nn.GroupNorm) and "resnets" in n,
          "out_eps": lambda n, m: n == "conv_norm_out",
          "layer_norm_eps": lambda n, m: isinstance(m, torch.nn.LayerNorm)}
    for trap, chosen in of.items():
        modules = [m for n, m in unet.named_modules() if chosen(n, m)]
        before = [m.eps for m in modules]
        for m in modules:
            m.eps = 1e-5 if m.eps == 1e-6 else 1e-6
        out[trap] = far(run(unet, 16, 16), right)
        for m, eps in zip(modules, before):
            m.eps = eps
    gelu = diffusers.models.activations.F.gelu
    diffusers.models.activations.F.gelu = lambda x: gelu(x, approximate="tanh")
    out["tanh_gelu"] = far(run(unet, 16, 16), right)
    diffusers.models.activations.F.gelu = gelu
    return out


def write(name, tensors):
    file = HERE / f"{name}.safetensors"
    save_file({k: v.detach().double().contiguous() for k, v in tensors.items()}, file)
    file.chmod(0o644)


def write_config(name, model):
    config = json.loads(model.to_json_string())
    config.pop("_diffusers_version", None)
    (HERE / f"{name}.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def pixels_last(x):
    return x.permute(0, 2, 3, 1)


def gradients(unet, out):
    """Of sum(output * w): every parameter's gradient as its product with `numbers` and as its norm, and a step of SGD."""
    latents = inputs("latents", (2, 4, 8, 8)).requires_grad_()
    states = inputs("states", (2, 7, 12)).requires_grad_()
    times = torch.tensor([981.0, 313.1875])
    forward = lambda: unet(latents, times, encoder_hidden_states=states).sample
    weights = torch.from_numpy(numbers("input.weights", (2, 4, 8, 8)))
    (forward() * weights).sum().backward()
    out["grad.latents"], out["grad.states"] = pixels_last(latents.grad), states.grad
    products, norms = [], []
    with torch.no_grad():
        for name, p in sorted(unet.named_parameters()):
            products.append((p.grad * torch.from_numpy(numbers("grad." + name, tuple(p.shape)))).sum())
            norms.append(p.grad.norm())
            p -= 0.001 * p.grad
    out["grad.products"], out["grad.norms"] = torch.stack(products), torch.stack(norms)
    out["after_step"] = pixels_last(forward())


def control_net():
    torch.manual_seed(0)
    net = fill(ControlNetModel(block_out_channels=[16, 32], down_block_types=[X, D], norm_num_groups=4, cross_attention_dim=12,
                               attention_head_dim=8, conditioning_embedding_out_channels=[4, 8, 12]))
    write_config("control_net", net)
    config = dict(CASES["bare_mid"], mid_block_type="UNetMidBlock2DCrossAttn", layers_per_block=2, flip_sin_to_cos=True, freq_shift=0,
                  attention_head_dim=8)
    unet = fill(UNet2DConditionModel(**config))
    write_config("controlled", unet)
    times, states = torch.tensor([981.0, 313.1875]), inputs("states", (2, 7, 12))
    latents, picture = inputs("latents", (2, 4, 8, 6)), inputs("picture", (2, 3, 32, 24))
    out = {}
    for guess in (False, True):
        down, mid = net(latents, times, states, picture, conditioning_scale=0.7, guess_mode=guess, return_dict=False)
        sample = unet(latents, times, states, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
        prefix = "guess." if guess else ""
        out[prefix + "sample"], out[prefix + "mid"] = pixels_last(sample), pixels_last(mid)
        out |= {f"{prefix}down.{i}": pixels_last(d) for i, d in enumerate(down)}
    write("control_net", out)


def adapter():
    from peft import LoraConfig
    unet = fill(UNet2DConditionModel(**CASES["small_stream"]))
    unet.add_adapter(LoraConfig(r=2, lora_alpha=6, init_lora_weights=False,
                                target_modules=["to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "conv1", "conv2", "proj_in", "proj_out",
                                                "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "conv_in", "linear_1"]))
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if "lora_" in name:
                p.copy_(torch.from_numpy((0.5 * numbers(name, tuple(p.shape))).astype(np.float32)))
    unet.float()
    unet.save_lora_adapter(HERE, weight_name="lora.safetensors")
    (HERE / "lora.safetensors").chmod(0o644)
    unet.double()
    write("lora_expected", {"16x16": pixels_last(run(unet, 16, 16))})


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for name, config in CASES.items():
        unet = fill(UNet2DConditionModel(**config), 3e-3 if name == "small_stream" else 1.0)
        write_config(name, unet)
        out = {f"{h}x{w}": pixels_last(run(unet, h, w)) for h, w in SIZES.get(name, [(8, 8)])}
        if name in ("sd15", "small_stream"):
            moved = traps(unet)
            print(name, moved)
            out |= {"trap." + k: torch.tensor(v) for k, v in moved.items()}
            out["16x16"] = pixels_last(run(unet, 16, 16))
        if name == "sd15":
            gradients(unet, out)
        write(name, out)
        print(name, sum(p.numel() for p in unet.parameters()), {k: tuple(v.shape) for k, v in out.items() if "x" in k})
    for name, config in PIXELS.items():
        unet = fill(UNet2DModel(**config))
        write_config(name, unet)
        labels = torch.tensor([3, 0]) if unet.config.num_class_embeds else None
        out = unet(inputs("latents", (2, 3, 8, 12)), torch.tensor([981, 313]), class_labels=labels).sample
        write(name, {"8x12": pixels_last(out)})
    control_net()
    adapter()
