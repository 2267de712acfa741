"""Writes golden/peft_prompts/: peft's prefix and prompt tuning on a small decoder (transformers' OPT), outputs and gradients.

    python make_peft_prompts.py             (torch 2.15, transformers 5.23, peft 0.21)
    python make_peft_prompts.py --read DIR  (reads directories that tenon saved back into peft and compares: the test "prefix and
                                             prompt tuning of peft" leaves them in TENON_KEEP; last read: 3.0e-08, 4.8e-08, 2.8e-08)

CLIP's text tower takes neither past_key_values nor inputs_embeds, which peft needs; OPT is the same pre-norm decoder.
Gradients are those of half the sum of squares of the last hidden state. peft saves a prefix of a network as what it has come
to, so the network's own parameters stand in expected.safetensors.
"""
import json
import pathlib
import sys

import torch
from peft import PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import OPTConfig, OPTModel

HERE = pathlib.Path(__file__).parent / "peft_prompts"
IDS = torch.tensor([[4, 0, 8, 9], [4, 4, 2, 1]])


def base():
    torch.manual_seed(1)
    config = OPTConfig(vocab_size=10, hidden_size=12, word_embed_proj_dim=12, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2,
                       max_position_embeddings=7, dropout=0.0, pad_token_id=3, bos_token_id=0, eos_token_id=1)
    model = OPTModel(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * 0.4 + (1.0 if "norm.weight" in name else 0.0))
    return model.eval()


def method(name, config, seed):
    model = get_peft_model(base(), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.prompt_encoder.parameters():
            p.copy_(torch.randn_like(p) * 0.5)
    folder = HERE / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = None
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    model = model.double().eval()
    y = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state
    (y.square().sum() / 2).backward()
    out = {"last_hidden_state": y}
    for n, p in model.prompt_encoder["default"].named_parameters():
        out[n], out["grad." + n] = p, p.grad
    save_file({k: v.detach().float().contiguous() for k, v in out.items()}, folder / "expected.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


def read(folder):
    for name in ("prefix", "prefix_projection", "prompt"):
        model = PeftModel.from_pretrained(base(), pathlib.Path(folder) / name).double().eval()
        expected = load_file(HERE / name / "expected.safetensors")["last_hidden_state"]
        error = (model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state - expected).abs().max() / expected.abs().max()
        print(name, f"{error:.1e}")
        assert error < 1e-5


if __name__ == "__main__":
    if len(sys.argv) == 3:
        read(sys.argv[2])
    else:
        HERE.mkdir(exist_ok=True)
        save_file({k.removeprefix("decoder."): v for k, v in base().state_dict().items()}, HERE / "base.safetensors")
        (HERE / "base.safetensors").chmod(0o644)
        method("prefix", PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3), 2)
        method("prefix_projection", PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=7), 3)
        method("prompt", PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3), 4)
