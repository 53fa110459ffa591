"""The audits of reports/ are those of the present code: `make reports` renders them again."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pulse_audit import store
from pulse_audit.report.beside import write_beside
from pulse_audit.report.content import sections
from pulse_audit.report.drawings import Drawing, Drawings
from pulse_audit.report.html import render, write_tables
from pulse_audit.report.tables import estimates_csv
from pulse_audit.summary import read, summarise
from pulse_audit.summary.estimates import DISTANCES

ROOT = Path(__file__).parents[2]
PUBLISHED = sorted(path.parent for path in (ROOT / "reports").glob("*/index.html"))
#: Those that hold what their numbers were made of.
WITH_SAMPLES = [path for path in PUBLISHED if (path / "data" / "samples.parquet").exists()]


@pytest.fixture(params=WITH_SAMPLES, ids=lambda path: path.name)
def published(request):
    """Folder, manifest, samples and summary of a published audit."""
    data = request.param / "data"
    manifest = store.check_manifest(json.loads((data / "manifest.json").read_text("utf-8")))
    return request.param, manifest, pd.read_parquet(data / "samples.parquet"), read(data)


def test_every_audit_is_published():
    assert {path.name for path in PUBLISHED} == {
        "default", *(path.stem for path in (ROOT / "reports").glob("*.yaml"))
    }  # fmt: skip
    assert "default" in {path.name for path in WITH_SAMPLES}


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_summaries_are_of_the_present_version(folder):
    summary = read(folder / "data")
    assert summary.estimates and summary.headline
    assert (folder / "data" / "estimates.csv").read_text("utf-8") == estimates_csv(summary)


def test_numbers_and_sentences_are_those_of_the_present_code(published):
    _, manifest, samples, summary = published
    # Features of faces are not published, so distances cannot be computed again.
    found = summarise(manifest, samples)
    kept = [row for row in summary.estimates if row.metric not in DISTANCES]
    assert len(kept) == len(found.estimates)
    for old, new in zip(kept, found.estimates, strict=True):
        same = ("value", "low", "high", "detail")
        assert new.model_dump(exclude={*same}) == old.model_dump(exclude={*same})
        numbers = [(row.value, row.low, row.high) for row in (new, old)]
        assert [n is None for n in numbers[0]] == [n is None for n in numbers[1]]
        a, b = ([n or 0.0 for n in of_row] for of_row in numbers)
        assert a[0] == pytest.approx(b[0], rel=1e-6, abs=1e-9)
        # Sampling errors are drawn along eigenvectors, whose signs are the processor's: another one
        # may draw other errors of the same spread (`fairness.noise`), by which the check net's
        # corrected intervals differed by up to 0.0103.
        near = 0.02 if (old.correction, old.metric[-6:]) == ("corrected", "_check") else 1e-9
        assert a[1:] == pytest.approx(b[1:], rel=1e-6, abs=near)
    assert found.findings == summary.findings


def test_texts_and_tables_are_those_of_the_present_code(published, tmp_path, monkeypatch):
    folder, manifest, samples, summary = published
    drawings = Drawings(summary)
    monkeypatch.setattr(drawings, "drawing", lambda stem, make: Drawing(b"", b"", b""))
    write_beside(tmp_path, manifest, samples, summary)
    write_tables(tmp_path, sections(manifest, summary, drawings))
    made = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) > 10
    stale = [str(m) for m in made if (folder / m).read_bytes() != (tmp_path / m).read_bytes()]
    assert not stale, f"{', '.join(stale)}: run `make reports` and commit what it writes"


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_pages_are_those_of_the_runs_on_this_machine(folder, tmp_path):
    run = ROOT / "runs" / "reports" / folder.name
    if not (run / "manifest.json").exists():
        pytest.skip(f"runs/reports/{folder.name} is not on this machine")
    page = render(store.open_run(run), tmp_path, public=True)
    assert page.read_bytes() == (folder / "index.html").read_bytes(), "run `make reports`"
