"""Writes golden/torch/: small files of torch.save and torch.jit.save.

    python make_torch.py        (torch 2.15)

plain.pt      a state dict of every element type, views with offsets and strides among them
trainer.ckpt  the same inside what a trainer writes around it
script.pt     a TorchScript archive
parameter.pt  a dictionary of nn.Parameter
hostile.pt    a pickle that would run a shell command
old.pt        the format before torch 1.6
"""
import collections
import os
import pathlib
import warnings

import torch

HERE = pathlib.Path(__file__).parent / "torch"


class Hostile:
    def __reduce__(self):
        return os.system, ("true",)


class Module(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.scale = torch.nn.Parameter(torch.ones(2))
        self.register_buffer("steps", torch.tensor([7]))
        self.inner = torch.nn.Sequential(torch.nn.Linear(2, 2))
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(torch.arange(p.numel()).view_as(p) + 10.0 * i)

    def forward(self, x):
        return self.inner(self.fc(x) * self.scale) + self.steps


def main():
    warnings.simplefilter("ignore")
    HERE.mkdir(exist_ok=True)
    a = torch.arange(24.0).view(4, 6)
    state = collections.OrderedDict(
        whole=a, turned=a.t(), part=a[1:3, 2:5], half=a.half(), bfloat=a[:1].bfloat16(), double=a[:1].double(), ids=torch.arange(5) - 2,
        small=torch.arange(3, dtype=torch.int32), bytes=torch.arange(3, dtype=torch.uint8), signed=-torch.arange(3, dtype=torch.int8),
        wide=torch.arange(7).expand(1, -1), scalar=torch.tensor(3.5), empty=torch.zeros(0, 3), flag=torch.tensor([True, False]),
        short=torch.arange(3, dtype=torch.int16))
    torch.save(state, HERE / "plain.pt")
    torch.save({"epoch": 3, "lr": [1e-3, 2], "state_dict": state, "optimizer": {"state": {0: {"m": torch.ones(3)}}}}, HERE / "trainer.ckpt")
    torch.jit.script(Module()).save(str(HERE / "script.pt"))
    torch.save({"p": Module().scale}, HERE / "parameter.pt")
    torch.save({"x": Hostile(), "w": a}, HERE / "hostile.pt")
    torch.save({"w": a[0, :2]}, HERE / "old.pt", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
