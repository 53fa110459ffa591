"""From the state of a training run to a model that can be shipped."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from pulse_audit.files import atomic_write
from pulse_audit.generators.gaussianise import fit_gaussian
from pulse_audit.generators.native_format import save_generator
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.training.checkpoint import newest, read_numbers
from pulse_audit.training.config import GanConfig
from pulse_audit.training.data import DARKEST, TrainingSet, counts, load_set
from pulse_audit.training.samples import sample, save_sheet

ATTRIBUTION = (
    "Karkkainen and Joo 2021, FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age "
    "for Bias Measurement and Mitigation (WACV); https://github.com/joojs/fairface; CC BY 4.0; "
    "photos reduced in size"
)
SHEET_SEED = 2
#: Models of fewer pixels stand in until these are trained.
FINAL_RESOLUTION = 64


def export(config: GanConfig, state: Path, folder: Path, name: str | None = None) -> Path:
    """Write the averaged generator of a run and what belongs to it into a folder.

    Parameters
    ----------
    config : GanConfig
        The run.
    state : Path
        Folder of its state, with at least one checkpoint.
    folder : Path
        Where ``<name>.safetensors`` goes, with its card ``<name>.json``, the Gaussian fit
        ``<name>-fit.safetensors``, 96 samples ``<name>.png`` and ``<name>-images.txt.gz``, which
        lists every training photo: SHA-256 of its encoded bytes, file name.
    name : str, optional
        What the model is called; default the name of the run.

    Returns
    -------
    Path
        The weights.

    Raises
    ------
    InputError
        If the state cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = name or config.name
    network, training = averaged(config, state), load_set(state / "images.npz")
    weights, photos = folder / f"{name}.safetensors", list_photos(training.files, training.digests)
    atomic_write(folder / f"{name}-images.txt.gz", photos)
    fit = fit_gaussian(lambda z: network.mapping(z)[:, 0], network.z_dim)
    save_file({"mean": fit.mean, "std": fit.std}, folder / f"{name}-fit.safetensors")
    save_sheet(sample(network, 96, SHEET_SEED), 12, folder / f"{name}.png")
    steps = int(read_numbers(newest(state))["step"])
    save_generator(network, weights, card(config, training, steps, photos) | {"name": name})
    return weights


def averaged(config: GanConfig, state: Path) -> StyleGAN2:
    """Load the averaged generator of a run's newest checkpoint, frozen, with the mean of its w."""
    network = StyleGAN2(config.generator_config())
    network.load_state_dict(load_file(newest(state) / "average.safetensors"))
    network.map.estimate_average()
    return network.eval().requires_grad_(False)


def card(config: GanConfig, training: TrainingSet, steps: int, photos: bytes) -> dict[str, Any]:
    """Say what is known of the model without measuring it; ``photos`` is the list of its photos."""
    kimg = steps * config.batch / 1000
    return {
        "name": config.name,
        "title": f"{sum(counts(training).values()):,} FairFace photos, {_mixture(training)}",
        "resolution": config.resolution,
        **_standing(config, kimg),
        "crop": "fairface-0.25",
        "licence": "Apache-2.0",
        "training_data": (
            f"{len(training.images):,} photos of FairFace's training part, {config.resolution} px"
        ),
        "attribution": ATTRIBUTION,
        "composition": counts(training),
        "selection": (
            f"{config.held_out_per_cell} faces of each race and gender were held out first, spread "
            f"over the ages; photos of a mean luma below {DARKEST:g} of 255 were left out; the "
            "rest was chosen by a seeded order of file names"
        ),
        "photos_sha256": hashlib.sha256(photos).hexdigest(),
        "kimg": kimg,
        "configuration": config.model_dump(mode="json"),
    }


def _standing(config: GanConfig, kimg: float) -> dict[str, Any]:
    """Say whether a model only stands in for a larger one, and where that would come from."""
    if config.resolution >= FINAL_RESOLUTION:
        return {"interim": False}
    return {
        "interim": True,
        "caveat": (
            f"interim model, {config.resolution} px after {1000 * kimg:,.0f} images; "
            f"python -m pulse_audit.training.gan trains it at {FINAL_RESOLUTION} px"
        ),
    }


def _mixture(training: TrainingSet) -> str:
    """Say in a few words whom a model saw."""
    tally = counts(training)
    most = max(tally, key=lambda race: tally[race])
    if len(set(tally.values())) == 1:
        return f"equal over {len(tally)} groups"
    return f"{100 * tally[most] / sum(tally.values()):.0f} % {most}"


def list_photos(files: Sequence[str], digests: Sequence[str]) -> bytes:
    """List every photo, compressed: SHA-256 of its encoded bytes, file name."""
    lines = [f"{digest}  {file}\n" for file, digest in sorted(zip(files, digests, strict=True))]
    return gzip.compress("".join(lines).encode(), mtime=0)
