"""Writes golden/peft_methods/: adapters of peft's other methods on a small model, their outputs, merged weights and gradients.

    python make_peft_methods.py     (torch 2.15, peft 0.21, diffusers 0.42)

golden/peft_methods/base.safetensors holds the model and its input, channels last. Gradients are those of the sum of
squares of all outputs, halved. golden/peft_names/ holds one LoRA of an attention block in the names of every dialect,
renamed by diffusers' own converters.
"""
import json
import pathlib

import torch
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya, convert_unet_state_dict_to_peft
import peft.tuners.loha.layer
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file



def make_weight_cp(t1, w1a, w1b, t2, w2a, w2b, scale):
    """As peft's, differentiated by torch: peft's own backward (and LyCORIS') takes hada_t2 and hada_w2_b for the gradient of
    hada_w1_a, and the other way round, and is off by more than 100 %."""
    factor = [torch.einsum("i j k l, j r, i p -> p r k l", t, b, a) for t, a, b in ((t1, w1a, w1b), (t2, w2a, w2b))]
    return factor[0] * factor[1] * scale


peft.tuners.loha.layer.make_weight_cp = make_weight_cp
GOLDEN = pathlib.Path(__file__).parent
HERE = GOLDEN / "peft_methods"


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(12, 10)
        self.bare = torch.nn.Linear(12, 10, bias=False)
        self.conv = torch.nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.point = torch.nn.Conv2d(6, 8, 1)
        self.grouped = torch.nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.table = torch.nn.Embedding(9, 10)
        self.norm = torch.nn.LayerNorm(12)
        self.group = torch.nn.GroupNorm(3, 6)
        for p in [*self.norm.parameters(), *self.group.parameters()]:
            torch.nn.init.normal_(p, 0.5, 0.5)

    def forward(self, tokens, picture):
        ids = torch.tensor([[4, 0, 8], [4, 4, 2]])
        inputs = {"linear": tokens, "bare": tokens, "norm": tokens, "table": ids}
        return {n: layer(inputs.get(n, picture)) for n, layer in self.named_children()}


def last(y):
    return y.permute(0, 2, 3, 1) if y.dim() == 4 else y


def model():
    torch.manual_seed(1)
    out = Model()
    return out, torch.randn(2, 3, 12), torch.randn(2, 6, 7, 5)


def method(name, config, seed):
    base, tokens, picture = model()
    tuned = get_peft_model(base, config)
    torch.manual_seed(seed)
    for n, p in tuned.named_parameters():
        if p.requires_grad:
            with torch.no_grad():  # magnitudes and factors around what they were
                p.add_(torch.randn_like(p) * 0.3) if "magnitude" in n or "ia3" in n else p.copy_(torch.randn_like(p) * 0.3)
    folder = HERE / name
    tuned.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    for key in ("target_modules", "feedforward_modules"):  # sets, in an order of chance
        if config.get(key):
            config[key] = sorted(config[key])
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)
    tuned = tuned.double()
    y = tuned(tokens.double(), picture.double())
    out = {k: last(v).float() for k, v in y.items()}
    sum(v.square().sum() / 2 for v in y.values()).backward()
    for n, p in tuned.named_parameters():
        if p.grad is not None:
            n = n.removeprefix("base_model.model.").replace(".default", "")
            out["grad." + (n.removesuffix(".weight") if "magnitude" in n else n)] = p.grad.float()
    merged = tuned.merge_and_unload()
    for n, p in merged.named_parameters():
        out["merged." + n] = p.float()
    save_file({k: v.detach().contiguous() for k, v in out.items()}, folder / "expected.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


def methods():
    base, tokens, picture = model()
    HERE.mkdir(exist_ok=True)
    save_file({"base." + k: v for k, v in base.state_dict().items()} | {"tokens": tokens, "picture": picture.permute(0, 2, 3, 1).contiguous()}, HERE / "base.safetensors")
    every = ["linear", "bare", "conv", "point", "grouped"]
    method("ia3", IA3Config(target_modules=every, feedforward_modules=["bare", "point", "grouped"]), 2)
    method("dora", LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=["linear", "bare", "conv", "point"], rank_pattern={"conv": 2}), 3)
    method("dora_rslora", LoraConfig(r=4, lora_alpha=5, use_dora=True, use_rslora=True, target_modules=["linear", "conv"]), 4)
    method("loha", LoHaConfig(r=3, alpha=5, target_modules=every, alpha_pattern={"bare": 2}), 5)
    method("loha_effective", LoHaConfig(r=3, alpha=5, target_modules=every, use_effective_conv2d=True, rank_pattern={"linear": 2}), 6)
    method("lokr", LoKrConfig(r=1, alpha=5, target_modules=every), 7)
    method("lokr_both", LoKrConfig(r=1, alpha=3, target_modules=every, decompose_both=True, decompose_factor=2, use_effective_conv2d=True), 8)
    method("lokr_full", LoKrConfig(r=8, alpha=3, target_modules=every), 9)
    method("lora_bias", LoraConfig(r=3, lora_alpha=5, lora_bias=True, target_modules=["linear", "conv"]), 10)
    method("dora_table", LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=["table", "point"]), 12)
    method("bias_only", LoraConfig(r=3, lora_alpha=5, bias="lora_only", target_modules=["linear", "conv"]), 11)
    method("bias_all", LoraConfig(r=3, lora_alpha=5, bias="all", target_modules=["linear", "conv"]), 14)
    method("dora_bias_all", LoraConfig(r=3, lora_alpha=5, use_dora=True, bias="all", target_modules=["linear", "conv"]), 15)
    method("dora_bias", LoraConfig(r=3, lora_alpha=5, use_dora=True, bias="lora_only", target_modules=["linear", "conv"]), 13)
    stacked()


