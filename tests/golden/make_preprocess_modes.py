"""Writes preprocess_modes/: pictures of odd sizes and modes, and in expected.safetensors what transformers' CLIPImageProcessorPil
makes of each at 16 x 16 before normalising, [16, 16, 3] uint8, after Pillow's exif_transpose. Transparent pictures are laid on
white by the processor.

covered.safetensors: what open_clip's image_transform makes of the pictures rgb_* at 16 x 24 and 24 x 16 (height x width), which
are no squares: [16, 24, 3] uint8 as NAME, [24, 16, 3] as NAME.upright; and at 16 x 16, which torchvision crops a pixel beside
transformers in some: [16, 16, 3] as NAME.square.

    pip install pillow numpy transformers safetensors open_clip_torch && python make_preprocess_modes.py
Made with Pillow 13.0.0, transformers 5.23.0 and open_clip 3.3.
"""
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin
from open_clip.transform import image_transform
from safetensors.numpy import save_file
from transformers import CLIPImageProcessorPil

out = pathlib.Path(__file__).parent / "preprocess_modes"
out.mkdir(exist_ok=True)
for old in out.iterdir():
    old.unlink()
rng = np.random.default_rng(3)
edge = 16


def pixels(width, height, channels=3):
    """Waves, an edge and a little noise: compresses well, and over- and undershoots when resized."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 120 * np.sin(0.3 * x * (c + 1) / 2 + 0.2 * y + c) for c in range(channels)]
    picture = np.stack(planes, -1) + rng.integers(-3, 4, (height, width, 1))
    picture[height // 3:height // 2, width // 4:width // 2] = 255 * (np.arange(channels) % 2)
    return picture.clip(0, 255).astype(np.uint8)


def rgb(width, height):
    return Image.fromarray(pixels(width, height))


# Sizes: square, odd, one pixel wide or high, very long, smaller and larger than the crop, exactly the crop.
for width, height in [(16, 16), (17, 16), (16, 19), (15, 40), (33, 31), (50, 20), (7, 5), (3, 11), (1, 1), (1, 23), (29, 1), (2, 90), (160, 3), (97, 64)]:
    rgb(width, height).save(out / f"rgb_{width}x{height}.png")

# Modes of PNG
w, h = 27, 22
Image.fromarray(pixels(w, h, 4)).save(out / "rgba.png")
Image.fromarray(pixels(w, h, 2)).save(out / "grey_alpha.png")
ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)           # every alpha, with every colour of a channel
Image.fromarray(np.stack([ramp.T, ramp[::-1], ramp, ramp], -1)).save(out / "rgba_every_alpha.png")
Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp, ramp[:, ::-1]], -1)).save(out / "rgba_every_alpha_2.png")
rgb(w, h).convert("1").save(out / "bits_transparent.png", transparency=1)
Image.fromarray(pixels(w, h, 1)[..., 0]).save(out / "grey.png")
deep = pixels(w, h, 1)[..., 0].astype(np.uint16)
Image.fromarray(deep).save(out / "grey16_dark.png")             # values up to 255
Image.fromarray(deep * 257).save(out / "grey16.png")            # the whole range, which Pillow cuts off at 255
rgb(w, h).convert("1").save(out / "bits.png")
rgb(w, h).quantize(11).save(out / "palette.png")
rgb(w, h).quantize(200).save(out / "palette_200.png")
rgb(w, h).quantize(5).save(out / "palette_transparent.png", transparency=2)
rgb(w, h).quantize(7).save(out / "palette_alpha.png", transparency=bytes([0, 90, 255, 10, 255, 128, 1]))
rgb(w, h).save(out / "rgb_transparent.png", transparency=(0, 255, 0))
Image.fromarray(pixels(w, h, 1)[..., 0]).save(out / "grey_transparent.png", transparency=255)

# JPEG: subsamplings, grey, CMYK, progressive, restart markers, a side that is no multiple of a block
rgb(41, 29).save(out / "rgb.jpg", quality=90)
rgb(41, 29).save(out / "rgb_444.jpg", quality=75, subsampling=0)
rgb(41, 29).save(out / "rgb_422.jpg", quality=75, subsampling=1)
rgb(41, 29).save(out / "progressive.jpg", quality=80, progressive=True)
rgb(41, 29).save(out / "restart.jpg", quality=80, restart_marker_blocks=2)
rgb(41, 29).convert("L").save(out / "grey.jpg", quality=80)
rgb(41, 29).convert("L").save(out / "grey_progressive.jpg", quality=60, progressive=True)
rgb(41, 29).convert("CMYK").save(out / "cmyk.jpg", quality=90)
rgb(41, 29).convert("CMYK").save(out / "cmyk_progressive.jpg", quality=90, progressive=True)
rgb(1, 30).save(out / "rgb_1x30.jpg", quality=85)
rgb(30, 1).save(out / "rgb_30x1.jpg", quality=85)

# EXIF orientation, in JPEG and PNG
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb(30, 19).save(out / f"exif_{orientation}.jpg", quality=85, exif=exif)
exif = Image.Exif()
exif[0x0112] = 6
rgb(26, 19).save(out / "exif_6.png", exif=exif)
rgb(19, 26).convert("L").save(out / "exif_grey_6.jpg", exif=exif)

# Other files
rgb(23, 18).save(out / "rgb.ppm")
rgb(23, 18).convert("L").save(out / "grey.pgm")

# Tall pictures made smaller, whose columns Pillow resizes first since version 13
for width, height in [(19, 45), (31, 77), (40, 300)]:
    rgb(width, height).save(out / f"tall_{width}x{height}.png")

# Grey that a PNG calls transparent: Pillow compares the low byte of what the file says with the pixels in 8 bits
def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


for depth, clear in [(1, 0), (1, 1), (2, 0), (2, 2), (2, 170), (4, 5), (4, 85), (8, 300), (16, 0), (16, 44), (16, 300)]:
    grey = np.arange(16 * 16).reshape(16, 16) % (1 << min(depth, 9))
    if depth >= 8:
        lines = grey.astype(">u2" if depth == 16 else np.uint8)
    else:
        lines = np.packbits(((grey[..., None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(16, -1), axis=1)
    data = b"".join(b"\0" + line.tobytes() for line in lines)
    (out / f"grey{depth}_clear_{clear}.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, depth, 0, 0, 0, 0)) + chunk(b"tRNS", struct.pack(">H", clear)) +
        chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))

# Orientation in XMP, which counts where EXIF says nothing, and in ImageMagick's profile
attribute, element = b'<rdf:Description tiff:Orientation="%d"/>', b"<x><tiff:Orientation>%d</tiff:Orientation></x>"
plain = Image.Exif()
plain[0x010F] = "maker"
upright = Image.Exif()
upright[0x0112] = 1
rgb(21, 13).save(out / "xmp_6.jpg", xmp=attribute % 6)
rgb(21, 13).save(out / "xmp_3.jpg", xmp=element % 3)
rgb(21, 13).save(out / "xmp_9.jpg", xmp=element % 9)
rgb(21, 13).save(out / "xmp_8_exif.jpg", xmp=attribute % 8, exif=plain)
rgb(21, 13).save(out / "xmp_8_exif_1.jpg", xmp=attribute % 8, exif=upright)
text = PngImagePlugin.PngInfo()
text.add_itxt("XML:com.adobe.xmp", (attribute % 5).decode(), zip=True)
rgb(21, 13).save(out / "xmp_5.png", pnginfo=text)
text = PngImagePlugin.PngInfo()
turned = Image.Exif()
turned[0x0112] = 7
profile = turned.tobytes().hex()
text.add_text("Raw profile type exif", f"\nexif\n{len(profile) // 2:8}\n{profile[:72]}\n{profile[72:]}\n", zip=True)
rgb(21, 13).save(out / "profile_7.png", pnginfo=text)

# PNM of bits and in digits
bits = pixels(19, 17, 1)[..., 0] > 127
(out / "bits.pbm").write_bytes(b"P4\n19 17\n" + np.packbits(~bits, axis=1).tobytes())
(out / "bits_digits.pbm").write_bytes(b"P1 # bits\r19 17\n" + b"\n".join(bytes(48 + v for v in row) + b" # row" for row in bits) + b"\n")
(out / "grey_digits.pgm").write_bytes(b"P2\n18 17\n99\n" + b" ".join(b"%d" % (int(v) * 99 // 255) for v in pixels(18, 17, 1).ravel()))
(out / "grey_deep_digits.pgm").write_bytes(b"P2 18 17 40000\n" + b"\n".join(b"%d" % v for v in pixels(18, 17, 1).ravel()) + b"\n")
(out / "rgb_digits.ppm").write_bytes(b"P3 17 16 255 # colour\n" + b" ".join(b"%d" % v for v in pixels(17, 16).ravel()))
(out / "rgb_deep_digits.ppm").write_bytes(b"P3 17 16 1000\n" + b" ".join(b"%d" % (int(v) * 3) for v in pixels(17, 16).ravel()) + b" 7 tail")

expected = {}
processor = CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge})
for path in sorted(out.iterdir()):
    image = ImageOps.exif_transpose(Image.open(path))
    values = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    assert (values == values.round()).all() and values.min() >= 0 and values.max() <= 255
    expected[path.name] = np.ascontiguousarray(values.transpose(1, 2, 0).astype(np.uint8))
save_file(expected, out / "expected.safetensors")

covered = {}
for ending, size in (("", (16, 24)), (".upright", (24, 16)), (".square", (16, 16))):
    transform = image_transform(size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    for path in sorted(out.glob("rgb_*x*.png")):
        values = transform(Image.open(path)).numpy() * 255
        assert np.abs(values - values.round()).max() < 1e-4
        covered[path.name + ending] = np.ascontiguousarray(values.round().astype(np.uint8).transpose(1, 2, 0))
save_file(covered, out / "covered.safetensors")
print(len(expected), "pictures,", sum(p.stat().st_size for p in out.iterdir()), "bytes")
