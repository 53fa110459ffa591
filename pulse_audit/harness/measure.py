"""What is measured on images, and what a run fits on all of its originals first.

Originals are measured once per face, outputs in the batches of their units. The references are
NIQE's model of natural faces, and the cosine above which two faces count as one person. Both are
fitted once, on the originals one by one in the order of the plan, and stored beside the samples,
so that a resumed run uses the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from pulse_audit.faces.skin import ApparentColour, Skin, SkinTone, apparent_colour, find_skin
from pulse_audit.frames import Frame
from pulse_audit.harness.photos import to_numpy
from pulse_audit.harness.suite import MetricSuite
from pulse_audit.metrics.distribution import inception
from pulse_audit.metrics.identity import (
    Threshold,
    cosines,
    group_false_accepts,
    impostor_threshold,
    verified,
)
from pulse_audit.metrics.naturalness import PATCH, NiqeModel
from pulse_audit.metrics.registry import MEASURED
from pulse_audit.models.published import fetched, get
from pulse_audit.types import Estimate, InputError, Metric, Unavailable

Vector: TypeAlias = NDArray[np.float32]
Values: TypeAlias = list[float | None]

IDENTITY = frozenset({"identity_cosine", "verified"})


@dataclass(frozen=True)
class ImageMeasurements:
    """What is measured on one image.

    ``skin`` is that of the original, also for an output: its tone is measured on the same pixels.
    ``face_found`` is None where no detector ran, ``probabilities`` empty and ``features`` None
    where no attribute model did; ``embedding`` is NaN where there is no face to embed.
    ``checks`` are the second attribute model's words.
    ``set_features`` are those stored for distances between sets: the attribute model's, or
    Inception's where ``fid`` is requested.
    """

    tone: SkinTone | Unavailable
    apparent: ApparentColour | Unavailable
    skin: Skin | Unavailable
    face_found: bool | None = None
    probabilities: Mapping[str, list[float]] = field(default_factory=dict)
    features: Vector | None = None
    embedding: Vector | None = None
    set_features: Vector | None = None
    checks: Mapping[str, str] = field(default_factory=dict)

    def columns(self, side: str, attributes: Sequence[Column]) -> dict[str, Any]:
        """Columns of the samples, ``hr_...`` or ``sr_...``."""
        tone = ("ita", "hue", "lightness", "monk")
        values: dict[str, Any] = {f"{side}_{name}": getattr(self.tone, name, None) for name in tone}
        for name in ("lightness", "hue"):
            values[f"{side}_apparent_{name}"] = getattr(self.apparent, name, None)
        values[f"{side}_face_found"] = self.face_found
        for column in attributes:
            values |= column.entries(side, self.probabilities[column.name])
        values |= {f"{side}_{name}_check": word for name, word in self.checks.items()}
        return values


class Measurer:
    """Measures images of a crop by themselves: attributes, faces, embeddings and skin tone."""

    def __init__(self, suite: MetricSuite, crop: str, device: torch.device) -> None:
        self._suite, self._crop = suite, crop
        self._reports_faces = "face_found" in suite.metrics
        # FID's Inception, where it is requested: (n, 3, R, R) -> (n, 2048).
        self._inception = None
        if "fid" in suite.metrics:
            self._inception = inception(_weights_file(MEASURED["fid"].weights), device)
        needed = IDENTITY & set(suite.metrics)
        self._embedder = FaceNet.load(_weights_file(embed.WEIGHTS), device) if needed else None
        # Embeddings are taken from the box of the detected face.
        detects = self._reports_faces or self._embedder is not None
        self._aligner = FaceAligner(device) if detects else None

    @torch.no_grad()
    def measure(
        self,
        images: Tensor,
        frames: Sequence[Frame],
        skins: Sequence[Skin | Unavailable] | None = None,
    ) -> list[ImageMeasurements]:
        """Measure each of (n, 3, R, R) by itself; outputs with the skin of their originals.

        ``frames`` are the parts of the crop that the images show.
        """
        # Attribute model: per column n vectors of probabilities; features (n, d).
        probabilities: dict[str, list[list[float]]] = {}
        features: Vector | None = None
        if self._suite.attributes is not None:
            prediction = checked(self._suite.attributes, images)
            for column in self._suite.columns:
                probabilities[column.name] = column.probabilities(prediction).double().tolist()
            if prediction.features is not None:
                features = prediction.features.float().cpu().numpy()
        # The second attribute model: its likeliest word alone, n words a column.
        checks: dict[str, list[str]] = {}
        if self._suite.second is not None:
            prediction = checked(self._suite.second, images)
            for column in self._suite.second_columns:
                likeliest = column.probabilities(prediction).argmax(dim=1).tolist()
                checks[column.name] = [column.words[number] for number in likeliest]
        set_features = features if self._inception is None else self._inception.of(images)

        # Face detector, and the embedding of the detected face: (n, 512).
        faces: list[FoundFace | None] = [None] * len(images)
        if self._aligner is not None:
            faces = self._aligner.find_prepared(images, self._crop)
        embeddings: Vector | None = None
        if self._embedder is not None:
            boxes = [None if face is None else face.box for face in faces]
            embeddings = self._embedder.embed(images, boxes).float().cpu().numpy()

        # The tone of an output is measured on the skin of its original.
        pixels = [to_numpy(image) for image in images]
        of_outputs = skins is not None
        skins = skins or [
            find_skin(image, self._crop, frame) for image, frame in zip(pixels, frames, strict=True)
        ]
        tones: list[SkinTone | Unavailable] = []
        for image, skin in zip(pixels, skins, strict=True):
            if isinstance(skin, Unavailable):
                tones.append(skin)
            else:
                tones.append(skin.tone_of_output(image) if of_outputs else skin.tone)

        return [
            ImageMeasurements(
                tones[i],
                apparent_colour(image, self._crop, frames[i]),
                skins[i],
                faces[i] is not None if self._reports_faces else None,
                {name: vectors[i] for name, vectors in probabilities.items()},
                None if features is None else features[i],
                None if embeddings is None else embeddings[i],
                None if set_features is None else set_features[i],
                {name: words[i] for name, words in checks.items()},
            )
            for i, image in enumerate(pixels)
        ]


def _weights_file(name: str) -> Path:
    """Return the file of fetched weights; they were there when the run was planned."""
    try:
        return fetched(get(name))[0]
    except InputError as error:
        raise InputError(f"{error}; it was fetched when this run was planned") from None


def load_networks(suite: MetricSuite, device: torch.device) -> list[Metric]:
    """Load the metrics whose networks have fetched weights."""
    networks = [MEASURED[name] for name in suite.metrics if name in MEASURED]
    return [
        metric.load(_weights_file(metric.weights), device)
        for metric in networks
        if metric.measured_from == "images" and metric.weights
    ]


def compare(metrics: Sequence[Metric], sr: Tensor, hr: Tensor) -> dict[str, Values]:
    """Image metrics of outputs (n, 3, R, R) against their originals, n values each."""
    values: dict[str, Values] = {}
    for metric in metrics:
        result = metric.compute(sr, hr)
        if isinstance(result, Unavailable):
            values[metric.name] = [None] * len(sr)
        else:
            values[metric.name] = _null_for_nan(result.double().cpu().numpy())
    return values


def attribute_cosines(sr: Sequence[ImageMeasurements], hr: Sequence[ImageMeasurements]) -> Values:
    """Cosines of the attribute model's features of outputs and originals; None without features."""
    pairs = [
        (s.features, h.features)
        for s, h in zip(sr, hr, strict=True)
        if s.features is not None and h.features is not None
    ]
    if not pairs or len(pairs) < len(sr):
        return [None] * len(sr)
    # n pairs of (d,) -> two (n, d) -> (n,)
    return _null_for_nan(cosines(*(np.stack(side) for side in zip(*pairs, strict=True))))


