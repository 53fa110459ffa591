"""``--sources``: what the prior holds, what guidance finds, what uninformative inputs become.

Four tables in ``sources/``, made after the units, piece by piece: finished pieces survive an
interruption, and the tables are written whole once all of them are there.

originals.parquet
    One row a face: what the attribute models see in it.
prior.parquet
    Samples of each generator's prior, and what the attribute model sees in them.
guided.parquet
    One row a draw of every pulse arm: its search once more, from the same start, guided toward
    the face's labelled group.
uninformative.parquet
    Searches for inputs that say little or nothing of a group: means of the evaluation faces of
    each group, these means with noise, and greys.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from pulse_audit import store
from pulse_audit.datasets.images import decode
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import resize
from pulse_audit.faces.align import FaceAligner
from pulse_audit.faces.skin import SkinTone, skin_tone
from pulse_audit.files import atomic_write
from pulse_audit.generators.searchable import drawn_from, prior_images
from pulse_audit.harness.guidance import WEIGHTS, guided_search
from pulse_audit.harness.measure import to_numpy
from pulse_audit.harness.plan import Plan
from pulse_audit.harness.prepare import prepared
from pulse_audit.harness.sources_models import SourceModels
from pulse_audit.harness.sources_parts import Parts, Piece, Row, schemas
from pulse_audit.harness.unit import encode_png, kept_faces
from pulse_audit.search.sphere import draw_start
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.seeding import fingerprint, hexdigest
from pulse_audit.store.manifest import WorkUnit
from pulse_audit.types import Draw, Request

Progress = Callable[[int, int, int], None]

#: Samples of the prior rendered and looked at together: a constant, so that no sample depends on
#: the run's batch.
PRIOR_CHUNK = 100
#: Chunks of a piece of work.
PRIOR_CHUNKS = 5


@dataclass(frozen=True)
class Settings:
    """How much is done; recorded in the manifest.

    Attributes
    ----------
    prior_samples : int
        For each generator.
    uninformative_draws : int
        For each input.
    noise : float
        Standard deviation of the noise on group means, on the [0, 1] scale of the input. Its
        square, 1.6e-3, is below the eps of the official search, so that a smooth face still fits.
    greys : tuple of float
    weights : tuple of float
        Of the guidance, tried in turn.
    """

    prior_samples: int = 10_000
    uninformative_draws: int = 20
    noise: float = 0.04
    greys: tuple[float, ...] = (0.25, 0.5, 0.75)
    weights: tuple[float, ...] = WEIGHTS


STANDARD = Settings()


def run_sources(
    run: store.Run,
    plan: Plan,
    models: SourceModels,
    progress: Progress,
    settings: Settings = STANDARD,
) -> None:
    """Make the tables of ``sources/``, or go on with them; nothing is done where they are there.

    Parameters
    ----------
    run : store.Run
        With its units finished.
    plan : Plan
    models : SourceModels
        From `settle_sources`.
    progress : callable
        Called as ``progress(done, total, restored)``; searches and chunks of samples count alike.
    settings : Settings
    """
    # As it comes back from the manifest: lists for tuples.
    described = json.loads(json.dumps(models.entries(settings=asdict(settings))))
    folder = run.path / "sources"
    tables = {name: folder / f"{name}.parquet" for name in store.SOURCE_TABLES}
    recorded = run.manifest.sources
    unchanged = recorded is not None and recorded.as_dict() == described
    if unchanged and all(map(Path.is_file, tables.values())):
        return
    # Tables are never older than what the manifest says of them.
    for path in tables.values():
        path.unlink(missing_ok=True)
    run.write_manifest(sources=described)
    # Pieces of other settings or models have another key: they are not taken for these.
    parts = Parts(folder / "parts", hexdigest(described)[:12], schemas(models))
    pieces = list(SourcesWork(run, plan, models, settings).pieces())
    make_pieces(pieces, parts, progress)
    for name, path in tables.items():
        atomic_write(path, parts.joined(piece for piece in pieces if piece.table == name))
    shutil.rmtree(parts.folder)


def make_pieces(pieces: Sequence[Piece], parts: Parts, progress: Progress) -> None:
    """Make the pieces that are not on disk yet."""
    waiting = [piece for piece in pieces if not parts.path(piece).is_file()]
    total = sum(piece.size for piece in pieces)
    done = restored = total - sum(piece.size for piece in waiting)
    progress(done, total, restored)
    for piece in waiting:
        parts.write(piece, piece.make())
        done += piece.size
        progress(done, total, restored)


class SourcesWork:
    """What has to be done for ``--sources``, cut into pieces.

    Parameters
    ----------
    run : store.Run
        Receives the images that are kept.
    plan : Plan
    models : SourceModels
    settings : Settings
    """

    def __init__(
        self, run: store.Run, plan: Plan, models: SourceModels, settings: Settings
    ) -> None:
        manifest = plan.manifest
        self._run, self._plan, self._models, self._settings = run, plan, models, settings
        self._spec, self._units = manifest.spec, manifest.units
        self._resolution: int = manifest.prepared.resolution
        self._crop: str = manifest.prepared.crop
        self._device = torch.device(manifest.execution.device)
        self._batch = manifest.execution.batch
        self._kept = kept_faces(manifest)
        self._aligner = FaceAligner(self._device) if manifest.prepared.aligned else None
        self._original = lru_cache(maxsize=2 * self._batch)(self._prepare)

    @cached_property
    def _arms(self) -> dict[str, PulseUpsampler]:
        arms = self._plan.arms.items()
        return {name: arm for name, arm in arms if isinstance(arm, PulseUpsampler)}

    def pieces(self) -> Iterator[Piece]:
        """Return all the work there is, what is quick first."""
        yield Piece("originals", "all", 1, self._originals)
        for name in self._arms:
            step = PRIOR_CHUNK * PRIOR_CHUNKS
            for first in range(0, self._settings.prior_samples, step):
                last = min(first + step, self._settings.prior_samples)
                work = partial(self._prior, name, range(first, last))
                yield Piece("prior", f"{name}/{first}-{last}", 1, work)
        for unit in self._units:
            if unit.arm in self._arms:
                work = partial(self._guided, unit)
                yield Piece("guided", unit.id, len(unit.draws), work)
        for name in self._arms:
            for scale in self._spec.scales:
                for kind, about in self._kinds():
                    work = partial(self._uninformative, name, scale, kind, about)
                    size = self._settings.uninformative_draws
                    yield Piece("uninformative", f"{name}/{scale}/{kind}/{about}", size, work)

    def _prepare(self, face_id: str) -> Tensor:
        photo = decode(self._plan.faces[face_id].source.read())
        return prepared(photo, self._aligner, self._crop, self._resolution)[0]

    def _originals(self) -> list[Row]:
        """Look at every original by itself."""
        rows = []
        for face_id in self._plan.faces:
            image = self._original(face_id)[None].to(self._device)
            (seen,) = self._models.measure(image, "hr")
            rows.append({"face_id": face_id, **seen})
        return rows

    def _prior(self, name: str, indices: range) -> list[Row]:
        """Draw samples of a generator's prior and look at them."""
        generator = self._arms[name].generator
        rows: list[Row] = []
        for first in range(indices.start, indices.stop, PRIOR_CHUNK):
            chunk = range(first, min(first + PRIOR_CHUNK, indices.stop))
            seeds = [fingerprint(self._spec.seed, "prior", index) for index in chunk]
            images = self._compared(prior_images(generator, seeds, self._device))
            for index, seed, image, seen in zip(
                chunk, seeds, images, self._models.look_once(images), strict=True
            ):
                drawn = {"arm": name, "index": index, "seed": seed, "drawn": drawn_from(generator)}
                rows.append({**drawn, **seen, **self._tone(image)})
        return rows

    def _guided(self, unit: WorkUnit) -> list[Row]:
        """Search a unit once more, from the same starts, guided toward the labelled groups."""
        arm = self._arms[unit.arm]
        draws = [Draw(face_id, unit.condition, unit.scale, i) for face_id, i in unit.draws]
        seeds = [draw.seed(self._spec.seed) for draw in draws]
        hr = torch.stack([self._original(draw.face_id) for draw in draws]).to(self._device)
        degradation = DegradationModel(unit.condition, unit.scale, self._spec.kernel)
        lr = degradation(hr, [fingerprint(seed, "degradation") for seed in seeds])
        factor = arm.generator.card.resolution // lr.shape[-1]
        began = time.perf_counter()
        found = guided_search(
            arm.generator,
            lr,
            draw_start(arm.generator, seeds, arm.config),
            lambda images: degradation.downscale(images, scale=factor),
            arm.config,
            lambda images: self._models.guiding(self._compared(images)),
            self._wanted(draws),
            self._settings.weights,
        )
        seconds = (time.perf_counter() - began) / len(draws)
        rows = []
        for draw, seed, guided in zip(draws, seeds, found, strict=True):
            seen, path = {}, None
            if guided.image is not None:
                image = self._compared(guided.image[None])
                (seen,) = self._models.measure(image, "sr")
                path = self._keep(unit.arm, draw, image[0])
            rows.append(
                {
                    "face_id": draw.face_id,
                    "arm": unit.arm,
                    "condition": draw.condition,
                    "scale": draw.scale,
                    "draw": draw.index,
                    "seed": seed,
                    "feasible": guided.feasible,
                    "shown": guided.shown,
                    "downscale_error": guided.downscale_error,
                    "steps": guided.steps,
                    "weight": guided.weight,
                    "seconds": seconds,
                    "image": path,
                    **seen,
                }
            )
        return rows

    def _wanted(self, draws: Sequence[Draw]) -> dict[str, Tensor]:
        """Class of every draw's labelled group, an attribute."""
        labels = [self._plan.faces[draw.face_id].labels for draw in draws]
        return {
            column.name: torch.tensor(
                [column.words.index(of_face[column.name]) for of_face in labels],
                device=self._device,
            )
            for column in self._models.guided_by
        }

    def _keep(self, arm: str, draw: Draw, image: Tensor) -> str | None:
        """Store a guided image where the spec keeps the face's; return its path."""
        if draw.face_id not in self._kept:
            return None
        key = (draw.face_id, draw.condition, draw.scale, draw.index)
        path = store.output_path(f"{arm}, guided", *key)
        self._run.write_image(path, encode_png(image))
        return path

    def _kinds(self) -> Iterator[tuple[str, str]]:
        """Kind of every uninformative input, and what it is made of."""
        for kind in ("group_mean", "noisy_mean"):
            for group in self._groups:
                yield kind, group
        for level in self._settings.greys:
            yield "grey", f"{level:g}"

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        """Faces of each group, by the attributes that guide."""
        names = [column.name for column in self._models.guided_by]
        groups: dict[str, list[str]] = {}
        for face in self._plan.faces.values():
            groups.setdefault(" × ".join(face.labels[name] for name in names), []).append(face.id)
        return groups

    @cached_property
    def _means(self) -> dict[str, Tensor]:
        """Mean original of each group, (3, R, R)."""
        means = {}
        for group, faces in self._groups.items():
            total = torch.zeros(3, self._resolution, self._resolution, dtype=torch.float64)
            for face_id in faces:
                total += self._original(face_id).cpu()
            means[group] = (total / len(faces)).float()
        return means

    def _uninformative(self, name: str, scale: int, kind: str, about: str) -> list[Row]:
        """Search one uninformative input from many starts."""
        arm, degradation = self._arms[name], DegradationModel("clean", scale, self._spec.kernel)
        draws = range(self._settings.uninformative_draws)
        seeds = [
            fingerprint(self._spec.seed, "uninformative", kind, about, scale, draw)
            for draw in draws
        ]
        if kind == "grey":
            hr = torch.full((3, self._resolution, self._resolution), float(about))
        else:
            hr = self._means[about]
        small = degradation(hr[None].to(self._device), [0])
        rows: list[Row] = []
        for first in range(0, len(draws), self._batch):
            of_batch = seeds[first : first + self._batch]
            lr = torch.cat([self._noisy(small, seed, kind) for seed in of_batch])
            requests = [
                Request(x, f"{kind} {about}", {}, s) for x, s in zip(lr, of_batch, strict=True)
            ]
            for draw, answered in enumerate(arm(requests, degradation), start=first):
                seen: Row = {}
                if answered.image is not None:
                    image = self._compared(answered.image[None])
                    (seen,) = self._models.look_once(image)
                    seen |= self._tone(image[0])
                rows.append(
                    {
                        "arm": name,
                        "condition": "clean",
                        "scale": scale,
                        "kind": kind,
                        "about": about,
                        "input": f"{kind} {about}",
                        "draw": draw,
                        "seed": seeds[draw],
                        "status": str(answered.status),
                        "feasible": bool(answered.feasible),
                        "downscale_error": answered.downscale_error,
                        **seen,
                    }
                )
        return rows

    def _noisy(self, lr: Tensor, seed: int, kind: str) -> Tensor:
        """Add the draw's own noise to an input (1, 3, h, w), where its kind has any."""
        if kind != "noisy_mean":
            return lr
        source = torch.Generator().manual_seed(fingerprint(seed, "noise"))
        noise = torch.randn(lr.shape, generator=source).to(lr)
        return (lr + self._settings.noise * noise).clamp(0, 1)

    def _compared(self, images: Tensor) -> Tensor:
        """Bring images (n, 3, r, r) to the run's resolution, as outputs are; differentiable."""
        if images.shape[-1] == self._resolution:
            return images
        return resize(images, self._resolution, "bicubic").clamp(0, 1)

    def _tone(self, image: Tensor) -> Row:
        tone = skin_tone(to_numpy(image), self._crop)
        known = isinstance(tone, SkinTone)
        return {name: getattr(tone, name) if known else None for name in ("lightness", "ita")}
