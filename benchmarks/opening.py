"""The README's opening picture: ``python -m benchmarks.opening``, after ``make reports``.

A published generator in pictures of nobody: samples of its prior, and of the prior that PULSE
searches; samples as inputs, and what the search makes of them. Real faces are there in numbers
alone.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from PIL import Image

from pulse_audit import store
from pulse_audit.fairness.prior import OWN, PULSE
from pulse_audit.harness.prior import Variant, variants_of
from pulse_audit.names import parse_generator
from pulse_audit.seeding import fingerprint

GENERATOR, SAMPLES = "mobilestylegan-ffhq", 7
KEPT, CHANGED = "#1b7837", "#b2182b"
ARMS = {
    f"pulse:{GENERATOR}@256": "PULSE",
    f"pulse:{GENERATOR}@256@full@tied": "full covariance,\none latent",
}
ROWS = {OWN: "the generator's\nown prior", PULSE: "the prior that\nPULSE searches"}


def prior_rows(axes: np.ndarray) -> None:
    """The first samples of the priors, as in the prior table of seed 0."""
    variants, _ = variants_of(parse_generator(GENERATOR))
    named: dict[str, Variant] = {variant.prior: variant for variant in variants}
    for row, (prior, label) in zip(axes, ROWS.items(), strict=True):
        seeds = [fingerprint(0, "prior table", prior, index) for index in range(len(row))]
        images = named[prior].images(seeds, torch.device("cpu"))
        for axis, image in zip(row, images, strict=True):
            show(axis, image.permute(1, 2, 0).numpy())
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)


def face_columns(axes: np.ndarray, run: store.Run) -> None:
    """One face of each group that a run kept: original, input, and the first draw of each arm."""
    samples = run.samples()
    kept = samples[samples["image"].notna() & (samples["draw"] == 0)]
    faces = kept.drop_duplicates("face_id").sort_values("face_id").drop_duplicates("label_race")
    for column, face in zip(axes.T, faces["face_id"], strict=False):
        rows = kept[kept["face_id"] == face].set_index("arm")
        first = rows.iloc[0]
        show(column[0], picture(run.path / store.original_path(face)), first["label_race"])
        show(column[1], picture(run.path / store.lr_path(face, "clean", int(first["scale"]), 0)))
        for axis, arm in zip(column[2:], ARMS, strict=True):
            word = rows.loc[arm, "sr_race"]
            colour = KEPT if word == first["label_race"] else CHANGED
            show(axis, picture(run.path / rows.loc[arm, "image"]), word, colour)
    for row, label in zip(axes, ("face of nobody", "32 px input", *ARMS.values()), strict=True):
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)


def picture(path: Path) -> np.ndarray:
    """Read a picture as an array (H, W, 3)."""
    return np.asarray(Image.open(path).convert("RGB"))


def show(axis: Axes, image: np.ndarray, title: str = "", colour: str = "black") -> None:
    """Show a picture without ticks, with its group below."""
    axis.imshow(image, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=colour != "black", color=colour, linewidth=2.5)
    if title:
        axis.set_xlabel(title.replace("_", " "), fontsize=8, color=colour, labelpad=2)


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.opening", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/reports"))
    parser.add_argument("--out", type=Path, default=Path("docs/opening.png"))
    asked = parser.parse_args()
    matplotlib.use("agg")
    figure = pyplot.figure(figsize=(9.6, 8.2), dpi=110)
    grid = figure.add_gridspec(
        7, SAMPLES, left=0.15, right=0.995, top=0.96, bottom=0.03, hspace=0.26, wspace=0.04,
        height_ratios=[1, 1, 0.2, 1, 1, 1, 1],
    )  # fmt: skip
    above, below = (
        np.array(
            [[figure.add_subplot(grid[row, place]) for place in range(SAMPLES)] for row in rows]
        )
        for rows in ((0, 1), (3, 4, 5, 6))
    )
    prior_rows(above)
    face_columns(below, store.open_run(asked.runs / f"{GENERATOR}-self"))
    for row, title in (
        (above, "MobileStyleGAN for FFHQ, before any input: first samples of two priors"),
        (below, "Its own faces as inputs, and the apparent group of each output (green: kept)"),
    ):
        figure.text(0.155, row[0, 0].get_position().y1 + 0.012, title, fontsize=10, weight="bold")
    figure.savefig(asked.out)


if __name__ == "__main__":
    main()
