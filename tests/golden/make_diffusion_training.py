"""Writes golden/diffusion_training.safetensors: batches, losses and gradients of diffusers' train_text_to_image.py, and of the
loss of an autoencoder.

    python make_diffusion_training.py        (torch 2.15, diffusers 0.42.1)
"""
import pathlib

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.training_utils import compute_snr
from safetensors.torch import save_file

FILE = pathlib.Path(__file__).parent / "diffusion_training.safetensors"
SCHEDULES = {"sd": dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012), "cosine": dict(beta_schedule="squaredcos_cap_v2"),
             "zero": dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, rescale_betas_zero_snr=True)}


def last(x):
    return x.permute(0, 2, 3, 1).contiguous()


def main():
    torch.manual_seed(1)
    latents, answer = torch.randn(3, 4, 5, 2), torch.randn(3, 4, 5, 2)
    out = {"samples": last(latents), "answer": last(answer)}
    for schedule, options in SCHEDULES.items():
        scheduler = DDPMScheduler(**options)
        for prediction in ["epsilon", "v_prediction", "sample"]:
            for gamma in [None, 5.0]:
                torch.manual_seed(7)
                noise = torch.randn_like(latents)
                noise += 0.1 * torch.randn((3, 4, 1, 1))
                new_noise = noise + 0.2 * torch.randn_like(noise)
                timesteps = torch.randint(0, 1000, (3,)).long()
                noisy = scheduler.add_noise(latents, new_noise, timesteps)
                target = {"epsilon": noise, "sample": latents, "v_prediction": scheduler.get_velocity(latents, noise, timesteps)}[prediction]
                model = answer.clone().requires_grad_()
                if gamma is None:
                    loss = F.mse_loss(model, target)
                else:
                    snr = compute_snr(scheduler, timesteps)
                    weights = torch.stack([snr, gamma * torch.ones_like(timesteps)], dim=1).min(dim=1)[0]
                    if prediction == "epsilon":
                        weights = weights / snr
                    elif prediction == "v_prediction":
                        weights = weights / (snr + 1)
                    loss = (F.mse_loss(model, target, reduction="none").mean(dim=[1, 2, 3]) * weights).mean()
                loss.backward()
                name = f"{schedule}.{prediction}.{'plain' if gamma is None else 'gamma'}."
                out |= {name + "noisy": last(noisy), name + "target": last(target), name + "timesteps": timesteps.float(), name + "loss": loss.detach(),
                        name + "grad": last(model.grad)}
    pictures = torch.rand(2, 3, 4, 6) * 2 - 1
    made, moments = torch.randn(2, 3, 4, 6).requires_grad_(), (torch.randn(2, 8, 2, 3) * 2).requires_grad_()
    error = made - pictures
    loss = (error.abs().mean() + 0.5 * error.square().mean() + 0.7 * (error[:, :, 1:] - error[:, :, :-1]).abs().mean()
            + 0.7 * (error[:, :, :, 1:] - error[:, :, :, :-1]).abs().mean() + 0.01 * DiagonalGaussianDistribution(moments).kl().mean())
    loss.backward()
    out |= {"vae.pictures": last(pictures), "vae.made": last(made.detach()), "vae.moments": last(moments.detach()), "vae.loss": loss.detach(),
            "vae.grad_made": last(made.grad), "vae.grad_moments": last(moments.grad)}
    save_file(out, FILE)
    FILE.chmod(0o644)


main()
