"""Wrong names and missing files are answered before torch is loaded, each in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pulse_audit.harness.inputs import find_inputs, listed_photos
from pulse_audit.harness.spec import make_spec
from pulse_audit.models import shipped
from pulse_audit.names import ArmReference, parse_arm, parse_device
from pulse_audit.types import InputError

#: Arguments -> a part of the line that answers them.
WRONG = {
    "run --dataset nosuch": "unknown data set 'nosuch'",
    "run --arm nosuch": "unknown arm 'nosuch'",
    "run --arm nosuch.py:build": "no such file nosuch.py",
    "run --arm planted:nosuch.csv": "nosuch.csv: cannot be read",
    "run --generator nosuch": "unknown generator 'nosuch'",
    "run --generator nosuch.pt": "--generator nosuch.pt: no such file",
    "run --generator stylegan2-ffhq-256": "pulse-audit fetch stylegan2-ffhq-256",
    "run --condition nosuch:1": "unknown condition 'nosuch:1'",
    "run --condition jpeg:0": "from 1 to 100",
    "run --attributes nosuch": "unknown attribute model 'nosuch'",
    "run --attributes nosuch.onnx": "nosuch.onnx: cannot be read",
    "run --coarse 16": "--coarse 16: give STEPS@RESOLUTION",
    "run --coarse 20@16 --sources": "the searches of --sources are whole",
    "run --sources --second-attributes nosuch": "unknown attribute model 'nosuch'",
    "run --attributes faces-attributes --attributes nosuch": "unknown attribute model 'nosuch'",
    "run --attributes a --attributes b --attributes c": "at most two models",
    "run --metrics psnr,nosuch": "unknown metric 'nosuch'",
    "run --crop x": "--crop x: unknown",
    "run --kernel x": "kernel",
    "run --search x": "search",
    "run --device tpu": "--device tpu: not supported",
    "run --group-by race,nosuch": "--group-by nosuch: no label of 'synthetic-faces'",
    "run --dataset fairface": "no data folder given",
    "run --dataset fairface --data-root nosuch": "nosuch is no folder",
    "run --datasets nosuch.yaml": "nosuch.yaml: cannot be read",
    "run nosuch": "unknown spec 'nosuch'",
    "run nosuch.yaml": "nosuch.yaml: no such spec file",
    "upsample nosuch.png": "nosuch.png: cannot be read",
    "upsample nosuch.png --search x": "--search x: unknown",
    "upsample nosuch.png --device tpu": "--device tpu: not supported",
    "validate nosuch": "unknown data set 'nosuch'",
    "fetch nosuch": "unknown weights 'nosuch'",
    "list nosuch": "list nosuch: unknown",
}
#: Commands that succeed without torch.
RIGHT = [
    "list datasets",
    "list arms",
    "list conditions",
    "list specs",
    "list weights",
    "list metrics",
]

CODE = """
import contextlib, io, json, sys
from pulse_audit.cli import outcome
answers = {}
for command in json.loads(sys.argv[1]):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = outcome(command.split())
    answers[command] = [code, err.getvalue(), "torch" in sys.modules]
print(json.dumps(answers))
"""


def test_wrong_names_are_answered_in_one_line_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    monkeypatch.delenv("PULSE_AUDIT_DATA", raising=False)
    command = [sys.executable, "-c", CODE, json.dumps([*WRONG, *RIGHT])]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    answers = json.loads(done.stdout)
    for arguments, expected in WRONG.items():
        code, line, torch = answers[arguments]
        assert code == 2 and not torch, (arguments, line)
        assert line.startswith("pulse-audit: ") and line.count("\n") == 1, line
        assert expected in line, line
    for arguments in RIGHT:
        code, line, torch = answers[arguments]
        assert (code, line, torch) == (0, "", False), arguments
    assert not list(tmp_path.iterdir())


def test_what_a_spec_names_is_found() -> None:
    """The shipped faces, and the data set's own grouping."""
    spec = make_spec({"dataset": "synthetic-faces"})
    inputs = find_inputs(spec)
    assert inputs.index.card.name == "synthetic-faces" and len(inputs.index.faces) > 100
    assert inputs.groupings == [list(inputs.index.card.group_by)]


def test_without_the_shipped_attribute_model_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    find_inputs(make_spec({"dataset": "synthetic-faces", "metrics": ["psnr"]}))
    with pytest.raises(InputError, match="comes without it"):
        find_inputs(make_spec({"dataset": "synthetic-faces", "attributes": "faces-attributes"}))


def test_arms_are_parsed_into_their_kinds() -> None:
    assert parse_arm("bicubic") == ArmReference("bicubic", "interpolation", "bicubic")
    assert parse_arm("planted:a/m.csv") == ArmReference("planted:m", "planted", "a/m.csv")
    assert parse_arm("b/mine.py:Mine") == ArmReference("mine", "factory", "b/mine.py:Mine")


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:3"])
def test_devices_are_known_by_their_form(name: str) -> None:
    assert parse_device(name) == name


def test_a_folder_stands_for_its_photos_by_name(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt", "below/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    named = [tmp_path / "a.png", tmp_path / "b.JPG"]
    assert listed_photos([tmp_path, tmp_path / "a.png"], tmp_path / "out") == named
    # What is no folder is looked up later.
    assert listed_photos([tmp_path / "no.png"], tmp_path) == [tmp_path / "no.png"]
    with pytest.raises(InputError, match="the folder of the photos"):
        listed_photos([tmp_path], tmp_path / "below" / "..")
    (tmp_path / "below" / "c.png").unlink()
    with pytest.raises(InputError, match="no photos in this folder"):
        listed_photos([tmp_path / "below"], tmp_path)