def identities(
    sr: Sequence[ImageMeasurements], hr: Sequence[ImageMeasurements], threshold: Threshold | None
) -> dict[str, list[Any]]:
    """``identity_cosine`` of outputs and originals, and ``verified``; empty without embeddings."""
    pairs = [
        (s.embedding, h.embedding)
        for s, h in zip(sr, hr, strict=True)
        if s.embedding is not None and h.embedding is not None
    ]
    if len(pairs) < len(sr):
        return {}
    outputs, originals = (np.stack(side) for side in zip(*pairs, strict=True))
    values = cosines(outputs, originals)
    columns: dict[str, list[Any]] = {"identity_cosine": _null_for_nan(values)}
    if threshold is not None:
        # An original without a face has no embedding: nothing to verify against.
        same = verified(values, threshold, ~np.isnan(originals).any(axis=1))
        columns["verified"] = [None if math.isnan(v) else bool(v) for v in same]
    return columns


def _null_for_nan(numbers: NDArray[Any]) -> Values:
    return [None if math.isnan(number) else float(number) for number in numbers]


@dataclass(frozen=True)
class References:
    """What is fitted on all originals; None where it is not requested or cannot be fitted.

    ``unavailable`` says why, by metric; ``false_accepts`` are the shares of pairs of different
    originals above the threshold, by group.
    """

    niqe: NiqeModel | None
    threshold: Threshold | None
    false_accepts: Mapping[str, Estimate]
    unavailable: Mapping[str, str]

    def summary(self) -> dict[str, Any]:
        """Return their entry in the manifest."""
        niqe = self.niqe and {
            "patch": self.niqe.patch,
            "n_images": self.niqe.n_images,
            "n_patches": self.niqe.n_patches,
        }
        verified = self.threshold and {
            **asdict(self.threshold),
            "rule": self.threshold.describe(),
            "false_accepts": {group: asdict(e) for group, e in self.false_accepts.items()},
        }
        return {"niqe": niqe, "verified": verified, "unavailable": dict(self.unavailable)}

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON values, exact to the bit."""
        model = self.niqe and {
            "mean": self.niqe.mean.tolist(),
            "covariance": self.niqe.covariance.tolist(),
        }
        return {**self.summary(), "model": model}


def read_references(stored: Mapping[str, Any]) -> References:
    """Read what `References.as_json` returned; `InputError` if it is something else."""
    try:
        niqe, verification = stored["niqe"], stored["verified"]
        model = niqe and NiqeModel(
            mean=torch.tensor(stored["model"]["mean"], dtype=torch.float64),
            covariance=torch.tensor(stored["model"]["covariance"], dtype=torch.float64),
            **niqe,
        )
        numbers = ("cosine", "rate", "n_pairs", "n_faces")
        threshold = verification and Threshold(**{name: verification[name] for name in numbers})
        accepts = verification["false_accepts"] if verification else {}
        return References(
            model,
            threshold,
            {group: Estimate(**values) for group, values in accepts.items()},
            dict(stored["unavailable"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"references.json: damaged ({error}); choose another --out") from None


def fit_references(
    originals: Iterable[tuple[Tensor, Vector | None]],
    groups: Sequence[str],
    patch: int | None,
    verify: bool,
) -> References:
    """Fit NIQE (with patches of a side, unless None) and the threshold of verification, if wanted.

    ``originals`` are images (3, R, R) and embeddings (d,) or None, each once, in the order of the
    plan; ``groups`` are theirs, for the false-accept rates.
    """
    embeddings: list[Vector] = []

    # One pass over the originals: NIQE takes the images, the embeddings are collected.
    def images() -> Iterable[Tensor]:
        for image, embedding in originals:
            if embedding is not None:
                embeddings.append(embedding)
            yield image

    # NIQE's model of natural faces; the pass is made without it as well.
    unavailable: dict[str, str] = {}
    niqe = NiqeModel.fit(images(), patch) if patch else None
    if patch is None:
        list(images())
    if isinstance(niqe, Unavailable):
        unavailable["niqe" if patch == PATCH else "niqe_small"] = niqe.reason
        niqe = None

    # The cosine that few pairs of different originals exceed, and their shares by group.
    threshold = impostor_threshold(np.stack(embeddings)) if verify else None
    accepts: dict[str, Estimate] = {}
    if isinstance(threshold, Unavailable):
        unavailable["verified"] = threshold.reason
        threshold = None
    elif threshold is not None:
        rates = group_false_accepts(np.stack(embeddings), groups, threshold)
        accepts = {group: e for group, e in rates.items() if isinstance(e, Estimate)}
    return References(niqe, threshold, accepts, unavailable)
