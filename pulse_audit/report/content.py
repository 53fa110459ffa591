"""What the page shows, as plain data for the templates."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from pulse_audit.report.drawings import COLUMN, PAGE, Drawing, Drawings
from pulse_audit.report.forests import Forest, forests
from pulse_audit.report.ratings import rating_tables
from pulse_audit.report.screen import Matrix, matrices
from pulse_audit.report.tables import EstimateTable, arm_table, display_name, group_table
from pulse_audit.store import Manifest
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.groups import DRAW_KEYS
from pulse_audit.summary.schema import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Figures that show every arm; the others leave out plain interpolation.
OF_EVERY_ARM = ("retention", "feasible-rate")
CAPTIONS = {
    "retention": "Retention by {by}: share of all draws whose output has the apparent group of its "
    "face, with 95 % intervals; as classified, and corrected for the attribute model's measured "
    "errors where the data allow it. The bar marks the original baseline: what the originals "
    "themselves score, the most that a perfect upsampler could.",
    "shift-matrix": "Apparent group of the outputs by {by} of the face, % of all draws, as "
    "classified. The diagonal is retention; the intervals of every cell are in data/estimates.csv.",
    "sources": "Where the draws of each {by} were lost, of faces whose original the attribute "
    "model reads right (metric source_misread counts the others). Chance: the same search without "
    "guidance, the placebo, finds a feasible image of the group among its iterates. Preference: "
    "what guidance toward the group finds beyond that; a sampler that is fair in the sense of CPR "
    "would have some, too. Incapacity: guidance finds none, an upper bound of what the generator "
    "cannot show. The intervals are in data/estimates.csv.",
    "compositions": "Share of each {by} among the evaluation faces, the photos the generator was "
    "trained on, and its own samples as the attribute model classifies them.",
    "feasible-rate": "Feasible draws by {by} with 95 % intervals (Wilson at the effective sample "
    "size). The dashed line is the arm's whole sample; numbers of faces in brackets.",
    "skin-tone": "Skin tone of originals and outputs by {by}, means with 95 % face-cluster "
    "bootstrap intervals. The middle column compares every output with its own original on the "
    "same pixels and shows whether an arm changes a group's lightness. Grey diamonds are plain "
    "interpolation, where it ran, which invents nothing: a shift no larger shows nothing about an "
    "arm. Numbers of faces in brackets.",
}


@dataclass(frozen=True)
class NamedTable:
    """A table and the stem of its files."""

    stem: str
    table: EstimateTable


@dataclass(frozen=True)
class NamedFigure:
    """A figure, the stem of its files, its caption, and a text for those who cannot see it.

    ``drawing`` is as wide as a page, ``narrow`` as one of its two columns.
    """

    stem: str
    drawing: Drawing
    narrow: Drawing
    caption: str
    alt: str


@dataclass(frozen=True)
class GroupingSection:
    """Figures, matrices, plots and tables of one grouping."""

    title: str
    matrices: Sequence[Matrix]
    forests: Sequence[Forest]
    figures: Sequence[NamedFigure]
    tables: Sequence[NamedTable]


@dataclass(frozen=True)
class ConditionSection:
    """Everything under one condition and scale."""

    condition: str
    scale: int
    overview: NamedTable
    parts: Sequence[GroupingSection]
    ratings: Sequence[NamedTable] = ()


def templates(html: bool = True) -> Environment:
    """Return the templates of a report; those of HTML escape every text."""
    return Environment(
        loader=PackageLoader("pulse_audit.report"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class Stems:
    """File names made of untrusted words: harmless, and never the same twice."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def make(self, *words: object) -> str:
        """Join words to a new stem of lower-case letters, digits, dots, dashes, underscores."""
        slugs = (re.sub(r"[^a-z0-9.]+", "-", str(word).lower()).strip("-.") for word in words)
        stem = base = "_".join(slug for slug in slugs if slug)[:120] or "table"
        number = 2
        while stem in self._used:
            stem, number = f"{base}-{number}", number + 1
        self._used.add(stem)
        return stem


