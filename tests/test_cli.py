"""The command line: exit codes, one line for bad input, nothing half-written."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_audit import store
from pulse_audit.cli import BAD_INPUT, DONE, INCOMPLETE, outcome
from pulse_audit.seeding import sha256

Capture = pytest.CaptureFixture[str]


def audit(root: Path, out: Path, *more: str) -> list[str]:
    """Arguments of a small audit; later ones win."""
    return [
        "run", "--dataset", "fairface", "--data-root", str(root), "--out", str(out),
        "--resolution", "32", "--scale", "4", "--per-group", "2", "--draws", "1",
        "--arm", "bicubic", "--metrics", "psnr,ssim", "--quiet", *more,
    ]  # fmt: skip


def refused(arguments: list[str], capture: Capture) -> str:
    """Run, and return the one line on stderr of a refusal."""
    code = outcome(arguments)
    printed = capture.readouterr()
    assert code == BAD_INPUT, printed
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("pulse-audit: ")
    assert "Traceback" not in printed.err
    return lines[0]


def test_a_missing_root_is_named(tmp_path: Path, capsys: Capture) -> None:
    line = refused(audit(tmp_path / "nowhere", tmp_path / "out"), capsys)
    assert "nowhere" in line
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_no_root_at_all_says_how_to_get_the_data(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PULSE_AUDIT_DATA", raising=False)
    line = refused(["run", "--dataset", "fairface", "--out", str(tmp_path / "out")], capsys)
    assert "--data-root" in line


def test_no_csv(fairface_root: Path, tmp_path: Path, capsys: Capture) -> None:
    (fairface_root / "fairface_label_val.csv").unlink()
    assert "fairface_label_val.csv" in refused(audit(fairface_root, tmp_path / "out"), capsys)


Edit = Callable[[Callable[[str], str]], None]


def test_wrong_columns(
    fairface_root: Path, tmp_path: Path, edit_csv: Edit, capsys: Capture
) -> None:
    edit_csv(lambda text: text.replace("race", "ethnicity", 1))
    assert "race" in refused(audit(fairface_root, tmp_path / "out"), capsys)


def test_unknown_label(
    fairface_root: Path, tmp_path: Path, edit_csv: Edit, capsys: Capture
) -> None:
    edit_csv(lambda text: text.replace("Indian", "Indain", 1))
    line = refused(audit(fairface_root, tmp_path / "out"), capsys)
    assert "Indain" in line and "Indian" in line


def test_spreadsheet_damage_is_named(
    fairface_root: Path, tmp_path: Path, edit_csv: Edit, capsys: Capture
) -> None:
    edit_csv(lambda text: text.replace("20-29", "03-Sep", 1))
    line = refused(audit(fairface_root, tmp_path / "out"), capsys)
    assert "03-Sep" in line and "--repair" in line


def test_a_path_that_climbs_out(
    fairface_root: Path, tmp_path: Path, edit_csv: Edit, capsys: Capture
) -> None:
    Image.new("RGB", (48, 48)).save(tmp_path / "1.jpg")
    edit_csv(lambda text: text.replace("val/1.jpg", "val/../../1.jpg", 1))
    assert "../" in refused(audit(fairface_root, tmp_path / "out"), capsys)


def test_scale_that_does_not_divide(fairface_root: Path, tmp_path: Path, capsys: Capture) -> None:
    line = refused([*audit(fairface_root, tmp_path / "out"), "--scale", "5"], capsys)
    assert "5" in line and "32" in line


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--generator", "styelgan", "styelgan"),
        ("--generator", "missing.py:build", "missing.py"),
        ("--arm", "bicubbic", "bicubic"),
        ("--dataset", "fairfcae", "fairface"),
        ("--condition", "gausian:3", "gaussian"),
        ("--group-by", "rcae", "race"),
        ("--split", "test", "val"),
        ("--search", "quick", "official"),
        ("--device", "tpu", "cpu"),
        ("--crop", "tight", "ffhq"),
        ("--per-group", "0", "per_group"),
        ("--per-group", "9", "4"),
        ("--keep-images", "some", "sample"),
        ("--wrong", "x", "--wrong"),
        ("--out", "", "--out"),
        ("--out", "x/" * 3000, "--out"),
        ("--out", "x" * 3000, "File name too long"),
        ("--data-root", "", "--data-root"),
        ("--datasets", "x" * 3000, "File name too long"),
        ("--threads", "1000000", "threads"),
        ("--draws", "1000000000000", "draws"),
        ("--resolution", "100000", "resolution"),
        ("--seed", "9" * 30, "seed"),
        ("--seed", "9" * 5000, "seed"),
        ("--batch", "100000000", "batch"),
        ("--arm", "x" * 5000, "arms"),
    ],
)
def test_unknown_values_cost_one_line(
    fairface_root: Path, tmp_path: Path, capsys: Capture, option: str, value: str, expected: str
) -> None:
    line = refused([*audit(fairface_root, tmp_path / "out"), option, value], capsys)
    assert expected in line
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise RuntimeError('no weights here')", "no weights here"),
        ("raise SystemExit(5)", "SystemExit"),
        ("return 5", "int"),
        ("import pulse_audit as pa; return pa.as_generator("
         "lambda z: z[:, :1, None, None].expand(-1, 3, 32, 32) * float('nan'),"
         " name='nan', latent_dim=64)", "finite"),
    ],
)  # fmt: skip
def test_factories_that_misbehave(
    fairface_root: Path, tmp_path: Path, capsys: Capture, body: str, expected: str
) -> None:
    (tmp_path / "bad.py").write_text(f"def build():\n    {body}\n")
    given = ["--generator", f"{tmp_path / 'bad.py'}:build"]
    line = refused([*audit(fairface_root, tmp_path / "out"), *given], capsys)
    assert expected in line
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_factory_file_with_a_syntax_error(
    fairface_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "bad.py").write_text("def build(:\n")
    given = ["--generator", f"{tmp_path / 'bad.py'}:build"]
    assert "SyntaxError" in refused([*audit(fairface_root, tmp_path / "out"), *given], capsys)


def test_an_out_directory_that_cannot_be_made(
    fairface_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("in the way")
    line = refused(audit(fairface_root, tmp_path / "file" / "out"), capsys)
    assert "cannot be written" in line


def test_an_out_directory_with_other_files_is_left_alone(
    fairface_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    assert "thesis.tex" in refused(audit(fairface_root, out), capsys)
    assert (out / "thesis.tex").read_text() == "years of work"


def test_unknown_commands_get_the_nearest(capsys: Capture) -> None:
    assert "validate" in refused(["validat", "fairface"], capsys)


def test_a_finished_run_can_be_shown_as_json_and_rendered_again(
    fairface_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert outcome([*audit(fairface_root, out), "--json"]) == DONE
    shown = json.loads(capsys.readouterr().out)
    assert {e["arm"] for e in shown["estimates"]} == {"bicubic"}
    before = (out / "summary.json").read_bytes()
    shutil.rmtree(out / "report")
    assert outcome(["report", str(out)]) == DONE
    assert (out / "summary.json").read_bytes() == before
    assert (out / "report" / "index.html").is_file()


def test_a_public_report_goes_to_a_folder_of_its_own(
    fairface_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert outcome(audit(fairface_root, out)) == DONE
    assert outcome(["report", str(out), "--public"]) == DONE
    assert outcome(["report", str(out), "--public", "--out", str(tmp_path / "paper")]) == DONE
    assert str(tmp_path / "paper" / "index.html") in capsys.readouterr().out
    for folder in (out / "report", out / "report-public", tmp_path / "paper"):
        assert (folder / "index.html").is_file() and (folder / "data" / "summary.json").is_file()


@pytest.fixture
def labelled(fairface_root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run that keeps every output, and people's labels of all of them."""
    out, labels = tmp_path / "out", tmp_path / "labels.csv"
    assert outcome(audit(fairface_root, out, "--keep-images", "all")) == DONE
    rows = store.open_run(out).samples()
    lines = [f"{image},{word}" for image, word in zip(rows.image, rows.label_race, strict=True)]
    labels.write_text("\n".join(["image,race", *lines]) + "\n")
    return out, labels


