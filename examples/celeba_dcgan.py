"""A DCGAN trained on CelebA by somebody else (Apache-2.0), as a generator of 32 px faces."""

import os
from pathlib import Path

import torch
from torch import nn

import pulse_audit as pa

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "weights"


def build() -> pa.Generator:
    folder = Path(os.environ.get("PULSE_AUDIT_WEIGHTS", BESIDE))
    layers = nn.Sequential(
        nn.Sequential(nn.ConvTranspose2d(100, 256, 4, bias=False), nn.BatchNorm2d(256)),
        block(nn.Conv2d(256, 128, 3, padding=1, bias=False)),
        *(block(nn.ConvTranspose2d(c, c // 2, 4, 2, 1, bias=False)) for c in (128, 64)),
        nn.Sequential(nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh()),
    )
    stored = torch.load(folder / "celeba_dcgan32.pt", weights_only=True, map_location="cpu")
    layers.load_state_dict({k.removeprefix("generator_deconv."): v for k, v in stored.items()})
    return pa.as_generator(nn.Sequential(nn.Unflatten(1, (100, 1, 1)), layers), name="celeba-dcgan32",
                           latent_dim=100, prior="uniform", crop="celeba", licence="Apache-2.0",
                           training_data="CelebA")  # fmt: skip


def block(convolution: nn.Module) -> nn.Module:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.LeakyReLU(0.2))
