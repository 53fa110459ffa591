"""Rows made of the samples of a prior, kept in the cache part by part.

Finished parts survive an interruption; one that is damaged is made again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pulse_audit.files import atomic_write, cache_folder
from pulse_audit.seeding import Json, hexdigest
from pulse_audit.types import Progress

#: Pixels and samples of one rendering: no sample depends on the run's batch.
BATCH_PIXELS, MAX_BATCH = 4 * 1024**2, 100


def bank_folder(kind: str, first: Tensor, *key: Json) -> Path:
    """Return the folder of a bank in the cache.

    Weights, fit, frame and DS all show in ``first``, the images of the first samples: rounded to
    thousandths, they are the key, with whatever else the rows follow from.
    """
    rounded = (first.double().cpu() * 1000).round().int().numpy()
    seen = hashlib.sha256(rounded.tobytes()).hexdigest()
    return cache_folder() / kind / hexdigest(1, seen, *key)[:24]


def kept_rows(
    folder: Path,
    make: Callable[[range], Tensor],
    like: Tensor,
    size: int,
    part: int,
    side: int,
    progress: Progress,
    exist: int | None = None,
) -> Tensor:
    """Return the rows of the samples 0 to ``size`` of a bank, (size, ...), on the CPU.

    Parameters
    ----------
    folder : Path
        See `bank_folder`.
    make : callable
        Indices of samples to their rows (n, ...).
    like : Tensor
        Some rows, of the type and shape that all have.
    size, part : int
        Samples of the bank, and of one of its files. Files are whole wherever there are samples
        for that, so that banks of other sizes share them.
    side : int
        Of the pictures that ``make`` renders, in pixels.
    progress : callable
        Called with the samples made.
    exist : int, optional
        Samples that there are; default: any number.
    """
    ends = {s: s + part if exist is None else min(s + part, exist) for s in range(0, size, part)}
    parts = {begin: _read_part(folder, begin, end, like) for begin, end in ends.items()}
    batch = max(1, min(MAX_BATCH, BATCH_PIXELS // side**2))
    done = restored = min(size, sum(len(rows) for rows in parts.values() if rows is not None))
    for begin, end in ends.items():
        if parts[begin] is not None:
            continue
        made = list[Tensor]()
        for first in range(begin, end, batch):
            progress(done, size, restored)
            made.append(make(range(first, min(first + batch, end))).cpu())
            done = min(size, done + len(made[-1]))
        rows, buffer = torch.cat(made), io.BytesIO()
        np.save(buffer, rows.numpy())
        atomic_write(_path(folder, begin), buffer.getvalue())
        parts[begin] = rows
    progress(size, size, restored)
    return torch.cat([rows for rows in parts.values() if rows is not None])[:size]


def _path(folder: Path, begin: int) -> Path:
    return folder / f"{begin:08d}.npy"


def _read_part(folder: Path, begin: int, end: int, like: Tensor) -> Tensor | None:
    """Read a part of rows like the given one; None where it is missing or damaged."""
    try:
        rows = torch.from_numpy(np.load(_path(folder, begin), allow_pickle=False))
    except (OSError, ValueError, EOFError, TypeError):
        return None
    fits = rows.dtype == like.dtype and rows.shape == (end - begin, *like.shape[1:])
    return rows if fits and bool(rows.isfinite().all()) else None
