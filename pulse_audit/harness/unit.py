"""One work unit: faces -> degrade -> upsample -> measure -> rows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pulse_audit import store
from pulse_audit.datasets.images import decode
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import resize
from pulse_audit.faces.align import FaceAligner
from pulse_audit.harness.measure import (
    ImageMeasurements,
    Measurer,
    attribute_cosines,
    compare,
    identities,
    load_networks,
    to_numpy,
)
from pulse_audit.harness.plan import Plan
from pulse_audit.harness.prepare import prepared
from pulse_audit.harness.references import References, fit, read
from pulse_audit.search.config import PRESETS
from pulse_audit.seeding import fingerprint
from pulse_audit.store import Manifest
from pulse_audit.store.manifest import WorkUnit
from pulse_audit.types import Draw, Request, Status, Upsampled, Upsampler

#: Faces a group of which images are kept by ``--keep-images sample``.
SAMPLE_FACES = 2


@dataclass(frozen=True)
class Original:
    """A prepared original: image (3, R, R), whether it was aligned, and what is seen in it.

    ``aligned`` is None where the photo came in the run's crop.
    """

    image: Tensor
    aligned: bool | None
    seen: ImageMeasurements


@dataclass(frozen=True)
class Measured:
    """A finished unit: one row a draw, and the features (rows, d) where they are kept.

    Features are NaN where there is no output.
    """

    rows: list[dict[str, Any]]
    features: store.Features | None


class UnitRunner:
    """Everything a unit needs, made once for a run.

    Parameters
    ----------
    plan : Plan
    run : store.Run
        Receives the images that are kept.
    """

    def __init__(self, plan: Plan, run: store.Run) -> None:
        manifest = plan.manifest
        self._plan, self._run, self._spec = plan, run, manifest.spec
        self._resolution: int = manifest.prepared.resolution
        self._crop: str = manifest.prepared.crop
        self._device = torch.device(manifest.execution.device)
        self._eps = PRESETS[self._spec.search].eps
        self._kept = kept_faces(manifest)
        self._aligner = FaceAligner(self._device) if manifest.prepared.aligned else None
        self._instruments = plan.instruments
        self._observer = Measurer(plan.instruments, self._crop, self._device)
        self._images = [*plan.instruments.images, *load_networks(plan.instruments, self._device)]
        self._references: References | None = None
        self._seen: dict[str, ImageMeasurements] = {}
        held = 2 * manifest.execution.batch
        self.original = lru_cache(maxsize=held)(self._prepare)

    def measure(self, unit: WorkUnit) -> Measured:
        """Carry out a unit: one row a draw, failures included."""
        draws = [Draw(face_id, unit.condition, unit.scale, index) for face_id, index in unit.draws]
        originals = [self.original(draw.face_id) for draw in draws]
        hr = torch.stack([original.image for original in originals]).to(self._device)
        seeds = [draw.seed(self._spec.seed) for draw in draws]
        degradation = DegradationModel(unit.condition, unit.scale, self._spec.kernel)
        lr = degradation(hr, [fingerprint(seed, "degradation") for seed in seeds])
        requests = [
            Request(small, draw.face_id, self._plan.faces[draw.face_id].labels, seed)
            for small, draw, seed in zip(lr, draws, seeds, strict=True)
        ]
        answers = answer(self._plan.arms[unit.arm], requests, degradation)
        outputs = [self._compared(answered) for answered in answers]
        seen, values = self._measure_outputs(outputs, originals, hr)
        rows = [
            self._row(unit.arm, draws[i], seeds[i], originals[i], answers[i], seen[i])
            | {"image": self._keep(unit.arm, draws[i], originals[i], outputs[i], lr[i])}
            | values[i]
            for i in range(len(draws))
        ]
        return Measured(rows, self._stack_features(seen))

    def features_of_originals(self) -> dict[str, store.Features]:
        """Features of every original, in the order of the plan.

        Those of faces that only an earlier process measured are computed again.
        """
        for face_id in self._plan.faces:
            if face_id not in self._seen:
                self.original(face_id)
        seen = {face_id: self._seen[face_id].set_features for face_id in self._plan.faces}
        return {face_id: vector for face_id, vector in seen.items() if vector is not None}

    def references(self) -> References:
        """Take what outputs are judged by from all originals, once for a run."""
        if self._references is None:
            stored = self._run.read_references()
            self._references = self._fit_references() if stored is None else read(stored)
            if stored is None:
                self._run.write_references(self._references.as_json())
                self._run.write_manifest(references=self._references.summary())
        return self._references

    def _fit_references(self) -> References:
        metrics = self._instruments.metrics
        patch = next((record["patch"] for record in metrics.values() if "patch" in record), None)
        verify = "verified" in metrics
        faces = self._run.manifest.faces if patch or verify else []
        columns = [c for g in self._spec.groupings[:1] for c in g]
        groups = [" x ".join(str(face.labels.get(c)) for c in columns) for face in faces]
        prepared = (self.original(face.id) for face in faces)
        originals = ((original.image, original.seen.embedding) for original in prepared)
        return fit(originals, groups, patch, verify)

    def _prepare(self, face_id: str) -> Original:
        """Decode, align where the run's crop asks for it, resize and measure one original.

        By itself, never in a batch, so that it is measured alike for every arm, unit and resume.
        """
        photo = decode(self._plan.faces[face_id].source.read())
        image, aligned = prepared(photo, self._aligner, self._crop, self._resolution)
        if face_id not in self._seen:
            self._seen[face_id] = self._observer.measure(image[None].to(self._device))[0]
        return Original(image, aligned, self._seen[face_id])

    def _measure_outputs(
        self, outputs: Sequence[Tensor | None], originals: Sequence[Original], hr: Tensor
    ) -> tuple[list[ImageMeasurements | None], list[dict[str, Any]]]:
        """Measure the outputs that there are: each by itself, and beside its original."""
        present = [i for i, output in enumerate(outputs) if output is not None]
        seen: list[ImageMeasurements | None] = [None] * len(outputs)
        values: list[dict[str, Any]] = [{} for _ in outputs]
        if not present:
            return seen, values
        sr = torch.stack([output for output in outputs if output is not None])
        looked = self._observer.measure(sr)
        references = self.references()
        niqe = [] if references.niqe is None else [references.niqe.metric]
        beside = [originals[i].seen for i in present]
        measured: dict[str, list[Any]] = {
            **compare([*self._images, *niqe], sr, hr[present]),
            **identities(looked, beside, references.threshold),
        }
        if "attribute_cosine" in self._instruments.metrics:
            measured["attribute_cosine"] = attribute_cosines(looked, beside)
        for k, i in enumerate(present):
            seen[i] = looked[k]
            values[i] = {name: numbers[k] for name, numbers in measured.items()}
        return seen, values

    def _stack_features(self, seen: Sequence[ImageMeasurements | None]) -> store.Features | None:
        dim = self._run.features_dim
        if dim is None:
            return None
        nothing = np.full(dim, np.nan, np.float32)
        return np.stack(
            [s.set_features if s and s.set_features is not None else nothing for s in seen]
        )

    def _compared(self, answered: Upsampled) -> Tensor | None:
        """Bring an output to the run's resolution."""
        if answered.image is None:
            return None
        image = answered.image.float()
        if image.shape[-1] != self._resolution:
            image = resize(image[None], self._resolution, "bicubic")[0].clamp(0, 1)
        return image

    def _row(
        self,
        arm: str,
        draw: Draw,
        seed: int,
        original: Original,
        answered: Upsampled,
        seen: ImageMeasurements | None,
    ) -> dict[str, Any]:
        """One row of the samples, but for its image and the image metrics."""
        feasible = answered.feasible
        if feasible is None and answered.downscale_error is not None:
            feasible = answered.downscale_error <= self._eps
        columns = self._instruments.columns
        return {
            "face_id": draw.face_id,
            "dataset": self._spec.dataset,
            "arm": arm,
            "condition": draw.condition,
            "scale": draw.scale,
            "draw": draw.index,
            "seed": seed,
            "status": str(status(answered, seen)),
            "feasible": bool(feasible),
            "downscale_error": answered.downscale_error,
            "steps": answered.steps,
            "seconds": answered.seconds,
            "hr_aligned": original.aligned,
            "reason": answered.reason,
            **original.seen.columns("hr", columns),
            **(seen.columns("sr", columns) if seen is not None else {}),
            **{
                f"label_{attribute}": word
                for attribute, word in self._plan.faces[draw.face_id].labels.items()
            },
        }

    def _keep(
        self, arm: str, draw: Draw, original: Original, output: Tensor | None, lr: Tensor
    ) -> str | None:
        """Store the images of a draw where the spec keeps them; return the output's path."""
        if output is None or draw.face_id not in self._kept:
            return None
        key = (draw.face_id, draw.condition, draw.scale, draw.index)
        path = store.output_path(arm, *key)
        self._run.write_image(path, encode_png(output))
        # Draws share their original and arms share their inputs: what is there is the same.
        for relative, image in (
            (store.original_path(draw.face_id), original.image),
            (store.lr_path(*key), lr),
        ):
            if not (self._run.path / relative).exists():
                self._run.write_image(relative, encode_png(image))
        return path


