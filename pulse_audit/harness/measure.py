"""What is measured on images: originals once a face, outputs in the batches of their units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_audit.faces import embed
from pulse_audit.faces.align import FaceAligner, FoundFace
from pulse_audit.faces.attributes import Column, checked
from pulse_audit.faces.embed import FaceNet
from pulse_audit.faces.skin import SkinTone, skin_tone
from pulse_audit.harness.suite import MetricSuite
from pulse_audit.metrics.distribution import inception
from pulse_audit.metrics.identity import Threshold, cosines, verified
from pulse_audit.metrics.registry import MEASURED
from pulse_audit.models.published import fetched, get
from pulse_audit.types import Attributes, InputError, Metric, Unavailable

Vector: TypeAlias = NDArray[np.float32]
Values: TypeAlias = list[float | None]

IDENTITY = frozenset({"identity_cosine", "verified"})


@dataclass(frozen=True)
class ImageMeasurements:
    """What is measured on one image by itself.

    ``face_found`` is None where no detector ran, ``probabilities`` empty and ``features`` None
    where no attribute model did; ``embedding`` is NaN where there is no face to embed.
    ``set_features`` are those stored for distances between sets: the attribute model's, or
    Inception's where ``fid`` is requested.
    """

    tone: SkinTone | Unavailable
    face_found: bool | None = None
    probabilities: Mapping[str, list[float]] = field(default_factory=dict)
    features: Vector | None = None
    embedding: Vector | None = None
    set_features: Vector | None = None

    def columns(self, side: str, attributes: Sequence[Column]) -> dict[str, Any]:
        """Columns of the samples, ``hr_...`` or ``sr_...``."""
        found: dict[str, Any] = {f"{side}_{n}": value for n, value in _tone(self.tone).items()}
        found[f"{side}_face_found"] = self.face_found
        for column in attributes:
            found |= column.entries(side, self.probabilities[column.name])
        return found


class Measurer:
    """Looks at images with the instruments of a run.

    Parameters
    ----------
    instruments : MetricSuite
    crop : str
        The run's.
    device : torch.device
    """

    def __init__(self, instruments: MetricSuite, crop: str, device: torch.device) -> None:
        self._instruments, self._crop = instruments, crop
        self._reports_faces = "face_found" in instruments.metrics
        # FID's Inception, where it is requested: (n, 3, R, R) -> (n, 2048).
        self._inception = None
        if "fid" in instruments.metrics:
            self._inception = inception(_weights_file(MEASURED["fid"].weights), device)
        needed = IDENTITY & set(instruments.metrics)
        self._embedder = FaceNet.load(_weights_file(embed.WEIGHTS), device) if needed else None
        wanted = self._reports_faces or self._embedder is not None
        self._aligner = FaceAligner(device) if wanted else None

    @torch.no_grad()
    def measure(self, images: Tensor) -> list[ImageMeasurements]:
        """Measure each of (n, 3, R, R) by itself."""
        answer = self._attributes(images)
        vectors: dict[str, list[list[float]]] = {}
        features = None
        if answer is not None:
            for column in self._instruments.columns:
                vectors[column.name] = column.probabilities(answer).double().tolist()
            if answer.features is not None:
                features = answer.features.float().cpu().numpy()
        set_features = features if self._inception is None else self._inception.of(images)
        faces = self._faces(images)
        found = [face is not None for face in faces] if self._reports_faces else None
        embeddings = self._embed(images, faces)
        return [
            ImageMeasurements(
                skin_tone(to_numpy(image), self._crop),
                None if found is None else found[i],
                {name: rows[i] for name, rows in vectors.items()},
                None if features is None else features[i],
                None if embeddings is None else embeddings[i],
                None if set_features is None else set_features[i],
            )
            for i, image in enumerate(images)
        ]

    def _attributes(self, images: Tensor) -> Attributes | None:
        model = self._instruments.attributes
        return None if model is None else checked(model, images)

    def _faces(self, images: Tensor) -> list[FoundFace | None]:
        if self._aligner is None:
            return [None] * len(images)
        return self._aligner.find_prepared(images, self._crop)

    def _embed(self, images: Tensor, faces: Sequence[FoundFace | None]) -> Vector | None:
        if self._embedder is None:
            return None
        boxes = [None if face is None else face.box for face in faces]
        vectors: Vector = self._embedder.embed(images, boxes).float().cpu().numpy()
        return vectors


def _weights_file(name: str) -> Path:
    """Return the file of fetched weights that the plan found."""
    try:
        return fetched(get(name))[0]
    except InputError as error:
        raise InputError(f"{error}; it was fetched when this run was planned") from None


def attribute_cosines(sr: Sequence[ImageMeasurements], hr: Sequence[ImageMeasurements]) -> Values:
    """Cosines of the attribute model's features of outputs and originals; None without features."""
    pairs = [(s.features, h.features) for s, h in zip(sr, hr, strict=True)]
    known = [(s, h) for s, h in pairs if s is not None and h is not None]
    if not known or len(known) < len(pairs):
        return [None] * len(pairs)
    return as_values(cosines(*(np.stack(side) for side in zip(*known, strict=True))))


def identities(
    sr: Sequence[ImageMeasurements], hr: Sequence[ImageMeasurements], threshold: Threshold | None
) -> dict[str, list[Any]]:
    """``identity_cosine`` of outputs and originals, and ``verified``; empty without embeddings."""
    pairs = [(s.embedding, h.embedding) for s, h in zip(sr, hr, strict=True)]
    known = [(s, h) for s, h in pairs if s is not None and h is not None]
    if len(known) < len(pairs):
        return {}
    outputs, originals = (np.stack(side) for side in zip(*known, strict=True))
    values = cosines(outputs, originals)
    found: dict[str, list[Any]] = {"identity_cosine": as_values(values)}
    if threshold is not None:
        same = verified(values, threshold, ~np.isnan(originals).any(axis=1))
        found["verified"] = [None if math.isnan(v) else bool(v) for v in same]
    return found


def load_networks(instruments: MetricSuite, device: torch.device) -> list[Metric]:
    """Load the metrics whose networks have fetched weights."""
    networks = [MEASURED[name] for name in instruments.metrics if name in MEASURED]
    return [
        metric.load(_weights_file(metric.weights), device)
        for metric in networks
        if metric.measured_from == "images" and metric.weights
    ]


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
    """FloatArray, None for NaN."""
    return [None if math.isnan(number) else float(number) for number in numbers]


def _tone(tone: SkinTone | Unavailable) -> dict[str, float | int | None]:
    return {name: getattr(tone, name, None) for name in ("ita", "hue", "lightness", "monk")}


def to_numpy(image: Tensor) -> Vector:
    """(3, H, W) tensor to (H, W, 3) array."""
    pixels: Vector = image.detach().permute(1, 2, 0).float().cpu().numpy()
    return pixels
