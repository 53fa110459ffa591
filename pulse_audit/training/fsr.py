"""Train and export FSRNet and FSRGAN: ``python -m pulse_audit.training.fsr --help``."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from facenet_pytorch.models.mtcnn import ONet
from numpy.typing import NDArray
from PIL import Image

from pulse_audit.metrics.fidelity import psnr, ssim
from pulse_audit.metrics.naturalness import sharpness
from pulse_audit.training import command
from pulse_audit.training.config import FSRConfig, read_fsr_config
from pulse_audit.training.data import (
    ATTRIBUTION,
    TrainingSet,
    chunks,
    held_out_files,
    list_photos,
    load_set,
    pack,
    read_faces,
    save_set,
    training_set,
)
from pulse_audit.training.face_maps import find_landmarks
from pulse_audit.training.fsr_trainer import FSRTrainer, enlarged_inputs
from pulse_audit.types import InputError
from pulse_audit.upsamplers.fsrnet import FSRNet, save_fsrnet

#: Least side of the photos in which landmarks are found, in pixels.
LANDMARK_PIXELS = 64
#: What is measured of bicubic interpolation and of a network; sharpness of the originals, too.
METRICS = (psnr, ssim, sharpness)


def prepare(config: FSRConfig, folder: Path, data: Path) -> tuple[TrainingSet, NDArray[np.float32]]:
    """Pack the photos and find their landmarks on first use, and read both.

    Landmarks are (n, 5, 2) as shares of the side, NaN where none were found.

    Raises
    ------
    InputError
        If the photos cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    photos, places = folder / "images.npz", folder / "landmarks.npy"
    if not photos.exists() or not places.exists():
        # Landmarks are found in photos that are larger than small training images.
        made = training_set(
            data,
            config.composition,
            max(config.resolution, LANDMARK_PIXELS),
            config.held_out_per_cell,
            config.faces_seed,
        )
        network, parts = ONet().eval().to(memory_format=torch.channels_last), []
        for images in chunks(made.images):
            landmarks, found = find_landmarks(network, images)
            landmarks[~found] = torch.nan
            parts.append(landmarks.numpy())
        np.save(folder / "new-landmarks.npy", np.concatenate(parts))
        save_set(replace(made, images=shrink(made.images, config.resolution)), folder / "new.npz")
        os.replace(folder / "new-landmarks.npy", places)
        os.replace(folder / "new.npz", photos)
    return load_set(photos), np.load(places, allow_pickle=False)


