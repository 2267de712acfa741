"""Writes golden/peft/: adapters that peft saved for the model of golden/clip, and for a model of convolutions.

    python make_peft.py             (torch 2.15, transformers 5.23, peft 0.21)
    python make_peft.py --read DIR  (reads a directory that tenon saved back into peft and compares: the test "save_adapter
                                     writes what peft reads" leaves one in TENON_KEEP, "text towers" two beside it; last
                                     read: 5.5e-07, 3.2e-07, 0, 0)

peft drops the dilation of a tuned convolution (peft issue 3697), so that case is computed here as
conv(x, W + s B A, dilation), which is what LoRA means; the adapter file itself is peft's.
"""
import json
import pathlib
import sys
import warnings

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection

GOLDEN = pathlib.Path(__file__).parent
HERE = GOLDEN / "peft"
TARGETS = ["q_proj", "v_proj", "out_proj", "fc1", "token_embedding", "patch_embedding"]


def shake(model, seed):
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, 0.0, 0.15)


def save(model, folder, out):
    model.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)
    save_file({k: v.detach().contiguous() for k, v in out.items()}, folder / "expected.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


def features(clip, data):
    pixels, ids = data["pictures"].permute(0, 3, 1, 2).double(), data["ids"].long()
    vision, text = clip.vision_model(pixel_values=pixels), clip.text_model(input_ids=ids)
    return {"image_features": clip.visual_projection(vision.pooler_output), "text_features": clip.text_projection(text.pooler_output)}


def base():
    return CLIPModel.from_pretrained(GOLDEN / "clip", dtype=torch.float32).eval(), load_file(GOLDEN / "clip/expected_quick_gelu.safetensors")


def clip_adapter(folder, seed, **options):
    clip, data = base()
    model = get_peft_model(clip, LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, **options))
    shake(model, seed)
    model = model.double().eval()
    out = features(model.base_model.model, data)
    model.base_model.model(input_ids=data["ids"].long(), pixel_values=data["pictures"].permute(0, 3, 1, 2).double(), return_loss=True).loss.backward()
    kinds = ["text_model.embeddings.token_embedding", "text_model.encoder.layers.1.self_attn.v_proj", "vision_model.embeddings.patch_embedding",
             "vision_model.encoder.layers.0.mlp.fc1"]
    for name, p in model.named_parameters():
        if p.grad is not None and any(k in name for k in kinds):
            out["grad." + name.removeprefix("base_model.model.").replace(".default", "")] = p.grad.float()
    model = model.float()
    merged = model.merge_and_unload()
    for kind in kinds:
        out["merged." + kind + ".weight"] = merged.get_submodule(kind).weight.float()
    clip, _ = base()
    again = get_peft_model(clip, LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, **options))
    shake(again, seed)
    save(again, HERE / folder, out)


def tower(kind):
    return kind.from_pretrained(GOLDEN / "clip", dtype=torch.float32).eval(), load_file(GOLDEN / "clip/expected_quick_gelu.safetensors")["ids"].long()


TOWERS = {"text": CLIPTextModel, "text_projected": CLIPTextModelWithProjection}


def text_tower(folder):
    """transformers 5 names the modules of a CLIPTextModel without text_model, those of the others with it."""
    model, ids = tower(TOWERS[folder])
    model = get_peft_model(model, LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "fc2"], alpha_pattern={"layers.1.self_attn.q_proj": 5}))
    shake(model, 7)
    save(model, HERE / folder, {"last_hidden_state": model.base_model.model(input_ids=ids).last_hidden_state})


class Convolutions(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.strided = torch.nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.grouped = torch.nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.dilated = torch.nn.Conv2d(6, 8, 3, padding=2, dilation=2)


def convolutions():
    torch.manual_seed(3)
    model = Convolutions()
    weights = {"base." + k: v.clone() for k, v in model.state_dict().items()}
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=["strided", "grouped", "dilated"], rank_pattern={"strided": 3}))
    shake(adapted, 4)
    x = torch.randn(2, 6, 7, 9)
    inner = adapted.base_model.model
    d = inner.dilated
    a, b = d.lora_A["default"].weight, d.lora_B["default"].weight
    w = d.base_layer.weight + 6 / 4 * (b.flatten(1) @ a.flatten(1)).view_as(d.base_layer.weight)
    out = {"strided": inner.strided(x), "grouped": inner.grouped(x), "dilated": F.conv2d(x, w, d.base_layer.bias, padding=2, dilation=2)}
    out = {k: v.permute(0, 2, 3, 1) for k, v in out.items()} | weights | {"x": x.permute(0, 2, 3, 1)}
    save(adapted, HERE / "convolutions", out)


def read(folder):
    clip, data = base()
    model = PeftModel.from_pretrained(clip, folder).double().eval()
    expected, got = load_file(pathlib.Path(folder) / "expected.safetensors"), features(model.base_model.model, data)
    for name, value in expected.items():
        error = (got[name] - value).abs().max() / value.abs().max()
        print(name, f"{error:.1e}")
        assert error < 1e-5
    for name, kind in TOWERS.items():  # beside DIR
        model, ids = tower(kind)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing")
            model = PeftModel.from_pretrained(model, folder.rstrip("/") + "_" + name.removeprefix("text_"))
        expected, got = load_file(HERE / name / "expected.safetensors")["last_hidden_state"], model.base_model.model(input_ids=ids).last_hidden_state
        error = (got - expected).abs().max() / expected.abs().max()
        print(name, f"{error:.1e}")
        assert error < 1e-5


if __name__ == "__main__":
    if len(sys.argv) == 3:
        read(sys.argv[2])
    else:
        clip_adapter("lora", 1, rank_pattern={"fc1": 3, "layers.1.self_attn.v_proj": 2, "token_embedding": 5}, alpha_pattern={"out_proj": 3.5, "fc1": 5})
        clip_adapter("rslora", 2, use_rslora=True)
        convolutions()
        for folder in TOWERS:
            text_tower(folder)
