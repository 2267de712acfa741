"""Writes golden/adamw.safetensors: parameters after each of six steps of torch.optim.AdamW on given gradients (torch 2.15).

Case `plain` decays everything; `clip` clips the norm to 1.5 and changes the learning rate by a factor 1 / step; `vectors` decays
the matrix alone, as CLIP's training does.
"""
import pathlib

import torch
from safetensors.torch import save_file

torch.manual_seed(2)
SHAPES = {"matrix": (3, 5), "vector": (7,), "scalar": ()}
start = {k: torch.randn(s, dtype=torch.float64) for k, s in SHAPES.items()}
grads = [{k: torch.randn(s, dtype=torch.float64) for k, s in SHAPES.items()} for _ in range(6)]
out = {"start." + k: v for k, v in start.items()} | {f"grad.{i}.{k}": v for i, g in enumerate(grads) for k, v in g.items()}

for case in ("plain", "clip", "vectors"):
    p = {k: v.clone().requires_grad_() for k, v in start.items()}
    groups = [{"params": [v], "weight_decay": 0.0 if case == "vectors" and v.ndim < 2 else 0.3} for v in p.values()]
    optimizer = torch.optim.AdamW(groups, lr=0.02, betas=(0.8, 0.95), eps=1e-3)
    for i, g in enumerate(grads):
        for k, v in p.items():
            v.grad = g[k].clone()
        if case == "clip":
            torch.nn.utils.clip_grad_norm_(p.values(), 1.5)
            for group in optimizer.param_groups:
                group["lr"] = 0.02 / (i + 1)
        optimizer.step()
        out |= {f"{case}.{i}.{k}": v.detach().clone() for k, v in p.items()}
save_file(out, pathlib.Path(__file__).parent / "adamw.safetensors")
