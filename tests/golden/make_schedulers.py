"""Writes golden/schedulers/: complete runs of diffusers' schedulers (diffusers 0.42, torch 2.15) on a cheap model.

The model is 0.6 sin(x) + 0.3 x t / 1000 of the scaled input; samples are [1, 4, 4, 4]; one generator seeded with 7 gives the first
noise and all later noise, always as float32. cases.json has for each case the scheduler's name, its options, the number of steps,
where the run begins (image to image), and how far diffusers' float32 result is from its float64 one (max|a - b| / max|b|); the
float64 results are in finals.safetensors, with timesteps and sigmas one after the other in `tables`.
Float64 means: the sample and all arithmetic on it; the tables and scalars of a scheduler are float32 in both, as diffusers has them.
A trap is an option switched to a plausible wrong value: it must move the float64 result 10 times further than the tolerance, which
is 20 times the distance and at most 1e-4.
"""
import importlib
import json
import pathlib
import sys
import warnings

import diffusers
import numpy as np
import torch
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
diffusers.utils.logging.set_verbosity_error()
FOLDER = pathlib.Path(__file__).parent / "schedulers"
CLASSES = {
    "ddpm": "DDPMScheduler", "ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler", "heun": "HeunDiscreteScheduler", "lms": "LMSDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler", "dpmpp_2m_sde": "DPMSolverMultistepScheduler", "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler", "tcd": "TCDScheduler",
}
KARRAS = ("euler", "heun", "lms", "dpmpp_2m", "dpmpp_2m_sde", "unipc")
SHAPE = (1, 4, 4, 4)


class Float64Torch:
    """torch for a scheduler's step, where its casts to float32 do nothing."""
    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def make(name, config):
    stem = name.removesuffix("_karras")
    config = {k: v for k, v in config.items() if k != "eta"}
    if stem.startswith("dpmpp"):
        config["algorithm_type"] = "sde-dpmsolver++" if stem.endswith("sde") else "dpmsolver++"
    if name != stem:
        config["use_karras_sigmas"] = True
    return getattr(diffusers, CLASSES[stem]).from_config(config)


def model(x, t):
    return 0.6 * torch.sin(x) + 0.3 * x * (float(t) / 1000)


