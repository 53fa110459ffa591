"""What a person sees: progress with rate and ETA, tables that do not interpret their cells."""

from pathlib import Path

import pytest

from pulse_audit import terminal


def test_durations_read_like_a_clock() -> None:
    assert [terminal.duration(s) for s in (0, 61, 3723.4)] == ["0:00", "1:01", "1:02:03"]


def test_the_rate_counts_only_what_this_process_did() -> None:
    assert terminal.pace(done=60, total=100, restored=40, seconds=10) == ("2.0", "0:20")


def test_nothing_done_has_no_rate() -> None:
    assert terminal.pace(40, 100, 40, 5) == ("-", "-")


def test_progress_without_a_terminal_is_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress("upsampling", "draws") as report:
        report(0, 10, 0)
        report(5, 10, 0)  # too soon after the first for a line of its own
        report(10, 10, 0)
        report(10, 10, 0)  # nothing new
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("upsampling: 0/10 draws (0%)")
    assert lines[-1].startswith("upsampling: 10/10 draws (100%)")
    assert len(lines) == 2


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress("upsampling", "draws", quiet=True) as report:
        report(10, 10, 0)
    assert capsys.readouterr().err == ""


def test_cells_are_text_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table("a [bold]title[/bold]", ("group", "n"), [["[red]x[/red]", "1"]], figures=True)
    printed = capsys.readouterr().out
    assert "[bold]title[/bold]" in printed and "[red]x[/red]" in printed


def test_an_interval_that_does_not_exist_says_why() -> None:
    assert terminal.interval({"value": 0.5, "low": 0.4, "high": 0.6}, 100, 0) == "50 [40, 60]"
    assert terminal.interval({"value": 2.0, "low": None, "high": None}) == "2.00 (one face)"
    assert terminal.interval({}) == "-"


def test_the_clock_begins_anew_with_another_stage(monkeypatch):
    times = iter([0.0, 10.0, 20.0, 20.0, 25.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(times))
    clock = terminal.Clock()
    assert clock.seconds(5) == 10
    assert clock.seconds(0) == 0
    assert clock.seconds(3) == 5


def test_retention_is_printed_with_the_no_face_rate(capsys: pytest.CaptureFixture[str]) -> None:
    shared = {"arm": "bicubic", "condition": "clean", "scale": 4, "group_by": "all",
              "group": "all", "correction": "raw", "to_group": None, "statistic": "value",
              "low": 0.1, "high": 0.3, "n_faces": 20}  # fmt: skip
    rows = [{**shared, "metric": "feasible_rate", "value": 0.9},
            {**shared, "metric": "retention", "value": 0.2,
             "detail": {"attribute": "race"}}]  # fmt: skip
    terminal.show_summary({"findings": [], "estimates": rows})
    printed = capsys.readouterr().out
    assert "retention of race" in printed
    header = next(line for line in printed.splitlines() if "retained" in line)
    assert header.split("%")[1].strip() == "no face"


def test_claims_are_printed_and_descriptions_counted(capsys):
    claim = {"metric": "retention"}
    findings = [
        {"text": "Kept.", "screen": "first", "claims": [claim]},
        {"text": "Compared.", "screen": "more", "claims": [claim]},
        {"text": "Described.", "screen": "more", "claims": []},
    ]
    terminal.show_summary({"findings": findings, "estimates": []})
    assert capsys.readouterr().out.splitlines()[:4] == [
        "- Kept.",
        "  (all of these statements hold together with 95 % confidence)",
        "- Compared.",
        "  (the report has 1 more)",
    ]


def test_an_interval_is_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    shared = {"condition": "clean", "scale": 4, "group_by": "all", "group": "all",
              "correction": "raw", "to_group": None, "statistic": "value",
              "value": 0.25, "low": 0.125, "high": 0.375, "n_faces": 20}  # fmt: skip
    metrics = [metric for metric, *_ in terminal.COLUMNS]
    rows = [{**shared, "arm": "pulse:a-generator-of-long-name", "metric": m} for m in metrics]
    terminal.show_summary({"findings": [], "estimates": rows})
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= terminal.WIDTH
    line = next(line for line in printed.splitlines() if "long-name" in line)
    assert line.count("[") == line.count("]") >= 3 and "…" not in printed


def test_groups_stand_in_lines_and_arms_in_columns_unless_asked_for_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shared = {"scale": 4, "group_by": "race", "correction": "raw", "to_group": None,
              "statistic": "value", "low": 0.1, "high": 0.3, "n_faces": 20}  # fmt: skip
    rows = [
        {**shared, "condition": condition, "arm": arm, "metric": metric, "value": 0.2} | groups
        for condition in ("clean", "gaussian:25")
        for arm in ("pulse:net", "bicubic")
        for metric in ("retention", "feasible_rate")
        for groups in ({"group": "White"}, {"group": "Black"}, {"group_by": "all", "group": "all"})
    ]
    terminal.show_summary({"findings": [], "estimates": rows})
    lines = capsys.readouterr().out.splitlines()
    # The other condition has its arms alone.
    assert sum(line.strip() == "pulse:" for line in lines) == 1
    assert sum("20 [10, 30]" in line for line in lines if line.startswith(" Black")) == 1
    assert next(line for line in lines if "race  " in line).split() == ["race", "net", "bicubic"]
    terminal.show_summary({"findings": [], "estimates": rows}, verbose=True)
    printed = capsys.readouterr().out
    assert printed.count("pulse:net by race") == printed.count("bicubic by race") == 2


def test_the_closing_line_counts_what_became_of_the_draws() -> None:
    statuses = ["ok"] * 1000 + ["no_face"] * 3 + ["infeasible"]
    line = terminal.closing_line(statuses, 3723.4, Path("r/index.html"))
    assert line == "1,004 draws: 3 without a face, 1 infeasible; 1:02:03; report: r/index.html"
    line = terminal.closing_line(["error"], 0, Path("r"))
    assert line == "1 draw: 0 without a face, 0 infeasible, 1 error; report: r"
    reasons = ["exit\x1b code 1", "is missing", "exit\x1b code 1"]
    line = terminal.closing_line(["error"] * 3, 0, Path("r"), reasons)
    assert "3 errors (most often: exit code 1); report" in line
