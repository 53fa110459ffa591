"""The page: one self-contained file without scripts, and the tables, figures and data beside it.

Labels, ids, notes and paths of a run are not trusted: the templates escape every text, images
are decoded and encoded anew, and the page's policy lets it load nothing from anywhere.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pulse_audit import store
from pulse_audit.files import atomic_write
from pulse_audit.report.content import NamedFigure, Setting, flattened, left_out, settings
from pulse_audit.report.drawing import Drawing
from pulse_audit.report.instrument import matrices
from pulse_audit.report.tables import arrow, estimates_csv, to_csv, to_latex
from pulse_audit.store import Manifest
from pulse_audit.summary import METRICS, Summary, summarise_run, write
from pulse_audit.summary.groups import groupings

PAGE = "index.html"


def publish(run: store.Run) -> Path:
    """Write a run's ``summary.json`` and the report made of that same summary.

    Raises
    ------
    InputError
        As `render`.
    """
    made = summarise_run(run)
    write(run, made)
    return render(run, summary=made)


def render(
    run: store.Run,
    out_dir: Path | None = None,
    *,
    public: bool = False,
    summary: Summary | None = None,
) -> Path:
    """Render the report of a run from its stored samples.

    Parameters
    ----------
    run : store.Run
        Open for reading; an unfinished run gives a report that says so.
    out_dir : Path, optional
        Default ``report/`` in the run. Files of the same name are replaced, others are left.
    public : bool
        Leaves out every photo of a data set whose terms do not allow publishing them.
    summary : Summary, optional
        Of these samples, where it is at hand; else it is computed.

    Returns
    -------
    Path
        ``index.html``. Beside it: ``tables/*.csv`` and ``*.tex``, ``figures/*.svg``, ``*.png``
        and ``*.pdf``, ``data/estimates.csv`` and ``data/summary.json``.

    Raises
    ------
    InputError
        If the stored samples cannot be read or do not fit the manifest.
    """
    folder = out_dir if out_dir is not None else run.path / "report"
    samples = run.samples()
    summary = summary if summary is not None else summarise_run(run, samples)
    shown = run.manifest.dataset.may_publish_images or not public
    cells = settings(run.path, run.manifest, samples, summary, with_gallery=shown)
    _write_data(folder, summary)
    for cell in cells:
        _write_setting(folder, cell)
    page = page_text(run.manifest, samples, summary, cells, images_shown=shown)
    atomic_write(folder / PAGE, page.encode())
    return folder / PAGE


def page_text(
    manifest: Manifest,
    samples: pd.DataFrame,
    summary: Summary,
    cells: Sequence[Setting],
    images_shown: bool,
) -> str:
    """Fill the template."""
    environment = Environment(
        loader=PackageLoader("pulse_audit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("style.css").render()
    return environment.get_template("page.html.j2").render(
        style=Markup(style),
        manifest=manifest,
        dataset=manifest.dataset,
        title=manifest.dataset.title or manifest.dataset.name or "faces",
        summary=summary,
        settings=cells,
        facts=_facts(manifest, samples, cells),
        progress=_progress(manifest, samples),
        images_shown=images_shown,
        missing=_by_reason(summary.unavailable),
        left_out=left_out(manifest, samples),
        skipped=manifest.skipped,
        metrics=[m for m in METRICS if m.name not in summary.unavailable],
        arrow=arrow,
        figure_uri=_figure_uri,
        unbroken=unbroken,
        grouped_by={column for columns in groupings(manifest) for column in columns},
        provenance=_provenance(manifest),
        instrument={} if manifest.attributes is None else manifest.attributes.card,
        matrices=matrices(manifest, samples),
    )


def _facts(
    manifest: Manifest, samples: pd.DataFrame, cells: Sequence[Setting]
) -> list[tuple[str, str]]:
    """Numbers of the first screen: (number, what it counts)."""
    per_face = samples.groupby(["face_id", "arm", "condition", "scale"]).size()
    draws = f"{int(per_face.max())}" if len(per_face) else "0"
    return [
        (f"{samples['face_id'].nunique():,}", "faces"),
        (str(len(manifest.arms)), "arms"),
        (draws, "draws a face and arm"),
        (str(len(cells)), "conditions × scales"),
        (f"{len(samples):,}", "outputs judged"),
    ]


def _progress(manifest: Manifest, samples: pd.DataFrame) -> tuple[int, int]:
    """Finished and planned draws."""
    return len(samples), manifest.planned_draws


def _by_reason(unavailable: Mapping[str, str]) -> dict[str, list[str]]:
    """Metrics and columns that could not be taken, under their reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in unavailable.items():
        reasons.setdefault(reason, []).append(name)
    return reasons


def _provenance(manifest: Manifest) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of the last chapter: (title, (name, text) pairs)."""
    run_keys = ("package_version", "status", "fingerprint", "started", "finished", "seconds")
    recorded = manifest.as_dict()
    arms = [(f"Arm {name}", flattened(card)) for name, card in recorded["arms"].items()]
    sections = [
        ("Run", flattened({k: recorded[k] for k in run_keys if k in recorded})),
        ("Specification", flattened(recorded["spec"])),
        *arms,
        ("Data set", flattened(_without_vocabulary(recorded["dataset"]))),
        ("Preparation of faces", flattened(_counted(recorded.get("prepared", {})))),
        ("Execution", flattened(recorded.get("execution", {}))),
        ("Versions", flattened(recorded.get("versions", {}))),
        ("Platform", flattened({"platform": manifest.platform})),
    ]
    return [(title, pairs) for title, pairs in sections if pairs]


def _without_vocabulary(dataset: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in dataset.items() if key != "vocabulary"}


def _counted(prepared: Mapping[str, Any]) -> dict[str, Any]:
    """Give the length of the list of faces instead of the list."""
    return {k: f"{len(v)} faces" if isinstance(v, list) else v for k, v in prepared.items()}


def unbroken(sentence: str) -> str:
    """Keep numbers with their units and intervals on one line."""
    space = "\N{NO-BREAK SPACE}"
    with_units = re.sub(r"(?<=[\d\]]) (?=%|L\*)", space, sentence)
    return re.sub(r"(?<=\d), (?=[+-]?[\d.]+\])", f",{space}", with_units)


def _figure_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _write_data(folder: Path, summary: Summary) -> None:
    document = json.dumps(summary.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
    atomic_write(folder / "data" / "summary.json", f"{document}\n".encode())
    atomic_write(folder / "data" / "estimates.csv", estimates_csv(summary).encode())


def _write_setting(folder: Path, cell: Setting) -> None:
    for named in [cell.overview, *(table for part in cell.parts for table in part.tables)]:
        path = folder / "tables" / named.stem
        atomic_write(path.with_name(f"{named.stem}.csv"), to_csv(named.table).encode())
        atomic_write(path.with_name(f"{named.stem}.tex"), to_latex(named.table).encode())
    for part in cell.parts:
        for figure in part.figures:
            _write_figure(folder / "figures", figure)


def _write_figure(folder: Path, figure: NamedFigure) -> None:
    drawing: Drawing = figure.drawing
    for suffix, data in (("svg", drawing.svg), ("png", drawing.png), ("pdf", drawing.pdf)):
        atomic_write(folder / f"{figure.stem}.{suffix}", data)
