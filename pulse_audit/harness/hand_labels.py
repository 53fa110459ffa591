"""Bring people's labels of outputs into a run; no torch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pulse_audit import store
from pulse_audit.datasets.hand_labels import read_hand_labels
from pulse_audit.store import HandLabels, Manifest


def hand_labels_of(
    path: Path, manifest: Manifest, samples: pd.DataFrame | None = None
) -> HandLabels:
    """Read people's labels for a run; errors as `pulse_audit.datasets.hand_labels`.

    Without ``samples`` any planned output may be labelled, with them only those that were kept.
    """
    images = manifest.planned_outputs if samples is None else set(samples["image"].dropna())
    labels, digest = read_hand_labels(path, images, manifest.dataset.vocabulary)
    return HandLabels.make(path.name, digest, labels)


def keep_hand_labels(path: Path, run: store.Run, samples: pd.DataFrame) -> None:
    """Read people's labels of the outputs of a run, and keep them in it.

    Raises
    ------
    InputError
        As `hand_labels_of`; nothing is written then.
    """
    run.write_hand_labels(hand_labels_of(path, run.manifest, samples))
