"""Runs that add faces until rules are decided: the plan, resuming, exit codes, refusals."""

import html
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pulse_audit import store
from pulse_audit.cli import BAD_INPUT, DONE, INCOMPLETE, RULE_FAILED, outcome
from pulse_audit.gate.check import check
from pulse_audit.gate.until import UntilDecided
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.types import InputError

Capture = pytest.CaptureFixture[str]
Rules = Callable[..., Path]
BICUBIC = {"metric": "feasible_rate", "arm": "bicubic"}
#: A bicubic output always downscales to its input: decided early, never, and in the other way.
EASY = {**BICUBIC, "group_by": "race", "statistic": "worst_group", "at_least": 0.05}
HARD = {**EASY, "at_least": 0.9}
BROKEN = {**BICUBIC, "statistic": "mean", "at_most": 0.05}


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    def write(*each: dict[str, object]) -> Path:
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump({"rules": list(each)}))
        return path

    return write


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    return [
        "run", "--dataset", "fairface", "--data-root", str(root), "--out", str(out),
        "--resolution", "32", "--scale", "4", "--per-group", "1", "--draws", "2", "--threads", "1",
        "--arm", "bicubic", "--metrics", "psnr,ssim", "--attributes", "none", "--quiet", *more,
    ]  # fmt: skip


def until(path: Path, budget: int = 4) -> list[str]:
    return ["--until-decided", str(path), "--budget", str(budget)]


def spec(root: Path, **changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "dataset": "fairface", "data_root": root, "arms": ["bicubic"], "scales": [4],
        "resolution": 32, "per_group": 1, "draws": 2, "threads": 1, "device": "cpu",
        "metrics": ["psnr", "ssim"], "attributes": "none",
    }  # fmt: skip
    return values | changes


def rows(run: store.Run) -> pd.DataFrame:
    keys = ["face_id", "arm", "condition", "scale", "draw"]
    table = run.samples().drop(columns="seconds")
    return table.sort_values(keys, ignore_index=True)


def test_a_run_ends_with_the_round_that_decides_and_holds_the_faces_of_a_fixed_one(
    fairface_root: Path, tmp_path: Path, rules: Rules
) -> None:
    decided_by = UntilDecided(rules(EASY), 4)
    run = run_audit(make_spec(spec(fairface_root)), tmp_path / "out", until=decided_by)
    assert decided_by.result is not None and decided_by.result.outcome == "pass"
    rounds = store.open_run(tmp_path / "out").manifest.rounds
    assert rounds is not None and (rounds.per_round, rounds.budget) == (1, 4)
    assert 1 < rounds.planned < 4
    # another size is the same draw, carried on: rows are those of a run of that size
    fixed = run_audit(make_spec(spec(fairface_root, per_group=rounds.faces)), tmp_path / "fixed")
    pd.testing.assert_frame_equal(rows(run), rows(fixed))
    assert run.manifest.fingerprint == make_spec(spec(fairface_root)).fingerprint
    verdicts = json.loads((tmp_path / "out" / "gate" / "verdicts.json").read_text())
    assert verdicts["samples_sha256"] == run.samples_sha256
    # what an early stop means for the rest of the report: in manifest, terminal, report, `check`
    page = html.unescape((tmp_path / "out" / "report" / "index.html").read_text())
    (note,) = decided_by.result.notes
    assert "gate" in page and "overstate" in page and "overstate" in note
    assert any("overstate" in note for note in run.manifest.notes)
    with pytest.raises(InputError, match="bounds of a fixed size do not allow for"):
        check(tmp_path / "out", rules(EASY))


