"""Draws the faces of ``samples:GENERATOR`` into the cache, before a run is planned.

Samples come in a fixed order, each from its own seed, and are classified as they are stored. One is
kept while its apparent group is short of faces; the drawing ends when no group is, or after a
stated number. What is done is recorded batch by batch, so an interrupted drawing goes on there.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pulse_audit.datasets.readers import FaceIndex
from pulse_audit.datasets.samples import (
    LABELS,
    MAX_RECORD,
    RECORD,
    DrawnGroup,
    SampleRecord,
    read_samples,
)
from pulse_audit.documents import read_json
from pulse_audit.faces.attributes import checked
from pulse_audit.files import atomic_write, cache_folder, file_sha256
from pulse_audit.generators.searchable import drawn_from, prior_images
from pulse_audit.harness.photos import encode_png
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.generators import GeneratorSource, find_generator, load_generator
from pulse_audit.names import nearest
from pulse_audit.seeding import fingerprint, hexdigest
from pulse_audit.types import AttributeCard, AttributeModel, InputError, Progress

#: Samples that may be drawn for every face that is wanted.
MOST_PER_FACE = 100
#: Pixels rendered together; a constant, so that no sample depends on the run's batch.
BATCH_PIXELS, MAX_BATCH = 4 * 1024**2, 100
#: Changes whenever the same settings would give other samples.
VERSION = 1
#: What is done of a drawing that is not finished.
STATE = "drawing.json"


def samples_of(
    spec: AuditSpec,
    generator: str,
    columns: Sequence[str] | None,
    device: torch.device,
    progress: Progress,
) -> FaceIndex:
    """Return the samples of a generator, drawn now unless they are in the cache.

    Parameters
    ----------
    spec : AuditSpec
        Its seed, faces a group, truncation, attribute model and trusted files are used.
    generator : str
        As ``--generator`` takes it.
    columns : sequence of str or None
        Attributes to balance over; None means the model's ``race``, or else its first.
    device : torch.device
    progress : callable
        Called with the samples drawn, and about how many there will be.

    Raises
    ------
    InputError
        If the attribute model does not predict a column, or the generator cannot be truncated.
    """
    model, source = load_attributes(spec.attributes, device), find_generator(generator)
    labels = _label_words(model.card)
    if columns is None:
        columns = ["race" if "race" in labels else next(iter(labels))]
    for column in columns:
        if column not in labels:
            hint = nearest(column, list(labels))
            raise InputError(f"--group-by {column}: {model.card.name} predicts no such label{hint}")
    folder = cache_folder() / "samples" / _key(spec, source, model.card, columns)
    existing = read_samples(folder, spec.dataset)
    if existing is None:
        drawing = Drawing(spec, source, model, list(columns), folder, device)
        drawing.run(progress)
        existing = read_samples(folder, spec.dataset)
        assert existing is not None
    return existing


def _key(
    spec: AuditSpec, source: GeneratorSource, card: AttributeCard, columns: Sequence[str]
) -> str:
    """Digest of all that the samples follow from, but for device and versions of libraries."""
    # A StyleGAN 1 of PULSE reads its other parts from files of these names.
    parts = [source.path.with_name(name) for name in ("mapping.pt", "gaussian_fit.pt")]
    return hexdigest(
        VERSION,
        [source.sha256, *(file_sha256(part) for part in parts if part.is_file())],
        [source.reference.resolution, source.reference.upsampling, source.reference.label],
        card.as_dict(),
        list(columns),
        [spec.seed, spec.per_group, spec.truncation or 1.0, MOST_PER_FACE],
    )[:24]


def _label_words(card: AttributeCard) -> dict[str, tuple[str, ...]]:
    """Words of every attribute of a model, and groups of every grouping on its card."""
    derived = {name: tuple(entry["groups"]) for name, entry in _derived(card).items()}
    return {**{name: tuple(words) for name, words in card.vocabulary.items()}, **derived}


def _derived(card: AttributeCard) -> dict[str, dict[str, Any]]:
    """Return the groupings on an attribute model's card, as ``derived`` of a data set."""
    derived = {}
    for name, groups in card.groupings.items():
        parts = sorted(word for words in groups.values() for word in words)
        of = next((a for a, words in card.vocabulary.items() if sorted(words) == parts), None)
        usable = re.fullmatch(r"\w[\w .-]*", name) and name not in ("skin_tone", "monk")
        if of is not None and usable and name not in card.vocabulary and len(groups) > 1:
            derived[name] = {"from": of, "groups": {g: list(w) for g, w in groups.items()}}
    return derived


@dataclass
class State:
    """What is done: the next sample, samples of each group, and a row for each that was kept."""

    next: int = 0
    seen: Counter[tuple[str, ...]] = field(default_factory=Counter)
    kept: Counter[tuple[str, ...]] = field(default_factory=Counter)
    #: File name, seed, and the word of every attribute.
    rows: list[tuple[str, int, list[str]]] = field(default_factory=list)

    def as_json(self) -> bytes:
        """Return the state as a file."""
        counts = [[list(cell), n, self.kept[cell]] for cell, n in self.seen.items()]
        return json.dumps({"next": self.next, "groups": counts, "rows": self.rows}).encode()

    @classmethod
    def read(cls, path: Path) -> State:
        """Read a state; one that is missing or damaged begins anew."""
        try:
            content = read_json(path, MAX_RECORD)
            state = cls(int(content["next"]))
            for cell, seen, kept in content["groups"]:
                state.seen[tuple(cell)], state.kept[tuple(cell)] = int(seen), int(kept)
            state.rows = [(str(n), int(s), list(words)) for n, s, words in content["rows"]]
            return state
        except (FileNotFoundError, InputError, KeyError, TypeError, ValueError):
            return cls()


