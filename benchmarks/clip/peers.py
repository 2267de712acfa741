"""Times CLIP ViT-B/32 (random weights) in torch and, where it is installed, OpenVINO: peers.py THREADS OUT.json"""
import json
import sys
import time
import warnings

import torch
from transformers import CLIPConfig, CLIPModel

warnings.filterwarnings("ignore")  # what tracing and renamed options say
threads, out = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(threads)
torch.manual_seed(0)
model = CLIPModel(CLIPConfig()).eval()
rows = []


def row(name, shape, dtype, impl, run, repeats):
    for _ in range(2):
        run()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    seconds.sort()
    rows.append(dict(name=name, shape=shape, dtype=dtype, impl=impl, seconds=seconds[0], seconds_median=seconds[len(seconds) // 2]))
    print(f"{name:28} {dtype:5} {impl:9} best {1e3 * seconds[0]:8.2f}  median {1e3 * seconds[len(seconds) // 2]:8.2f} ms", flush=True)


def inputs(batch, dtype=torch.float32):
    pixels = torch.randn(batch, 3, 224, 224, dtype=dtype)
    ids = torch.randint(0, 49406, (batch, 77))
    ids[:, 7:] = 49407
    return pixels, ids


class Image(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.vision, self.projection = model.vision_model, model.visual_projection

    def forward(self, pixels):
        return self.projection(self.vision(pixel_values=pixels).pooler_output)


def measure_torch(dtype, label):
    model.to(dtype)
    image = Image()
    with torch.inference_mode():
        for batch, repeats in ((1, 21), (32, 5)):
            pixels, ids = inputs(batch, dtype)
            row(f"clip_b32_image_b{batch}", [batch, 224, 224, 3], label, "torch", lambda: image(pixels), repeats)
            for tokens in (77, 8):
                short = ids[:, :tokens]
                row(f"clip_b32_text{tokens}_b{batch}", [batch, tokens], label, "torch",
                    lambda: model.text_projection(model.text_model(input_ids=short).pooler_output), repeats)


def measure_openvino():
    try:
        import openvino as ov
    except ImportError:
        print("openvino is not installed: left out")
        return
    core = ov.Core()
    for batch, repeats in ((1, 21), (32, 5)):
        pixels, _ = inputs(batch)
        graph = ov.convert_model(Image().eval(), example_input=pixels, input=[list(pixels.shape)])
        for label in ("f32", "bf16"):
            compiled = core.compile_model(graph, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": label, "PERFORMANCE_HINT": "LATENCY"})
            request, data = compiled.create_infer_request(), pixels.numpy()
            row(f"clip_b32_image_b{batch}", [batch, 224, 224, 3], label, "openvino", lambda: request.infer([data]), repeats)


measure_torch(torch.float32, "f32")
measure_openvino()
measure_torch(torch.bfloat16, "bf16")
with open(out, "w") as file:
    json.dump(rows, file)
