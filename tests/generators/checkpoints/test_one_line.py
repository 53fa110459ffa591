"""What a user sees of a broken file: one line, and nothing that a library logs beside it."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

NOISE = np.random.default_rng(0).bytes(400)
#: Runs commands one after another, and marks on stderr where each begins and how it ended.
PROGRAM = """
import json, sys
from pulse_audit.cli import outcome
for arguments in json.load(sys.stdin):
    print("BEGIN", file=sys.stderr, flush=True)
    code = outcome(arguments)
    print("CODE", code, file=sys.stderr, flush=True)
"""


def exported() -> bytes:
    """A sound program: ten latents to 8 px."""
    layers = torch.nn.ConvTranspose2d(10, 6, 4), torch.nn.ConvTranspose2d(6, 3, 4, 2, 1)
    decoder = torch.nn.Sequential(torch.nn.Unflatten(1, (10, 1, 1)), *layers).eval()
    sink = io.BytesIO()
    torch.export.save(torch.export.export(decoder, (torch.zeros(1, 10),)), sink)
    return sink.getvalue()


def rewritten(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(sink, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return sink.getvalue()


def graph(old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        if "models/" in name and name.endswith(".json"):
            assert old in content
            return content.replace(old, new)
        return content

    return change


def broken_files() -> dict[str, bytes]:
    program, archive = exported(), io.BytesIO()
    torch.save({"g": torch.zeros(3)}, archive)
    return {
        "cut.pt2": program[: len(program) // 2],
        "noise.pt2": b"PK\x03\x04" + NOISE,
        "operator.pt2": rewritten(program, graph(b"aten.conv_transpose2d.input", b"aten.nothing")),
        "names.pt2": rewritten(program, graph(b'"as_tensor"', b'"as_tensors"')),
        "schema.pt2": rewritten(program, graph(b'"major": ', b'"major": 9')),
        "weights.pt2": rewritten(program, lambda n, c: c[:7] if "weight_0" in n else c),
        "noise.pt": NOISE,
        "empty.pt": b"",
        "cut.pt": archive.getvalue()[:-100],
        "foreign.pt": archive.getvalue(),
        "noise.pkl": b"\x80\x04" + NOISE,
        "cut.pkl": pickle.dumps({"G_ema": 1})[:-1],
        "noise.onnx": NOISE,
        "empty.onnx": b"",
        "noise.safetensors": NOISE,
    }


@pytest.mark.slow
def test_a_broken_generator_costs_the_user_one_line(tmp_path: Path) -> None:
    """Through the command line, in a process of its own, so that nothing catches the streams."""
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(tmp_path / "photo.png")
    commands = []
    for name, content in broken_files().items():
        path = tmp_path / name
        path.write_bytes(content)
        trust = ["--trust-file", hashlib.sha256(content).hexdigest()]
        generator = ["--generator", str(path), "--out", str(tmp_path / "out")]
        run = ["run", "--dataset", "synthetic-faces", "--per-group", "1", "--draws", "1", "--quiet"]
        commands.append(["upsample", str(tmp_path / "photo.png"), *generator])
        commands.append([*run, *generator])
        # A file that the user vouches for is read by PyTorch itself, which logs what it meets.
        if name.endswith(".pt2"):
            commands.append([*commands[-2], *trust])
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        env={**os.environ, "PULSE_AUDIT_HOME": str(tmp_path / "home")},
    )
    assert finished.returncode == 0 and finished.stdout == ""
    answers = finished.stderr.split("BEGIN\n")[1:]
    assert len(answers) == len(commands)
    for command, answer in zip(commands, answers, strict=True):
        line, code, *more = answer.splitlines()
        assert line.startswith("pulse-audit: ") and code == "CODE 2" and not more, (command, answer)
    assert not (tmp_path / "out").exists() and not (tmp_path / "home" / "crashes").exists()
