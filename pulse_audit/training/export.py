"""From the state of a training run to a model that can be shipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from pulse_audit.generators.gaussianise import fit_gaussian
from pulse_audit.generators.own import file_sha256, save_generator
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


def export(config: GanConfig, state: Path, folder: Path) -> Path:
    """Write the averaged generator of a run and what belongs to it into a folder.

    Parameters
    ----------
    config : GanConfig
        The run.
    state : Path
        Folder of its state, with at least one checkpoint.
    folder : Path
        Where ``<name>.safetensors`` goes, with its card ``<name>.json``, the Gaussian fit
        ``<name>-fit.safetensors``, 96 samples ``<name>.png`` and ``<name>-images.txt``, which
        lists every training photo: SHA-256 of its encoded bytes, file name.

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
    network, training = averaged(config, state), load_set(state / "images.npz")
    weights, photos = folder / f"{config.name}.safetensors", folder / f"{config.name}-images.txt"
    fit = fit_gaussian(lambda z: network.mapping(z)[:, 0], network.z_dim)
    save_file({"mean": fit.mean, "std": fit.std}, folder / f"{config.name}-fit.safetensors")
    save_sheet(sample(network, 96, SHEET_SEED), 12, folder / f"{config.name}.png")
    _list_photos(training, photos)
    steps = int(read_numbers(newest(state))["step"])
    save_generator(network, weights, card(config, training, steps, file_sha256(photos)))
    return weights


def averaged(config: GanConfig, state: Path) -> StyleGAN2:
    """Load the averaged generator of a run's newest checkpoint, frozen, with the mean of its w."""
    network = StyleGAN2(config.generator_config())
    network.load_state_dict(load_file(newest(state) / "average.safetensors"))
    network.map.estimate_average()
    return network.eval().requires_grad_(False)


def card(config: GanConfig, training: TrainingSet, steps: int, photos: str) -> dict[str, Any]:
    """Say what is known of the model without measuring it; ``photos`` is the list's SHA-256."""
    return {
        "name": config.name,
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
        "photos": {"list": f"{config.name}-images.txt", "sha256": photos},
        "kimg": steps * config.batch / 1000,
        "configuration": config.model_dump(mode="json"),
    }


def _list_photos(training: TrainingSet, path: Path) -> None:
    pairs = sorted(zip(training.files, training.digests, strict=True))
    new = path.with_name(f"new-{path.name}")
    new.write_text("".join(f"{digest}  {file}\n" for file, digest in pairs))
    os.replace(new, path)
