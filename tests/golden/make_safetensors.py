"""Writes what the reference package thinks of safetensors files. Needs torch and safetensors; run: python make_safetensors.py

reference.safetensors: a file written by the reference package.
safetensors_verdicts.txt: for each of 2,000 mutated files, 1 if the reference package accepts it; the mutations are made
again in tests/io/safetensors.test.cpp.
"""
import pathlib
import struct

import safetensors
import torch
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent
save_file(
    {
        "f64": torch.tensor([1 / 3, -2.5], dtype=torch.float64),
        "f32": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7,
        "f16": torch.tensor([1.5, -65504, 6e-8], dtype=torch.float16),
        "bf16": torch.tensor([1.5, -3e38], dtype=torch.bfloat16),
        "i64": torch.tensor([2**40, -1]),
        "i32": torch.tensor([[7], [-8]], dtype=torch.int32),
        "i8": torch.tensor([-128, 127], dtype=torch.int8),
        "u8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(3.25),
        "empty": torch.zeros(0, 4),
        "naïve \"name\"\\\n": torch.tensor([1.0]),
        "f8": torch.tensor([1.0]).to(torch.float8_e4m3fn),
    },
    here / "reference.safetensors",
    metadata={"format": "pt", "note": "tab\there, é"},
)

HEADERS = [
    b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"U8","shape":[],"data_offsets":[24,25]}}',
    b'{"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}} ',
    b'{"x":{"dtype":"I64","shape":[1,0],"data_offsets":[0,0]},"y":{"shape":[10],"data_offsets":[0,10],"dtype":"I8"}}  ',
]
DATA = [25, 8, 10]
EDITS = [
    (b'"a"', b'"b"'), (b'"b"', b'"a"'), (b'"dtype"', b'"d\\u0074ype"'), (b'"dtype"', b'"extra":1,"dtype"'),
    (b'{', b' {'), (b'{', b'{ '), (b',', b' ,\n'), (b':', b'\t:\r'),
    (b'"U8"', b'"I8"'), (b'"U8"', b'"F8_E8M0"'), (b'"U8"', b'"u8"'), (b'[2,3]', b'[3,2]'),
    (b'[2,3]', b'[6,1,1,1,1,1,1,1]'), (b'[2,3]', b'[6,1,1,1,1,1,1,1,1]'), (b'[2,3]', b'[2,3.0]'), (b'[2,3]', b'[2,4]'),
    (b'"shape"', b'"shape":[1],"shape"'), (b'"format"', b'"form\\u0000at"'), (b'"pt"', b'"pt","format":"x"'), (b'"pt"', b'null'),
    (b'{"format":"pt"}', b'null'), (b'{"format":"pt"}', b'{}'), (b'[]', b'[1]'), (b'[1,0]', b'[0,9223372036854775808]'),
    (b'[1,0]', b'[0,9223372036854775807,2]'), (b'}}', b'}} '), (b'}}', b'}}\n'), (b'}}', b'}}x'),
    (b'24]', b'24.0]'), (b'[0,', b'[-0,'), (b'[0,', b'[00,'), (b'"a"', b'"\\ud83c\\udfa8"'),
    (b'"a"', b'"\\ud83c"'), (b'"a"', b'""'), (b'"a"', b'"\\u0000"'), (b'"w"', b'"__metadata__"'),
    (b'"BF16"', b'"F16"'), (b'"BF16"', b'"F64"'), (b'[4]', b'[2,2]'), (b'[4]', b'[1]'),
    (b'"x"', b'"y"'), (b'[0,0]', b'[10,10]'), (b'[0,0]', b'[5,5]'), (b'"I8"', b'"BOOL"'),
]
TOKENS = [b'"', b"{", b"]", b",", b"0", b"9", b"-", b" ", b"\\", b"\x00", b"\x80", b"\xc3\xa9", b"null", b"F64", b"a"]

state = 1


def random(n):
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    return (state >> 33) % n


verdicts = []
for _ in range(2000):
    which = random(len(HEADERS))
    header = HEADERS[which]
    for _ in range(1 + random(3)):
        old, new = EDITS[random(len(EDITS))]
        header = header.replace(old, new, 1)
    if random(4) == 0:
        at, token = random(len(header)), TOKENS[random(len(TOKENS))]
        header = header[:at] + token + header[at + random(2) :]
    file = struct.pack("<Q", len(header)) + header + bytes(DATA[which])
    try:
        safetensors.deserialize(file)
        verdicts.append("1")
    except Exception:
        verdicts.append("0")
(here / "reference.safetensors").chmod(0o644)
text = "".join(verdicts)
(here / "safetensors_verdicts.txt").write_text("\n".join(text[i : i + 100] for i in range(0, 2000, 100)) + "\n")
print(safetensors.__version__, text.count("1"), "of", len(text), "accepted")
