"""Draws docs/search.png: synthetic faces, their 8 px inputs, and outputs of PULSE with each twin.

The originals are, for four groups, the shipped evaluation faces to which the shipped attribute net
gives the highest probability of the group. The words below the pictures are the net's predictions.
Nothing was chosen by eye.
"""

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import pulse_audit as pa
from pulse_audit.degrade.resample import downscale
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.generators import load_generator
from pulse_audit.models.shipped import ASSETS, GENERATORS
from pulse_audit.types import AttributeModel

HERE = Path(__file__).resolve().parent
FACES = ASSETS / "synthetic-faces"
GROUPS = ("Black", "Indian", "East Asian", "White")
SCALE, SEEDS = 4, (0, 1)


def originals(net: AttributeModel) -> torch.Tensor:
    """The face of every group with the highest probability, (n, 3, R, R) in [0, 1]."""
    with (FACES / "labels.csv").open(newline="") as table:
        files = [row["file"] for row in csv.DictReader(table)]
    pixels = np.stack([np.asarray(Image.open(FACES / file)) for file in files])
    faces = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    probabilities = net(faces).probabilities["race"]
    words = net.card.vocabulary["race"]
    return faces[[int(probabilities[:, words.index(group)].argmax()) for group in GROUPS]]


def main() -> None:
    net = load_attributes(None, "cpu")
    faces = originals(net)
    inputs = downscale(faces, SCALE).clamp(0, 1)
    images = [
        [
            result.image
            for result in pa.Pulse(load_generator(name), scale=SCALE).upsample(inputs, SEEDS)
        ]
        for name in GENERATORS
    ]
    words = net.card.vocabulary["race"]

    def apparent(image: torch.Tensor) -> str:
        return words[int(net(image[None]).probabilities["race"].argmax())].replace("_", " ")

    columns = 2 + len(SEEDS) * len(GENERATORS)
    figure, axes = plt.subplots(
        len(GROUPS),
        columns,
        figsize=(1.35 * columns, 1.5 * len(GROUPS) + 0.3),
        layout="constrained",
    )
    for row, axis in enumerate(axes):
        searched = [
            image for drawn in images for image in drawn[row * len(SEEDS) : (row + 1) * len(SEEDS)]
        ]
        pictures = [faces[row], inputs[row], *searched]
        captions = [apparent(faces[row]), "", *map(apparent, searched)]
        for cell, picture, caption in zip(axis, pictures, captions, strict=True):
            cell.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
            cell.set_xticks([], [])
            cell.set_yticks([], [])
            cell.set_xlabel(caption, fontsize=8)
            cell.spines[:].set_visible(False)
    heads = ["original", f"input, {faces.shape[-1] // SCALE} px"]
    heads += [name for name in GENERATORS for _ in SEEDS]
    for cell, head in zip(axes[0], heads, strict=True):
        cell.set_title(head, fontsize=9)
    figure.savefig(HERE / "search.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
