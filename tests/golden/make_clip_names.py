"""Writes golden/clip_names/: tiny models of open_clip in the forms that checkpoints have elsewhere, and what they make of
fixed inputs.

    python make_clip_names.py        (torch 2.15, open_clip 3.3)

open_clip/         a folder with open_clip_config.json: heads of 16, quick GELU
open_clip_wide/    the same for pictures of 16 x 40 pixels
vit.pt             one file of torch.save, wrapped by a trainer ("state_dict", "module."): the shapes say what it is
resnet.pt          a ModifiedResNet in one file with OpenAI's extra scalars
expected_*.safetensors  features in float64

Every parameter and statistic is random and rounded to float16, as which the files are stored.
"""
import json
import pathlib

import open_clip
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "clip_names"


def model(vision, text, embed, quick_gelu, seed):
    torch.manual_seed(seed)
    clip = open_clip.model.CLIP(embed, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text), quick_gelu=quick_gelu)
    with torch.no_grad():
        for name, p in clip.named_parameters():
            center = 1.0 if p.ndim == 1 and name.endswith("weight") else 0.0
            scale = (2.0 / p[0].numel()) ** 0.5 if p.ndim > 1 else 0.2
            p.copy_((center + scale * torch.randn_like(p)).half().float())
        for name, b in clip.named_buffers():
            if name.endswith("running_mean"):
                b.copy_((0.3 * torch.randn_like(b)).half().float())
            if name.endswith("running_var"):
                b.copy_((0.2 + torch.rand_like(b)).half().float())
    return clip.eval()


def half(clip):
    return {k: v.half().contiguous() for k, v in clip.state_dict().items() if v.is_floating_point() and "attn_mask" not in k}


def expect(clip, name, size, seed):
    torch.manual_seed(seed)
    height, width = size if isinstance(size, tuple) else (size, size)
    pictures, ids = torch.randn(2, 3, height, width), torch.randint(1, 90, (2, 9))
    ids[0, 5:], ids[1, 8] = 0, 98
    ids[0, 4] = 98
    clip = clip.double()
    with torch.no_grad():
        out = {"pictures": pictures.permute(0, 2, 3, 1), "ids": ids.int(), "image_features": clip.encode_image(pictures.double()),
               "text_features": clip.encode_text(ids)}
    save_file({k: v.contiguous() for k, v in out.items()}, HERE / f"expected_{name}.safetensors")


def main():
    (HERE / "open_clip").mkdir(parents=True, exist_ok=True)
    vision = dict(image_size=24, layers=2, width=32, patch_size=8, head_width=16, mlp_ratio=2.0)
    text = dict(context_length=9, vocab_size=99, width=32, heads=2, layers=2)
    clip = model(vision, text, 20, True, 1)
    save_file(half(clip), HERE / "open_clip" / "open_clip_model.safetensors")
    config = {"model_cfg": {"embed_dim": 20, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}}
    (HERE / "open_clip" / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
    expect(clip, "open_clip", 24, 5)

    clip = model(dict(image_size=16, layers=1, width=64, patch_size=8), dict(context_length=9, vocab_size=99, width=64, heads=1, layers=1),
                 12, False, 2)
    torch.save({"epoch": 3, "state_dict": {"module." + k: v for k, v in half(clip).items()}}, HERE / "vit.pt")
    expect(clip, "vit", 16, 6)

    clip = model(dict(image_size=64, layers=[1, 2, 1, 1], width=4), dict(context_length=9, vocab_size=99, width=64, heads=1, layers=1),
                 12, True, 3)
    extras = {"input_resolution": torch.tensor(64), "context_length": torch.tensor(9), "vocab_size": torch.tensor(99)}
    torch.save(half(clip) | extras, HERE / "resnet.pt")
    expect(clip, "resnet", 64, 7)
    vision = dict(image_size=[16, 40], layers=1, width=32, patch_size=8, head_width=16, mlp_ratio=2.0)
    clip = model(vision, text, 20, True, 4)
    (HERE / "open_clip_wide").mkdir(exist_ok=True)
    save_file(half(clip), HERE / "open_clip_wide" / "open_clip_model.safetensors")
    config = {"model_cfg": {"embed_dim": 20, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}}
    (HERE / "open_clip_wide" / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
    expect(clip, "open_clip_wide", (16, 40), 8)
    for file in HERE.rglob("*.*"):
        file.chmod(0o644)


if __name__ == "__main__":
    main()
