"""``--sources``: samples of the prior, guided searches, and searches for uninformative inputs.

Four tables in ``sources/``, made after the units, task by task: finished tasks survive an
interruption, and the tables are written whole once all tasks are finished.

originals.parquet
    One row per face: the attribute models' predictions on the original.
prior.parquet
    Samples of each generator's prior, and the attribute model's predictions on them.
guided.parquet
    One row per search of every lost draw: a draw of a pulse arm that did not retain the group of a
    face whose original the attribute model reads right. From the start of the draw it is searched
    once more toward the face's own group (``own``), without guidance but with the same choice of
    iterates (``placebo``), and toward a group that neither the face nor the output shows
    (``wrong``). That is at most three times the steps of the draw, and the attribute model reads
    every iterate.
uninformative.parquet
    Searches for inputs with little or no information on the group: means of the evaluation faces
    of each group, these means with noise, and uniform greys.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pulse_audit import store
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.faces.skin import Skin, find_skin
from pulse_audit.files import atomic_write
from pulse_audit.generators.searchable import drawn_from, prior_images
from pulse_audit.harness.guidance import WEIGHT, Guided, guided_search
from pulse_audit.harness.photos import FacePipeline, to_numpy
from pulse_audit.harness.plan import Plan
from pulse_audit.harness.source_models import SourceModels
from pulse_audit.search.sphere import Start
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.seeding import fingerprint, hexdigest
from pulse_audit.store import SEARCHES, SOURCE_COLUMNS
from pulse_audit.store.manifest import WorkUnit
from pulse_audit.summary.groups import DRAW_KEYS, JOIN
from pulse_audit.summary.sources import attributed
from pulse_audit.types import InputError, Progress, Request

SourceRow: TypeAlias = dict[str, Any]

#: Prior samples rendered together: a constant, so that no sample depends on the run's batch.
PRIOR_BATCH = 100
#: Prior samples of one task.
PRIOR_TASK = 500


@dataclass(frozen=True)
class SourcesConfig:
    """Sample sizes and inputs; recorded in the manifest.

    Attributes
    ----------
    prior_samples : int
        Per generator.
    uninformative_draws : int
        Per input.
    noise : float
        Standard deviation of the noise on group means, on the [0, 1] scale of the input. Its
        square, 1.6e-3, is below the eps of the official search, so that a smooth face still fits.
    greys : tuple of float
    weight : float
        Of the guidance; 0 makes every search a placebo.
    """

    prior_samples: int = 10_000
    uninformative_draws: int = 20
    noise: float = 0.04
    greys: tuple[float, ...] = (0.25, 0.5, 0.75)
    weight: float = WEIGHT


STANDARD = SourcesConfig()


@dataclass(frozen=True)
class SourceTask:
    """One task: its table, its name, what it counts for in the progress, and how it is done."""

    table: str
    name: str
    size: int
    rows: Callable[[], list[SourceRow]] = field(repr=False)


def run_sources(
    run: store.Run,
    plan: Plan,
    models: SourceModels,
    progress: Progress,
    config: SourcesConfig = STANDARD,
) -> None:
    """Make the tables of ``sources/``, or finish them; complete tables are left as they are.

    The units of the run are finished, and ``models`` are those of `resolve_sources`. In the
    progress a search and a task of samples count alike.
    """
    # As it comes back from the manifest: lists for tuples.
    entry = json.loads(json.dumps(models.manifest_entry(asdict(config))))
    folder = run.path / "sources"
    tables = {name: folder / f"{name}.parquet" for name in SOURCE_COLUMNS}
    recorded = run.manifest.sources
    # Tables that are damaged are made again.
    with contextlib.suppress(InputError):
        unchanged = recorded is not None and recorded.as_dict() == entry
        if unchanged and run.source_tables() is not None:
            return
    # Tables are never older than their entry in the manifest.
    for path in tables.values():
        path.unlink(missing_ok=True)
    run.write_manifest(sources=entry)

    # Tasks of another configuration or other models have another key, so they are not reused.
    key = hexdigest(entry)[:12]
    guide, check = ([c.name for c in of] for of in (models.columns, models.check_columns))
    schemas = {name: store.source_schema(name, guide, check) for name in tables}
    tasks = {
        folder / "parts" / f"{key}-{task.table}-{hexdigest(task.name)[:16]}.parquet": task
        for task in SourceWork(run, plan, models, config).tasks()
    }
    waiting = {path: task for path, task in tasks.items() if not path.is_file()}
    total = sum(task.size for task in tasks.values())
    done = restored = total - sum(task.size for task in waiting.values())
    progress(done, total, restored)
    for path, task in waiting.items():
        rows = pa.Table.from_pylist(task.rows(), schema=schemas[task.table])
        atomic_write(path, store.as_parquet(rows))
        done += task.size
        progress(done, total, restored)

    # Join the tasks of each table.
    for name, table in tables.items():
        parts = [schemas[name].empty_table()]
        parts += [_read_part(path) for path, task in tasks.items() if task.table == name]
        atomic_write(table, store.as_parquet(pa.concat_tables(parts)))
    shutil.rmtree(folder / "parts")


def _read_part(path: Path) -> pa.Table:
    """Read the rows of a finished task; a damaged part is removed, so that it is made again."""
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException):
        path.unlink(missing_ok=True)
        raise InputError(f"{path}: was damaged; the same command makes it again") from None


class SourceWork:
    """The work of ``--sources``, cut into tasks; one method for the rows of each table.

    The run receives the images that are kept.
    """

    def __init__(
        self, run: store.Run, plan: Plan, models: SourceModels, config: SourcesConfig
    ) -> None:
        self._run, self._plan, self._models, self._config = run, plan, models, config
        self._spec, self._batch = plan.manifest.spec, plan.manifest.execution.batch
        self._photos = FacePipeline(run, plan.manifest, plan.faces)
        self._arms = {n: arm for n, arm in plan.arms.items() if isinstance(arm, PulseUpsampler)}
        # Faces of each group by the attributes that guide, group of each face, words of each group.
        self._groups: dict[str, list[str]] = {}
        self._group_of: dict[str, str] = {}
        self._words: dict[str, list[str]] = {}
        for face in plan.faces.values():
            words = [face.labels[column.name] for column in models.guided_by]
            group = JOIN.join(words)
            self._groups.setdefault(group, []).append(face.id)
            self._group_of[face.id], self._words[group] = group, words

    def tasks(self) -> Iterator[SourceTask]:
        """Return all tasks, the quick ones first."""
        yield SourceTask("originals", "all", 1, self.originals)
        # Samples of the priors, then the searches: guided ones by the lost draws of every unit.
        samples = self._config.prior_samples
        for arm in self._arms:
            for first in range(0, samples, PRIOR_TASK):
                last = min(first + PRIOR_TASK, samples)
                rows = partial(self.prior, arm, range(first, last))
                yield SourceTask("prior", f"{arm}/{first}-{last}", 1, rows)
        together = max(1, self._batch // len(SEARCHES))
        for unit in self._plan.manifest.units:
            key = (unit.arm, unit.condition, unit.scale)
            lost = [draw for draw in unit.draws if (*key, *draw) in self._lost]
            for first in range(0, len(lost), together):
                # The searches of a task are at most a batch.
                part = unit.model_copy(update={"draws": lost[first : first + together]})
                size, rows = len(SEARCHES) * len(part.draws), partial(self.guided, part)
                yield SourceTask("guided", f"{unit.id}/{first}", size, rows)
        # Kinds of uninformative inputs: group means, noisy group means, greys.
        kinds = [
            *((kind, group) for kind in ("group_mean", "noisy_mean") for group in self._groups),
            *(("grey", f"{level:g}") for level in self._config.greys),
        ]
        size = self._config.uninformative_draws
        for arm in self._arms:
            for scale in self._spec.scales:
                for kind, content in kinds:
                    rows = partial(self.uninformative, arm, scale, kind, content)
                    yield SourceTask("uninformative", f"{arm}/{scale}/{kind}/{content}", size, rows)

    def originals(self) -> list[SourceRow]:
        """Predict the attributes of every original by itself."""
        rows = []
        for face_id in self._plan.faces:
            image = self._photos.original(face_id).image[None].to(self._photos.device)
            (predicted,) = self._models.predict_and_check(image, "hr")
            rows.append({"face_id": face_id, **predicted})
        return rows

    def prior(self, arm: str, indices: range) -> list[SourceRow]:
        """Draw samples of a generator's prior and predict their attributes."""
        # Batches of a fixed size, each sample with its own seed.
        generator = self._arms[arm].generator
        distribution = drawn_from(generator)
        rows: list[SourceRow] = []
        for first in range(indices.start, indices.stop, PRIOR_BATCH):
            batch = range(first, min(first + PRIOR_BATCH, indices.stop))
            seeds = [fingerprint(self._spec.seed, "prior", index) for index in batch]
            images = self._photos.resample(prior_images(generator, seeds, self._photos.device))
            predictions = self._models.predict(images, "sr")
            for index, seed, image, predicted in zip(
                batch, seeds, images, predictions, strict=True
            ):
                sample = {"arm": arm, "index": index, "seed": seed, "drawn": distribution}
                rows.append({**sample, **predicted, **self._tone(image)})
        return rows

    @cached_property
    def _lost(self) -> dict[tuple[str, str, int, str, int], str]:
        """Apparent group of the output of every lost draw, by the key of the draw."""
        samples = self._run.samples()
        rows = attributed(
            samples[samples["arm"].isin(list(self._arms))],
            [column.name for column in self._models.guided_by],
        )
        lost = rows[rows["lost"]]
        keys = (lost[name].tolist() for name in DRAW_KEYS)
        return dict(zip(zip(*keys, strict=True), lost["apparent"].tolist(), strict=True))

    def guided(self, unit: WorkUnit) -> list[SourceRow]:
        """Search lost draws of a unit again from their starts: one row per draw and search."""
        arm, columns = self._arms[unit.arm], self._models.guided_by
        inputs = self._photos.unit_inputs(unit)
        # The searches of every draw: its number in the unit, the kind, and the wanted group.
        searches: list[tuple[int, str, str]] = []
        for number, (draw, seed) in enumerate(zip(inputs.draws, inputs.seeds, strict=True)):
            key = (unit.arm, draw.condition, draw.scale, draw.face_id, draw.index)
            own = self._group_of[draw.face_id]
            # A wrong group is one that neither the face nor the output shows, drawn uniformly; of
            # two groups there may be none.
            others = [group for group in self._groups if group not in (own, self._lost[key])]
            searches += [(number, "own", own), (number, "placebo", own)]
            if others:
                drawn = fingerprint(seed, "wrong group") % len(others)
                searches.append((number, "wrong", others[drawn]))

        # Their weights (n,), and the wanted classes by attribute (n,).
        device = self._photos.device
        weights = [0.0 if kind == "placebo" else self._config.weight for _, kind, _ in searches]
        classes = {
            column.name: torch.tensor(
                [column.words.index(self._words[group][place]) for _, _, group in searches],
                device=device,
            )
            for place, column in enumerate(columns)
        }
        start = arm.start(inputs.requests)
        # The search inverts DS at the generator's own resolution.
        factor = arm.generator.card.resolution // inputs.lr.shape[-1]
        began, results = time.perf_counter(), dict[int, Guided]()
        # In batches as in the audit itself.
        for search, places in arm.batches([inputs.requests[n] for n, _, _ in searches]):
            part = torch.tensor([searches[place][0] for place in places])
            searched = guided_search(
                search.generator,
                inputs.lr[part.to(device)],
                Start(start.latents[part], tuple(m[part] for m in start.noise)),
                lambda images: inputs.degradation.downscale(images, scale=factor),
                arm.config,
                lambda images: self._models.guiding_probabilities(self._photos.resample(images)),
                {name: wanted[places] for name, wanted in classes.items()},
                torch.tensor([weights[place] for place in places], device=device),
            )
            results |= zip(places, searched, strict=True)
        seconds = (time.perf_counter() - began) / len(results)

        # One row per search; images of the faces that the run keeps are stored.
        found = []
        for place, (number, kind, group) in enumerate(searches):
            result, weight = results[place], weights[place]
            draw, predicted, path = inputs.draws[number], {}, None
            if result.image is not None:
                image = self._photos.resample(result.image[None])
                (predicted,) = self._models.predict_and_check(image, "sr")
                path = self._photos.keep(f"{unit.arm}, {kind}", draw, image[0])
            found.append(
                {
                    "face_id": draw.face_id,
                    "arm": unit.arm,
                    "condition": draw.condition,
                    "scale": draw.scale,
                    "draw": draw.index,
                    "seed": inputs.seeds[number],
                    "search": kind,
                    "toward": group,
                    "weight": weight,
                    "feasible": result.feasible,
                    "shown": result.shown,
                    "downscale_error": result.downscale_error,
                    "steps": result.steps,
                    "seconds": seconds,
                    "image": path,
                    **predicted,
                }
            )
        return found

    @cached_property
    def _means(self) -> dict[str, Tensor]:
        """Mean original of each group, (3, R, R)."""
        side = self._photos.resolution
        means = {}
        for group, faces in self._groups.items():
            # Summed in float64, so that rounding does not grow with the number of faces.
            total = torch.zeros(3, side, side, dtype=torch.float64)
            for face_id in faces:
                total += self._photos.original(face_id).image
            means[group] = (total / len(faces)).float()
        return means

    def uninformative(self, name: str, scale: int, kind: str, content: str) -> list[SourceRow]:
        """Search one uninformative input from many starts."""
        arm, degradation = self._arms[name], DegradationModel("clean", scale, self._spec.kernel)
        draws = range(self._config.uninformative_draws)
        seeds = [
            fingerprint(self._spec.seed, "uninformative", kind, content, scale, draw)
            for draw in draws
        ]
        # The input (1, 3, r, r): a uniform grey, or the mean face of a group.
        shape = (3, self._photos.resolution, self._photos.resolution)
        hr = torch.full(shape, float(content)) if kind == "grey" else self._means[content]
        lr = degradation(hr[None].to(self._photos.device), [0])

        rows: list[SourceRow] = []
        for first in range(0, len(draws), self._batch):
            requests = []
            for draw, seed in enumerate(seeds[first : first + self._batch], start=first):
                small = lr[0]
                if kind == "noisy_mean":
                    # Every draw has its own noise.
                    source = torch.Generator().manual_seed(fingerprint(seed, "noise"))
                    noise = torch.randn(small.shape, generator=source).to(small)
                    small = (small + self._config.noise * noise).clamp(0, 1)
                requests.append(Request(small, f"{kind} {content}", {}, seed, draw=draw))
            for draw, result in enumerate(arm(requests, degradation), start=first):
                measured: SourceRow = {}
                if result.image is not None:
                    image = self._photos.resample(result.image[None])
                    (measured,) = self._models.predict(image, "sr")
                    measured |= self._tone(image[0])
                rows.append(
                    {
                        "arm": name,
                        "condition": "clean",
                        "scale": scale,
                        "kind": kind,
                        "about": content,
                        "input": f"{kind} {content}",
                        "draw": draw,
                        "seed": seeds[draw],
                        "status": str(result.status),
                        "feasible": bool(result.feasible),
                        "downscale_error": result.downscale_error,
                        **measured,
                    }
                )
        return rows

    def _tone(self, image: Tensor) -> SourceRow:
        skin = find_skin(to_numpy(image), self._photos.crop, self._photos.frame)
        tone = skin.tone if isinstance(skin, Skin) else None
        return {name: getattr(tone, name, None) for name in ("lightness", "ita")}