def stacked():
    """golden/peft_methods/dora and lora_bias on one model, in either order."""
    out = {}
    for order in (["dora", "lora_bias"], ["lora_bias", "dora"]):
        base, tokens, picture = model()
        tuned = PeftModel.from_pretrained(base, HERE / order[0], adapter_name=order[0])
        tuned.load_adapter(HERE / order[1], adapter_name=order[1])
        tuned.base_model.set_adapter(order)
        tuned = tuned.double().eval()
        with torch.no_grad():
            y = tuned(tokens.double(), picture.double())
        out |= {f"{order[0]}.{k}": last(y[k]).float() for k in ("linear", "conv")}
    save_file({k: v.contiguous() for k, v in out.items()}, HERE / "stacked.safetensors")


def names():
    """A LoRA on to_q and to_out.0 of a U-Net's attention and on q_proj and out_proj of a text encoder, in five dialects."""
    folder = GOLDEN / "peft_names"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(12)
    unet, text = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.", "text_model.encoder.layers.0.self_attn."
    today = {}
    for part, modules in (("unet", [unet + "to_q", unet + "to_out.0"]), ("text_encoder", [text + "q_proj", text + "out_proj"])):
        for m in modules:
            today[f"{part}.{m}.lora_A.weight"] = torch.randn(2, 8)
            today[f"{part}.{m}.lora_B.weight"] = torch.randn(8, 2)
    save_file(today, folder / "peft.safetensors")
    before = {k.replace("lora_A", "lora.down").replace("lora_B", "lora.up") if k.startswith("unet") else
              k.replace("lora_A", "lora_linear_layer.down").replace("lora_B", "lora_linear_layer.up"): v for k, v in today.items()}
    save_file(before, folder / "diffusers.safetensors")
    old = {}
    for k, v in before.items():
        k = k.replace("to_q.lora.", "processor.to_q_lora.").replace("to_out.0.lora.", "processor.to_out_lora.")
        old[k.replace("q_proj.lora_linear_layer.", "to_q_lora.").replace("out_proj.lora_linear_layer.", "to_out_lora.")] = v
    save_file(old, folder / "processors.safetensors")
    again = convert_unet_state_dict_to_peft({k.removeprefix("unet."): v for k, v in old.items() if k.startswith("unet")})
    assert {"unet." + k for k in again} == {k for k in today if k.startswith("unet")}, again.keys()
    kohya = convert_state_dict_to_kohya(dict(today))
    alphas = iter([0.5, 1.0, 4.0, 3.0])  # diffusers writes the rank, which loses any other alpha
    kohya = {k: torch.tensor(next(alphas)) if k.endswith(".alpha") else v for k, v in sorted(kohya.items())}
    save_file(kohya, folder / "kohya.safetensors")


if __name__ == "__main__":
    methods()
    names()
