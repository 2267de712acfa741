"""Runs CLIP ViT-B/32 (random weights) in torch and, where it is installed, OpenVINO, one call at a time: peers.py THREADS

Prints the calls that it knows as one line of JSON; then, for each line of standard input, a number, runs that call once and
prints its seconds. So a benchmark can take turns with it.
"""
import copy
import json
import sys
import time
import warnings

import torch
from transformers import CLIPConfig, CLIPModel

warnings.filterwarnings("ignore")  # what tracing and renamed options say
threads = int(sys.argv[1])
torch.set_num_threads(threads)
torch.manual_seed(0)
calls = []


def add(name, shape, dtype, impl, run):
    for _ in range(2):
        run()
    calls.append((dict(name=name, shape=shape, dtype=dtype, impl=impl), run))


def inputs(batch, dtype=torch.float32):
    pixels = torch.randn(batch, 3, 224, 224, dtype=dtype)
    ids = torch.randint(0, 49406, (batch, 77))
    ids[:, 7:] = 49407
    return pixels, ids


class Image(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.vision, self.projection = model.vision_model, model.visual_projection

    def forward(self, pixels):
        return self.projection(self.vision(pixel_values=pixels).pooler_output)


def text(model, ids):
    return model.text_projection(model.text_model(input_ids=ids).pooler_output)


def add_torch(model, dtype, label):
    image = Image(model)
    for batch in (1, 32):
        pixels, ids = inputs(batch, dtype)
        add(f"clip_b32_image_b{batch}", [batch, 224, 224, 3], label, "torch", lambda pixels=pixels: image(pixels))
        for tokens in (77, 8):
            add(f"clip_b32_text{tokens}_b{batch}", [batch, tokens], label, "torch", lambda ids=ids[:, :tokens]: text(model, ids))


def add_openvino(model):
    try:
        import openvino as ov
    except ImportError:
        print("openvino is not installed: left out", file=sys.stderr)
        return
    core = ov.Core()
    for batch in (1, 32):
        pixels, _ = inputs(batch)
        graph = ov.convert_model(Image(model).eval(), example_input=pixels, input=[list(pixels.shape)])
        for label in ("f32", "bf16"):
            compiled = core.compile_model(graph, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": label, "PERFORMANCE_HINT": "LATENCY"})
            add(f"clip_b32_image_b{batch}", [batch, 224, 224, 3], label, "openvino",
                lambda request=compiled.create_infer_request(), data=pixels.numpy(): request.infer([data]))


with torch.inference_mode():
    model = CLIPModel(CLIPConfig()).eval()
    add_openvino(model)
    add_torch(model, torch.float32, "f32")
    add_torch(copy.deepcopy(model).to(torch.bfloat16), torch.bfloat16, "bf16")
    print(json.dumps([row for row, _ in calls]), flush=True)
    for line in sys.stdin:
        run = calls[int(line)][1]
        begin = time.perf_counter()
        run()
        print(time.perf_counter() - begin, flush=True)