def sections(manifest: Manifest, summary: Summary, drawn: Drawings) -> list[ConditionSection]:
    """One section for each condition and scale that was measured, in the order of the summary."""
    stems, pages = Stems(), []
    for condition, scale in summary.settings:
        # The overview of the arms, then figures and one table per arm for every grouping.
        overview = NamedTable(
            stems.make("arms", condition, f"x{scale}"), arm_table(summary, condition, scale)
        )
        here = [r for r in summary.estimates if (r.condition, r.scale) == (condition, scale)]
        groups = []
        for columns in manifest.spec.groupings:
            name = ",".join(columns)
            shown = list(_figures(manifest, summary, condition, scale, name, stems, drawn))
            tables = [
                NamedTable(
                    stems.make(arm, condition, f"x{scale}", name),
                    group_table(summary, arm, condition, scale, name),
                )
                for arm in dict.fromkeys(row.arm for row in here)
            ]
            plots = forests(summary, (condition, scale), name)
            shifts = matrices(manifest, summary, (condition, scale), name)
            groups.append(GroupingSection(display_name(name), shifts, plots, shown, tables))
        rated = [
            NamedTable(stems.make("ratings", *words, condition, f"x{scale}"), table)
            for words, table in rating_tables(summary, condition, scale, manifest.spec.groupings)
        ]
        pages.append(ConditionSection(condition, scale, overview, groups, rated))
    return pages


def _figures(
    manifest: Manifest,
    summary: Summary,
    condition: str,
    scale: int,
    group_by: str,
    stems: Stems,
    drawn: Drawings,
) -> Iterator[NamedFigure]:
    """Every figure of a grouping that has something to show."""
    by = display_name(group_by)
    every_arm = list(dict.fromkeys(row.arm for row in summary.estimates))
    trial = on_trial(manifest, every_arm)
    for kind, caption in CAPTIONS.items():
        arms = every_arm if kind in OF_EVERY_ARM else trial
        make = partial(_figure, kind, summary, arms, condition, scale, group_by)
        stem = stems.make(kind, condition, f"x{scale}", group_by)
        drawing = drawn.drawing(stem, partial(make, PAGE))
        narrow = drawn.drawing(f"{stem}_column", partial(make, COLUMN))
        if drawing is not None and narrow is not None:
            alt = f"{kind.replace('-', ' ')} by {by}, one panel for each of {', '.join(arms)}"
            text = f"{alt}; the numbers are in the tables"
            yield NamedFigure(stem, drawing, narrow, caption.format(by=by), text)


def _figure(kind: str, *settings: Any) -> Figure | None:
    """Make a figure; only those that were not drawn before need matplotlib."""
    from pulse_audit.report.figures import FIGURES

    return FIGURES[kind](*settings)


