"""What is measured on images: originals once a face, outputs in the batches of their units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_audit.auditing.instruments import Instruments
from pulse_audit.faces.align import FaceAligner
from pulse_audit.faces.attributes import Column, checked
from pulse_audit.faces.skin import SkinTone, skin_tone
from pulse_audit.metrics.identity import cosines
from pulse_audit.types import Attributes, Metric, Unavailable

Vector: TypeAlias = NDArray[np.float32]
Values: TypeAlias = list[float | None]


@dataclass(frozen=True)
class Seen:
    """What is measured on one image by itself.

    ``face_found`` is None where no detector ran, ``probabilities`` empty and ``features`` None
    where no attribute model did.
    """

    tone: SkinTone | Unavailable
    face_found: bool | None = None
    probabilities: Mapping[str, list[float]] = field(default_factory=dict)
    features: Vector | None = None

    def columns(self, side: str, attributes: Sequence[Column]) -> dict[str, Any]:
        """Columns of the samples, ``hr_...`` or ``sr_...``."""
        found = {f"{side}_{name}": value for name, value in _tone(self.tone).items()}
        found[f"{side}_face_found"] = self.face_found
        for column in attributes:
            vector = self.probabilities[column.name]
            found[f"{side}_{column.name}"] = column.words[int(np.argmax(vector))]
            found[f"{side}_{column.name}_p"] = vector
        return found


class Observer:
    """Looks at images with the instruments of a run.

    Parameters
    ----------
    instruments : Instruments
    crop : str
        The run's.
    device : torch.device
    """

    def __init__(self, instruments: Instruments, crop: str, device: torch.device) -> None:
        self._instruments, self._crop = instruments, crop
        self._aligner = FaceAligner(device) if "face_found" in instruments.metrics else None

    @torch.no_grad()
    def look(self, images: Tensor) -> list[Seen]:
        """Measure each of (n, 3, R, R) by itself."""
        answer = self._attributes(images)
        vectors = {
            column.name: column.probabilities(answer).double().tolist()
            for column in (self._instruments.columns if answer else ())
        }
        features = None
        if answer is not None and answer.features is not None:
            features = answer.features.float().cpu().numpy()
        found = self._faces(images)
        return [
            Seen(
                skin_tone(to_numpy(image), self._crop),
                found[i],
                {name: rows[i] for name, rows in vectors.items()},
                None if features is None else features[i],
            )
            for i, image in enumerate(images)
        ]

    def _attributes(self, images: Tensor) -> Attributes | None:
        model = self._instruments.attributes
        return None if model is None else checked(model, images)

    def _faces(self, images: Tensor) -> Sequence[bool | None]:
        if self._aligner is None:
            return [None] * len(images)
        return [face is not None for face in self._aligner.find_prepared(images, self._crop)]


def attribute_cosines(sr: Sequence[Seen], hr: Sequence[Seen]) -> Values:
    """Cosines of the attribute model's features of outputs and originals; None without features."""
    pairs = [(s.features, h.features) for s, h in zip(sr, hr, strict=True)]
    known = [(s, h) for s, h in pairs if s is not None and h is not None]
    if not known or len(known) < len(pairs):
        return [None] * len(pairs)
    return as_values(cosines(*(np.stack(side) for side in zip(*known, strict=True))))


def compare(metrics: Sequence[Metric], sr: Tensor, hr: Tensor) -> dict[str, Values]:
    """Image metrics of outputs (n, 3, R, R) beside their originals."""
    found: dict[str, Values] = {}
    for metric in metrics:
        measured = metric.compute(sr, hr)
        if isinstance(measured, Unavailable):
            found[metric.name] = [None] * len(sr)
        else:
            found[metric.name] = as_values(measured.double().cpu().numpy())
    return found


def as_values(numbers: NDArray[Any]) -> Values:
    """Floats, None for NaN."""
    return [None if math.isnan(number) else float(number) for number in numbers]


def _tone(tone: SkinTone | Unavailable) -> dict[str, float | int | None]:
    return {name: getattr(tone, name, None) for name in ("ita", "hue", "lightness", "monk")}


def to_numpy(image: Tensor) -> Vector:
    """(3, H, W) tensor to (H, W, 3) array."""
    pixels: Vector = image.detach().permute(1, 2, 0).float().cpu().numpy()
    return pixels
