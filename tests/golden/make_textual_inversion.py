"""Writes golden/textual_inversion.pt, a textual inversion in the form of A1111's web UI.

    python make_textual_inversion.py             (torch 2.15)
    python make_textual_inversion.py --read FILE (reads a .pt that tenon saved, as the web UI does)
"""
import pathlib
import sys

import torch

if len(sys.argv) > 2:
    data = torch.load(sys.argv[2], weights_only=True)
    assert list(data["string_to_param"]) == ["*"] and data["string_to_token"] == {"*": 265}, data
    print(data["name"], data["string_to_param"]["*"])
else:
    vectors = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 2
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "<cat>", "step": 10, "sd_checkpoint": None, "sd_checkpoint_name": None},
               pathlib.Path(__file__).parent / "textual_inversion.pt")