def test_hand_labels_are_kept_in_the_run_and_used_again(
    fairface_root: Path, labelled: tuple[Path, Path], capsys: Capture
) -> None:
    out, labels = labelled
    samples, recorded = store.open_run(out).samples(), (out / "manifest.json").read_bytes()
    assert outcome(["report", str(out), "--hand-labels", str(labels)]) == DONE
    kept = store.open_run(out).read_hand_labels()
    assert kept is not None and len(kept.labels) == 14
    assert kept.file_sha256 == sha256(labels.read_bytes())
    summary = json.loads((out / "summary.json").read_text())
    drift = [row for row in summary["estimates"] if row["metric"] == "drift"]
    assert drift and "only 2 outputs of group White were labelled" in drift[0]["method"]
    # Later, without the file.
    labels.unlink()
    assert outcome(["report", str(out)]) == DONE
    assert json.loads((out / "summary.json").read_text()) == summary
    # Labels are no part of the specification: the same command still resumes.
    assert (out / "manifest.json").read_bytes() == recorded
    assert outcome(audit(fairface_root, out, "--keep-images", "all")) == DONE
    assert json.loads((out / "summary.json").read_text()) == summary
    assert store.open_run(out).samples().equals(samples)


def test_a_run_takes_hand_labels_of_its_outputs(
    fairface_root: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    _, labels = labelled
    again = tmp_path / "again"
    command = audit(fairface_root, again, "--keep-images", "all", "--hand-labels", str(labels))
    assert outcome(command) == DONE
    assert "hand_accuracy" in (again / "summary.json").read_text()
    # What is wrong with them is said before the run begins.
    labels.write_text("image,race\nimages/none.png,White\n")
    other = tmp_path / "other"
    command = audit(fairface_root, other, "--hand-labels", str(labels))
    assert "is no output" in refused(command, capsys)
    assert not other.exists()


def test_bad_hand_labels_cost_one_line_and_change_nothing(
    labelled: tuple[Path, Path], capsys: Capture
) -> None:
    out, labels = labelled
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    labels.write_text(labels.read_text().replace(",White", ",Whit", 1))
    line = refused(["report", str(out), "--hand-labels", str(labels)], capsys)
    assert "race 'Whit' is unknown; did you mean White?" in line
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_damaged_hand_labels_of_a_run_cost_one_line(
    labelled: tuple[Path, Path], capsys: Capture
) -> None:
    out, labels = labelled
    assert outcome(["report", str(out), "--hand-labels", str(labels)]) == DONE
    path = out / "hand_labels.json"
    whole = json.loads(path.read_text())
    image = next(iter(whole["labels"]))
    # Two of them have a checksum that fits.
    unknown, foreign = (
        store.HandLabels.make("labels.csv", "0" * 64, wrong).model_dump()
        for wrong in ({image: {"race": "Whit"}}, {"/etc/passwd": {"race": "White"}})
    )
    shape, checksum = {**whole, "labels": [1]}, {**whole, "sha256": "0" * 64}
    for damaged in (unknown, foreign, shape, checksum):
        path.write_text(json.dumps(damaged))
        capsys.readouterr()
        assert "hand_labels.json" in refused(["report", str(out)], capsys)
    elsewhere = out.parent / "elsewhere.json"
    elsewhere.write_text(json.dumps(whole))
    path.unlink()
    path.symlink_to(elsewhere)
    assert "is a link" in refused(["report", str(out)], capsys)
    # New labels take the place of damaged ones.
    path.unlink()
    path.write_text("{")
    assert outcome(["report", str(out), "--hand-labels", str(labels)]) == DONE
    assert json.loads(path.read_text()) == whole


def test_a_report_of_what_is_no_run_is_refused(tmp_path: Path, capsys: Capture) -> None:
    assert "not a run" in refused(["report", str(tmp_path)], capsys)


def test_a_report_of_a_run_that_lost_shards_says_so(
    fairface_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert outcome(audit(fairface_root, out)) == DONE
    next((out / "samples").glob("*.parquet")).unlink()
    capsys.readouterr()
    assert outcome(["report", str(out)]) == INCOMPLETE
    message = capsys.readouterr().err
    assert "is unfinished: 8 of 14 draws are missing (8 of bicubic); " in message
    assert "Unfinished run." in (out / "report" / "index.html").read_text()
    # The same command makes the shard again.
    assert outcome(audit(fairface_root, out)) == DONE
    assert outcome(["report", str(out)]) == DONE


def test_a_full_disk_costs_one_line_and_no_sample(
    fairface_root: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    assert "free space" in refused(audit(fairface_root, tmp_path / "out"), capsys)
    monkeypatch.undo()
    assert outcome(audit(fairface_root, tmp_path / "out")) == DONE


def test_a_folder_of_photos_is_no_run(fairface_root: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "letter.txt").write_text("mine")
    (out / ".draft.tmp").write_text("mine")
    assert "not empty" in refused(audit(fairface_root, out), capsys)
    assert sorted(p.name for p in out.iterdir()) == [".draft.tmp", "letter.txt"]


def test_a_foreign_manifest_is_not_trusted(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "manifest.json").write_text('{"schema": 1, "units": "../../etc"}')
    assert "missing or damaged" in refused(["report", str(tmp_path)], capsys)


def test_the_same_directory_with_another_spec_is_refused_with_the_difference(
    fairface_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert outcome(audit(fairface_root, tmp_path / "out")) == DONE
    capsys.readouterr()
    line = refused([*audit(fairface_root, tmp_path / "out"), "--seed", "5"], capsys)
    assert "seed 0 -> 5" in line


def test_changed_photos_are_not_mixed_into_a_run(
    fairface_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert outcome(audit(fairface_root, tmp_path / "out")) == DONE
    capsys.readouterr()
    for number, photo in enumerate((fairface_root / "val").iterdir()):
        Image.new("RGB", (48, 48), (200, 180, 5 * number)).save(photo)
    assert "changed" in refused(audit(fairface_root, tmp_path / "out"), capsys)


def test_upsample_writes_the_input_and_every_draw(
    fairface_root: Path,
    tiny_generator: str,
    tmp_path: Path,
    capsys: Capture,
    read_pixels: Callable[[Path], np.ndarray],
) -> None:
    out = tmp_path / "up"
    photo = str(fairface_root / "val" / "1.jpg")
    given = ["--generator", tiny_generator, "--scale", "4", "--draws", "2", "--out", str(out)]
    assert outcome(["upsample", photo, *given, "--json", "--quiet"]) == DONE
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["image"]).name for row in rows] == ["1_0.png", "1_1.png"]
    assert read_pixels(out / "1_lr.png").shape == (8, 8, 3)
    assert read_pixels(out / "1_0.png").shape == (32, 32, 3)
    assert (out / "1_0.png").read_bytes() != (out / "1_1.png").read_bytes()


def test_upsample_takes_a_low_resolution_input_as_it_is(
    tiny_generator: str, tmp_path: Path, capsys: Capture
) -> None:
    Image.new("RGB", (8, 8), (170, 130, 110)).save(tmp_path / "small.png")
    given = ["upsample", str(tmp_path / "small.png"), "--is-lr", "--generator", tiny_generator,
             "--out", str(tmp_path / "up"), "--json", "--quiet"]  # fmt: skip
    assert outcome(given) == DONE
    row = json.loads(capsys.readouterr().out)[0]
    assert row["status"] == "ok"
    assert row["downscale_error"] <= 2e-3


def test_upsample_refuses_what_is_no_image(
    tiny_generator: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "x.jpg").write_bytes(b"not an image")
    given = ["upsample", str(tmp_path / "x.jpg"), "--generator", tiny_generator, "--quiet"]
    assert "x.jpg" in refused(given, capsys)


@pytest.mark.parametrize(
    "what", ["datasets", "generators", "arms", "metrics", "conditions", "specs"]
)
def test_lists_have_rows_in_both_forms(what: str, capsys: Capture) -> None:
    assert outcome(["list", what, "--json"]) == DONE
    rows = json.loads(capsys.readouterr().out)
    assert rows and all(rows[0].keys() == row.keys() for row in rows)
    assert outcome(["list", what]) == DONE
    assert next(iter(rows[0].values())) in capsys.readouterr().out


def test_an_attribute_model_that_cannot_be_used_costs_one_line(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "net.onnx"
    assert "net.onnx" in refused(["list", "attributes", str(path)], capsys)
    path.write_bytes(b"no model")
    assert "net.onnx" in refused(["list", "attributes", str(path), "--json"], capsys)


def test_doctor_names_the_device(capsys: Capture) -> None:
    assert outcome(["doctor", "--json"]) == DONE
    assert any(row["part"] == "device" for row in json.loads(capsys.readouterr().out))


def test_an_unexpected_error_is_one_line_and_a_crash_file(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pulse_audit.listing.doctor", lambda: 1 / 0)
    line = refused(["doctor", "--json"], capsys)
    (crash,) = (tmp_path / "cache" / "crashes").iterdir()
    assert "ZeroDivisionError" in line and "report" in line and str(crash) in line
    for part in ("pulse-audit 0.", "doctor --json", "Traceback", "1 / 0"):
        assert part in crash.read_text()


def test_where_the_cache_cannot_be_written_the_crash_file_is_temporary(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pulse_audit.listing.doctor", lambda: 1 / 0)
    refused(["doctor"], capsys)
    assert len(list(tmp_path.glob("crash-*.txt"))) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "fairface", "--data-root", "x" * 3000],
        ["validate", "x" * 5000],
        ["report", "x" * 3000],
        ["upsample", "x" * 3000],
        ["run", "x" * 3000 + ".yaml"],
        ["run", "x" * 3000],
        ["list", "datasets", "--datasets", "x" * 3000],
    ],
    ids=lambda arguments: " ".join(arguments)[:20],
)
def test_long_paths_cost_one_short_line(arguments: list[str], capsys: Capture) -> None:
    assert len(refused(arguments, capsys)) < 1000


@pytest.mark.parametrize("words", [["list", "conditions"], ["run", "--help"], ["doctor", "--json"]])
def test_a_reader_that_goes_away_is_no_fault(words: list[str]) -> None:
    """As `pulse-audit list conditions | head` does: nothing is said, and the exit code is 0."""
    command = [sys.executable, "-m", "pulse_audit.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == DONE


def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert outcome(["--version"]) == DONE
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert outcome(["--version"]) == DONE
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
