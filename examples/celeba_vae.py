"""A VAE trained on CelebA by somebody else (MIT), as a generator of 64 px faces: z ~ N(0, I)^10."""

import os
from pathlib import Path

import torch
from torch import nn

import pulse_audit as pa

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "weights"
LINEAR = [nn.Linear(10, 256), nn.Linear(256, 256), nn.Linear(256, 512)]
UP = [nn.ConvTranspose2d(32, c, 4, 2, 1) for c in (32, 32, 32, 3)]


def build() -> pa.Generator:
    folder = Path(os.environ.get("PULSE_AUDIT_WEIGHTS", BESIDE))
    layers = [m for layer in LINEAR for m in (layer, nn.ReLU())] + [nn.Unflatten(1, (32, 4, 4))]
    layers += [m for layer in UP for m in (layer, nn.ReLU())][:-1] + [nn.Sigmoid()]
    stored = torch.load(folder / "celeba_vae64.pt", weights_only=True, map_location="cpu")
    names = ["lin1", "lin2", "lin3", "convT_64", "convT1", "convT2", "convT3"]
    for name, layer in zip(names, LINEAR + UP, strict=True):
        layer.load_state_dict({k: stored[f"decoder.{name}.{k}"] for k in ("weight", "bias")})
    return pa.as_generator(nn.Sequential(*layers), name="celeba-vae64", latent_dim=10,
                           output_range=(0, 1), crop="celeba", licence="MIT",
                           training_data="CelebA")  # fmt: skip