def run(name, config, steps, begin, dtype):
    scheduler = make(name, config)
    module = importlib.import_module(type(scheduler).__module__)
    scheduler.set_timesteps(steps)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = lambda shape, generator=None, device=None, dtype=None: torch.randn(
            shape, generator=generator, dtype=torch.float32).to(dtype)
    if dtype == torch.float64:
        module.torch = Float64Torch()
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(SHAPE, generator=generator).to(dtype)
    timesteps = scheduler.timesteps
    if begin is None:
        x = x * scheduler.init_noise_sigma
    else:
        timesteps = timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        picture = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).reshape(SHAPE).to(dtype)
        x = scheduler.add_noise(picture, x, timesteps[:1])
    step = type(scheduler).step.__code__.co_varnames
    extra = {"generator": generator} if "generator" in step else {}
    if "eta" in step and "eta" in config:
        extra["eta"] = config["eta"]
    for t in timesteps:
        out = model(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(out, t, x, **extra, return_dict=False)[0]
        assert x.dtype == dtype
    module.torch = torch
    sigmas = getattr(scheduler, "sigmas", torch.zeros(0))
    return x, scheduler.timesteps.float(), sigmas.float()


def error(a, b):
    return ((a.double() - b).abs().max() / b.abs().max()).item()


SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
PLAIN = SD | {"set_alpha_to_one": False, "clip_sample": False}
cases = []


def add(name, config, steps, begin=None, traps=()):
    cases.append({"name": name, "config": config, "steps": steps, "begin": begin, "traps": traps})


for name in [n + k for n in CLASSES for k in (("", "_karras") if n in KARRAS else ("",))]:
    distilled = name in ("lcm", "tcd")
    for prediction in ("epsilon", "v_prediction", "sample"):
        if prediction == "sample" and name in ("euler_a", "pndm"):
            continue
        for spacing in ("leading",) if distilled else ("leading", "trailing", "linspace"):
            for steps in ((1, 4, 8) if distilled else (1, 6, 20)):
                config = PLAIN | {"prediction_type": prediction, "timestep_spacing": spacing}
                if name == "pndm":
                    config["skip_prk_steps"] = steps != 20 or spacing == "trailing"
                traps = []
                if steps == 6:
                    traps = [("beta_schedule", "linear"), ("prediction_type", "v_prediction" if prediction == "epsilon" else "epsilon")]
                    if not name.endswith("_karras"):
                        traps.append(("timestep_spacing", "linspace" if spacing == "leading" else "leading"))
                        if spacing == "leading":
                            traps.append(("steps_offset", 0))
                    if name in ("ddim", "pndm"):
                        traps.append(("set_alpha_to_one", True))
                if name == "pndm" and spacing == "linspace" and not config["skip_prk_steps"]:
                    continue  # diffusers asks for timesteps past the last
                add(name, config, steps, traps=traps)

E = PLAIN | {"prediction_type": "epsilon", "timestep_spacing": "leading"}
V = PLAIN | {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
SD15 = SD | {"num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "trained_betas": None, "clip_sample": False}
SD15_PLAIN = {k: v for k, v in SD15.items() if k != "clip_sample"}  # as DDPM reads an older file
for name in CLASSES:
    few = name in ("lcm", "tcd")
    add(name, {}, 5)                                    # a class's own defaults
    add(name, SD15, 8)                                  # SD 1.5's file, read by another class
    add(name, SD15_PLAIN, 5)
    add(name, E, 8, begin=2 if name != "heun" else 6)   # image to image
    add(name, E | {"beta_schedule": "squaredcos_cap_v2"}, 6)
    add(name, E | {"beta_schedule": "linear", "num_train_timesteps": 800}, 6)
    if name not in ("pndm", "heun", "lms"):
        add(name, V | {"rescale_betas_zero_snr": True}, 6, traps=[("rescale_betas_zero_snr", False)])
for name in ("ddim", "ddpm", "heun", "lcm"):
    add(name, E | {"clip_sample": True, "clip_sample_range": 1.5}, 6, traps=[("clip_sample", False), ("clip_sample_range", 1.0)])
for name in ("ddim", "ddpm", "dpmpp_2m", "unipc", "lcm"):
    add(name, E | {"thresholding": True, "sample_max_value": 2.5, "dynamic_thresholding_ratio": 0.9}, 6,
        traps=[("thresholding", False), ("dynamic_thresholding_ratio", 0.95) if name in ("dpmpp_2m",) else ("sample_max_value", 1.0)])
for name in ("ddim", "tcd"):
    for eta in (0.0, 0.5, 1.0):
        add(name, E | {"eta": eta}, 6, traps=[("eta", 0.25)])
for kind in ("fixed_small_log", "fixed_large"):
    add("ddpm", E | {"variance_type": kind}, 6, traps=[("variance_type", "fixed_small")])
add("ddpm", E, 1000)
add("ddim", E, 250)
for name in ("euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc"):
    for more in ({}, {"use_karras_sigmas": True}):
        add(name, E | more | {"final_sigmas_type": "sigma_min"}, 6, traps=[("final_sigmas_type", "zero")])
for name in KARRAS:
    for steps in (6, 20):
        add(name, E | {"use_exponential_sigmas": True}, steps, traps=[("use_exponential_sigmas", False)])
        add(name, E | {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0}, steps)
for name in ("dpmpp_2m", "dpmpp_2m_sde", "unipc"):
    for order in (1, 3):
        for steps in (6, 20):
            add(name, E | {"solver_order": order, "timestep_spacing": "linspace"}, steps, traps=[("solver_order", 2)])
            add(name, E | {"solver_order": order, "prediction_type": "v_prediction", "use_karras_sigmas": True}, steps)
    add(name, E | {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"}, 6, traps=[("lower_order_final", True)])
for name in ("dpmpp_2m", "dpmpp_2m_sde"):
    add(name, E | {"solver_type": "heun"}, 6, traps=[("solver_type", "midpoint")])
    add(name, E | {"euler_at_final": True, "final_sigmas_type": "sigma_min"}, 20, traps=[("euler_at_final", False)])
    add(name, E | {"lambda_min_clipped": -2.0, "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "linspace"}, 6,
        traps=[("lambda_min_clipped", -50.0)])
add("unipc", E | {"solver_type": "bh1"}, 6, traps=[("solver_type", "bh2")])
add("unipc", E | {"disable_corrector": [0, 2]}, 6)
add("lcm", E | {"original_inference_steps": 100, "timestep_scaling": 0.01}, 8, traps=[("original_inference_steps", 50), ("timestep_scaling", 10.0)])
add("tcd", E | {"original_inference_steps": 100}, 8, traps=[("original_inference_steps", 50)])
for name in ("ddim", "ddpm"):  # alpha_bar is 0 at the first timestep: the predicted x_0 is infinite, and then clipped
    add(name, E | {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "clip_sample": True}, 6)

rows, finals, tables, seen, at = [], [], [], {}, 0
for case in cases:
    name, config, steps, begin = (case[k] for k in ("name", "config", "steps", "begin"))
    try:
        single, timesteps, sigmas = run(name, config, steps, begin, torch.float32)
        final, _, _ = run(name, config, steps, begin, torch.float64)
    except Exception as e:
        print("left out:", name, config, steps, type(e).__name__, e)
        continue
    if not final.isfinite().all():
        print("not finite:", name, config, steps)
        continue
    distance = error(single, final)
    tolerance = min(20 * distance, 1e-4)
    if tolerance == 1e-4:
        print("coarse:", name, config, steps, distance)
    row = {"name": name, "config": config, "steps": steps, "distance": float(f"{distance:.3g}")}
    if begin is not None:
        row["begin"] = begin
    key = name + json.dumps({k: v for k, v in config.items() if k not in ("prediction_type", "eta")}, sort_keys=True) + str(steps)
    if steps <= 50:
        if key not in seen:
            seen[key] = [at, len(timesteps), len(sigmas)]
            tables += [timesteps, sigmas]
            at += len(timesteps) + len(sigmas)
        row["table"] = seen[key]
    kept = []
    for option, value in case["traps"]:
        if config.get(option) == value or (option == "prediction_type" and name == "pndm" and value == "sample"):
            continue
        moved = error(run(name, config | {option: value}, steps, begin, torch.float64)[0], final)
        if moved <= 10 * tolerance:
            print("blind:", name, config, steps, option, value, moved, tolerance)
            continue
        kept.append({"option": option, "value": json.dumps(value).strip('"'), "moved": float(f"{moved:.3g}")})
    if kept:
        row["traps"] = kept
    rows.append(row)
    finals.append(final.flatten())
FOLDER.mkdir(exist_ok=True)
(FOLDER / "cases.json").write_text("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]\n")
save_file({"finals": torch.stack(finals), "tables": torch.cat(tables)}, FOLDER / "finals.safetensors")
distances = sorted(r["distance"] for r in rows)
print(len(rows), "cases; distances", distances[0], distances[len(rows) // 2], distances[-1])
