"""pulse-audit calibrate."""

import json
from pathlib import Path

import pytest

from pulse_audit import cli
from pulse_audit.calibration import study


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only what costs nothing: the scenarios that are enumerated."""
    scenarios = [scenario for scenario in study.all_scenarios() if scenario.exact]
    monkeypatch.setattr(study, "all_scenarios", lambda: scenarios)
    monkeypatch.setattr(study.os, "cpu_count", lambda: 1)


@pytest.mark.usefixtures("exact")
def test_it_prints_a_table_and_says_that_it_is_quick(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.outcome(["calibrate", "--quick", "--quiet", "--out", str(tmp_path)]) == cli.DONE
    shown = capsys.readouterr().out
    assert "9 of 9 requirements met" in shown and "one draw" in shown
    assert "A quick look" in (tmp_path / "calibration.md").read_text()


@pytest.mark.usefixtures("exact")
def test_json_holds_every_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.outcome(["calibrate", "--json", "--quiet", "--out", str(tmp_path)])
    told = json.loads(capsys.readouterr().out)
    assert told["replicates"] == study.FULL and len(told["cells"]) == 9
    assert told["cells"][0]["verdict"] == "met"


@pytest.mark.usefixtures("exact")
def test_a_missed_requirement_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study.Scenario, "accepts", lambda scenario, value: False)
    code = cli.outcome(["calibrate", "--quick", "--quiet", "--out", str(tmp_path)])
    assert code == cli.RULE_FAILED
