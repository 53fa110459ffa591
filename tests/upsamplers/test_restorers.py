"""Every recipe of docs/restorers.md, command by command, with programs that stand in for others.

The stand-ins take the arguments and write the files of the public programs; what they write is the
input, enlarged, so that each output of an audit can be told by its pixels.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_audit import store
from pulse_audit.cli import DONE, outcome
from pulse_audit.harness.export import INDEX
from pulse_audit.report import html

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = Path(__file__).with_name("restorers")
PROGRAMS = ("GFPGAN", "CodeFormer", "RestoreFormer", "DiffBIR", "OSDFace")
ReadPixels = Callable[[Path], np.ndarray]


def recipes() -> dict[str, list[str]]:
    """The command lines of every section, continued lines joined."""
    text = (ROOT / "docs" / "restorers.md").read_text()
    sections = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {
        title: [
            line
            for code in re.findall(r"```sh\n(.*?)```", body, re.DOTALL)
            for line in code.replace("\\\n", " ").splitlines()
        ]
        for title, body in zip(sections[1::2], sections[2::2], strict=True)
    }


def run_program(line: str, *more: str) -> None:
    """Run ``(cd FOLDER && python PROGRAM ...)``."""
    assert line.startswith("(") and line.endswith(")")
    enter, folder, then, python, *words = shlex.split(line[1:-1])
    assert (enter, then, python) == ("cd", "&&", "python")
    subprocess.run([sys.executable, *words, *more], cwd=folder, check=True)


@pytest.fixture
def inputs(
    fairface_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """A folder to start in, with data and programs; writes the inputs of the page."""
    monkeypatch.chdir(tmp_path)
    # The page of a report takes longer than the small runs, and changes no sample.
    monkeypatch.setattr(html, "render", lambda *_, **__: tmp_path)
    shutil.copytree(STAND_INS, tmp_path, dirs_exist_ok=True)
    (export,) = recipes()["What holds for all five"]

    def write(*more: str) -> None:
        # Painted faces are not found, and so not aligned; little is measured of them.
        small = [
            "--crop",
            "fairface-0.25",
            "--per-group",
            "1",
            "--limit",
            "1",
            "--keep-images",
            "all",
        ]
        small += ["--metrics", "psnr", "--attributes", "none", "--threads", "1", "--quiet"]
        assert outcome([*shlex.split(export)[1:], *small, *more]) == DONE

    return write


def test_there_is_a_recipe_for_every_restorer() -> None:
    found = {title for title, lines in recipes().items() if any(" && " in line for line in lines)}
    assert found == set(PROGRAMS)


def test_every_recipe_audits_the_outputs_of_its_program(
    inputs: Callable[..., None], tmp_path: Path, read_pixels: ReadPixels
) -> None:
    inputs()
    for program in PROGRAMS:
        work, audit = recipes()[program]
        run_program(work)
        assert outcome([*shlex.split(audit)[1:], "--quiet"]) == DONE
        name = program.lower()
        run = store.open_run(tmp_path / "runs" / name)
        assert list(run.manifest.arms) == ["bicubic", f"folder:{name}"]
        rows = run.samples().query("arm != 'bicubic'")
        assert len(rows) == 1 and set(rows.status) == {"ok"}
        # Feasibility is measured, and not promised.
        assert rows.downscale_error.max() < 2e-3 and rows.feasible.all()
        for face, image in zip(rows.face_id, rows.image, strict=True):
            own = tmp_path / "inputs" / "clean-x8" / f"{face.replace('/', '-')[:-4]}.png"
            with Image.open(own) as small:
                assert small.size == (64, 64)
                large = small.resize((512, 512), Image.Resampling.BILINEAR)
            assert np.array_equal(read_pixels(run.path / image), np.asarray(large))


def test_samples_of_a_sampler_are_draws(
    inputs: Callable[..., None], tmp_path: Path, read_pixels: ReadPixels
) -> None:
    inputs("--draws", "2")
    assert len((tmp_path / "inputs" / INDEX).read_text().splitlines()) == 1 + 2
    work, audit = recipes()["DiffBIR"]
    run_program(work, "--n_samples", "2")
    assert outcome([*shlex.split(audit)[1:], "--quiet"]) == DONE
    run = store.open_run(tmp_path / "runs" / "diffbir")
    rows = run.samples().query("arm != 'bicubic'").set_index("draw")
    assert set(rows.status) == {"ok"} and set(rows.index) == {0, 1}
    # The second sample of the stand-in is a grey level brighter.
    first, second = (read_pixels(run.path / rows.image[k]).astype(int) for k in (0, 1))
    assert set(np.unique(second - first)) <= {0, 1} and (second > first).mean() > 0.9
