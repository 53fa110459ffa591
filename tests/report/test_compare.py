import json

from pulse_audit.cli import outcome
from pulse_audit.report.compare import comparison_rows, write_page
from pulse_audit.summary.compare import compare_runs


def test_the_page_of_a_comparison_is_one_file_in_which_labels_are_text(write_run, tmp_path):
    hostile = "<script>alert(1)</script>"
    runs = [write_run(tmp_path / name, races=("White", hostile)) for name in ("a", "b")]
    found = compare_runs(*runs)
    page = write_page(*runs, found)
    assert page == tmp_path / "a" / "report" / "compare_b.html"
    text = page.read_text("utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")


def test_differences_are_in_display_units_with_a_true_minus(write_run, tmp_path):
    run = write_run(tmp_path / "a")
    differences, _, changed = comparison_rows(compare_runs(run, run))
    whole = {row[1]: row for row in differences[2] if row[0] == "all"}
    assert whole["Lightness shift"][4] == "+0.0 [+0.0, +0.0] L*"
    assert whole["Feasible"][4].startswith("+0.0 [−") and whole["Feasible"][4].endswith("] points")
    assert changed[2] == [["nothing that a run records", "", ""]]


def test_two_arms_are_named_once(write_run, tmp_path):
    run = write_run(tmp_path / "a")
    first, second = list(run.manifest.arms)[:2]
    differences, prices, _ = comparison_rows(compare_runs(run, run, first, second))
    assert differences[0].startswith(f"{first} less {second} on ")
    assert "in one run alone" not in differences[0]
    assert differences[1] == ("group", "metric", "setting", "difference", "faces", "shown")
    assert prices[1] == ("price", "setting", first, second)
    assert all(len(row) == len(header) for _, header, rows in (differences, prices) for row in rows)


def test_two_arms_of_one_run_on_the_command_line(write_run, tmp_path, capsys):
    run = write_run(tmp_path / "a")
    arm = next(iter(run.manifest.arms))
    assert outcome(["compare", str(run.path)]) == 2
    assert "give RUN_B, or --arm and --baseline-arm of RUN_A" in capsys.readouterr().err
    pair = ["--arm", arm, "--baseline-arm", arm]
    assert outcome(["compare", str(run.path), *pair, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {d["value"] for d in found["differences"]} == {0.0}
    assert outcome(["compare", str(run.path), *pair]) == 0
    assert "each side by itself" in capsys.readouterr().out