def left_out(manifest: Manifest, samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Per group of the first label grouping: faces audited, left out, and without found face.

    ``no_face`` is None where no detector ran.
    """
    measured = {"skin_tone", "monk"}
    columns = next((c for c in manifest.spec.groupings if not set(c) & measured), [])

    # Originals on which the face detector found nothing; none where it did not run.
    has_face = samples["hr_face_found"] if "hr_face_found" in samples else pd.Series(dtype=object)
    detected = bool(has_face.notna().any())
    faceless = set(samples.loc[has_face.index[has_face.eq(False)], "face_id"])

    counts: dict[str, dict[str, Any]] = {}

    kinds = dict.fromkeys(("unreadable", "duplicate", "contradictory"), 0)

    def entry(labels: Mapping[str, Any]) -> dict[str, Any]:
        group = " × ".join(str(labels.get(c, "no label")) for c in columns) or "all"
        empty = {"group": group, "faces": 0, **kinds, "no_face": 0 if detected else None}
        return counts.setdefault(group, empty)

    for face in manifest.faces:
        row = entry(face.labels)
        row["faces"] += 1
        if detected:
            row["no_face"] += face.id in faceless
    for skipped in manifest.skipped:
        row = entry(skipped.labels)
        row[skipped.kind if skipped.kind in kinds else "unreadable"] += 1
    return list(counts.values())


def missing_work(manifest: Manifest, samples: pd.DataFrame) -> str:
    """Say which draws of a run are still to be made, per group and arm; empty where none is."""
    # Samples are rows of the plan, each once: where there are as many, they are all.
    if len(samples) == manifest.planned_draws:
        return ""
    done = set(samples[DRAW_KEYS].itertuples(index=False, name=None))
    missing = [
        (unit.arm, face_id)
        for unit in manifest.units
        for face_id, draw in unit.draws
        if (unit.arm, unit.condition, unit.scale, face_id, draw) not in done
    ]
    if not missing:
        return ""
    # Faces with all of their draws, in each group of the first label grouping.
    unfinished = {face_id for _, face_id in missing}
    columns = next(
        (c for c in manifest.spec.groupings if {*c} <= {*manifest.dataset.vocabulary}), []
    )
    whole: dict[str, int] = {}
    for face in manifest.faces:
        group = " × ".join(str(face.labels.get(c, "no label")) for c in columns)
        whole[group] = whole.get(group, 0) + (face.id not in unfinished)
    fewest, most = min(whole.values()), max(whole.values())
    of_groups = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    # Arms that lack draws.
    arms = Counter(arm for arm, _ in missing)
    by_arm = ", ".join(f"{count:,} of {arm}" for arm, count in arms.items())
    return (
        f"{len(missing):,} of {manifest.planned_draws:,} draws are missing ({by_arm}); "
        f"{sum(whole.values())} of {len(manifest.faces)} faces have all of theirs"
        + (f", {of_groups} in each group of {' x '.join(columns)}" if columns else "")
    )


@dataclass(frozen=True)
class ConfusionTable:
    """Counts of faces: row the labelled group, column the apparent one; ``right`` in per cent."""

    title: str
    words: Sequence[str]
    counts: Sequence[Sequence[int]]

    @property
    def right(self) -> Sequence[str]:
        """Share of each row on the diagonal, as text."""
        return [
            f"{100 * row[i] / sum(row):.0f} %" if sum(row) else "–"
            for i, row in enumerate(self.counts)
        ]


def confusion_tables(manifest: Manifest, samples: pd.DataFrame) -> list[ConfusionTable]:
    """Confusion of the attribute model for each attribute: on this run's originals, and held out.

    Where a model gave the labels, only the card's is shown: the run's would be the identity.
    """
    model, tables = manifest.attributes, []
    if model is None:
        return []

    # On this run's originals, each face once, where people labelled them.
    faces = samples.drop_duplicates("face_id")
    for attribute, words in model.vocabulary.items() if model.labels_from == "people" else ():
        label, predicted = f"label_{attribute}", f"hr_{attribute}"
        if label in faces and predicted in faces and faces[predicted].notna().any():
            counts = pd.crosstab(faces[label], faces[predicted])
            counts = counts.reindex(index=words, columns=words, fill_value=0)
            title = f"{attribute}, on this run's originals"
            tables.append(ConfusionTable(title, words, counts.to_numpy().tolist()))

    # On the held-out faces of the model's card, whose shape is not trusted.
    for attribute, on_card in model.card.confusion.items():
        groups = model.card.vocabulary.get(attribute)
        if groups and [len(row) for row in on_card] == [len(groups)] * len(groups):
            title = f"{attribute}, on the card's held-out faces at {model.card.resolution} px"
            tables.append(ConfusionTable(title, groups, on_card))
    return tables


@dataclass(frozen=True)
class AgreementTable:
    """Agreement of the two attribute models on outputs: one line of texts a group."""

    title: str
    lines: list[tuple[str, str, str]]


def agreement_tables(summary: Summary) -> list[AgreementTable]:
    """Rate of agreement and kappa by group, of every arm, setting and attribute."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for row in summary.estimates:
        if row.metric not in ("model_agreement", "model_kappa") or row.correction != "raw":
            continue
        title = f"{row.arm}, {row.group_by}, {row.condition}, x{row.scale}"
        value, low, high = (math.nan if x is None else x for x in (row.value, row.low, row.high))
        text = f"{value:.2f} [{low:.2f}, {high:.2f}]"
        if row.metric == "model_agreement":
            text = f"{100 * value:.0f} [{100 * low:.0f}, {100 * high:.0f}]"
        found.setdefault(title, {}).setdefault(row.group, {})[row.metric] = text
    return [
        AgreementTable(
            title,
            [
                (group, of["model_agreement"], of.get("model_kappa", "").replace("nan", "–"))
                for group, of in groups.items()
            ],
        )
        for title, groups in found.items()
    ]


def latents_of_searches(manifest: Manifest) -> dict[str, str]:
    """Say for each arm of PULSE, or of its prior, how many latents it has and of which Gaussian."""
    found = {}
    for name, arm in manifest.arms.items():
        recorded = arm.as_dict()
        generator, search = recorded.get("generator"), recorded.get("search", recorded)
        of_pulse = arm.kind == "pulse" or recorded.get("prior") == "search start"
        if not (of_pulse and isinstance(generator, Mapping) and isinstance(search, Mapping)):
            continue
        number = "one for all layers" if search.get("tied_latent") else "one for each layer"
        gaussian = "PULSE's Gaussian of independent entries"
        if generator.get("latent_fit") == "full":
            gaussian = "a Gaussian of the full covariance of the mapped latents"
        if generator.get("n_latents") == 1:
            number, gaussian = "one an image", "a standard Gaussian"
        starts, spread = recorded.get("starts"), ""
        if isinstance(starts, Mapping):
            spread = "; its starts are spread evenly over apparent groups"
            if starts.get("remedy") == "balanced":
                spread += ", and the Gaussian's mean is the mean of the groups' means"
        found[name] = f"{number}, drawn from {gaussian}{spread}"
    return found


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
