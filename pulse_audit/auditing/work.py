"""One work unit: faces -> degrade -> upsample -> measure -> rows."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pulse_audit import store
from pulse_audit.auditing.plan import Plan
from pulse_audit.auditing.prepare import prepared
from pulse_audit.datasets.images import decode
from pulse_audit.degrade.degradation import Degradation
from pulse_audit.degrade.resample import resize
from pulse_audit.faces.align import FaceAligner
from pulse_audit.faces.skin import SkinTone, skin_tone
from pulse_audit.metrics.fidelity import METRICS
from pulse_audit.search.config import PRESETS
from pulse_audit.seeding import fingerprint
from pulse_audit.types import Draw, Metric, Request, Status, Unavailable, Upsampled, Upsampler

#: Faces a group of which images are kept by ``--keep-images sample``.
SAMPLE_FACES = 2


@dataclass(frozen=True)
class Original:
    """A prepared original: image (3, R, R), whether a face was found in it, and its skin tone."""

    image: Tensor
    face_found: bool | None
    tone: SkinTone | Unavailable


class Workbench:
    """Everything a unit needs, made once for a run.

    Parameters
    ----------
    plan : Plan
    run : store.Run
        Receives the images that are kept.
    """

    def __init__(self, plan: Plan, run: store.Run) -> None:
        manifest = plan.manifest
        self._plan, self._run, self._spec = plan, run, manifest["spec"]
        self._resolution: int = manifest["prepared"]["resolution"]
        self._crop: str = manifest["prepared"]["crop"]
        self._device = torch.device(manifest["execution"]["device"])
        self._eps = PRESETS[self._spec["search"]].eps
        self._kept = kept_faces(manifest)
        self._aligner = FaceAligner(self._device) if manifest["prepared"]["aligned"] else None
        held = 2 * int(manifest["execution"]["batch"])
        self.original = lru_cache(maxsize=held)(self._prepare)

    def measure(self, unit: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Carry out a unit: one row a draw, failures included."""
        draws = [
            Draw(face_id, unit["condition"], unit["scale"], index)
            for face_id, index in unit["draws"]
        ]
        originals = [self.original(draw.face_id) for draw in draws]
        hr = torch.stack([original.image for original in originals]).to(self._device)
        seeds = [draw.seed(self._spec["seed"]) for draw in draws]
        degradation = Degradation(unit["condition"], unit["scale"], self._spec["kernel"])
        lr = degradation(hr, [fingerprint(seed, "degradation") for seed in seeds])
        requests = [
            Request(small, draw.face_id, self._plan.faces[draw.face_id].labels, seed)
            for small, draw, seed in zip(lr, draws, seeds, strict=True)
        ]
        answers = answer(self._plan.arms[unit["arm"]], requests, degradation)
        outputs = [self._compared(answered) for answered in answers]
        fidelity = measure_fidelity(outputs, hr)
        return [
            self._row(unit["arm"], draws[i], seeds[i], originals[i], answers[i], outputs[i], lr[i])
            | {name: values[i] for name, values in fidelity.items()}
            for i in range(len(draws))
        ]

    def _prepare(self, face_id: str) -> Original:
        """Decode, align where the run's crop asks for it, and resize one original."""
        photo = decode(self._plan.faces[face_id].source.read())
        image, found = prepared(photo, self._aligner, self._crop, self._resolution)
        return Original(image, found, skin_tone(_to_numpy(image), self._crop))

    def _compared(self, answered: Upsampled) -> Tensor | None:
        """Bring an output to the run's resolution."""
        if answered.image is None:
            return None
        image = answered.image
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
        output: Tensor | None,
        lr: Tensor,
    ) -> dict[str, Any]:
        """One row of the samples, but for the image metrics."""
        tone = (
            Unavailable("no output") if output is None else skin_tone(_to_numpy(output), self._crop)
        )
        feasible = answered.feasible
        if feasible is None and answered.downscale_error is not None:
            feasible = answered.downscale_error <= self._eps
        return {
            "face_id": draw.face_id,
            "dataset": self._spec["dataset"],
            "arm": arm,
            "condition": draw.condition,
            "scale": draw.scale,
            "draw": draw.index,
            "seed": seed,
            "status": str(answered.status),
            "feasible": bool(feasible),
            "downscale_error": answered.downscale_error,
            "steps": answered.steps,
            "seconds": answered.seconds,
            "image": self._keep(arm, draw, original, output, lr),
            "hr_face_found": original.face_found,
            "reason": answered.reason,
            **_tone_columns("hr", original.tone),
            **_tone_columns("sr", tone),
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


def kept_faces(manifest: Mapping[str, Any]) -> frozenset[str]:
    """Faces whose images are kept: all, none, or the first few of each cell of the draw."""
    keep, faces = manifest["spec"]["keep_images"], manifest["faces"]
    if keep != "sample":
        return frozenset(face["id"] for face in faces) if keep == "all" else frozenset()
    columns = [c for g in manifest["spec"]["group_by"][:1] for c in g.split(",")]
    taken: dict[tuple[str | None, ...], list[str]] = {}
    for face in faces:
        taken.setdefault(tuple(face["labels"].get(c) for c in columns), []).append(face["id"])
    return frozenset(face_id for cell in taken.values() for face_id in cell[:SAMPLE_FACES])


def answer(
    arm: Upsampler, requests: Sequence[Request], degradation: Degradation
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


def measure_fidelity(outputs: Sequence[Tensor | None], hr: Tensor) -> dict[str, list[float | None]]:
    """Image metrics of a unit; None where there is no output or the metric is unavailable."""
    present = [i for i, output in enumerate(outputs) if output is not None]
    values: dict[str, list[float | None]] = {m.name: [None] * len(outputs) for m in METRICS}
    if not present:
        return values
    sr = torch.stack([output for output in outputs if output is not None])
    for metric in METRICS:
        for i, value in zip(present, _values(metric, sr, hr[present]), strict=True):
            values[metric.name][i] = value
    return values


def _values(metric: Metric, sr: Tensor, hr: Tensor) -> list[float | None]:
    measured = metric.compute(sr, hr)
    if isinstance(measured, Unavailable):
        return [None] * len(sr)
    return [float(v) if not math.isnan(v) else None for v in measured.tolist()]


def _tone_columns(side: str, tone: SkinTone | Unavailable) -> dict[str, float | int | None]:
    names = ("ita", "hue", "lightness", "monk")
    return {f"{side}_{name}": getattr(tone, name, None) for name in names}


def _to_numpy(image: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(3, H, W) tensor to (H, W, 3) array."""
    return image.detach().permute(1, 2, 0).float().cpu().numpy()


def encode_png(image: Tensor) -> bytes:
    """Encode (3, H, W) in [0, 1] as an 8-bit PNG."""
    pixels = (_to_numpy(image).clip(0, 1) * 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
