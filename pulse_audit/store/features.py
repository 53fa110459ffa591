"""Feature vectors of a run, in ``.npz`` archives; a foreign one is not trusted."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pulse_audit.types import InputError

Features: TypeAlias = NDArray[np.float32]

#: Largest number of a vector: products of larger ones overflow in float32.
LARGEST = 1e15
#: Most bytes that a file of features unpacks to.
MAX_FEATURES = 2**30


def as_npz(**arrays: NDArray[Any]) -> bytes:
    """Encode arrays by name."""
    sink = io.BytesIO()
    np.savez(sink, **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def read_vectors(
    data: bytes, path: Path, name: str, dim: int
) -> tuple[Features, Mapping[str, NDArray[Any]]]:
    """Read feature vectors, and all arrays beside them; nothing is unpickled.

    Parameters
    ----------
    data : bytes
        Of the archive at ``path``.
    path : Path
    name : str
        Of the array of vectors.
    dim : int

    Returns
    -------
    vectors : array, (n, dim)
    arrays : mapping of str to array
        All of the archive.

    Raises
    ------
    InputError
        Naming the file and what is wrong with it.
    """
    again = "the same `pulse-audit run` command makes it again"
    try:
        # What the archive unpacks to is checked before it is unpacked.
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_FEATURES:
                raise ValueError(f"it unpacks to more than {MAX_FEATURES:,} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # numpy raises whatever a broken header provokes
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: unreadable features ({reason}); {again}") from None
    # A member that is no array comes back as bytes.
    arrays = {key: array for key, array in arrays.items() if isinstance(array, np.ndarray)}
    vectors = arrays.get(name)
    if vectors is None or vectors.shape[1:] != (dim,) or vectors.dtype.kind != "f":
        raise InputError(f"{path}: {name} are not vectors of {dim} numbers; {again}")
    if (np.abs(vectors) > LARGEST).any():
        raise InputError(f"{path}: {name} hold an infinite or a huge number; {again}")
    return vectors.astype(np.float32), arrays
