"""Writes golden/sgd.safetensors: parameters after each of six steps of torch.optim.SGD from the start and with the gradients of
golden/adamw.safetensors (torch 2.15). `rest` gives the vector no gradient in the first two steps.
"""
import pathlib

import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
given = load_file(HERE / "adamw.safetensors")
CASES = {
    "plain": {},
    "decay": {"weight_decay": 0.3},
    "momentum": {"momentum": 0.8, "weight_decay": 0.3},
    "nesterov": {"momentum": 0.8, "weight_decay": 0.3, "nesterov": True},
    "clip": {"momentum": 0.8},
    "rest": {"momentum": 0.8, "nesterov": True},
}
out = {}
for case, options in CASES.items():
    p = {k: given["start." + k].clone().requires_grad_() for k in ("matrix", "vector", "scalar")}
    optimizer = torch.optim.SGD(p.values(), lr=0.02, **options)
    for i in range(6):
        for k, v in p.items():
            v.grad = None if case == "rest" and k == "vector" and i < 2 else given[f"grad.{i}.{k}"].clone()
        if case == "clip":
            torch.nn.utils.clip_grad_norm_(p.values(), 1.5)
            optimizer.param_groups[0]["lr"] = 0.02 / (i + 1)
        optimizer.step()
        out |= {f"{case}.{i}.{k}": v.detach().clone() for k, v in p.items()}
save_file(out, HERE / "sgd.safetensors")
