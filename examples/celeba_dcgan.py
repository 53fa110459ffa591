"""A CelebA DCGAN of 32 px: pulse-audit run --generator examples/celeba_dcgan.py:build."""

import os
from hashlib import sha256
from pathlib import Path

import torch
from torch.nn import BatchNorm2d, Conv2d, ConvTranspose2d, LeakyReLU, Sequential, Tanh, Unflatten

from pulse_audit.generators.adapt import as_generator

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "weights"
CARD = {"crop": "celeba-108", "training_data": "CelebA", "licence": "Apache-2.0"}


def build():
    path = Path(os.environ.get("PULSE_AUDIT_WEIGHTS", BESIDE)) / "celeba_dcgan32.pt"
    layers = [ConvTranspose2d(100, 256, 4, bias=False), Conv2d(256, 128, 3, 1, 1, bias=False)]
    layers += [ConvTranspose2d(n, n // 2, 4, 2, 1, bias=False) for n in (128, 64)]
    net = Sequential(*(Sequential(x, BatchNorm2d(x.out_channels), LeakyReLU(0.2)) for x in layers))
    net[0].pop(2)  # no activation after the first
    net.append(Sequential(ConvTranspose2d(32, 3, 4, 2, 1), Tanh()))
    stored = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict({k.removeprefix("generator_deconv."): v for k, v in stored.items()})
    decoder = Sequential(Unflatten(1, (100, 1, 1)), net)
    digest = sha256(path.read_bytes()).hexdigest()
    known = {"name": "celeba-dcgan32", "latent_dim": 100, "prior": "uniform", "sha256": digest}
    return as_generator(decoder, **known, **CARD)
