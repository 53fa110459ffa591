"""Train and export the twin generators: ``python -m pulse_audit.training.gan --help``."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file, save_file

from pulse_audit.files import atomic_write
from pulse_audit.generators.gaussianise import fit_gaussian
from pulse_audit.generators.native_format import save_generator
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.training import command
from pulse_audit.training.config import GanConfig, read_gan_config
from pulse_audit.training.data import (
    ATTRIBUTION,
    DARKEST,
    TrainingSet,
    list_photos,
    load_set,
)
from pulse_audit.training.synthetic import sample, save_sheet
from pulse_audit.training.trainer import (
    GeneratorTrainer,
    StepLosses,
    newest_checkpoint,
    prepare,
    read_numbers,
)
from pulse_audit.types import InputError

#: Seeds of the sheets of samples, during training and in the export.
TRAINING_SHEET_SEED, EXPORT_SHEET_SEED = 1, 2
#: Models of fewer pixels are interim models until these are trained.
FINAL_RESOLUTION = 64


def means(steps: Sequence[StepLosses]) -> dict[str, float]:
    """Average each quantity over the steps that measured it."""
    rows = [vars(step) for step in steps]
    columns = {key: [row[key] for row in rows if row[key] is not None] for key in rows[0]}
    return {key: float(torch.stack(values).mean()) for key, values in columns.items() if values}


def train(
    config: GanConfig,
    state: Path,
    data: Path,
    device: torch.device,
    until_kimg: float,
    sheet_kimg: float,
) -> GeneratorTrainer:
    """Train, or continue training, until so many thousand images were seen or a signal comes.

    Raises InputError if state or data do not fit.

    Parameters
    ----------
    config : GanConfig
        The run.
    state : Path
        Folder of its state; see `pulse_audit.training.trainer`.
    data : Path
        Parquet table of faces; read only when the photos are not packed yet.
    device : torch.device
        Where to compute.
    until_kimg : float
        Thousands of images, counted from the beginning of the run.
    sheet_kimg : float
        A sheet of samples is written every so many thousand images.
    """
    # All batches have one shape, so a GPU's convolutions are worth tuning to it.
    torch.backends.cudnn.benchmark = device.type == "cuda"
    # Photos are packed on first use; a state that is there is resumed.
    training = prepare(config, state, data)
    trainer = GeneratorTrainer(config, training, device)
    started = "resumed" if trainer.resume(state) else "begun"
    kimg = f"{trainer.images_seen / 1000:.1f} kimg"
    print(f"{config.name}: {training.race_counts()}, {started} at {kimg}", flush=True)
    losses: list[StepLosses] = []
    logged = time.monotonic()
    for _ in command.steps(
        lambda: trainer.images_seen < until_kimg * 1000, lambda: trainer.save(state)
    ):
        losses.append(trainer.advance())
        # Every 20 seconds, log the means since the last line, the rate and the time left.
        seconds = time.monotonic() - logged
        if seconds >= command.LOG_SECONDS:
            rate = len(losses) * config.batch / seconds
            left = max(until_kimg * 1000 - trainer.images_seen, 0) / rate / 3600
            line = {"kimg": trainer.images_seen / 1000, "images_per_s": rate, "hours_left": left}
            line |= {"fade": config.fade(trainer.images_seen), "p": trainer.ada.p, **means(losses)}
            rounded = {key: round(value, 4) for key, value in line.items()}
            with (state / "log.jsonl").open("a") as file:
                file.write(json.dumps({"time": time.strftime("%F %T"), **rounded}) + "\n")
            print(" ".join(f"{key} {value}" for key, value in rounded.items()), flush=True)
            losses, logged = [], time.monotonic()
        # A sheet of the averaged generator's samples, always of the same latents.
        if trainer.images_seen % round(sheet_kimg * 1000) < config.batch:
            path = state / "samples" / f"{trainer.images_seen // 1000:06d}.png"
            images = sample(trainer.grown(trainer.average), 96, TRAINING_SHEET_SEED)
            save_sheet(images, 12, path)
    print(f"{config.name}: saved at {trainer.images_seen / 1000:.1f} kimg", flush=True)
    return trainer


def export(config: GanConfig, state: Path, folder: Path, name: str | None = None) -> Path:
    """Write the averaged generator of a run and what belongs to it into a folder.

    The folder receives ``<name>.safetensors``, which is returned, its card ``<name>.json``, the
    Gaussian fit ``<name>-fit.safetensors``, 96 samples ``<name>.png`` and
    ``<name>-images.txt.gz``, which lists every training photo: SHA-256 of its encoded bytes, file
    name. ``name`` is by default that of the run. Raises InputError if the state cannot be read or
    has not begun to grow.
    """
    checkpoint = newest_checkpoint(state)
    steps = int(read_numbers(checkpoint)["step"])
    fade = config.fade(steps * config.batch)
    if fade == 0:
        raise InputError(
            f"{checkpoint}: has not grown to {config.resolution} px yet; train it beyond "
            f"{config.grow_kimg:g} kimg"
        )
    folder.mkdir(parents=True, exist_ok=True)
    name = name or config.name
    # The averaged generator, frozen, with the mean of its w.
    network = StyleGAN2(config.generator_config())
    network.load_state_dict(load_file(checkpoint / "average.safetensors"))
    network.map.estimate_average()
    network.eval().requires_grad_(False)
    # The colours are linear in these weights, so the weights carry the share of a block that is
    # still being faded in.
    colours = network.syn.blocks[f"b{config.resolution}"].torgb
    for parameter in colours.parameters(recurse=False):
        parameter.mul_(fade)
    # The list of its photos, the Gaussian fit of w, a sheet of samples; the weights come last.
    training = load_set(state / "images.npz")
    photos = list_photos(training.files, training.digests)
    atomic_write(folder / f"{name}-images.txt.gz", photos)
    fit = fit_gaussian(lambda z: network.mapping(z)[:, 0], network.z_dim)
    save_file({"mean": fit.mean, "std": fit.std}, folder / f"{name}-fit.safetensors")
    save_sheet(sample(network, 96, EXPORT_SHEET_SEED), 12, folder / f"{name}.png")
    # The card carries the weights' SHA-256, so the two are written together.
    weights = folder / f"{name}.safetensors"
    content = card_content(config, training, steps, photos)
    save_generator(network, weights, content | {"name": name})
    return weights


def card_content(
    config: GanConfig, training: TrainingSet, steps: int, photos: bytes
) -> dict[str, Any]:
    """Return the content of a generator's card that needs no measurement.

    ``photos`` is the compressed list of its training photos.
    """
    kimg = steps * config.batch / 1000
    # The composition in a few words: equal, or the share of the largest group.
    counts = training.race_counts()
    largest = max(counts, key=lambda race: counts[race])
    mixture = f"{100 * counts[largest] / sum(counts.values()):.0f} % {largest}"
    if len(set(counts.values())) == 1:
        mixture = f"equal over {len(counts)} groups"
    status: dict[str, Any] = {"interim": config.resolution < FINAL_RESOLUTION}
    if status["interim"]:
        status["caveat"] = (
            f"interim model, {config.resolution} px after {1000 * kimg:,.0f} images; "
            f"python -m pulse_audit.training.gan trains it at {FINAL_RESOLUTION} px"
        )
    return {
        "name": config.name,
        "title": f"{sum(counts.values()):,} FairFace photos, {mixture}",
        "resolution": config.resolution,
        **status,
        "crop": "fairface-0.25",
        "licence": "Apache-2.0",
        "training_data": (
            f"{len(training.images):,} photos of FairFace's training part, {config.resolution} px"
        ),
        "attribution": ATTRIBUTION,
        "composition": counts,
        "selection": (
            f"{config.held_out_per_cell} faces of each race and gender were held out first, spread "
            f"over the ages; photos of a mean luma below {DARKEST:g} of 255 were left out; the "
            "rest was chosen by a seeded order of file names"
        ),
        "photos_sha256": hashlib.sha256(photos).hexdigest(),
        "kimg": kimg,
        "configuration": config.model_dump(mode="json"),
    }


@click.group()
def main() -> None:
    """Train the shipped generators. A run is seeded and resumes where it stopped.

    On CPUs set MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=100000000000 in the environment
    (glibc), which makes it up to 1.7 times as fast.
    """


@main.command("train")
@command.config_option
@command.state_option
@command.data_option
@command.device_option
@click.option("--until-kimg", type=float, help="Stop here, before the budget is used up.")
@click.option("--sheet-kimg", type=float, default=10.0, show_default=True)
def train_command(
    name: str, state: Path, data: Path, device: str, until_kimg: float | None, sheet_kimg: float
) -> None:
    """Train or resume; SIGTERM saves and ends."""
    config = read_gan_config(name)
    until = min(until_kimg or config.budget_kimg, config.budget_kimg)
    train(config, state, data, torch.device(device), until, sheet_kimg)


@main.command("export")
@command.config_option
@command.state_option
@click.option("--out", type=Path, required=True, help="Folder for weights, card and samples.")
@click.option("--as", "model", help="Name of the model.  [default: as its run]")
def export_command(name: str, state: Path, out: Path, model: str | None) -> None:
    """Write the averaged generator as it stands, with its card; training may be going on."""
    print(export(read_gan_config(name), state, out, model))


if __name__ == "__main__":
    command.run(main)
