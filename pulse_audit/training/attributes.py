"""Train the shipped attribute net: ``python -m pulse_audit.training.attributes --help``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from pulse_audit.training.attribute_card import export
from pulse_audit.training.attribute_config import AttributeConfig, read_config
from pulse_audit.training.attribute_trainer import Trainer, labelled_faces
from pulse_audit.training.command import run
from pulse_audit.training.gan import Stop
from pulse_audit.types import InputError

SAVE_SECONDS = 300.0
LOG_SECONDS = 20.0


def train(config: AttributeConfig, state: Path, data: Path, device: torch.device) -> Trainer:
    """Train, or go on training, until the last epoch or a signal.

    Raises
    ------
    InputError
        If state or data do not fit.
    """
    faces, _ = labelled_faces(config, data)
    trainer = Trainer(config, faces, device)
    trainer.resume(state)
    state.mkdir(parents=True, exist_ok=True)
    print(f"{config.name}: {len(faces)} faces, step {trainer.step} of {trainer.steps}", flush=True)
    saved = logged = time.monotonic()
    losses: list[float] = []
    with Stop() as stop:
        while trainer.step < trainer.steps and not stop.asked:
            losses.append(trainer.advance())
            now = time.monotonic()
            if now - logged > LOG_SECONDS:
                _log(state / "log.jsonl", trainer, losses, now - logged)
                losses, logged = [], now
            if now - saved > SAVE_SECONDS:
                trainer.save(state)
                saved = now
        trainer.save(state)
    print(f"{config.name}: saved at step {trainer.step}", flush=True)
    return trainer


def _log(path: Path, trainer: Trainer, losses: Sequence[float], seconds: float) -> None:
    rate = len(losses) / seconds
    line = {
        "time": time.strftime("%F %T"),
        "step": trainer.step,
        "of": trainer.steps,
        "images_per_s": round(rate * trainer.config.batch, 1),
        "minutes_left": round((trainer.steps - trainer.step) / rate / 60, 1),
        "loss": round(sum(losses) / len(losses), 4),
    }
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


@click.group()
def main() -> None:
    """Train the shipped attribute net. A run is seeded and resumes where it stopped."""


@main.command("train")
@click.option("--config", "name", required=True, help="Name of a shipped configuration, or a file.")
@click.option("--state", type=Path, required=True, help="Folder of the run's state.")
@click.option("--data", type=Path, required=True, help="Parquet table of faces.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
def train_command(name: str, state: Path, data: Path, device: str) -> None:
    """Train or resume; SIGTERM saves and ends."""
    train(read_config(name), state, data, torch.device(device))


@main.command("export")
@click.option("--config", "name", required=True, help="Name of a shipped configuration, or a file.")
@click.option("--state", type=Path, required=True, help="Folder of the run's state.")
@click.option("--data", type=Path, required=True, help="Parquet table of faces.")
@click.option("--out", type=Path, required=True, help="Folder for weights and card.")
def export_command(name: str, state: Path, data: Path, out: Path) -> None:
    """Calibrate the averaged weights, measure them on the held-out faces, write them."""
    config = read_config(name)
    faces, apart = labelled_faces(config, data)
    trainer = Trainer(config, faces, torch.device("cpu"))
    if not trainer.resume(state):
        raise InputError(f"{state}: no state to export")
    print(export(trainer, apart, out))


if __name__ == "__main__":
    run(main)