def test_every_instant_of_an_interruption_resumes_to_the_same_samples_and_verdicts(
    fairface_root: Path, tmp_path: Path, rules: Rules
) -> None:
    asked, path = make_spec(spec(fairface_root, batch=6)), rules(EASY)
    whole_rules = UntilDecided(path, 4)
    whole = run_audit(asked, tmp_path / "whole", until=whole_rules)
    calls = 0

    def interrupt(done: int, total: int, restored: int) -> None:
        nonlocal calls
        calls += 1
        if done > restored:
            raise KeyboardInterrupt

    for _ in range(50):
        again = UntilDecided(path, 4)
        try:
            run = run_audit(asked, tmp_path / "out", interrupt, until=again)
            break
        except KeyboardInterrupt:
            continue
    assert calls > 8
    pd.testing.assert_frame_equal(rows(run), rows(whole))
    assert run.manifest.units == whole.manifest.units
    assert again.result is not None and whole_rules.result is not None
    assert [v.as_dict() for v in again.result.verdicts] == [
        v.as_dict() for v in whole_rules.result.verdicts
    ]


def test_exit_codes(fairface_root: Path, tmp_path: Path, rules: Rules, capsys: Capture) -> None:
    for name, rule, code, faces in (
        ("pass", EASY, DONE, None), ("fail", BROKEN, RULE_FAILED, None),
        ("open", HARD, INCOMPLETE, 4),
    ):  # fmt: skip
        line = arguments(fairface_root, tmp_path / name, *until(rules(rule)))
        assert outcome([*line, "--json"]) == code
        printed = json.loads(capsys.readouterr().out)
        assert printed["gate"]["exit_code"] == code
        rounds = store.open_run(tmp_path / name).manifest.rounds
        assert rounds is not None and (rounds.faces == 4) == (faces == 4)
    # the same command answers the same without any work
    assert outcome(line) == INCOMPLETE
    assert "gate: inconclusive" in capsys.readouterr().out


def test_a_rule_without_a_bound_at_every_look_is_judged_once_at_the_budget(
    fairface_root: Path, tmp_path: Path, rules: Rules
) -> None:
    gap = {**BICUBIC, "group_by": "race", "statistic": "max_gap", "at_most": 1.0}
    decided_by, notes = UntilDecided(rules(EASY, gap), 3), list[str]()
    run = run_audit(
        make_spec(spec(fairface_root)), tmp_path / "out", announce=notes.append, until=decided_by
    )
    assert run.manifest.rounds is not None and run.manifest.rounds.faces == 3
    assert any(note.startswith("rule 2 is judged once, at 3 faces a group") for note in notes)
    assert decided_by.result is not None
    assert [verdict.outcome for verdict in decided_by.result.verdicts] == ["pass", "pass"]


def test_fixed_looks_are_in_the_manifest_and_resume_to_the_same(
    fairface_root: Path, tmp_path: Path, rules: Rules, capsys: Capture
) -> None:
    looks, out = ["--looks", "2"], tmp_path / "out"
    line = arguments(fairface_root, out, *until(rules(HARD)), *looks)
    assert outcome(line) == INCOMPLETE
    manifest = store.open_run(out).manifest
    assert manifest.rounds is not None
    # four rounds, judged after the second and the fourth
    assert (manifest.rounds.looks, manifest.rounds.faces_at_looks) == (2, [2, 4])
    before = json.loads((out / "gate" / "verdicts.json").read_text())["verdicts"]
    assert "O'Brien-Fleming" in before[0]["method"]
    # the same command resumes; another schedule is another run
    next((out / "samples").glob("*.parquet")).unlink()
    assert outcome(line) == INCOMPLETE
    assert json.loads((out / "gate" / "verdicts.json").read_text())["verdicts"] == before
    capsys.readouterr()
    for other in ([], ["--looks", "4"]):
        assert outcome([*line[: -len(looks)], *other]) == BAD_INPUT
        assert "--budget 4 --looks 2, not of" in capsys.readouterr().err
    assert outcome([*line[: -len(looks)], "--looks", "5"]) == BAD_INPUT
    assert "--looks 5 are more than the 4 rounds" in capsys.readouterr().err
    assert outcome(arguments(fairface_root, tmp_path / "x", *looks)) == BAD_INPUT
    assert "--looks needs --until-decided" in capsys.readouterr().err


