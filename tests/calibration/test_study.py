"""A study is resumable, reproducible, and says what it is worth."""

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from pulse_audit.calibration import before, publish, study
from pulse_audit.calibration.scenarios import Performance, Scenario, share
from pulse_audit.types import InputError

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def coin(random: np.random.Generator, replicates: int) -> Performance:
    return share(random.random(replicates) < 0.5)


def scenario(name: str = "a", low: float | None = 0.4, high: float | None = 0.6) -> Scenario:
    return Scenario("coins", "coin", {"name": name}, "coverage", coin, (), low, high)


def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    scenarios = [scenario("a"), scenario("b")]
    study.run_study(scenarios[:1], 50, 0, tmp_path, workers=1)
    heard: list[tuple[int, int, int]] = []
    rows = study.run_study(scenarios, 50, 0, tmp_path, lambda *told: heard.append(told), workers=1)
    assert heard == [(1, 2, 1), (2, 2, 1)]
    assert [row.scenario.settings["name"] for row in rows] == ["a", "b"]


def test_what_a_fraction_leaves_unclear_gets_all_replicates(tmp_path: Path) -> None:
    def often(random: np.random.Generator, replicates: int) -> Performance:
        # 0.58 of ten is unclear where at most 0.5 is required, 0.5 of all is not
        return Performance(0.58 if replicates < study.FULL else 0.5, 0.05)

    unclear = Scenario("coins", "coin", {}, "coverage", often, (), None, 0.5, fraction=0.01)
    for whole in (study.FULL, study.QUICK):
        rows = study.run_study([unclear], whole, 0, tmp_path, workers=1)
        is_settled = rows[0].replicates == whole and rows[0].verdict == "met"
        assert is_settled == (whole == study.FULL)


def test_seeds_decide_and_scenarios_do_not_share_numbers(tmp_path: Path) -> None:
    def values(seed: int, folder: str) -> list[float]:
        rows = study.run_study(
            [scenario("a"), scenario("b")], 500, seed, tmp_path / folder, workers=1
        )
        return [row.performance.value for row in rows]

    first = values(0, "first")
    assert first == values(0, "again") and first != values(1, "other")
    assert first[0] != first[1]


def test_every_scenario_can_go_to_another_process() -> None:
    scenarios = study.all_scenarios()
    assert len({one.key for one in scenarios}) == len(scenarios)
    for one in scenarios:
        sent = pickle.loads(pickle.dumps(one))
        assert sent.key == one.key and sent.seed(0) == one.seed(0)


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [(0.95, 0.003, "met"), (0.925, 0.003, "unclear"), (0.9, 0.003, "missed"), (0.92, 0, "missed")],
)
def test_verdicts(value: float, error: float, verdict: str) -> None:
    row = study.ScenarioResult(scenario(low=0.93, high=0.97), Performance(value, error), 4000)
    assert row.verdict == verdict


def test_what_requires_nothing_gets_no_verdict() -> None:
    result = study.ScenarioResult(scenario(low=None, high=None), Performance(0.1, 0.01), 4000)
    assert result.verdict == ""


def test_the_error_is_over_replicates_not_over_their_groups() -> None:
    hits = np.repeat(np.random.default_rng(0).random(400) < 0.5, 7).reshape(400, 7)
    assert share(hits).error == pytest.approx(share(hits[:, 0]).error)


def test_a_damaged_file_gets_one_line(tmp_path: Path) -> None:
    study.run_study([scenario()], 10, 0, tmp_path, workers=1)
    next((tmp_path / "cells").iterdir()).write_text("{")
    with pytest.raises(InputError, match="damaged; delete it"):
        study.run_study([scenario()], 10, 0, tmp_path, workers=1)


def test_table_and_figure_are_written_and_reproducible(tmp_path: Path) -> None:
    rows = study.run_study([scenario("a"), scenario("b", None, None)], 50, 0, tmp_path, workers=1)
    paths = publish.publish(rows, tmp_path)
    before = [path.read_bytes() for path in paths]
    assert [path.name for path in paths] == [
        "calibration.csv", "calibration.md", "calibration.svg",
    ]  # fmt: skip
    assert [p.read_bytes() for p in publish.publish(rows, tmp_path)] == before
    table = list(csv.DictReader(before[0].decode().splitlines()))
    assert [line["settings"] for line in table] == ["name a", "name b"]
    assert "A quick look" in before[1].decode() and b"<svg" in before[2]
    json.dumps(publish.as_dicts(rows))


def test_the_published_study_is_whole_and_missed_nothing() -> None:
    if not (RESULTS / "calibration.csv").exists():
        pytest.skip("the full study has not been run on this version yet")
    table = list(csv.DictReader((RESULTS / "calibration.csv").read_text().splitlines()))
    published = {(r["study"], r["settings"], r["method"], r["measures"]) for r in table}
    wanted = {(c.study, publish.settings(c), c.method, c.measure) for c in study.all_scenarios()}
    assert published == wanted
    # its own share of the replicates, or all of them where that left it unclear
    for row, one in zip(table, study.all_scenarios(), strict=True):
        assert int(row["replicates"] or 0) in (one.times(study.FULL), study.FULL)
    assert "missed" not in {row["verdict"] for row in table}


def test_every_study_has_one_table_though_its_scenarios_stand_apart() -> None:
    text = (RESULTS / "calibration.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    studies = {c.study for c in study.all_scenarios()}
    assert len(headings) == len(set(headings)) == len(studies) + 1  # and before and after


def test_every_figure_of_before_has_scenarios_and_the_worst_of_them_counts() -> None:
    every = [study.ScenarioResult(one, Performance(0.5, 0.1), 10) for one in study.all_scenarios()]
    assert all(figure.results(every) for figure in before.FIGURES)
    # one scenario of the fourth figure is worse than the others
    worst = before.FIGURES[4].results(every)[3]
    every[every.index(worst)] = study.ScenarioResult(worst.scenario, Performance(0.25, 0.1), 10)
    lines = before.before_and_after(every)
    assert len(lines) == 2 + len(before.FIGURES) + 1
    assert "| 73-86 % | 25.0 % (± 10.0) | coverage, lowest of 27 |" in lines[6]
    assert before.before_and_after([]) == []
