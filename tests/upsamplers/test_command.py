"""Programs that read and write image files, and what becomes of those that misbehave."""

import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.models.arms import read_picture
from pulse_audit.types import Request, Status, Upsampled
from pulse_audit.upsamplers.command import Command

Make = Callable[..., list[Request]]
DS = DegradationModel("clean", 4, "area")

ENLARGE = """
import sys
from PIL import Image

source, target, scale = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Image.open(source) as small:
    size = small.width * scale, small.height * scale
    small.resize(size, Image.Resampling.BICUBIC).save(target)
"""


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Command]:
    """Write a program and make an arm of it."""

    def make(code: str, *words: str, time_limit: float = 60) -> Command:
        (tmp_path / "program.py").write_text(code)
        places = ("{input}", "{output}", *words)
        program = [sys.executable, "-S", str(tmp_path / "program.py"), *places]
        # Without site-packages an interpreter starts in a moment; Pillow needs them.
        program = [word for word in program if word != "-S" or "PIL" not in code]
        return Command("command:program", program, {}, read_picture, time_limit)

    return make


def answer(arm: Command, requests: Make) -> Upsampled:
    (found,) = arm(requests(1), DS)
    assert found.image is None and found.status is Status.ERROR and found.feasible is False
    assert found.reason is not None and "\n" not in found.reason
    return found


def test_a_program_s_output_is_that_of_the_same_program_by_hand(
    command: Callable[..., Command], requests: Make
) -> None:
    given = requests(2, draws=2)
    answers = command(ENLARGE, "{scale}")(given, DS)
    for request, found in zip(given, answers, strict=True):
        pixels = (request.lr * 255).round().byte().permute(1, 2, 0).numpy()
        large = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
        expected = np.asarray(large, np.float32).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(found.image, expected, atol=1e-6)
        means = found.image.view(3, 8, 4, 8, 4).mean(dim=(2, 4))
        error = (means - request.lr).double().square().mean().item()
        assert found.downscale_error == pytest.approx(error, rel=1e-4)
        assert (found.status, found.feasible, found.reason) == (Status.OK, None, None)
        assert found.seconds > 0


def test_each_input_has_a_folder_of_its_own_that_is_gone_afterwards(
    command: Callable[..., Command], requests: Make, tmp_path: Path
) -> None:
    code = f"""
import os, sys
folder = os.path.dirname(sys.argv[1])
facts = (folder, oct(os.stat(folder).st_mode), os.listdir(folder), sys.argv[3], os.getcwd())
with open({str(tmp_path / "log")!r}, "a") as log:
    print(*map(str, facts), sep="|", file=log)
"""
    command(code, "{seed}")(requests(1, draws=2), DS)
    lines = [line.split("|") for line in (tmp_path / "log").read_text().splitlines()]
    first, second = lines
    assert first[0] != second[0] and not Path(first[0]).exists()
    assert stat.S_IMODE(int(first[1], 8)) == 0o700
    assert sorted(eval(first[2])) == ["input.png", "stderr"]
    assert [first[3], second[3]] == ["0", "1"]
    # Paths in a command are those of the folder where pulse-audit was started.
    assert first[4] == os.getcwd()


def test_no_shell_reads_the_words(command: Callable[..., Command], requests: Make) -> None:
    code = "import sys; sys.exit(repr(sys.argv[3:]))"
    odd = ("$HOME", "; touch x", "a{input}b", "{other}", "`id`", "*")
    found = answer(command(code, *odd), requests).reason
    words = eval(found.removeprefix("exit code 1: "))
    assert words[:2] + words[3:] == [*odd[:2], *odd[3:]]
    assert words[2].startswith("a/") and words[2].endswith("/input.pngb")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; print('a\\nlast \\x1b[31m words\\n\\n', file=sys.stderr); sys.exit(7)",
         "exit code 7: last [31m words"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("pass", "the program ended well, but its output: the file is missing"),
        ("import sys; open(sys.argv[2], 'w').write('no')", "not an image of a known format"),
        ("import sys, shutil; shutil.copy(sys.argv[1], sys.argv[2])",
         "the output is 8 x 8 px, where 32 x 32 are due: 4 times the input of 8 x 8"),
        ("import os, sys; os.symlink('/etc/passwd', sys.argv[2])", "leads out of"),
        ("import os, sys; os.mkfifo(sys.argv[2])", "the file is missing"),
        ("import sys; f = open(sys.argv[2], 'w'); f.truncate(2**29)", "larger than 256 MiB"),
        ("import sys; print('x' * 10**6, file=sys.stderr); sys.exit(1)", "exit code 1: xxx"),
    ],
)  # fmt: skip
def test_a_program_that_fails_costs_its_draw_and_says_why(
    command: Callable[..., Command], requests: Make, code: str, reason: str
) -> None:
    found = answer(command(code), requests)
    assert reason in found.reason and len(found.reason) < 260


def test_a_program_that_takes_too_long_ends_with_its_children(
    command: Callable[..., Command], requests: Make, tmp_path: Path
) -> None:
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
time.sleep(60)
"""
    started = time.monotonic()
    found = answer(command(code, time_limit=1), requests)
    assert found.reason == "took over 1 seconds and was ended" and found.seconds >= 1
    assert time.monotonic() - started < 30
    pid = int((tmp_path / "pid").read_text())

    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    # The kernel ends it in a moment; nobody may have taken notice of it yet.
    while not ended() and time.monotonic() - started < 30:
        time.sleep(0.01)
    assert ended()


def test_a_program_that_is_not_there_costs_its_draws(requests: Make) -> None:
    arm = Command("c", ["./nosuch", "{input}", "{output}"], {}, read_picture)
    assert answer(arm, requests).reason == "cannot be started (No such file or directory)"


def test_the_description_has_what_decides_the_outputs() -> None:
    arm = Command("c", ["p", "{input}", "{output}"], {"p": "ab" * 32}, read_picture, 5)
    assert arm.describe() == {
        "kind": "command", "command": ["p", "{input}", "{output}"], "files": {"p": "ab" * 32},
        "time_limit": 5, "input": "8-bit PNG",
    }  # fmt: skip


def test_an_output_keeps_the_input_s_type(command: Callable[..., Command], requests: Make) -> None:
    (found,) = command(ENLARGE, "{scale}")(requests(1), DS)
    assert found.image.dtype == torch.float32 and 0 <= found.image.min() <= found.image.max() <= 1
