"""Writes pictures/: one small picture for each kind of file, and what Pillow's convert("RGB") makes of it as NAME.ppm.

    pip install pillow numpy && python make_pictures.py
"""
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

out = pathlib.Path(__file__).parent / "pictures"
out.mkdir(exist_ok=True)
height, width = 7, 11
rng = np.random.default_rng(1)
y, x = np.mgrid[0:height, 0:width]
smooth = np.stack([20 * x + 3 * y, 255 - 21 * x, 30 * y], -1).clip(0, 255).astype(np.uint8)
noise = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(name, depth, colour, samples, palette=b"", transparency=b""):
    """A PNG of any depth and colour type, one row of samples a line, without filters."""
    rows = b""
    for row in samples:
        flat = np.asarray(row).ravel()
        if depth == 16:
            rows += b"\0" + flat.astype(">u2").tobytes()
        elif depth == 8:
            rows += b"\0" + flat.astype(np.uint8).tobytes()
        else:
            bits = (flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1
            rows += b"\0" + np.packbits(bits.ravel()).tobytes()
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    if palette:
        data += chunk(b"PLTE", palette)
    if transparency:
        data += chunk(b"tRNS", transparency)
    (out / name).write_bytes(data + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


for depth in (1, 2, 4, 8):
    png(f"grey{depth}.png", depth, 0, noise[..., 0] >> (8 - depth))
    png(f"palette{depth}.png", depth, 3, noise[..., 0] >> (8 - depth),
        rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes(), bytes([0, 128]))
deep = rng.integers(0, 65536, (height, width, 4))
png("grey16.png", 16, 0, np.where(x % 2, deep[..., 0], deep[..., 0] % 300))
png("greyalpha8.png", 8, 4, noise[..., :2])
png("greyalpha16.png", 16, 4, deep[..., :2])
png("rgb8.png", 8, 2, noise[..., :3])
png("rgb8_transparent.png", 8, 2, noise[..., :3], transparency=struct.pack(">HHH", *map(int, noise[0, 0, :3])))
png("rgb16.png", 16, 2, deep[..., :3])
png("rgba8.png", 8, 6, noise)
png("rgba16.png", 16, 6, deep)
# Interlaced (Adam7) 8-bit RGB, each pass a small picture of its own.
passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
rows = b"".join(b"\0" + row.tobytes() for r, c, dr, dc in passes for row in noise[r::dr, c::dc, :3] if row.size)
data = (out / "rgb8.png").read_bytes()

(out / "interlaced.png").write_bytes(data[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)) +
                                     chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))

rgb = Image.fromarray(smooth)
rgb.save(out / "rgb.jpg", quality=90)
rgb.save(out / "progressive.jpg", quality=70, progressive=True, subsampling=0)
rgb.convert("L").save(out / "grey.jpg", quality=80)
rgb.convert("CMYK").save(out / "cmyk.jpg", quality=95)
(out / "grey.pgm").write_bytes(b"P5 # a comment\n11 7\n255\n" + noise[..., 0].tobytes())
(out / "grey100.pgm").write_bytes(b"P5\n11 7 100\n" + (noise[..., 0] % 101).tobytes())
(out / "grey16.pgm").write_bytes(b"P5\n11 7 1000\n" + (deep[..., 0] % 11).astype(">u2").tobytes())
(out / "rgb16.pnm").write_bytes(b"P6\n11 7\n1000\n" + (deep[..., :3] % 1001).astype(">u2").tobytes())

for path in sorted(out.iterdir()):
    if path.suffix != ".ppm":
        Image.open(path).convert("RGB").save(path.with_suffix(path.suffix + ".ppm"))
