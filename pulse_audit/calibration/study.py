"""Run the cells, one file each, so that an interrupted study goes on where it stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pulse_audit.calibration import corrected, gaps, prior_work, retention, sizes
from pulse_audit.calibration.cells import Cell, Measured
from pulse_audit.files import atomic_write
from pulse_audit.seeding import fingerprint
from pulse_audit.types import InputError

#: Replicates of a cell; the published table is made with the former.
FULL, QUICK = 4000, 200

Verdict = Literal["met", "missed", "unclear", ""]
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Row:
    """A cell with what was found in it.

    ``verdict`` is empty where nothing was promised, and ``unclear`` where the value is outside
    what was promised by no more than three Monte Carlo standard errors.
    """

    cell: Cell
    measured: Measured
    replicates: int

    @property
    def verdict(self) -> Verdict:
        """Whether the promise was kept."""
        accepted = self.cell.accepts(self.measured.value)
        if accepted is None:
            return ""
        return "met" if accepted else "unclear" if self._within_error() else "missed"

    def _within_error(self) -> bool:
        reach = 3 * self.measured.error
        return any(self.cell.accepts(self.measured.value + shift) for shift in (-reach, reach))


def all_cells() -> list[Cell]:
    """Every cell, in the order of the table."""
    rooms = (retention, corrected, gaps, sizes, prior_work)
    return [cell for room in rooms for cell in room.cells()]


def run_study(
    cells: Sequence[Cell],
    replicates: int,
    seed: int,
    out: Path,
    progress: Progress | None = None,
    workers: int | None = None,
) -> list[Row]:
    """Simulate every cell that has no file yet, and return all rows in order.

    Parameters
    ----------
    cells : sequence of Cell
    replicates : int
        Of every cell that is not exact, at least 2.
    seed : int
        Of the study; each cell has its own random numbers, whatever runs beside it.
    out : Path
        Gets ``cells/*.json``, one small file a cell; made if missing.
    progress : callable, optional
        Called as ``progress(done, total, restored)`` in cells.
    workers : int, optional
        Processes; default one a core, 1 simulates in this one.

    Raises
    ------
    InputError
        If ``out`` cannot be written, or a file there is damaged.
    """
    report = progress or (lambda done, total, restored: None)
    files = [_file(out, cell, replicates, seed) for cell in cells]
    waiting = [i for i, file in enumerate(files) if not file.exists()]
    restored = done = len(cells) - len(waiting)
    report(done, len(cells), restored)
    for i, measured in _simulated([(cells[i], replicates, seed) for i in waiting], workers):
        _write(files[waiting[i]], measured)
        done += 1
        report(done, len(cells), restored)
    return [
        Row(cell, _read(file), 0 if cell.exact else replicates)
        for cell, file in zip(cells, files, strict=True)
    ]


def _simulated(
    tasks: Sequence[tuple[Cell, int, int]], workers: int | None
) -> Iterator[tuple[int, Measured]]:
    """Yield number and outcome of every task as it is done."""
    processes = min(workers or os.cpu_count() or 1, len(tasks))
    if processes <= 1:
        yield from ((i, simulate(*task)) for i, task in enumerate(tasks))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        futures = {pool.submit(simulate, *task): i for i, task in enumerate(tasks)}
        try:
            yield from ((futures[future], future.result()) for future in as_completed(futures))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def simulate(cell: Cell, replicates: int, seed: int) -> Measured:
    """Simulate one cell from its own random numbers."""
    return cell.simulate(np.random.default_rng(cell.seed(seed)), replicates)


def _file(out: Path, cell: Cell, replicates: int, seed: int) -> Path:
    mark = fingerprint(cell.key, replicates, seed)
    return out / "cells" / f"{cell.study.replace(' ', '-').replace(',', '')}-{mark:016x}.json"


def _write(path: Path, measured: Measured) -> None:
    try:
        atomic_write(path, (json.dumps(asdict(measured)) + "\n").encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def _read(path: Path) -> Measured:
    try:
        return Measured(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        raise InputError(f"{path}: damaged; delete it and run the same command again") from None
