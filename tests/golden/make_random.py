"""Writes random.inc: what torch's CPU generator gives. Needs torch; run: python make_random.py"""
import pathlib
import struct

import torch


def words(values, width):
    return ", ".join(f"0x{int.from_bytes(v, 'little'):0{width}x}" for v in values)


def floats(tensor):
    return words([struct.pack("<f", x) for x in tensor.tolist()], 8)


def doubles(tensor):
    return words([struct.pack("<d", x) for x in tensor.tolist()], 16)


def integers(tensor):
    return ", ".join(str(x) for x in tensor.tolist())


def generator(seed):
    return torch.Generator().manual_seed(seed)


def checksum(data):
    """FNV-1a over bytes."""
    h = 14695981039346656037
    for byte in data:
        h = (h ^ byte) * 1099511628211 % 2**64
    return h


lines = []


def row(kind, name, values):
    lines.append(f"inline constexpr std::{kind} {name}[] = {{{values}}};")


g = generator(0)
row("uint32_t", "uniform_floats", floats(torch.rand(8, generator=g)))
row("uint32_t", "uniform_range", floats(torch.empty(64).uniform_(-0.3, 0.4, generator=g)))
row("uint64_t", "uniform_doubles", doubles(torch.rand(8, generator=g, dtype=torch.float64)))
row("uint64_t", "uniform_double_range", doubles(torch.empty(64, dtype=torch.float64).uniform_(-0.3, 0.4, generator=g)))
for n in (5, 16, 17, 100):
    row("uint32_t", f"normal_{n}", floats(torch.randn(n, generator=generator(n))))
g = generator(7)
row("uint32_t", "normal_scaled", floats(torch.empty(40).normal_(1.5, 0.02, generator=g)))
row("uint64_t", "normal_doubles_5", doubles(torch.randn(5, generator=g, dtype=torch.float64)))
row("uint64_t", "normal_doubles_20", doubles(torch.randn(20, generator=g, dtype=torch.float64)))
row("uint64_t", "state_after", hex(checksum(g.get_state().numpy().tobytes())))
row("int64_t", "small_integers", integers(torch.randint(-5, 1000, (10,), generator=generator(1))))
row("int64_t", "large_integers", integers(torch.randint(-(2**40), 2**50, (10,), generator=generator(2))))
row("int64_t", "permutation_10", integers(torch.randperm(10, generator=generator(3))))
row("int64_t", "permutation_1", integers(torch.randperm(1, generator=generator(3))))
row("uint32_t", "latents_42", floats(torch.randn(1, 4, 64, 64, generator=generator(42)).flatten()[::1021]))
pathlib.Path(__file__).with_name("random.inc").write_text(
    "// Made by make_random.py with torch " + torch.__version__.split("+")[0] + ".\n" + "\n".join(lines) + "\n"
)
