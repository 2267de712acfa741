"""Times one model of Stable Diffusion 1.5 (random weights) in torch or OpenVINO: peers.py step|decode torch|openvino f32|bf16 SIDE THREADS

Prints one row of JSON; nothing where OpenVINO is not installed. torch runs channels last, which is its faster layout.
"""
import json
import resource
import sys
import time
import warnings

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

warnings.filterwarnings("ignore")  # what tracing and renamed options say
kind, impl, dtype, side, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
torch.set_num_threads(threads)
torch.manual_seed(0)


class Step(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)

    def forward(self, x, t, states):
        return self.unet(x, t, states, return_dict=False)[0]


class Decode(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                                 down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)

    def forward(self, z):
        return self.vae.decode(z, return_dict=False)[0]


model = (Step if kind == "step" else Decode)().eval()
batch = 2 if kind == "step" else 1
inputs = [torch.randn(batch, 4, side, side)] + ([torch.tensor(981.0), torch.randn(2, 77, 768)] if kind == "step" else [])
with torch.inference_mode():
    if impl == "openvino":
        try:
            import openvino as ov
        except ImportError:
            sys.exit()
        converted = ov.convert_model(model, example_input=tuple(inputs), input=[list(i.shape) for i in inputs])
        del model
        compiled = ov.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": dtype, "INFERENCE_NUM_THREADS": threads,
                                                              "PERFORMANCE_HINT": "LATENCY"})
        request, arrays = compiled.create_infer_request(), [i.numpy() for i in inputs]
        run = lambda: request.infer(arrays)
    else:
        type_ = torch.bfloat16 if dtype == "bf16" else torch.float32
        model = model.to(type_).to(memory_format=torch.channels_last)
        inputs = [i.to(type_) for i in inputs]
        inputs[0] = inputs[0].to(memory_format=torch.channels_last)
        run = lambda: model(*inputs)
    run()
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
print(json.dumps(dict(dtype=dtype, impl=impl, shape=[batch, side, side, 4], seconds=min(seconds), seconds_median=sorted(seconds)[1],
                      peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)))