class Drawing:
    """One drawing of samples into a folder."""

    def __init__(
        self,
        spec: AuditSpec,
        source: GeneratorSource,
        model: AttributeModel,
        columns: list[str],
        folder: Path,
        device: torch.device,
    ) -> None:
        self._spec, self._model, self._columns, self._folder = spec, model, columns, folder
        self._device, self._sha256 = device, source.sha256
        generator = load_generator(source.reference, spec.trusted_files)
        self._generator = generator.to(device, torch.float32)
        self._truncation = spec.truncation or 1.0
        self._distribution = drawn_from(self._generator)
        if self._truncation < 1 and self._distribution != "mapping":
            raise InputError(
                f"--truncation: {generator.card.name} has no mapping network of its own whose "
                "average it could be truncated to; leave it out"
            )
        # The groups, and the attribute and group of every column's words.
        labels, self._derived = _label_words(model.card), _derived(model.card)
        self._cells = list(itertools.product(*(labels[column] for column in columns)))
        self._most = MOST_PER_FACE * spec.per_group * len(self._cells)

    def run(self, progress: Progress) -> None:
        """Draw what is missing, then write labels and record."""
        state = State.read(self._folder / STATE)
        restored, size = state.next, self._generator.card.resolution
        batch = max(1, min(MAX_BATCH, BATCH_PIXELS // size**2))
        wanted = self._spec.per_group
        while state.next < self._most and any(state.kept[c] < wanted for c in self._cells):
            progress(state.next, self._expected(state), restored)
            self._draw(state, range(state.next, min(state.next + batch, self._most)))
            atomic_write(self._folder / STATE, state.as_json())
        progress(state.next, state.next, restored)
        self._write(state)

    def _expected(self, state: State) -> int:
        """About how many samples there will be, by the groups that are short."""
        wanted = self._spec.per_group
        rarest = min(state.seen[c] for c in self._cells if state.kept[c] < wanted)
        # Of a group that has not come yet, half a sample.
        needed = round(state.next * wanted / max(rarest, 0.5))
        return min(self._most, max(state.next + 1, needed))

    @torch.no_grad()
    def _draw(self, state: State, indices: range) -> None:
        """Draw a batch of samples, and keep those of the groups that are short."""
        card, seeds = self._model.card, [self._seed(index) for index in indices]
        images = prior_images(self._generator, seeds, self._device, self._truncation)
        # Classified with the 256 levels that they are stored with.
        images = (images * 255).round() / 255
        answer = checked(self._model, images)
        likeliest = {a: answer.probabilities[a].argmax(1).tolist() for a in card.vocabulary}
        for place, (index, seed) in enumerate(zip(indices, seeds, strict=True)):
            words = {a: card.vocabulary[a][classes[place]] for a, classes in likeliest.items()}
            cell = self._cell(words)
            state.seen[cell] += 1
            if state.kept[cell] < self._spec.per_group:
                state.kept[cell] += 1
                name = f"{index:06d}.png"
                text = f"sample of {self._generator.card.name}, seed {seed}: a face of nobody"
                atomic_write(self._folder / name, encode_png(images[place], {"Description": text}))
                state.rows.append((name, seed, list(words.values())))
        state.next = indices.stop

    def _seed(self, index: int) -> int:
        return fingerprint(self._spec.seed, "samples", index)

    def _cell(self, words: dict[str, str]) -> tuple[str, ...]:
        """Group of a sample in the columns that are balanced."""
        cell = []
        for column in self._columns:
            if column in words:
                cell.append(words[column])
                continue
            entry = self._derived[column]
            word = words[entry["from"]]
            cell.append(next(g for g, members in entry["groups"].items() if word in members))
        return tuple(cell)

    def _write(self, state: State) -> None:
        """Write the labels and, last of all, the record."""
        card, model, table = self._generator.card, self._model.card, io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["file", *model.vocabulary])
        writer.writerows([name, *words] for name, _, words in state.rows)
        record = SampleRecord(
            generator=card.name,
            sha256=card.sha256 or self._sha256,
            resolution=card.resolution,
            crop=card.crop,
            licence=card.licence,
            training_data=card.training_data,
            distribution=self._distribution,
            truncation=self._truncation,
            seed=self._spec.seed,
            attributes=model.name,
            attributes_sha256=model.sha256,
            vocabulary={attribute: list(words) for attribute, words in model.vocabulary.items()},
            derived=self._derived,
            columns=self._columns,
            per_group=self._spec.per_group,
            most=self._most,
            drawn=state.next,
            groups=[
                DrawnGroup(group=list(c), drawn=state.seen[c], kept=state.kept[c])
                for c in self._cells
            ],
            seeds={name: seed for name, seed, _ in state.rows},
        )
        atomic_write(self._folder / LABELS, table.getvalue().encode())
        atomic_write(self._folder / RECORD, (record.model_dump_json(indent=1) + "\n").encode())
        (self._folder / STATE).unlink(missing_ok=True)
