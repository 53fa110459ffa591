"""What the page says, as plain data for the templates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pulse_audit.report import figures, source_figures
from pulse_audit.report.drawing import Drawing, draw
from pulse_audit.report.gallery import MOST_PICTURES, Gallery, gallery
from pulse_audit.report.tables import Table, arm_table, group_table
from pulse_audit.store import Manifest
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.groups import assign, groupings
from pulse_audit.summary.schema import Summary

#: Figures of a grouping, by name.
FIGURES = {
    "retention": figures.retention,
    "shift-matrix": figures.shift_matrix,
    "sources": source_figures.split,
    "compositions": source_figures.compositions,
    "feasible-rate": figures.feasibility,
    "skin-tone": figures.skin_tone,
}


@dataclass(frozen=True)
class NamedTable:
    """A table and the stem of its files."""

    stem: str
    table: Table


@dataclass(frozen=True)
class NamedFigure:
    """A figure, the stem of its files, what it shows, and the same for those who cannot see it."""

    stem: str
    drawing: Drawing
    caption: str
    alt: str


@dataclass(frozen=True)
class Part:
    """Figures and tables of one grouping."""

    title: str
    figures: Sequence[NamedFigure]
    tables: Sequence[NamedTable]


@dataclass(frozen=True)
class Setting:
    """Everything under one condition and scale."""

    condition: str
    scale: int
    overview: NamedTable
    parts: Sequence[Part]
    gallery: Gallery | None


class Stems:
    """File names made of untrusted words: harmless, and never twice the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def make(self, *words: object) -> str:
        """Join words to a new stem of lower-case letters, digits, dots, dashes, underscores."""
        slugs = (re.sub(r"[^a-z0-9.]+", "-", str(word).lower()).strip("-.") for word in words)
        stem = wanted = "_".join(slug for slug in slugs if slug)[:120] or "table"
        number = 2
        while stem in self._taken:
            stem, number = f"{wanted}-{number}", number + 1
        self._taken.add(stem)
        return stem


def settings(
    run_path: Path,
    manifest: Manifest,
    samples: pd.DataFrame,
    summary: Summary,
    with_gallery: bool,
) -> list[Setting]:
    """One entry for each condition and scale that was measured, in the order of the summary."""
    # rows of scale 0 belong to no setting: compositions of a generator's prior or of a data set
    measured = (row for row in summary.estimates if row.scale)
    cells = list(dict.fromkeys((row.condition, row.scale) for row in measured))
    stems, budget, made = Stems(), MOST_PICTURES, []
    for condition, scale in cells:
        here = samples[(samples["condition"] == condition) & (samples["scale"] == scale)]
        shown = _gallery(run_path, manifest, here, summary) if with_gallery and budget > 0 else None
        budget -= shown.n_pictures if shown else 0
        overview = NamedTable(
            stems.make("arms", condition, f"x{scale}"), arm_table(summary, condition, scale)
        )
        parts = list(_parts(manifest, summary, condition, scale, stems))
        made.append(Setting(condition, scale, overview, parts, shown))
    return made


def _gallery(
    run_path: Path, manifest: Manifest, samples: pd.DataFrame, summary: Summary
) -> Gallery | None:
    columns = next(iter(groupings(manifest)), [])
    if not columns:
        of_face = {face: "all" for face in samples["face_id"]}
        return gallery(run_path, manifest, samples, of_face, ["all"])
    name = ",".join(columns)
    of_face = dict(zip(samples["face_id"], assign(samples, columns), strict=True))
    order = list(dict.fromkeys(row.group for row in summary.estimates if row.group_by == name))
    return gallery(run_path, manifest, samples, of_face, order)


def _parts(
    manifest: Manifest, summary: Summary, condition: str, scale: int, stems: Stems
) -> Iterator[Part]:
    rows = [row for row in summary.estimates if (row.condition, row.scale) == (condition, scale)]
    arms = list(dict.fromkeys(row.arm for row in rows))
    for columns in groupings(manifest):
        name = ",".join(columns)
        drawn = list(_figures(manifest, summary, condition, scale, name, stems))
        tables = [
            NamedTable(
                stems.make(arm, condition, f"x{scale}", name),
                group_table(summary, arm, condition, scale, name),
            )
            for arm in arms
        ]
        yield Part(name.replace(",", " × ").replace("_", " "), drawn, tables)


