"""The state of a training run on disk: written whole or not at all, in parts that are small.

A state folder holds ``config.json``, ``images.npz`` (the packed photos), ``log.jsonl``,
``samples/`` and ``checkpoint-<steps>/`` with one safetensors file for each part of the state.
Nothing in it is executed on reading.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pulse_audit.training.config import GanConfig
from pulse_audit.training.data import TrainingSet, load_set, save_set, training_set
from pulse_audit.training.trainer import Trainer
from pulse_audit.types import InputError

NUMBERS = "state.json"


def save(trainer: Trainer, folder: Path) -> Path:
    """Write the trainer's state and keep the one before; return the checkpoint's folder."""
    final = folder / f"checkpoint-{trainer.step:08d}"
    if final.exists():
        return final
    new = folder / f"new-{final.name}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for part, tensors in trainer.tensors().items():
        save_file({key: t.detach().cpu().contiguous() for key, t in tensors.items()},
                  new / f"{part}.safetensors")  # fmt: skip
    _write_text(new / NUMBERS, json.dumps(trainer.numbers()))
    os.replace(new, final)
    for old in _all(folder)[:-2]:
        shutil.rmtree(old)
    return final


def resume(trainer: Trainer, folder: Path) -> bool:
    """Restore the newest state in a folder; False if there is none.

    Raises
    ------
    InputError
        If the newest checkpoint is damaged.
    """
    if not _all(folder):
        return False
    found = newest(folder)
    try:
        numbers = read_numbers(found)
        parts = {part: load_file(found / f"{part}.safetensors") for part in trainer.tensors()}
        trainer.restore(parts, numbers["step"], numbers["p"], numbers["signs"])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{found}: damaged ({line}); delete it to start again") from error
    return True


def newest(folder: Path) -> Path:
    """Return the newest checkpoint of a state folder; InputError if there is none."""
    found = _all(folder)
    if not found:
        raise InputError(f"{folder}: holds no checkpoint of a training run")
    return found[-1]


def read_numbers(checkpoint: Path) -> dict[str, Any]:
    """Read the part of a state that is not tensors: step, p, signs."""
    numbers: dict[str, Any] = json.loads((checkpoint / NUMBERS).read_text())
    return numbers


def prepare(config: GanConfig, folder: Path, data: Path) -> TrainingSet:
    """Bind a state folder to a configuration, and pack its photos on first use.

    Raises
    ------
    InputError
        If the folder belongs to another configuration (all but the budget has to be the same), or
        the photos cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _bind(config, folder / "config.json")
    packed = folder / "images.npz"
    if not packed.exists():
        training = training_set(
            data, config.composition, config.resolution, config.held_out_per_cell, config.seed
        )
        new = folder / "new-images.npz"
        save_set(training, new)
        os.replace(new, packed)
    return load_set(packed)


def _bind(config: GanConfig, path: Path) -> None:
    wanted = config.model_dump(mode="json", exclude={"budget_kimg"})
    if not path.exists():
        _write_text(path, json.dumps(wanted, indent=1))
        return
    stored = json.loads(path.read_text())
    different = sorted(key for key in wanted if stored.get(key) != wanted[key])
    if different:
        raise InputError(
            f"{path.parent}: holds a run with another {', '.join(different)}; use another folder"
        )


def _write_text(path: Path, text: str) -> None:
    new = path.with_name(f"new-{path.name}")
    new.write_text(text)
    os.replace(new, path)


def _all(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if (path / NUMBERS).exists())
