"""Figures of what a run varies: their lines, points, sheet of faces, and published figures."""

from pathlib import Path

import numpy as np
import pytest

from pulse_audit.report.drawings import Drawing, Drawings
from pulse_audit.report.gallery import cards
from pulse_audit.report.html import render
from pulse_audit.report.plots import draw_axis, radii
from pulse_audit.report.published import published_tables
from pulse_audit.report.settings import Estimates, axes_of, measures_of, radii_of
from pulse_audit.report.sheet import sheet_of
from pulse_audit.summary import summarise_run

RACES = ("White", "Black")


def variant(eps, steps):
    return {
        "kind": "pulse", "search": {"eps": eps, "steps": steps}, "notes": [],
        "generator": {"name": "g", "n_latents": 8, "latent_dim": 128},
        "settings": {"eps": eps, "steps": steps},
    }  # fmt: skip


ARMS = {
    **{f"pulse:g~eps={e:g},steps={s}": variant(e, s) for e in (0.001, 0.01) for s in (50, 100)},
    "bicubic": {"kind": "interpolation", "kernel": "bicubic", "notes": []},
}


@pytest.fixture(scope="module")
def run(write_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("varied")
    conditions = ("clean", "gaussian:25")
    return write_run(path, per_group=2, races=RACES, arms=ARMS, conditions=conditions)


@pytest.fixture(scope="module")
def summary(run):
    return summarise_run(run)


def test_each_thing_that_a_run_varies_is_an_axis(run, summary):
    axes = {axis.name: axis for axis in axes_of(run.manifest, summary)}
    assert list(axes) == ["eps", "steps", "condition"]
    assert axes["eps"].values == ["0.001", "0.01"]
    # One line for every combination of the others; interpolation is no arm on trial.
    assert [line.title for line in axes["eps"].lines] == [
        f"pulse:g, steps={steps}, {condition}"
        for steps, condition in ((50, "clean"), (50, "gaussian:25"), (100, "clean"),
                                 (100, "gaussian:25"))
    ]  # fmt: skip
    assert axes["condition"].lines[0].title == "pulse:g~eps=0.001,steps=50"
    assert axes["condition"].values == ["clean", "gaussian:25"]


def test_points_and_intervals_are_those_of_the_estimates(run, summary):
    axis = next(axis for axis in axes_of(run.manifest, summary) if axis.name == "steps")
    measures = measures_of(summary)
    assert "feasible_rate" in measures
    figure = draw_axis(axis, axis.lines[:1], Estimates(summary, "race"), ["feasible_rate"])
    (panel,) = figure.axes
    keys = [key for _, key in axis.lines[0].places]
    (whole,) = panel.containers
    rows = [summary.select("feasible_rate", *key)[0] for key in keys]
    np.testing.assert_allclose(whole[0].get_ydata(), [100 * row.value for row in rows])
    (bars,) = whole[2]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[100 * row.low, 100 * row.high] for row in rows])
    # A thin line a group, in the order of the groups.
    groups = [line.get_ydata() for line in panel.lines if line is not whole[0]]
    by_group = [summary.select("feasible_rate", *key, "race") for key in keys]
    expected = [[100 * rows[g].value for rows in by_group] for g in range(len(RACES))]
    np.testing.assert_allclose(groups, expected)
    assert [text.get_text() for text in figure.legends[0].texts] == ["all faces", *RACES]


def test_the_shell_of_the_soap_bubble_holds_the_prior_s_draws(run):
    """Mean norms of simulated draws: 95 % of them are in the band that is drawn."""
    rng = np.random.default_rng(0)
    norms = np.linalg.norm(rng.standard_normal((4000, 8, 128)), axis=-1).mean(axis=1)
    drawn = norms / np.sqrt(128)
    samples = run.samples()
    samples["latent_radius"] = 1.0
    _, spread = radii_of(run.manifest, samples)["pulse:g~eps=0.01,steps=50"]
    inside = np.abs(drawn - 1) < 1.96 * spread
    assert 0.93 < inside.mean() < 0.97
    figure = radii({"a": (drawn[:50].tolist(), spread), "b~prior=none": ([1.4], spread)})
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a", "b\nprior=none"]
    assert figure.axes[0].get_xlim()[1] > 1.4


def test_a_sheet_has_the_faces_under_every_condition(run):
    sheet = sheet_of(run.manifest, run.path, cards(run.manifest, run.samples()))
    assert sheet.rows == ["clean", "gaussian:25"] * 4
    assert sheet.columns[:2] == ["original", "input"]
    assert sheet.columns.count("bicubic") == 1 and sheet.columns.count(next(iter(ARMS))) == 2
    assert all(picture is not None for row in sheet.pictures for picture in row)
    rows = run.samples().set_index(["face_id", "arm", "condition", "draw"])["feasible"]
    assert sum(flag is False for row in sheet.feasible for flag in row) == (~rows).sum()


def test_a_public_edition_keeps_no_sheet_of_faces(write_run, tmp_path, monkeypatch):
    blank = Drawing(b"<svg/>", b"png", b"pdf")
    monkeypatch.setattr(Drawings, "drawing", lambda self, stem, make: blank)
    dataset = {
        "name": "private", "title": "Private", "licence": "", "terms": "none may be shown",
        "labels_from": "people", "crop": "as-is", "may_publish_images": False,
        "vocabulary": {"race": list(RACES), "gender": ["Male", "Female"]},
    }  # fmt: skip
    made = write_run(
        tmp_path / "run", per_group=1, draws=1, races=RACES, conditions=("clean", "jpeg:9"),
        dataset=dataset,
    )  # fmt: skip
    page = render(made, tmp_path / "report").read_text()
    sheet = tmp_path / "report" / "figures" / "faces.pdf"
    assert sheet.is_file() and "figures/faces.svg" in page
    page = render(made, tmp_path / "report", public=True).read_text()
    assert not sheet.exists() and "figures/faces.svg" not in page
    assert (sheet.parent / "against_condition.pdf").is_file()


def test_a_paper_s_figures_stand_beside_ours(run, summary):
    assert published_tables(run.manifest, summary) == []
    spec = {**run.manifest.spec.as_dict(), "published": ["menon2020", "unknown"]}
    named = run.manifest.model_copy(update={"spec": type(run.manifest.spec)(**spec)})
    (table,) = published_tables(named, summary)
    by_method = {(line[0], line[1]): line for line in table.lines}
    assert by_method["bicubic", "bicubic"][2] == "1.34"
    assert by_method["FSRNet", "not run"][2:] == ["2.77", "–", "–", "–"]
    searched = [line for line in table.lines if line[0] == "PULSE"]
    assert [line[1] for line in searched] == [arm for arm in ARMS if arm != "bicubic"]
    assert Path(f"{table.stem}.csv").name == "published_menon2020.csv"