def _figures(
    manifest: Manifest,
    summary: Summary,
    condition: str,
    scale: int,
    group_by: str,
    stems: Stems,
) -> Iterator[NamedFigure]:
    by = group_by.replace(",", " × ").replace("_", " ")
    everyone = list(dict.fromkeys(row.arm for row in summary.estimates))
    trial = on_trial(manifest, summary.estimates)
    wanted = (
        (
            "retention",
            everyone,
            f"Retention by {by}: draws whose output has the apparent group of its face, of all "
            "draws, with 95 % intervals. As classified, and corrected for the attribute model's "
            "measured errors where those can carry it; the bar is what the originals themselves "
            "score, the most that a perfect upsampler could.",
        ),
        (
            "shift-matrix",
            trial,
            f"Where faces of each {by} end up: apparent group of the output, % of all draws, as "
            "classified. The diagonal is retention; the intervals of every cell are in "
            "data/estimates.csv.",
        ),
        (
            "sources",
            trial,
            f"Where each {by} loses its draws. Preference: a search guided toward the face's own "
            "group finds a feasible image that shows it. Incapacity: it finds none, an upper bound "
            "of what the generator cannot show. The intervals are in data/estimates.csv.",
        ),
        (
            "compositions",
            trial,
            f"Share of each {by} among the evaluation faces, the photos a generator was trained "
            "on, and its own samples as the attribute model sees them.",
        ),
        (
            "feasible-rate",
            everyone,
            f"Feasible draws by {by} with 95 % intervals (Wilson at the effective sample size). "
            "The dashed line is the arm's whole sample; faces in brackets.",
        ),
        (
            "skin-tone",
            trial,
            f"Skin tone of originals and outputs by {by}, means with 95 % face-cluster bootstrap "
            "intervals. Whether an arm moves a group is read from the middle column, where each "
            "output is compared with its own original; faces in brackets.",
        ),
    )
    for kind, arms, caption in wanted:
        figure = FIGURES[kind](summary, arms, condition, scale, group_by)
        if figure is not None:
            stem = stems.make(kind, condition, f"x{scale}", group_by)
            alt = f"{kind.replace('-', ' ')} by {by}, one panel for each of {', '.join(arms)}"
            drawing = draw(figure)
            yield NamedFigure(stem, drawing, caption, f"{alt}; the numbers are in the tables")


def left_out(manifest: Manifest, samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Per group of the first label grouping: faces audited, unreadable, and without found face.

    ``no_face`` is None where no detector ran.
    """
    measured = {"skin_tone", "monk"}
    columns = next((c for c in groupings(manifest) if not set(c) & measured), [])
    faceless = _without_face(manifest, samples)
    counts: dict[str, dict[str, Any]] = {}

    def entry(labels: Mapping[str, Any]) -> dict[str, Any]:
        group = " × ".join(str(labels.get(c, "no label")) for c in columns) or "all"
        none_found = None if faceless is None else 0
        fresh = {"group": group, "faces": 0, "unreadable": 0, "no_face": none_found}
        return counts.setdefault(group, fresh)

    for face in manifest.faces:
        row = entry(face.labels)
        row["faces"] += 1
        if faceless is not None:
            row["no_face"] += face.id in faceless
    for skipped in manifest.skipped:
        entry(skipped.labels)["unreadable"] += 1
    return list(counts.values())


def _without_face(manifest: Manifest, samples: pd.DataFrame) -> set[str] | None:
    """Originals on which the face detector found nothing; None where it did not run."""
    listed = manifest.prepared.as_dict().get("no_face")
    found = samples["hr_face_found"] if "hr_face_found" in samples else pd.Series(dtype=object)
    if listed is None and found.isna().all():
        return None
    return {*(listed or []), *samples.loc[found.index[found.eq(False)], "face_id"]}


def flattened(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested JSON values as (dotted name, text) pairs, in order; lists of plain values joined."""
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in flattened(inner, f"{name}.{key}")]
    if isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
        return [pair for i, item in enumerate(value) for pair in flattened(item, f"{name}.{i}")]
    plain = name.removeprefix(".")
    if isinstance(value, list):
        return [(plain, ", ".join(map(str, value)) or "none")]
    if value is None or isinstance(value, bool):
        return [(plain, {None: "none", True: "yes", False: "no"}[value])]
    return [(plain, str(value))]
