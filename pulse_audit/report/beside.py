"""What a report holds beside its page for papers, hubs and reviewers; written in one place."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pulse_audit.files import atomic_write
from pulse_audit.report import cards
from pulse_audit.report.content import Stems
from pulse_audit.report.latex import paper_latex
from pulse_audit.report.methods import methods, references
from pulse_audit.report.tables import paper_table, to_csv
from pulse_audit.store import Manifest
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.schema import Summary

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
        "references.bib": references(),
        "model-card.md": cards.model_card(manifest, samples, summary),
        "bias-examination.md": cards.bias_examination(manifest, samples, summary),
        "data/faces.csv": faces,
        "croissant.json": cards.croissant(manifest, faces, labelled),
        **{f".eval_results/{n}": t for n, t in cards.eval_results(manifest, summary).items()},
        **_paper_tables(manifest, summary),
    }
    for name, text in files.items():
        atomic_write(folder / name, text.encode())


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
