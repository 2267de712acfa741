"""Writes golden/peft_lycoris/: files of LyCORIS' methods on the model of golden/peft_methods, outputs, weights and gradients.

    python make_peft_lycoris.py     (torch 2.15, lycoris_lora 4.1.3; make_peft_methods.py is imported)

Where LyCORIS is not followed: its get_diff_weight multiplies LoHa's and LoKr's delta by the scale twice, so weights are those
of its forward; its norms in weight_decompose carry gradients, which DoRA's paper (4.3) makes constants; and its backward of
LoHa's cores is replaced by torch's own.
"""
import pathlib

import torch
from lycoris.modules import full, locon, loha, lokr, norms
from safetensors.torch import save_file

from make_peft_methods import last, make_weight_cp, model

HERE = pathlib.Path(__file__).parent / "peft_lycoris"
EVERY = ["linear", "bare", "conv", "point"]


def weight_decompose(weight, dora_scale, multiplier=1, wd_on_out=True, backend=None):
    axes = [a for a in range(weight.dim()) if a != (0 if wd_on_out else 1)]
    return weight * (dora_scale / torch.linalg.vector_norm(weight, dim=axes, keepdim=True).detach())


def loha_diff_weight(w1b, w1a, w2b, w2a, t1, t2, gamma=1):
    if t1 is not None:
        return make_weight_cp(t1, w1a, w1b, t2, w2a, w2b, gamma)
    return (w1a @ w1b) * (w2a @ w2b) * gamma


for module in (locon, loha, lokr):
    module.weight_decompose = weight_decompose
loha.loha_diff_weight = loha_diff_weight


def method(name, kind, layers, seed, **options):
    base, tokens, picture = model()
    torch.manual_seed(seed)
    modules, file = {}, {}
    for layer in layers:
        org = getattr(base, layer)
        m = kind(f"lycoris_{layer}", org, 1, **options)
        with torch.no_grad():
            for n, p in m.named_parameters():
                p.add_(torch.randn_like(p) * 0.3) if "dora" in n else p.copy_(torch.randn_like(p) * 0.3)
        file |= {f"lycoris_{layer}.{k}": v.detach().clone().contiguous() for k, v in m.custom_state_dict().items()} if kind not in (full.FullModule, norms.NormModule) else (
            {f"lycoris_{layer}.{k}": v.detach().clone() for k, v in m.named_parameters()})
        modules[layer] = m
    if kind is full.FullModule:
        file = {k.replace(".weight", ".diff").replace(".bias", ".diff_b"): v for k, v in file.items()}
    HERE.mkdir(exist_ok=True)
    save_file(file, HERE / f"{name}.safetensors")
    base.double()
    out = {}
    for layer, m in modules.items():
        m.double()
        if kind is not full.FullModule:
            org = getattr(base, layer)
            w = org.weight
            if kind is norms.NormModule:
                out[f"merged.{layer}.weight"], out[f"merged.{layer}.bias"] = m.make_weight(1)
            else:
                delta = m.get_weight(w.shape) if kind in (loha.LohaModule, lokr.LokrModule) else m.make_weight().reshape(w.shape) * m.scale
                out[f"merged.{layer}.weight"] = m.apply_weight_decompose(w + delta) if m.wd else w + delta
        else:
            org = getattr(base, layer)
            out[f"merged.{layer}.weight"] = org.weight + m.weight
            if org.bias is not None:
                out[f"merged.{layer}.bias"] = org.bias + m.bias
        out = {k: v.detach().clone() for k, v in out.items()}
        m.apply_to()
    y = base(tokens.double(), picture.double())
    out |= {k: last(v) for k, v in y.items() if k in layers}
    sum(v.square().sum() / 2 for k, v in y.items() if k in layers).backward()
    names = {"lora_down.weight": "lora_A.weight", "lora_mid.weight": "lora_mid.weight", "lora_up.weight": "lora_B.weight"}
    for layer, m in modules.items():
        for n, p in m.named_parameters():
            if p.grad is None or n.startswith("org_"):
                continue
            n = names.get(n, n)
            if kind is full.FullModule:
                n = {"weight": "diff", "bias": "diff_b"}[n]
            out[f"grad.{layer}.{n}"] = p.grad
    save_file({k: v.detach().float().contiguous() for k, v in out.items()}, HERE / f"{name}_expected.safetensors")
    for path in HERE.glob(f"{name}*.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    method("locon", locon.LoConModule, EVERY, 1, lora_dim=3, alpha=5)
    method("locon_tucker", locon.LoConModule, ["conv"], 2, lora_dim=3, alpha=5, use_tucker=True)
    method("dora_out", locon.LoConModule, EVERY, 3, lora_dim=3, alpha=5, weight_decompose=True, wd_on_out=True)
    method("dora_in", locon.LoConModule, EVERY, 4, lora_dim=3, alpha=5, weight_decompose=True, wd_on_out=False)
    method("dora_tucker", locon.LoConModule, ["conv"], 5, lora_dim=3, alpha=5, use_tucker=True, weight_decompose=True, wd_on_out=True)
    method("loha", loha.LohaModule, EVERY, 6, lora_dim=3, alpha=5)
    method("loha_tucker", loha.LohaModule, ["conv"], 7, lora_dim=3, alpha=5, use_tucker=True)
    method("loha_dora", loha.LohaModule, EVERY, 8, lora_dim=3, alpha=5, weight_decompose=True, wd_on_out=True)
    method("lokr", lokr.LokrModule, EVERY, 9, lora_dim=1, alpha=5, factor=2)
    method("lokr_both", lokr.LokrModule, ["linear", "conv"], 10, lora_dim=1, alpha=5, factor=2, decompose_both=True, use_tucker=True)
    method("lokr_dora", lokr.LokrModule, EVERY, 11, lora_dim=1, alpha=5, factor=2, weight_decompose=True, wd_on_out=False)
    method("full", full.FullModule, EVERY, 12)
    method("norm", norms.NormModule, ["norm", "group"], 13)
