"""Train the twin generators: ``python -m pulse_audit.training.gan --help``."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Self

import click
import torch

from pulse_audit.training import checkpoint
from pulse_audit.training.command import run
from pulse_audit.training.config import GanConfig, read_config
from pulse_audit.training.data import counts
from pulse_audit.training.export import export
from pulse_audit.training.samples import sample, save_sheet
from pulse_audit.training.trainer import Measured, Trainer

SAVE_SECONDS = 300.0
LOG_SECONDS = 20.0
SHEET_SEED = 1


class Stop:
    """Within its context SIGTERM and SIGINT ask to stop, instead of ending the process."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        """Take over the signals."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        self.before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


class Log:
    """Lines of JSON: the mean of what the steps since the last line showed, rate and time left.

    Parameters
    ----------
    path : Path
        File to append to.
    target_kimg : float
        Where the run is to stop, for the time left.
    """

    def __init__(self, path: Path, target_kimg: float):
        self.path, self.target = path, target_kimg
        self.steps: list[Measured] = []
        self.since = time.monotonic()

    def add(self, measured: Measured, trainer: Trainer, seconds: float = LOG_SECONDS) -> None:
        """Take in a step, and write a line if the last one is older than ``seconds``."""
        self.steps.append(measured)
        passed = time.monotonic() - self.since
        if passed < seconds:
            return
        rate = len(self.steps) * trainer.config.batch / passed
        kimg = trainer.images_seen / 1000
        left = max(self.target - kimg, 0) * 1000 / rate / 3600
        line = {"kimg": kimg, "images_per_s": rate, "hours_left": left, "p": trainer.ada.p}
        line |= means(self.steps)
        rounded = {key: round(value, 4) for key, value in line.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"time": time.strftime("%F %T"), **rounded}) + "\n")
        self.steps, self.since = [], time.monotonic()


def means(steps: Sequence[Measured]) -> dict[str, float]:
    """Average each quantity over the steps that measured it."""
    rows = [asdict(step) for step in steps]
    columns = {key: [row[key] for row in rows if row[key] is not None] for key in rows[0]}
    return {key: sum(values) / len(values) for key, values in columns.items() if values}


def train(
    config: GanConfig,
    state: Path,
    data: Path,
    device: torch.device,
    until_kimg: float,
    sheet_kimg: float,
) -> Trainer:
    """Train, or go on training, until so many thousand images were seen or a signal comes.

    Parameters
    ----------
    config : GanConfig
        The run.
    state : Path
        Folder of its state; see `pulse_audit.training.checkpoint`.
    data : Path
        Parquet table of faces; read only when the photos are not packed yet.
    device : torch.device
        Where to compute.
    until_kimg : float
        Thousands of images, counted from the beginning of the run.
    sheet_kimg : float
        A sheet of samples is written every so many thousand images.

    Raises
    ------
    InputError
        If state or data do not fit.
    """
    training = checkpoint.prepare(config, state, data)
    trainer = Trainer(config, training, device)
    resumed = checkpoint.resume(trainer, state)
    print(f"{config.name}: {counts(training)}, {'resumed' if resumed else 'begun'} at "
          f"{trainer.images_seen / 1000:.1f} kimg", flush=True)  # fmt: skip
    log, saved = Log(state / "log.jsonl", until_kimg), time.monotonic()
    with Stop() as stop:
        while trainer.images_seen < until_kimg * 1000 and not stop.asked:
            log.add(trainer.advance(), trainer)
            if trainer.images_seen % round(sheet_kimg * 1000) < config.batch:
                write_sheet(trainer, state)
            if time.monotonic() - saved > SAVE_SECONDS:
                checkpoint.save(trainer, state)
                saved = time.monotonic()
        checkpoint.save(trainer, state)
    print(f"{config.name}: saved at {trainer.images_seen / 1000:.1f} kimg", flush=True)
    return trainer


def write_sheet(trainer: Trainer, state: Path) -> Path:
    """Write 96 samples of the averaged generator, always of the same latents."""
    path = state / "samples" / f"{trainer.images_seen // 1000:06d}.png"
    save_sheet(sample(trainer.average, 96, SHEET_SEED), 12, path)
    return path


@click.group()
def main() -> None:
    """Train the shipped generators. A run is seeded and resumes where it stopped.

    On CPUs set MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=100000000000 in the environment
    (glibc), which makes it up to 1.7 times as fast.
    """


@main.command("train")
@click.option("--config", "name", required=True, help="Name of a shipped configuration, or a file.")
@click.option("--state", type=Path, required=True, help="Folder of the run's state.")
@click.option("--data", type=Path, required=True, help="Parquet table of faces.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--until-kimg", type=float, help="Stop here, before the budget is used up.")
@click.option("--sheet-kimg", type=float, default=10.0, show_default=True)
def train_command(
    name: str, state: Path, data: Path, device: str, until_kimg: float | None, sheet_kimg: float
) -> None:
    """Train or resume; SIGTERM saves and ends."""
    config = read_config(name)
    until = min(until_kimg or config.budget_kimg, config.budget_kimg)
    train(config, state, data, torch.device(device), until, sheet_kimg)


@main.command("export")
@click.option("--config", "name", required=True, help="Name of a shipped configuration, or a file.")
@click.option("--state", type=Path, required=True, help="Folder of the run's state.")
@click.option("--out", type=Path, required=True, help="Folder for weights, card and samples.")
@click.option("--as", "called", help="What the model is called.  [default: as its run]")
def export_command(name: str, state: Path, out: Path, called: str | None) -> None:
    """Write the averaged generator as it stands, with its card; training may be going on."""
    print(export(read_config(name), state, out, called))


if __name__ == "__main__":
    run(main)
