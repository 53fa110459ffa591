"""What runs the gate elsewhere: the GitHub action, GitLab's snippet, the pytest plugin."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pulse_audit import store
from pulse_audit.cli import commands
from pulse_audit.gate.baseline import check_match, read_baseline
from pulse_audit.gate.measure import measure
from pulse_audit.gate.rules import read_rules
from pulse_audit.gate.verdicts import judge, plan
from pulse_audit.pytest_plugin import gate

ROOT = Path(__file__).resolve().parents[2]
DROP = {
    "metric": "retention", "group_by": "race", "statistic": "worst_group",
    "no_worse_than_baseline_by": 0.0,
}  # fmt: skip


@pytest.fixture
def sides(run_of, rules_of, outcomes):
    """A baseline, a run that is worse, one of other faces, and the rule."""
    before = outcomes([0.7, 0.7], 60, 1)
    after = before.copy()
    after[0, :40] = False
    good, bad = run_of("good run", {"pulse:g": before}), run_of("bad", {"pulse:g": after})
    return good, bad, rules_of(DROP)


def action():
    return yaml.safe_load((ROOT / "action.yml").read_text())


def test_the_action_passes_on_every_input_as_a_variable():
    content = action()
    (step,) = [step for step in content["runs"]["steps"] if step.get("id") == "check"]
    # no input is text of a script
    for each in content["runs"]["steps"]:
        assert "${{" not in each.get("run", "")
    used = set(re.findall(r"inputs\.([\w-]+)", str(content["runs"]["steps"])))
    assert used == set(content["inputs"])
    flags = {option for param in commands.commands["check"].params for option in param.opts}
    assert set(re.findall(r"--[a-z-]+", step["run"])) <= flags


def run_action(tmp_path, python=sys.executable, **inputs):
    """Run the script of the action as GitHub would; returns what it did, and its output."""
    (step,) = [step for step in action()["runs"]["steps"] if step.get("id") == "check"]
    values = {name: given.get("default", "") for name, given in action()["inputs"].items()}
    values |= {name.replace("_", "-"): str(value) for name, value in inputs.items()}
    values["python"] = str(python)
    variables = {
        name: values[re.search(r"inputs\.([\w-]+)", text)[1]] for name, text in step["env"].items()
    }
    output = tmp_path / "output"
    output.write_text("")
    environment = {
        **os.environ, **variables, "GITHUB_OUTPUT": str(output), "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }  # fmt: skip
    script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    done = subprocess.run(script, env=environment, capture_output=True, text=True)
    return done, output.read_text()


def test_the_action_stops_a_job_whose_rule_is_broken(tmp_path, sides):
    good, bad, rules = sides
    done, output = run_action(tmp_path, run=bad, rules=rules, baseline=good)
    assert done.returncode == 1 and output == "outcome=fail\n"
    assert "::error title=Fairness gate::" in done.stdout
    assert "Fairness gate: fail" in (tmp_path / "summary").read_text()
    assert (bad / "gate" / "comment.md").exists()


@pytest.mark.parametrize(
    ("code", "inconclusive", "expected", "outcome"),
    [
        (0, "fail", 0, "pass"),
        (3, "fail", 3, "inconclusive"),
        (3, "pass", 0, "inconclusive"),
        (2, "pass", 2, "error"),
        (1, "pass", 1, "fail"),
    ],
)
def test_the_action_tells_outcomes_apart(tmp_path, code, inconclusive, expected, outcome):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "<%s>" "$@"\nexit {code}\n')
    python.chmod(0o755)
    done, output = run_action(
        tmp_path, python, run="a run", rules="$(touch hacked)", accept_difference="faces\nscales\n",
        inconclusive=inconclusive,
    )  # fmt: skip
    assert (done.returncode, output) == (expected, f"outcome={outcome}\n")
    assert done.stdout == (
        "<-m><pulse_audit.cli><check><a run><--rules><$(touch hacked)><--github>"
        "<--accept-difference><faces><--accept-difference><scales>"
    )


def test_gitlab_s_snippet_names_files_that_a_check_writes():
    text = (ROOT / "docs" / "gate-your-model.md").read_text()
    (snippet,) = [
        block for block in re.findall(r"```yaml\n(.*?)```", text, re.S) if "artifacts:" in block
    ]
    job = yaml.safe_load(snippet)["fairness-gate"]
    assert job["artifacts"]["reports"]["junit"] == "runs/branch/gate/junit.xml"
    assert job["artifacts"]["when"] == "always"
    assert "pulse-audit check runs/branch" in job["script"][-1]


def test_the_project_gates_its_twins():
    """On the draws of the published default audit; `make gate` does the same on a new run."""
    rules = read_rules(ROOT / "reports" / "gate" / "rules.yaml")
    data = ROOT / "reports" / "default" / "data"
    manifest = store.check_manifest(json.loads((data / "manifest.json").read_text()))
    trial = measure(manifest, pd.read_parquet(data / "samples.parquet"), rules.rules, "rules")
    baseline = read_baseline(ROOT / "reports" / "gate" / "baseline.json", rules.rules)
    check_match(trial.record, baseline, (), "baseline")
    found = {}
    for arm in ("pulse:faces-balanced", "pulse:faces-skewed"):
        cases = plan(
            rules, trial.record, baseline, where="rules", arm=arm,
            baseline_arm="pulse:faces-balanced",
        )  # fmt: skip
        (found[arm],) = judge(rules, trial, baseline, cases)
    balanced, skewed = found.values()
    assert balanced.outcome == "pass" and skewed.outcome == "fail"
    assert skewed.groups == ("White",)
    # the planted skew, in the priors and on these faces, exceeds what the gate detects
    cards = [
        json.loads((ROOT / "pulse_audit" / "assets" / f"{name}.json").read_text())["card"]
        for name in ("faces-balanced", "faces-skewed")
    ]
    white = [card["measured"]["composition"]["race"]["White"]["share"] for card in cards]
    detected = skewed.limit + skewed.detectable
    assert detected < skewed.value < white[1] - white[0]
    assert "14 beyond" in skewed.reason and detected == pytest.approx(0.19, abs=0.01)
    # and CI runs it
    assert "make gate" in (ROOT / ".ci" / "run").read_text()


def test_the_fixture_returns_verdicts(sides):
    good, bad, rules = sides
    verdicts = gate(bad, rules, good)
    assert verdicts.failed and not verdicts.passed and len(verdicts) == 1
    assert verdicts[0].groups == ("White",) and "White" not in gate(good, rules, good).text
    assert "fail: retention by race" in verdicts.text
    # a test leaves no files behind
    assert not (bad / "gate").exists()
    (bad / "samples" / "u0.parquet").unlink()
    unfinished = gate(bad, rules, good)
    assert unfinished.outcome == "inconclusive"
    assert "unfinished" in unfinished.text


def test_the_plugin_works_in_a_test_of_someone_else(tmp_path, sides):
    good, bad, rules = sides
    test = tmp_path / "project" / "test_gate.py"
    test.parent.mkdir()
    test.write_text(
        f"""
import pytest

@pytest.mark.pulse_audit({str(bad)!r}, {str(rules)!r}, baseline={str(good)!r})
def test_by_marker(pulse_audit_verdicts):
    assert pulse_audit_verdicts.failed
    assert [verdict.outcome for verdict in pulse_audit_verdicts] == ["fail"]

def test_without_a_marker(pulse_audit_verdicts):
    pass
"""
    )
    plugin = ["-p", "pulse_audit.pytest_plugin", "-p", "no:cacheprovider", "--strict-markers"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, str(test)],
        cwd=test.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert "1 passed, 1 error" in done.stdout, done.stdout
    assert "pulse_audit_verdicts needs @pytest.mark.pulse_audit" in done.stdout
