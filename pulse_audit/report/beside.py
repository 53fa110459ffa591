"""What a report holds beside its page for papers, hubs and reviewers; written in one place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pulse_audit.files import atomic_write
from pulse_audit.report import cards
from pulse_audit.report.content import Stems
from pulse_audit.report.drawings import COLUMN, PAGE, Drawing, Drawings
from pulse_audit.report.forests import (
    Forest,
    across_settings,
    forests,
    of_priors,
    pages,
)
from pulse_audit.report.latex import paper_latex
from pulse_audit.report.methods import methods, methods_of, references
from pulse_audit.report.tables import paper_table, to_csv
from pulse_audit.store import Manifest
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.schema import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Folders that are written into, none of which may be a link.
FOLDERS = ("tables", "figures", "data", ".eval_results")


def write_beside(
    folder: Path,
    manifest: Manifest,
    samples: pd.DataFrame,
    summary: Summary,
    labelled: bool = True,
) -> None:
    """Write ``methods.md``, ``references.bib``, the cards, and the tables for a paper.

    Parameters
    ----------
    folder : Path
        Of the report; files of the same name are replaced.
    manifest : Manifest
    samples : DataFrame
    summary : Summary
        Of these samples.
    labelled : bool
        Whether the list of faces may hold their labels.
    """
    faces = cards.faces_csv(manifest, labelled)
    files = {
        "methods.md": methods(manifest, samples, summary),
        "references.bib": references(methods_of(manifest)),
        "model-card.md": cards.model_card(manifest, samples, summary),
        "bias-examination.md": cards.bias_examination(manifest, samples, summary),
        "data/faces.csv": faces,
        "croissant.json": cards.croissant(manifest, faces, labelled),
        **{f".eval_results/{n}": t for n, t in cards.eval_results(manifest, summary).items()},
        **_paper_tables(manifest, summary),
    }
    for name, text in files.items():
        atomic_write(folder / name, text.encode())


def write_drawing(folder: Path, stem: str, drawing: Drawing) -> None:
    """Write a figure as SVG, PNG and PDF."""
    for kind in ("svg", "png", "pdf"):
        atomic_write(folder / "figures" / f"{stem}.{kind}", getattr(drawing, kind))


def write_plots(folder: Path, manifest: Manifest, summary: Summary, drawn: Drawings) -> None:
    """Write the forest plots that the page draws itself: of metrics, settings and priors."""
    plots: dict[tuple[str, ...], list[Forest]] = {("priors",): of_priors(summary)}
    for columns in manifest.spec.groupings:
        name = ",".join(columns)
        plots["retention-across", name] = across_settings(manifest, summary, name)
        for condition, scale in summary.settings:
            of_setting = forests(summary, (condition, scale), name)
            plots["metrics", condition, f"x{scale}", name] = of_setting

    # A narrow figure holds fewer panels, so that there may be more of them.
    stems = Stems()
    for words, of_words in plots.items():
        for width, suffix in ((PAGE, ()), (COLUMN, ("column",))):
            for number, panels in enumerate(pages(of_words, width), start=1):
                stem = stems.make(*words, number, *suffix)
                drawing = drawn.drawing(stem, partial(_draw, panels, width))
                if drawing is not None:
                    write_drawing(folder, stem, drawing)


def _draw(panels: Sequence[Forest], width: float) -> Figure:
    """Draw forest plots; only those that were not drawn before need matplotlib."""
    from pulse_audit.report.plots import draw_forests

    return draw_forests(panels, width)


def _paper_tables(manifest: Manifest, summary: Summary) -> dict[str, str]:
    """Tables for one column of a page by condition, scale and grouping, as LaTeX and CSV."""
    stems, files = Stems(), {}
    arms = list(dict.fromkeys(row.arm for row in summary.estimates))
    trial = on_trial(manifest, arms)
    for condition, scale in summary.settings:
        for columns in manifest.spec.groupings:
            name = ",".join(columns)
            tables = paper_table(summary, trial, condition, scale, name)
            if not tables or not tables[0].columns:
                continue
            stem = stems.make("paper", condition, f"x{scale}", name)
            files[f"tables/{stem}.tex"] = paper_latex(tables)
            for number, table in enumerate(tables, start=1):
                files[f"tables/{stem}_{number}.csv"] = to_csv(table)
    return files