def kept_faces(manifest: Manifest) -> frozenset[str]:
    """Faces whose images are kept: all, none, or the first few of each cell of the draw."""
    keep, faces = manifest.spec.keep_images, manifest.faces
    if keep != "sample":
        return frozenset(face.id for face in faces) if keep == "all" else frozenset()
    columns = [c for g in manifest.spec.groupings[:1] for c in g]
    taken: dict[tuple[str | None, ...], list[str]] = {}
    for face in faces:
        taken.setdefault(tuple(face.labels.get(c) for c in columns), []).append(face.id)
    return frozenset(face_id for cell in taken.values() for face_id in cell[:SAMPLE_FACES])


def status(answered: Upsampled, seen: ImageMeasurements | None) -> Status:
    """Say what became of a draw: ``no_face`` where its output shows none, feasible or not."""
    judged = answered.status in (Status.OK, Status.INFEASIBLE)
    if judged and seen is not None and seen.face_found is False:
        return Status.NO_FACE
    return answered.status


def answer(
    arm: Upsampler, requests: Sequence[Request], degradation: DegradationModel
) -> list[Upsampled]:
    """Ask an arm, and hold it to the contract: an answer a request, finite images in [0, 1]."""
    answers = arm(requests, degradation)
    if len(answers) != len(requests):
        return [_failed(f"{len(answers)} answers to {len(requests)} requests") for _ in requests]
    return [_checked(answered) for answered in answers]


def _checked(answered: Upsampled) -> Upsampled:
    image = answered.image
    if image is None:
        return answered
    if image.ndim != 3 or image.shape[0] != 3 or image.shape[1] != image.shape[2]:
        return _failed(f"output of shape {tuple(image.shape)}, not (3, R, R)")
    if not bool(torch.isfinite(image).all()):
        return _failed("output is not finite")
    if float(image.min()) < 0 or float(image.max()) > 1:
        return _failed("output leaves [0, 1]")
    return answered


def _failed(reason: str) -> Upsampled:
    return Upsampled(None, None, False, 0, 0.0, Status.ERROR, reason)


def encode_png(image: Tensor) -> bytes:
    """Encode (3, H, W) in [0, 1] as an 8-bit PNG."""
    pixels = (to_numpy(image).clip(0, 1) * 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
