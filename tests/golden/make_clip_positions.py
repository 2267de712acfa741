"""Writes golden/clip_positions.safetensors: the tiny model of golden/clip at other picture sizes.

    python make_clip_positions.py        (torch 2.15, transformers 5.23, open_clip_torch 3.3)

`features.S` are transformers' with interpolate_pos_encoding, `antialias.S` the position table of open_clip's
resize_pos_embed, for S of 43 pixels (a grid of 5, some pixels over), 16 (2), 8 (1) and 96 (12); the trained grid is 3.
`features.HxW` and `antialias.HxW`: the same for pictures that are no squares.
All in float64 from the float32 parameters; the pictures are the upper left corner of `picture`.
"""
import pathlib
import types

import torch
from open_clip.model import resize_pos_embed
from safetensors.torch import save_file
from transformers import CLIPModel

HERE = pathlib.Path(__file__).parent

clip = CLIPModel.from_pretrained(HERE / "clip").double().eval()
table = clip.vision_model.embeddings.position_embedding.weight.detach()
torch.manual_seed(9)
picture = torch.rand(1, 3, 96, 96).mul(255).round()
out = {"picture": picture[0].permute(1, 2, 0).to(torch.uint8)}
with torch.no_grad():
    for height, width in ((43, 43), (16, 16), (8, 8), (96, 96), (24, 43), (96, 16), (8, 90), (61, 24)):
        size = height if height == width else f"{height}x{width}"
        pixels = picture[:, :, :height, :width].double() / 255
        vision = clip.vision_model(pixel_values=pixels, interpolate_pos_encoding=True)
        out[f"features.{size}"] = clip.visual_projection(vision.pooler_output)
        state = {"visual.positional_embedding": table}
        resize_pos_embed(state, types.SimpleNamespace(visual=types.SimpleNamespace(grid_size=(height // 8, width // 8))))
        out[f"antialias.{size}"] = state["visual.positional_embedding"].float()
file = HERE / "clip_positions.safetensors"
save_file({k: v.contiguous() for k, v in out.items()}, file)
file.chmod(0o644)
