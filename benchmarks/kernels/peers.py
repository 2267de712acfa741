# The Python side of benchmarks/kernels: torch and OpenVINO, whichever this Python has, asked over stdin and stdout.
#   gemm M N K X W | conv N H W C OUT K PAD X W | attention N HEADS LQ LK D Q K V   (files of float32)
#       -> one line: the peers, as "torch:f32 torch:bf16 openvino:f32 ..."
#   run I -> seconds of one call of peer I;  result I FILE -> writes its output as tenon lays it out, in float32
import sys
import time

import numpy as np

threads = int(sys.argv[1])
try:
    import torch
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
except ImportError:
    torch = None
try:
    import openvino as ov
    from openvino import opset13 as ops
    core = ov.Core()
except ImportError:
    ov = None


def read(path, *shape):
    return np.fromfile(path, np.float32).reshape(shape)


def with_torch(function, tensors, unpack):
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        inputs = [t.to(dtype) for t in tensors]  # to() keeps the memory format
        yield "torch:" + name, lambda i=inputs: function(*i), lambda y: unpack(y.float()).contiguous().numpy()


def with_openvino(build, inputs, unpack):
    for name in ("f32", "bf16"):
        parameters = [ops.parameter(i.shape, np.float32) for i in inputs]
        hints = {"INFERENCE_PRECISION_HINT": name, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        model = core.compile_model(ov.Model([build(*parameters)], parameters), "CPU", hints)
        request = model.create_infer_request()
        for i, value in enumerate(inputs):
            request.set_input_tensor(i, ov.Tensor(np.ascontiguousarray(value)))

        def call(request=request):
            request.infer()
            return request.get_output_tensor().data
        yield "openvino:" + name, call, lambda y: np.ascontiguousarray(unpack(np.array(y)))


def gemm(m, n, k, x, w):
    x, w = read(x, m, k), read(w, n, k)
    if torch:
        yield from with_torch(torch.nn.functional.linear, [torch.from_numpy(x), torch.from_numpy(w)], lambda y: y)
    if ov:
        yield from with_openvino(lambda p: ops.matmul(p, ops.constant(w), False, True), [x], lambda y: y)


def conv(n, h, w, c, out, k, pad, x, weight):
    x, weight = read(x, n, h, w, c).transpose(0, 3, 1, 2), read(weight, out, c, k, k)
    if torch:
        last = [torch.from_numpy(a.copy()).contiguous(memory_format=torch.channels_last) for a in (x, weight)]
        yield from with_torch(lambda a, b: torch.nn.functional.conv2d(a, b, padding=pad), last, lambda y: y.permute(0, 2, 3, 1))
    if ov:  # NCHW in and out, with its reorders: alone it knows no other way
        yield from with_openvino(lambda p: ops.convolution(p, ops.constant(weight), [1, 1], [pad, pad], [pad, pad], [1, 1]), [x],
                                 lambda y: y.transpose(0, 2, 3, 1))


def attention(n, heads, lq, lk, d, q, k, v):
    inputs = [read(f, n, length, heads, d).transpose(0, 2, 1, 3).copy() for f, length in ((q, lq), (k, lk), (v, lk))]
    if torch:
        yield from with_torch(torch.nn.functional.scaled_dot_product_attention, [torch.from_numpy(i) for i in inputs], lambda y: y.transpose(1, 2))
    if ov:
        yield from with_openvino(lambda a, b, c: ops.scaled_dot_product_attention(a, b, c), inputs, lambda y: y.transpose(0, 2, 1, 3))


print("ready", torch.__version__ if torch else "-", ov.__version__ if ov else "-", flush=True)
peers = []
for line in sys.stdin:
    name, *arguments = line.split()
    if name == "run":
        call = peers[int(arguments[0])][1]
        begin = time.perf_counter()
        call()
        print(time.perf_counter() - begin, flush=True)
    elif name == "result":
        _, call, unpack = peers[int(arguments[0])]
        unpack(call()).astype(np.float32).tofile(arguments[1])
        print("done", flush=True)
    else:
        numbers = [int(a) if a.lstrip("-").isdigit() else a for a in arguments]
        peers = list({"gemm": gemm, "conv": conv, "attention": attention}[name](*numbers))
        print(" ".join(p[0] for p in peers), flush=True)
