"""Writes golden/vae/: tiny autoencoders with random parameters, and what diffusers makes of fixed pictures.

    python make_vae.py        (torch 2.15, diffusers 0.42.1)

Expectations are computed in float64 from the files' float32 parameters. Beside each case stands how far it moves when a trap
is switched on in the reference (a wrong eps, symmetric padding), so that a case that cannot see its trap is noticed here.
"""
import json
import pathlib

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "vae"


def shake(model, seed, quiet):
    """Random norms and biases; `quiet`: between norms the values are so small that an eps of 1e-6 shows in every norm."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(p, 1.0 if name.endswith("weight") else 0.0, 0.3)
            elif p.dim() > 1:
                last = "conv_out" in name or "quant_conv" in name or "to_q" in name or "to_k" in name
                torch.nn.init.normal_(p, 0.0, (1.0 if last or not quiet else 1e-3) / p[0].numel() ** 0.5)
            else:
                torch.nn.init.normal_(p, 0.0, 1e-4 if quiet and "conv_out" not in name and "quant_conv" not in name else 0.2)
    return model.eval()


def last(x):  # channels last
    return x.permute(0, 2, 3, 1)


def far(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def write(folder, model, out):
    model.save_pretrained(folder)
    save_file({k: v.detach().contiguous() for k, v in out.items()}, folder / "expected.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


def kl(name, seed, quiet, **config):
    vae = shake(AutoencoderKL(**config), seed, quiet)
    torch.manual_seed(seed + 100)
    pictures, odd = torch.rand(2, 3, 36, 28) * 2 - 1, torch.rand(1, 3, 21, 15) * 2 - 1
    stored = AutoencoderKL(**config)
    stored.load_state_dict(vae.state_dict())
    vae = vae.double()
    x, z = pictures.double(), torch.randn(2, config["latent_channels"], 9, 7)
    moments, odd_moments = vae.encode(x).latent_dist.parameters, vae.encode(odd.double()).latent_dist.parameters
    posterior = vae.encode(x).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(7))  # a generator's doubles are other numbers
    out = {"pictures": last(pictures), "odd": last(odd), "latents": last(z), "moments": last(moments), "odd_moments": last(odd_moments),
           "sample": last(posterior.mean + posterior.std * noise.double()), "decoded": last(vae.decode(z.double()).sample), "kl": posterior.kl()}
    vae.enable_tiling()
    out |= {"tiled_moments": last(vae.encode(x).latent_dist.parameters), "tiled_decoded": last(vae.decode(z.double()).sample)}
    vae.disable_tiling()
    # gradients of a weighted sum, through both halves
    weight = lambda t: torch.arange(t.numel(), dtype=torch.float64).mul(0.37).sin().reshape(t.shape)
    loss = (last(moments) * weight(last(moments))).sum() + (out["decoded"] * weight(out["decoded"])).sum()
    loss.backward()
    named = dict(vae.named_parameters())
    for key in ["encoder.conv_in.weight", "encoder.down_blocks.0.downsamplers.0.conv.weight", "encoder.mid_block.resnets.0.norm1.weight",
                "encoder.mid_block.attentions.0.to_q.weight", "decoder.mid_block.attentions.0.to_out.0.bias", "decoder.up_blocks.0.upsamplers.0.conv.weight",
                "decoder.up_blocks.1.resnets.0.conv_shortcut.weight", "post_quant_conv.weight"]:
        if key in named:
            out["grad." + key] = named[key].grad.float()
    distances = {"float32": far(stored.eval().decode(z).sample.double(), vae.decode(z.double()).sample)}
    for module in vae.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-5
    distances["eps"] = far(last(vae.decode(z.double()).sample), out["decoded"])
    distances["eps_encode"] = far(vae.encode(x).latent_dist.parameters, moments)
    print(name, {k: f"{v:.1e}" for k, v in distances.items()})
    write(HERE / name, stored, {k: v.float() for k, v in out.items()})
    return distances


def tiny():
    torch.manual_seed(4)
    config = dict(encoder_block_out_channels=[12] * 3, decoder_block_out_channels=[12] * 3, num_encoder_blocks=[1, 2, 1], num_decoder_blocks=[2, 1, 1])
    vae = AutoencoderTiny(**config)
    with torch.no_grad():
        for p in vae.parameters():
            torch.nn.init.normal_(p, 0.0, 1.3 / p[0].numel() ** 0.5 if p.dim() > 1 else 0.2)
    stored = AutoencoderTiny(**config)
    stored.load_state_dict(vae.state_dict())
    vae = vae.double().eval()
    pictures, z = torch.rand(2, 3, 20, 28) * 2 - 1, torch.randn(2, 4, 5, 7) * 3
    write(HERE / "tiny", stored, {"pictures": last(pictures), "latents": last(z), "encoded": last(vae.encode(pictures.double()).latents).float(),
                                  "decoded": last(vae.decode(z.double()).sample).float()})


def resnet(norm):
    torch.manual_seed(9)
    block = ResnetBlock2D(in_channels=4, out_channels=8, temb_channels=6, groups=2, eps=1e-2, time_embedding_norm=norm)
    with torch.no_grad():
        for p in block.parameters():
            torch.nn.init.normal_(p, 0.1, 0.4)
    x, time = torch.randn(2, 4, 3, 5), torch.randn(2, 6)
    file = HERE / f"resnet_{norm}.safetensors"
    stored = {k: v.detach().clone() for k, v in block.state_dict().items()}
    y = block.double()(x.double(), time.double())
    save_file(stored | {"x": last(x).contiguous(), "time": time, "y": last(y).float().contiguous()}, file)
    file.chmod(0o644)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    common = dict(down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3, block_out_channels=[4, 8, 12],
                  layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=16)
    traps = {"quiet": kl("quiet", 1, True, **common), "loud": kl("loud", 2, False, **{**common, "sample_size": 20})}
    traps["bare"] = kl("bare", 3, False, down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, block_out_channels=[4, 8],
                       layers_per_block=2, norm_num_groups=2, latent_channels=3, sample_size=16, use_quant_conv=False, use_post_quant_conv=False,
                       mid_block_add_attention=False, shift_factor=0.1159, scaling_factor=0.3611)
    tiny()
    for norm in ["default", "scale_shift"]:
        resnet(norm)
    (HERE / "distances.json").write_text(json.dumps(traps, indent=1) + "\n")
