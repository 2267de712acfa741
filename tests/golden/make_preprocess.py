"""Writes preprocess/: random pictures, and what transformers' CLIPImageProcessorPil makes of them.

    pip install pillow numpy transformers && python make_preprocess.py
Case WxH-EDGE-CROP: WxH.ppm is the picture, WxH-EDGE-CROP.ppm the cropped one, WxH-EDGE-CROP.f32 its normalised values [CROP, CROP, 3],
little-endian float32. Made with Pillow 13.0.0 and transformers 5.23.0.
"""
import pathlib

import numpy as np
from PIL import Image
from transformers import CLIPImageProcessorPil

out = pathlib.Path(__file__).parent / "preprocess"
out.mkdir(exist_ok=True)
rng = np.random.default_rng(2)
for width, height, edge, crop in [(64, 48, 16, 16), (37, 53, 16, 15), (9, 9, 23, 20), (16, 16, 16, 16), (101, 33, 19, 16), (12, 17, 8, 11),
                                  (5, 31, 7, 7), (40, 1, 3, 5)]:
    # noise on a gradient, with black and white squares: undershoot and overshoot are clipped between the passes
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1)
    pixels = pixels + rng.integers(-60, 60, pixels.shape)
    pixels = np.where((x // 3 + y // 3)[..., None] % 4 == 0, 255 * ((x // 3) % 2)[..., None], pixels).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.save(out / f"{width}x{height}.ppm")
    options = dict(size={"shortest_edge": edge}, crop_size={"height": crop, "width": crop}, return_tensors="np")
    cropped = CLIPImageProcessorPil()(image, do_rescale=False, do_normalize=False, **options)["pixel_values"][0].transpose(1, 2, 0)
    name = f"{width}x{height}-{edge}-{crop}"
    Image.fromarray(cropped.astype(np.uint8)).save(out / f"{name}.ppm")
    values = CLIPImageProcessorPil()(image, **options)["pixel_values"][0].transpose(1, 2, 0)
    (out / f"{name}.f32").write_bytes(values.astype("<f4").tobytes())