def test_against_a_baseline_of_the_same_faces(
    fairface_root: Path, tmp_path: Path, rules: Rules, capsys: Capture
) -> None:
    before = tmp_path / "before"
    assert outcome(arguments(fairface_root, before, "--per-group", "4")) == DONE
    rule = {**BICUBIC, "group_by": "race", "statistic": "worst_group",
            "no_worse_than_baseline_by": 0.0}  # fmt: skip
    more = [*until(rules(rule), 3), "--baseline", str(before)]
    # the same model: paired values are the same on every face of the budget
    assert outcome(arguments(fairface_root, tmp_path / "out", *more)) == DONE
    capsys.readouterr()
    # a baseline with fewer faces than the budget
    small = tmp_path / "small"
    assert outcome(arguments(fairface_root, small)) == DONE
    capsys.readouterr()
    line = arguments(fairface_root, tmp_path / "new", *more[:-1], str(small))
    assert outcome(line) == BAD_INPUT
    assert "lacks 14 of the 21 faces that --budget 3 may take" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--limit", "5"], "--until-decided does not go with --limit"),
        (["--sources"], "--until-decided does not go with --sources"),
        (["--dataset", "samples:faces-balanced"], "does not go with samples:faces-balanced"),
        (["--per-group", "9"], "--budget 4 is less than a round of --per-group 9 faces"),
        (["--budget", "9"], "4 faces where 9 are needed"),
    ],
)
def test_what_cannot_be_sampled_in_rounds_is_refused_before_work(
    fairface_root: Path, tmp_path: Path, rules: Rules, capsys: Capture, more: list[str], text: str
) -> None:
    line = arguments(fairface_root, tmp_path / "out", *until(rules(EASY)), *more)
    assert outcome(line) == BAD_INPUT
    error = capsys.readouterr().err.strip()
    assert text in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({**EASY, "metric": "feasible"}, "unknown metric 'feasible'"),
        ({**EASY, "arm": "bicubik"}, "no arm 'bicubik'"),
        ({**EASY, "group_by": "rase"}, "unknown group_by 'rase'"),
        ({**EASY, "metric": "lpips", "at_most": 0.5, "at_least": None}, "never be decided: lpips"),
        ({**EASY, "metric": "retention"}, "retention needs an attribute model"),
        ({**BICUBIC, "statistic": "mean", "no_worse_than_baseline_by": 0.1}, "needs a baseline"),
    ],
)
def test_rules_that_the_run_cannot_answer_are_refused_before_work(
    fairface_root: Path, tmp_path: Path, rules: Rules, capsys: Capture,
    rule: dict[str, object], text: str,
) -> None:  # fmt: skip
    assert outcome(arguments(fairface_root, tmp_path / "out", *until(rules(rule)))) == BAD_INPUT
    error = capsys.readouterr().err.strip()
    assert text in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_budget_cannot_change_afterwards(
    fairface_root: Path, tmp_path: Path, rules: Rules, capsys: Capture
) -> None:
    path, out = rules(EASY), tmp_path / "out"
    assert outcome(arguments(fairface_root, out, *until(path, 3))) == DONE
    before = (out / "manifest.json").read_bytes()
    for more in ([], until(path, 4)):
        capsys.readouterr()
        assert outcome(arguments(fairface_root, out, *more)) == BAD_INPUT
        assert "holds a run of --until-decided and --budget 3" in capsys.readouterr().err
    assert (out / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--budget", "5"], "--budget needs --until-decided"),
        (["--baseline", "x"], "--baseline needs --until-decided"),
        (["--until-decided", "four-fifths"], "--until-decided needs --budget N"),
    ],
)
def test_options_go_together(tmp_path: Path, capsys: Capture, more: list[str], text: str) -> None:
    assert outcome(["run", "--out", str(tmp_path / "out"), *more]) == BAD_INPUT
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
