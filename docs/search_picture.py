"""Draws docs/search.png: faces of nobody, their 8 px inputs, and what PULSE finds for them.

The originals are samples of the generator itself (examples/celeba_dcgan.py), so no one is shown.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import pulse_audit as pa
from pulse_audit.degrade.resample import downscale

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

SCALE, FACES, SEEDS = 4, (3, 9, 25), (0, 1, 2, 3)


def main() -> None:
    from celeba_dcgan import build

    generator = build()
    latents = torch.randn(32, 1, 100, generator=torch.Generator().manual_seed(0))
    originals = generator.synthesize(latents, []).detach()[list(FACES)]
    inputs = downscale(originals, SCALE).clamp(0, 1)
    found = pa.Pulse(generator, scale=SCALE).upsample(inputs, seeds=SEEDS)
    columns = 2 + len(SEEDS)
    figure, axes = plt.subplots(
        len(FACES), columns, figsize=(1.35 * columns, 1.5 * len(FACES) + 0.2), layout="constrained"
    )
    for row, axis in enumerate(axes):
        searched = found[row * len(SEEDS) : (row + 1) * len(SEEDS)]
        pictures = [originals[row], inputs[row], *(s.image for s in searched)]
        words = ["", "", *(f"{s.status}, MSE {s.downscale_error:.4f}" for s in searched)]
        for cell, picture, word in zip(axis, pictures, words, strict=True):
            cell.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
            cell.set_xticks([], [])
            cell.set_yticks([], [])
            cell.set_xlabel(word, fontsize=7)
            cell.spines[:].set_visible(False)
    heads = ["original", f"input, {32 // SCALE} px", *(f"search {seed}" for seed in SEEDS)]
    for cell, head in zip(axes[0], heads, strict=True):
        cell.set_title(head, fontsize=9)
    figure.savefig(HERE / "search.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