def shrink(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize photos (n, R, R, 3) as `pulse_audit.training.data.pack` does."""
    if images.shape[1] == side:
        return images
    size, kernel = (side, side), Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(one).resize(size, kernel)) for one in images])


def train(
    config: FSRConfig, state: Path, data: Path, device: torch.device, start: Path | None = None
) -> FSRTrainer:
    """Train, or continue training, to the last step or until a signal comes.

    Parameters
    ----------
    config : FSRConfig
    state : Path
        Folder of the run: ``images.npz``, ``landmarks.npy``, ``state.pt``, ``log.jsonl``.
    data : Path
        Parquet table of faces; read only when the photos are not packed yet.
    device : torch.device
    start : Path, optional
        State of a run whose network this one begins with.

    Raises
    ------
    InputError
        If state or data do not fit.
    """
    training, landmarks = prepare(config, state, data)
    trainer = FSRTrainer(config, training, landmarks, device)
    if not trainer.resume(state) and start is not None:
        trainer.start_from(start)
    known = np.isfinite(landmarks).all((1, 2)).mean()
    print(f"{config.name}: {len(landmarks):,} faces, landmarks of {known:.1%}", flush=True)
    losses: list[dict[str, float]] = []
    logged = time.monotonic()
    for _ in command.steps(lambda: trainer.step < config.steps, lambda: trainer.save(state)):
        losses.append(trainer.advance())
        # Every 20 seconds, log the means since the last line and the rate.
        seconds = time.monotonic() - logged
        if seconds >= command.LOG_SECONDS:
            means = {name: float(np.mean([loss[name] for loss in losses])) for name in losses[0]}
            rate = len(losses) * config.batch / seconds
            line = {"step": trainer.step, "images_per_s": rate, **means}
            rounded = {key: round(value, 5) for key, value in line.items()}
            with (state / "log.jsonl").open("a") as file:
                file.write(json.dumps({"time": time.strftime("%F %T"), **rounded}) + "\n")
            print(" ".join(f"{key} {value}" for key, value in rounded.items()), flush=True)
            losses, logged = [], time.monotonic()
    print(f"{config.name}: saved at step {trainer.step:,}", flush=True)
    return trainer


def export(
    config: FSRConfig, state: Path, data: Path, per_cell: int, folder: Path, name: str | None = None
) -> Path:
    """Write the network of a run and its card into a folder; return the weights' path.

    The card holds what was measured on faces that no shipped model was trained on, ``per_cell`` of
    each race and gender. ``name`` is by default that of the run. Raises InputError if state or data
    cannot be read.
    """
    training, landmarks = prepare(config, state, data)
    trainer = FSRTrainer(config, training, landmarks, torch.device("cpu"))
    if not trainer.resume(state):
        raise InputError(f"{state}: holds no state of a training run")
    # The list of the photos is that of the twin; what is exported is what is measured, in float16.
    photos = list_photos(training.files, training.digests)
    faces = read_faces(data)
    held_out = held_out_files(faces, per_cell, config.faces_seed)
    tested = pack(faces[faces["file"].isin(held_out)], config.resolution)
    if set(tested.digests) & set(training.digests):
        raise InputError(f"{data}: held-out photos are among those of the training")
    network = trainer.network.eval().requires_grad_(False)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().float())
    content = card_content(config, training, landmarks, photos)
    content |= {
        "name": name or config.name,
        "steps": trainer.step,
        "measured": measure(network, tested, config.scale),
    }
    weights = folder / f"{content['name']}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_fsrnet(network, weights, content)
    return weights


@torch.no_grad()
def measure(network: FSRNet, faces: TrainingSet, scale: int) -> dict[str, Any]:
    """Measure bicubic interpolation and a network on faces: PSNR in dB, SSIM, sharpness.

    Means over the faces, with the gain in PSNR over bicubic interpolation of each race.
    """
    rows: dict[str, list[torch.Tensor]] = {}
    for images in chunks(faces.images, 50):
        enlarged = enlarged_inputs(images, scale)
        answers = {"bicubic": enlarged, "network": network(enlarged).image.clamp(0, 1)}
        for name, answer in (*answers.items(), ("original", images)):
            for metric in METRICS if name in answers else METRICS[-1:]:
                values = metric(answer, images)
                assert isinstance(values, torch.Tensor)  # images are large enough
                rows.setdefault(f"{name}_{metric.__name__}", []).append(values)
    by_name = {name: torch.cat(parts).double().numpy() for name, parts in rows.items()}
    gain, races = by_name["network_psnr"] - by_name["bicubic_psnr"], np.array(faces.races)
    # A 95 % interval of the mean gain, faces being independent.
    half = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5
    return {
        "faces": len(gain),
        **{name: round(float(value.mean()), 4) for name, value in by_name.items()},
        "gain": round(float(gain.mean()), 3),
        "gain_interval": [round(float(gain.mean() + sign * half), 3) for sign in (-1, 1)],
        "gain_by_race": {
            race: round(float(gain[races == race].mean()), 3) for race in sorted(set(faces.races))
        },
    }


def card_content(
    config: FSRConfig, training: TrainingSet, landmarks: NDArray[np.float32], photos: bytes
) -> dict[str, Any]:
    """Return the content of a card that needs no measurement.

    ``photos`` is the compressed list of the training photos.
    """
    known = np.isfinite(landmarks).all((1, 2)).mean()
    size = f"{config.resolution} px from {config.resolution // config.scale} px"
    method = "FSRGAN" if config.adversarial else "FSRNet"
    passes = config.steps * config.batch / len(training.images)
    differs = [
        f"{size}, a factor of {config.scale}, where the paper enlarges 16 px to 128 px",
        f"{config.width} channels, where the paper has 64",
        "landmarks: five, by MTCNN's O-Net, where the paper has 194 on Helen",
        "parsing maps: seven ellipses and the rest, placed by the five landmarks, where the paper "
        "has labelled regions; lips are one region, and hair is none",
        "photos of FairFace, which are aligned less closely than Helen's and CelebA's",
        f"Adam, a cosine from {config.learning_rate:g} to 0 and {passes:.1f} passes over the "
        "photos, where the paper has RMSprop at 0.00025 for far longer",
    ]
    if config.adversarial:
        differs += [
            "the perceptual loss is on the first three convolutions of O-Net, where the paper has "
            "VGG-16, which no package carries",
            f"weight of the adversarial loss {config.adversarial:g}, where the paper has 0.001; "
            "the discriminator judges patches beside the enlarged input",
        ]
    return {
        "name": config.name,
        "title": f"{method} (Chen et al. 2018), {size}",
        "crop": "fairface-0.25",
        "licence": "Apache-2.0",
        "training_data": (
            f"{len(training.images):,} photos of FairFace's training part, {config.resolution} px; "
            "those of faces-balanced"
        ),
        "attribution": ATTRIBUTION,
        "composition": training.race_counts(),
        "photos_sha256": hashlib.sha256(photos).hexdigest(),
        "landmarks_found": round(float(known), 4),
        "held_out": (
            "no photo of the training; FairFace does not say who is shown, so a person may be in "
            "both parts"
        ),
        "differs_from_the_paper": differs,
        "caveats": [
            f"made for {size}, whatever the scale of the run, and trained for {passes:.1f} passes "
            f"over {len(training.images):,} photos with a network of {config.width} channels, not "
            f"64: its quality says little about {method} as published"
        ],
        "configuration": config.model_dump(mode="json"),
    }


@click.group()
def main() -> None:
    """Train FSRNet, then FSRGAN from it. A run is seeded and resumes where it stopped."""


@main.command("train")
@command.config_option
@command.state_option
@command.data_option
@command.device_option
@click.option("--from", "start", type=Path, help="State (state.pt) whose network to begin with.")
def train_command(name: str, state: Path, data: Path, device: str, start: Path | None) -> None:
    """Train or resume; SIGTERM saves and ends."""
    train(read_fsr_config(name), state, data, torch.device(device), start)


@main.command("export")
@command.config_option
@command.state_option
@command.data_option
@click.option("--per-cell", default=50, show_default=True, help="Test faces of each race, gender.")
@click.option("--out", type=Path, required=True, help="Folder for weights and card.")
@click.option("--as", "model", help="Name of the model.  [default: as its run]")
def export_command(
    name: str, state: Path, data: Path, per_cell: int, out: Path, model: str | None
) -> None:
    """Write the network as it stands, with a card that says how well it does."""
    print(export(read_fsr_config(name), state, data, per_cell, out, model))


if __name__ == "__main__":
    command.run(main)
