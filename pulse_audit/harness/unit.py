"""One work unit: faces -> degrade -> upsample -> measure -> rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulse_audit import store
from pulse_audit.frames import Frame
from pulse_audit.harness.measure import (
    ImageMeasurements,
    Measurer,
    References,
    attribute_cosines,
    compare,
    fit_references,
    identities,
    load_networks,
    read_references,
)
from pulse_audit.harness.photos import FacePipeline, ImageStore
from pulse_audit.harness.plan import Plan
from pulse_audit.metrics.fidelity import spread
from pulse_audit.search.config import preset
from pulse_audit.store.manifest import WorkUnit
from pulse_audit.types import Degradation, Draw, Request, Status, Upsampled, Upsampler

#: Originals whose measurements are kept in memory, and most of those that references are fitted on:
#: the first of the plan, which are balanced. More would not change a model of patches or a rate of
#: pairs, and every shard fits them.
KEPT_ORIGINALS, REFERENCE_FACES = 4000, 2000


@dataclass(frozen=True)
class UnitResult:
    """A finished unit: one row per draw, and the features (rows, d) where the run keeps them.

    Features are NaN where there is no output. ``at_once`` is the number of images that were
    searched at once, where the device's memory ran out in this unit.
    """

    rows: list[dict[str, Any]]
    features: store.Features | None
    at_once: int | None = None


class UnitRunner:
    """Carries out work units: what they need is loaded once.

    The run receives the references and the images that are kept. Where there is none, as in a
    worker, these have to be given: the references, and where images go.
    """

    def __init__(
        self,
        plan: Plan,
        run: store.Run | None,
        references: References | None = None,
        images: ImageStore | None = None,
    ) -> None:
        self._plan, self._run, self._spec = plan, run, plan.manifest.spec
        self._eps = preset(self._spec.search, self._spec.eps).eps
        self.photos = FacePipeline(images or run, plan.manifest, plan.faces)
        self._suite, device = plan.suite, self.photos.device
        self._measurer = Measurer(self._suite, self.photos.crop, device)
        self._pair_metrics = [*self._suite.images, *load_networks(self._suite, device)]
        self._references = references
        self.original_measurements = lru_cache(maxsize=KEPT_ORIGINALS)(self._measure_original)
        #: Features of the originals measured so far, by face; workers measure some of them.
        self.original_features: dict[str, store.Features] = {}

    def run(self, unit: WorkUnit) -> UnitResult:
        """Carry out a unit: one row per draw, failures included."""
        inputs = self.photos.unit_inputs(unit)
        originals = [self.original_measurements(draw.face_id) for draw in inputs.draws]
        # Upsample, and bring what comes back to the run's resolution.
        arm = self._plan.arms[unit.arm]
        before = getattr(arm, "at_once", None)
        results = upsample(arm, inputs.requests, inputs.degradation)
        after = getattr(arm, "at_once", None)
        at_once = None if after == before else after
        outputs = [
            None if r.image is None else self.photos.resample(r.image.float()[None])[0]
            for r in results
        ]
        frames = [self.photos.original(draw.face_id).frame for draw in inputs.draws]
        measured, pair_values = self._measure_outputs(outputs, originals, inputs.hr, frames)
        feasible = [self._feasible(result) for result in results]
        of_draws = self._measure_draws(inputs.draws, results, outputs, feasible)

        # One row per draw, whatever became of it.
        rows: list[dict[str, Any]] = []
        for i, (draw, result, output) in enumerate(
            zip(inputs.draws, results, outputs, strict=True)
        ):
            sr = measured[i]
            image = None
            if output is not None:
                image = self.photos.keep(unit.arm, draw, output, inputs.lr[i])
            labels = self._plan.faces[draw.face_id].labels
            rows.append(
                {
                    "face_id": draw.face_id,
                    "dataset": self._spec.dataset,
                    "arm": unit.arm,
                    "condition": draw.condition,
                    "scale": draw.scale,
                    "draw": draw.index,
                    "seed": inputs.seeds[i],
                    "status": str(status(result, sr)),
                    "feasible": feasible[i],
                    "downscale_error": result.downscale_error,
                    "steps": result.steps,
                    "seconds": result.seconds,
                    "image": image,
                    "hr_aligned": self.photos.original(draw.face_id).aligned,
                    **self.photos.frame_columns(draw.face_id),
                    "reason": result.reason,
                    "planted_from": result.planted_from,
                    "planted_group": result.planted_group,
                    **originals[i].columns("hr", self._suite.columns),
                    **(sr.columns("sr", self._suite.columns) if sr is not None else {}),
                    **{f"label_{attribute}": word for attribute, word in labels.items()},
                    **pair_values[i],
                    **{name: values[i] for name, values in of_draws.items()},
                }
            )

        dim = self._plan.manifest.features.dim
        if dim is None:
            return UnitResult(rows, None, at_once)
        # (d,) per output -> (rows, d)
        missing = np.full(dim, np.nan, np.float32)
        vectors = [None if sr is None else sr.set_features for sr in measured]
        features = np.stack([missing if v is None else v for v in vectors])
        return UnitResult(rows, features, at_once)

    def _measure_original(self, face_id: str) -> ImageMeasurements:
        """Measure an original: by itself, so that its values are the same for every unit."""
        original = self.photos.original(face_id)
        image = original.image[None].to(self.photos.device)
        measurements = self._measurer.measure(image, [original.frame])[0]
        if measurements.set_features is not None:
            self.original_features[face_id] = measurements.set_features
        return measurements

    def features_of_originals(self) -> dict[str, store.Features]:
        """Features of every original of this run's units, in the order of the plan.

        Those of faces that only an earlier process measured are computed again.
        """
        manifest = self._plan.manifest if self._run is None else self._run.manifest
        own = {face_id for unit in manifest.own_units for face_id, _ in unit.draws}
        faces = [face.id for face in manifest.faces if face.id in own]
        for face_id in faces:
            if face_id not in self.original_features:
                self.original_measurements(face_id)
        known = self.original_features
        return {face_id: known[face_id] for face_id in faces if face_id in known}

    def references(self) -> References:
        """Return what was fitted on the originals; fitted once for a run, and stored."""
        if self._references is not None:
            return self._references
        assert self._run is not None
        # A resumed run uses the numbers that were fitted before.
        stored = self._run.read_references()
        if stored is not None:
            self._references = read_references(stored)
            return self._references

        metrics = self._suite.metrics
        patch = next((record["patch"] for record in metrics.values() if "patch" in record), None)
        verify = "verified" in metrics
        # Originals are read again only where a metric needs them.
        faces = self._plan.manifest.faces[:REFERENCE_FACES] if patch or verify else []
        columns = [column for grouping in self._spec.groupings[:1] for column in grouping]
        groups = [" x ".join(str(face.labels.get(c)) for c in columns) for face in faces]
        originals = (
            (
                self.photos.original(face.id).image,
                self.original_measurements(face.id).embedding if verify else None,
            )
            for face in faces
        )
        self._references = fit_references(originals, groups, patch, verify)
        self._run.write_references(self._references.as_json())
        self._run.write_manifest(references=self._references.summary())
        return self._references

    def _feasible(self, result: Upsampled) -> bool:
        """Whether an output fits its input, by the eps of the search where its arm does not say."""
        if result.feasible is None and result.downscale_error is not None:
            return result.downscale_error <= self._eps
        return bool(result.feasible)

    def _measure_draws(
        self,
        draws: Sequence[Draw],
        results: Sequence[Upsampled],
        outputs: Sequence[Tensor | None],
        feasible: Sequence[bool],
    ) -> dict[str, list[float | None]]:
        """Measure what is of the search itself, and of all feasible draws of a face together."""
        columns: dict[str, list[float | None]] = {}
        if "latent_radius" in self._suite.metrics:
            columns["latent_radius"] = [result.latent_radius for result in results]
        if "spread" in self._suite.metrics:
            columns["spread"] = [None] * len(draws)
            kept = [i for i, out in enumerate(outputs) if out is not None and feasible[i]]
            if kept:
                images = torch.stack([out for i in kept if (out := outputs[i]) is not None])
                values = spread(images, [draws[i].face_id for i in kept]).tolist()
                for i, value in zip(kept, values, strict=True):
                    columns["spread"][i] = value if math.isfinite(value) else None
        return columns

    def _measure_outputs(
        self,
        outputs: Sequence[Tensor | None],
        originals: Sequence[ImageMeasurements],
        hr: Tensor,
        frames: Sequence[Frame],
    ) -> tuple[list[ImageMeasurements | None], list[dict[str, Any]]]:
        """Measure the outputs that exist: each by itself, and against its original."""
        measured: list[ImageMeasurements | None] = [None] * len(outputs)
        pair_values: list[dict[str, Any]] = [{} for _ in outputs]
        present = [i for i, output in enumerate(outputs) if output is not None]
        if not present:
            return measured, pair_values
        # m outputs exist: (m, 3, R, R)
        sr = torch.stack([output for output in outputs if output is not None])
        # Each output by itself, then against its original.
        hr_measurements = [originals[i] for i in present]
        skins = [measurements.skin for measurements in hr_measurements]
        sr_measurements = self._measurer.measure(sr, [frames[i] for i in present], skins)
        references = self.references()
        niqe = [] if references.niqe is None else [references.niqe.metric]
        columns: dict[str, list[Any]] = {
            **compare([*self._pair_metrics, *niqe], sr, hr[present]),
            **identities(sr_measurements, hr_measurements, references.threshold),
        }
        if "attribute_cosine" in self._suite.metrics:
            columns["attribute_cosine"] = attribute_cosines(sr_measurements, hr_measurements)
        # Back to the places of the draws.
        for k, i in enumerate(present):
            measured[i] = sr_measurements[k]
            pair_values[i] = {name: values[k] for name, values in columns.items()}
        return measured, pair_values


def status(result: Upsampled, measurements: ImageMeasurements | None) -> Status:
    """Return the status of a draw: ``no_face`` where its output shows none, feasible or not."""
    judged = result.status in (Status.OK, Status.INFEASIBLE)
    if judged and measurements is not None and measurements.face_found is False:
        return Status.NO_FACE
    return result.status


def upsample(
    arm: Upsampler, requests: Sequence[Request], degradation: Degradation
) -> list[Upsampled]:
    """Call an arm and check its results: one per request, finite images in [0, 1].

    A result that breaks the contract becomes a row of status ``error``.
    """
    results = arm(requests, degradation)
    if len(results) != len(requests):
        return [_failed(f"{len(results)} answers to {len(requests)} requests") for _ in requests]
    # Every image has to be finite, square RGB in [0, 1].
    checked = []
    for result in results:
        image = result.image
        # What an arm says about its error is a number, or nothing.
        error = result.downscale_error
        if error is not None and not math.isfinite(error):
            result = replace(result, downscale_error=None)
        if image is None:
            checked.append(result)
        elif image.ndim != 3 or image.shape[0] != 3 or image.shape[1] != image.shape[2]:
            checked.append(_failed(f"output of shape {tuple(image.shape)}, not (3, R, R)"))
        elif not bool(torch.isfinite(image).all()):
            checked.append(_failed("output is not finite"))
        elif float(image.min()) < 0 or float(image.max()) > 1:
            checked.append(_failed("output leaves [0, 1]"))
        else:
            checked.append(result)
    return checked


def _failed(reason: str) -> Upsampled:
    return Upsampled(None, None, False, 0, 0.0, Status.ERROR, reason)
