"""The page, and the tables, figures and data beside it.

Labels, ids, notes and paths of a run are not trusted: the templates escape every text, images
are decoded and encoded again, the one script makes elements of text alone, and the page's content
policy lets no other script run and nothing be loaded but the parts that this script asks for.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from markupsafe import Markup

from pulse_audit import store
from pulse_audit.fairness.prior import PRIORS
from pulse_audit.files import as_json, atomic_write, refuse_links
from pulse_audit.gate.check import GateResult, stored_result
from pulse_audit.metrics.registry import METRICS
from pulse_audit.report.beside import FOLDERS, write_beside, write_drawing, write_plots
from pulse_audit.report.content import (
    ConditionSection,
    NamedFigure,
    agreement_tables,
    confusion_tables,
    flattened,
    latents_of_searches,
    left_out,
    missing_work,
    sections,
    templates,
)
from pulse_audit.report.drawings import Drawings
from pulse_audit.report.forests import across_settings, of_priors
from pulse_audit.report.gallery import cards, first_faces, viewer_note, write_parts
from pulse_audit.report.latex import to_latex
from pulse_audit.report.prior import views
from pulse_audit.report.published import PublishedTable, published_tables
from pulse_audit.report.screen import matrices
from pulse_audit.report.settings import setting_figures
from pulse_audit.report.sheet import STEM, sheet_figure
from pulse_audit.report.tables import arm_table, arrow, estimates_csv, to_csv
from pulse_audit.stats.bootstrap import MANY_FACES
from pulse_audit.store import Manifest
from pulse_audit.store.manifest import CardEntry
from pulse_audit.summary import Summary, summarise_run, write

PAGE = "index.html"


def publish(
    run: store.Run,
    samples: pd.DataFrame | None = None,
    *,
    out_dir: Path | None = None,
    public: bool = False,
) -> Path:
    """Summarise a run: write ``summary.json``, and the report of that same summary.

    ``samples`` are those of the run, where they are at hand; else they are read. ``out_dir`` and
    ``public`` are those of `render`.

    Raises
    ------
    InputError
        As `render`.
    """
    samples = run.samples() if samples is None else samples
    summary = summarise_run(run, samples)
    write(run, summary)
    return render(run, out_dir, public=public, summary=summary, samples=samples)


def render(
    run: store.Run,
    out_dir: Path | None = None,
    *,
    public: bool = False,
    summary: Summary | None = None,
    samples: pd.DataFrame | None = None,
) -> Path:
    """Render the report of a run from its stored samples.

    Parameters
    ----------
    run : store.Run
        Open for reading; an unfinished run gives a report that says so.
    out_dir : Path, optional
        Default ``report/`` in the run. Files of the same name are replaced, others are left.
    public : bool
        Leaves out every photo, and every row of single faces and their labels, of a data set whose
        terms do not allow publishing them.
    summary : Summary, optional
        Of these samples, where it is at hand; else it is computed.
    samples : DataFrame, optional
        Those of the run, where they are at hand; else they are read.

    Returns
    -------
    Path
        ``index.html``. Beside it: ``tables/*.csv`` and ``*.tex``, ``figures/*.svg``, ``*.png``
        and ``*.pdf``, 6.9 inches wide and, as ``*_column``, 3.25 inches,
        ``data/estimates.csv`` and ``data/summary.json``, what they were made of
        (``data/samples.parquet``, ``data/manifest.json``; not in a public edition of a data set
        whose terms do not allow it), and what `pulse_audit.report.beside` writes.

    Raises
    ------
    InputError
        If the stored samples cannot be read or do not fit the manifest.
    """
    folder = out_dir if out_dir is not None else run.path / "report"
    refuse_links(folder, (".", *FOLDERS, PAGE))
    samples = run.samples() if samples is None else samples
    summary = summary if summary is not None else summarise_run(run, samples)
    images_shown = run.manifest.dataset.may_publish_images or not public
    drawn = Drawings(summary, list(run.manifest.arms), run.manifest.spec.groupings)
    pages = sections(run.manifest, summary, drawn)
    made = cards(run.manifest, samples) if images_shown else []
    varied = setting_figures(run.manifest, summary, samples, drawn)
    papers = published_tables(run.manifest, summary)
    if varied or papers:
        varied = [*sheet_figure(run.manifest, run.path, made), *varied]
    shown = first_faces(run.manifest, run.path, made)

    # Every estimate, as JSON and as CSV.
    atomic_write(folder / "data" / "summary.json", as_json(summary.as_json()))
    atomic_write(folder / "data" / "estimates.csv", estimates_csv(summary).encode())

    # What they are made of, where labels of faces may be shown; else not that of an earlier report.
    if images_shown:
        rows = pa.Table.from_pandas(samples, run.schema, preserve_index=False)
        atomic_write(folder / "data" / "samples.parquet", store.as_parquet(rows))
        atomic_write(folder / "data" / "manifest.json", as_json(run.manifest.as_dict()))
    else:
        for name in ("samples.parquet", "manifest.json"):
            (folder / "data" / name).unlink(missing_ok=True)

    # Tables and figures of every condition and scale; the page itself comes last.
    write_tables(folder, pages)
    for old in (folder / "figures").glob(f"{STEM}*.*"):
        old.unlink()  # may show faces that were withdrawn, or are not to be shown
    of_parts = (each for page in pages for part in page.parts for each in part.figures)
    for figure in (*varied, *of_parts):
        write_drawing(folder, figure.stem, figure.drawing)
        write_drawing(folder, f"{figure.stem}_column", figure.narrow)
    write_plots(folder, run.manifest, summary, drawn)
    drawn.forget_older()
    for table in papers:
        atomic_write(folder / "tables" / f"{table.stem}.csv", table.csv.encode())
    # For papers, hubs and reviewers.
    write_beside(folder, run.manifest, samples, summary, labelled=images_shown)
    write_parts(folder / "data", run, made, images_shown)
    text = page_text(
        run.manifest,
        samples,
        summary,
        pages,
        made,
        shown,
        varied,
        images_shown=images_shown,
        gate=stored_result(run),
        published=papers,
    )
    atomic_write(folder / PAGE, text.encode())
    return folder / PAGE


def write_tables(folder: Path, pages: Sequence[ConditionSection]) -> None:
    """Write the tables of every condition and scale as CSV and LaTeX."""
    for page in pages:
        of_parts = (table for part in page.parts for table in part.tables)
        for named in [page.overview, *of_parts, *page.ratings]:
            path = folder / "tables" / named.stem
            atomic_write(path.with_name(f"{named.stem}.csv"), to_csv(named.table).encode())
            atomic_write(path.with_name(f"{named.stem}.tex"), to_latex(named.table).encode())


def page_text(
    manifest: Manifest,
    samples: pd.DataFrame,
    summary: Summary,
    pages: Sequence[ConditionSection],
    made: Sequence[Mapping[str, Any]],
    shown: Sequence[Mapping[str, Any]],
    varied: Sequence[NamedFigure],
    images_shown: bool,
    gate: GateResult | None = None,
    published: Sequence[PublishedTable] = (),
) -> str:
    """Fill the template.

    ``shown`` are the cards of the first screen, with pictures, ``varied`` the figures of what the
    run varies, ``published`` tables of papers beside the run.
    """
    # Numbers of the first screen.
    draws = samples.groupby(["face_id", "arm", "condition", "scale"]).size()
    facts = [
        counted(samples["face_id"].nunique(), "face"),
        counted(len(manifest.arms), "arm"),
        counted(int(draws.max()) if len(draws) else 0, "draw") + " per face and arm",
        counted(len(pages), "combination") + " of condition and scale",
        counted(len(samples), "output") + " measured",
    ]
    setting = next(iter(summary.settings), None)
    first_grouping = ",".join(next(iter(manifest.spec.groupings), []))

    # Metrics and columns without a value, under their reason.
    missing: dict[str, list[str]] = {}
    for name, reason in summary.unavailable.items():
        missing.setdefault(reason, []).append(name)

    environment = templates()
    script = (files("pulse_audit.report") / "templates" / "viewer.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    estimated = {row.metric for row in summary.estimates}
    return environment.get_template("page.html.j2").render(
        style=Markup(environment.get_template("style.css").render()),
        manifest=manifest,
        dataset=manifest.dataset,
        title=manifest.dataset.title or manifest.dataset.name or "faces",
        summary=summary,
        script=Markup(script),
        script_digest=f"sha256-{digest}",
        gate=gate,
        outcomes=Counter(verdict.outcome for verdict in gate.verdicts) if gate else {},
        claimed=any(finding.claims for finding in summary.headline),
        described=[each for each in summary.findings if each not in summary.headline],
        first_faces=shown,
        heads=heads(shown),
        first_matrices=matrices(manifest, summary, setting, first_grouping) if setting else [],
        viewer=viewer_note(samples, made),
        across=[
            plot
            for columns in manifest.spec.groupings
            for plot in across_settings(manifest, summary, ",".join(columns))
        ],
        varied=varied,
        published=published,
        settings=pages,
        facts=facts,
        missing_work=missing_work(manifest, samples),
        complete=manifest.complete and len(samples) == manifest.planned_draws,
        images_shown=images_shown,
        missing=missing,
        left_out=left_out(manifest, samples),
        skipped=manifest.skipped,
        # Every metric of this version; those that few runs measure, only where this one did.
        metrics=[
            m
            for m in METRICS
            if m.kind != "column"
            and m.name not in summary.unavailable
            and (m.in_every_run and not m.needs or m.name in estimated)
        ],
        arrow=arrow,
        figure_uri=figure_uri,
        unbroken=unbroken,
        wrapping=wrapping,
        grouped_by={column for columns in manifest.spec.groupings for column in columns},
        provenance=provenance(manifest),
        latents=latents_of_searches(manifest),
        card=CardEntry() if manifest.attributes is None else manifest.attributes.card,
        confusion_tables=confusion_tables(manifest, samples),
        agreements=agreement_tables(summary),
        priors=views(summary),
        prior_plots=of_priors(summary),
        prior_meanings=PRIORS,
        many_faces=MANY_FACES,
    )


def fragment(manifest: Manifest, summary: Summary) -> str:
    """Return a run as a piece of HTML for a notebook: its findings and the table of its arms."""
    setting = next(iter(summary.settings), None)
    return (
        templates()
        .get_template("fragment.html.j2")
        .render(
            manifest=manifest,
            title=manifest.dataset.title or manifest.dataset.name or "faces",
            summary=summary,
            table=arm_table(summary, *setting) if setting else None,
            arrow=arrow,
            unbroken=unbroken,
        )
    )


def heads(shown: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Arms of the first screen and their columns, the most draws that any face has."""
    arms = dict.fromkeys(arm for card in shown for arm in card["by_arm"])
    return [(arm, max(len(card["by_arm"].get(arm, ())) for card in shown)) for arm in arms]


def counted(number: int, what: str) -> str:
    """Spell out a number of things."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def provenance(manifest: Manifest) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of the last chapter: (title, (name, text) pairs)."""
    recorded = manifest.as_dict()
    run_keys = ("package_version", "status", "fingerprint", "started", "finished", "seconds")
    # Long, and in the tables already, or for machines alone.
    dataset = {k: v for k, v in recorded["dataset"].items() if k != "vocabulary"}
    if isinstance(dataset.get("samples"), Mapping):
        dataset["samples"] = {k: v for k, v in dataset["samples"].items() if k != "seeds"}
    entries: list[tuple[str, Mapping[str, Any]]] = [
        ("Run", {key: recorded[key] for key in run_keys if key in recorded}),
        ("Specification", recorded["spec"]),
        *((f"Arm {name}", arm) for name, arm in recorded["arms"].items()),
        ("Data set", dataset),
        ("Preparation of faces", recorded.get("prepared", {})),
        ("Execution", recorded.get("execution", {})),
        ("Versions", recorded.get("versions", {})),
        ("Platform", {"platform": manifest.platform}),
    ]
    return [(title, pairs) for title, entry in entries if (pairs := flattened(entry))]


def unbroken(sentence: str) -> str:
    """Keep numbers with their units and intervals on one line."""
    space = "\N{NO-BREAK SPACE}"
    with_units = re.sub(r"(?<=[\d\]]) (?=%|L\*)", space, sentence)
    return re.sub(r"(?<=\d), (?=[+-]?[\d.]+\])", f",{space}", with_units)


def wrapping(word: str) -> str:
    """Let a long word of a data set break after its underscores."""
    return word.replace("_", "_\N{ZERO WIDTH SPACE}")


def figure_uri(svg: bytes) -> str:
    """Return an SVG as a data URI."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
