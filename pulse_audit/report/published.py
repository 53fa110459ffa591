"""Figures of papers, printed beside those of a run; they are of other faces, sizes and raters."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pulse_audit.store import Manifest
    from pulse_audit.summary.schema import EstimateRow, Summary


@dataclass(frozen=True)
class Published:
    """What a paper reports of methods, by the names of the arms that are theirs here."""

    title: str
    source: str
    #: What a reader has to know before comparing.
    caution: str
    #: Metric of ours, and what the paper's figure of it is of.
    measures: Mapping[str, str]
    #: Method, the arm or kind of arm that it is here (none: the originals), a figure a measure.
    methods: Sequence[tuple[str, str, Sequence[float | None]]]


PUBLISHED: Mapping[str, Published] = {
    "menon2020": Published(
        title="Menon et al. 2020",
        source="S. Menon, A. Damian, S. Hu, N. Ravi and C. Rudin (2020), PULSE, CVPR, tables 1, 2",
        caution="The paper's figures are of CelebA-HQ photos, a 1024 px StyleGAN of FFHQ and 40 "
        "raters; they are of another resolution, other faces and other raters than this run's, so "
        "the two columns are no comparison of numbers, only of the order of methods.",
        measures={"mos": "128 px, x8, grades 1 to 5", "niqe": "1024 px, x64"},
        methods=(
            ("originals", "", (3.74, 3.90)),
            ("nearest", "nearest", (1.01, 12.48)),
            ("bicubic", "bicubic", (1.34, 7.06)),
            ("FSRNet", "fsrnet", (2.77, None)),
            ("FSRGAN", "fsrgan", (2.92, None)),
            ("PULSE", "pulse", (3.60, 2.47)),
        ),
    ),
}


@dataclass(frozen=True)
class PublishedTable:
    """A paper's figures beside ours, as texts."""

    stem: str
    title: str
    note: str
    header: list[str]
    lines: list[list[str]]

    @property
    def csv(self) -> str:
        """The table with its header."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.lines])
        return text.getvalue()


def published_tables(manifest: Manifest, summary: Summary) -> list[PublishedTable]:
    """Tables of the papers that the run's specification names; one line a method and arm.

    Ours are of the first condition and scale of the run.
    """
    named = manifest.spec.as_dict().get("published")
    setting = next(iter(summary.settings), None)
    if not isinstance(named, list) or setting is None:
        return []
    tables = []
    side, (condition, scale) = manifest.prepared.resolution, setting
    for name in dict.fromkeys(str(each) for each in named if str(each) in PUBLISHED):
        paper = PUBLISHED[name]
        header = ["method", "arm here"]
        for metric, of in paper.measures.items():
            header += [f"{metric}, published ({of})", f"{metric}, here ({side} px, x{scale})"]
        lines = []
        for method, kind, figures in paper.methods:
            arms = [a for a, e in manifest.arms.items() if kind and kind in (a, e.kind)]
            for arm in arms or [""]:
                line = [method, arm or ("not run" if kind else "")]
                for metric, figure in zip(paper.measures, figures, strict=True):
                    line.append("–" if figure is None else f"{figure:.2f}")
                    rows = summary.select(metric, arm, condition, scale) if arm else []
                    line.append(_here(metric, rows, summary) if arm else "–")
                lines.append(line)
        note = f"{paper.caution} Source: {paper.source}."
        tables.append(PublishedTable(f"published_{name}", paper.title, note, header, lines))
    return tables


def _here(metric: str, rows: Sequence[EstimateRow], summary: Summary) -> str:
    """Write our own figure with its interval, or why there is none."""
    for row in rows:
        if row.value is not None:
            ends = "" if row.low is None else f" [{row.low:.2f}, {row.high:.2f}]"
            return f"{row.value:.2f}{ends}"
    if metric == "mos":
        return "not rated (pulse-audit rate)"
    return f"unavailable: {summary.unavailable.get(metric, 'not measured')}"
