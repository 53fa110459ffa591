"""A CelebA VAE's decoder, 64 px: pulse-audit run --generator examples/celeba_vae.py:build."""

import os
from hashlib import sha256
from pathlib import Path

import torch
from torch.nn import ConvTranspose2d, Linear, ReLU, Sequential, Sigmoid, Unflatten

from pulse_audit.generators.adapt import as_generator

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "weights"
NAMES = ("lin1", "lin2", "lin3", "convT_64", "convT1", "convT2", "convT3")
CARD = {"crop": "celeba", "training_data": "CelebA", "licence": "MIT"}


def build():
    path = Path(os.environ.get("PULSE_AUDIT_WEIGHTS", BESIDE)) / "celeba_vae64.pt"
    layers = [Linear(10, 256), Linear(256, 256), Linear(256, 512)]
    layers += [ConvTranspose2d(32, n_out, 4, 2, 1) for n_out in (32, 32, 32, 3)]
    stored = torch.load(path, map_location="cpu", weights_only=True)
    for name, layer in zip(NAMES, layers, strict=True):
        layer.load_state_dict({k: stored[f"decoder.{name}.{k}"] for k in ("weight", "bias")})
    steps = [step for layer in layers for step in (layer, ReLU())]
    net = Sequential(*steps[:6], Unflatten(1, (32, 4, 4)), *steps[6:-1], Sigmoid())
    digest = sha256(path.read_bytes()).hexdigest()
    known = {"name": "celeba-vae64", "latent_dim": 10, "output_range": (0, 1), "sha256": digest}
    return as_generator(net, **known, **CARD)
