"""`fetch`, `list` and `doctor` on the command line, and generators by name."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pulse_audit.cli import BAD_INPUT, DONE, INCOMPLETE, outcome
from pulse_audit.models import download, published
from pulse_audit.models.fetch import to_fetch
from pulse_audit.models.generators import find_generator, load_generator
from pulse_audit.types import InputError

Capture = pytest.CaptureFixture[str]

CONTENT = random.Random(0).randbytes(1_500_000)
NAME = "stylegan2-ffhq-256"


@pytest.fixture(autouse=True)
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror that has one file of the catalogue."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / published.get(NAME).file_name).write_bytes(CONTENT)
    monkeypatch.setenv("PULSE_AUDIT_MIRROR", str(folder))
    return folder


@pytest.fixture
def refused(capsys: Capture) -> Callable[..., str]:
    """Run, and return the one line on stderr of a refusal."""

    def run(*arguments: str) -> str:
        assert outcome(arguments) == BAD_INPUT
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    return run


def test_fetch_prints_where_the_file_is(capsys: Capture) -> None:
    assert outcome(["fetch", NAME, "--accept-licence"]) == DONE
    printed = capsys.readouterr()
    assert printed.out == f"{NAME}: {published.fetched_file(published.get(NAME))}\n"
    licence = published.get(NAME).licence
    assert licence.name in printed.err and str(licence.url) in printed.err
    assert "fetching" in printed.err and "2/2 MB (100%)" in printed.err
    assert "recorded" in printed.err


def test_quiet_shows_the_licence_but_no_progress(capsys: Capture) -> None:
    assert outcome(["fetch", NAME, "--accept-licence", "--quiet"]) == DONE
    printed = capsys.readouterr().err
    assert "licence" in printed and "fetching" not in printed


def test_fetch_in_json(capsys: Capture) -> None:
    assert outcome(["fetch", NAME, "--accept-licence", "--json", "--quiet"]) == DONE
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [NAME]
    assert Path(rows[0]["file"]).read_bytes() == CONTENT


def test_what_is_there_is_said_again_without_a_question(capsys: Capture, mirror: Path) -> None:
    assert outcome(["fetch", NAME, "--accept-licence", "--quiet"]) == DONE
    (mirror / published.get(NAME).file_name).unlink()
    capsys.readouterr()
    assert outcome(["fetch", NAME]) == DONE
    assert capsys.readouterr().err == ""


def test_a_script_has_to_accept_the_licence(refused) -> None:
    line = refused("fetch", NAME)
    assert "--accept-licence" in line and "licence" in line
    assert published.fetched_file(published.get(NAME)) is None


@pytest.mark.parametrize("answer", [True, False])
def test_a_person_is_asked(answer: bool, capsys: Capture, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "confirm", lambda *args, **options: answer)
    assert outcome(["fetch", NAME, "--quiet"]) == (DONE if answer else BAD_INPUT)
    assert (published.fetched_file(published.get(NAME)) is not None) is answer


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stylegan2-ffhq-265", NAME),
        ("fairface", "data set"),
        ("../x", "unknown"),
    ],
)
def test_names_that_cannot_be_fetched(refused, name: str, expected: str) -> None:
    assert expected in refused("fetch", name, "--accept-licence", "--quiet")


def test_a_mirror_without_the_file_is_named(capsys: Capture, mirror: Path) -> None:
    assert outcome(["fetch", "stylegan2-ffhq-512", "--accept-licence"]) == BAD_INPUT
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(mirror) in line and "PULSE_AUDIT_MIRROR" in line


def test_a_drive_link_is_explained_in_one_line(refused, monkeypatch) -> None:
    monkeypatch.delenv("PULSE_AUDIT_MIRROR")
    line = refused("fetch", "fairface-race7", "--accept-licence")
    assert "browser" in line and "res34_fair_align_multi_7_20190809.pt" in line


def test_nothing_is_fetched_where_a_name_is_wrong(refused) -> None:
    refused("fetch", NAME, "nonsense", "--accept-licence")
    assert published.fetched_file(published.get(NAME)) is None


def test_ctrl_c_is_incomplete(monkeypatch, capsys: Capture) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "copy", interrupt)
    assert outcome(["fetch", NAME, "--accept-licence", "--quiet"]) == INCOMPLETE
    assert "resumes" in capsys.readouterr().err


def test_pulses_synthesis_network_brings_its_gaussian_fit() -> None:
    wanted = to_fetch(["pulse-stylegan1-ffhq-1024", "pulse-gaussian-fit"])
    assert [card.name for card in wanted] == ["pulse-stylegan1-ffhq-1024", "pulse-gaussian-fit"]


@pytest.mark.parametrize("what", ["weights", "generators"])
def test_lists_say_what_is_fetched(capsys: Capture, what: str) -> None:
    outcome(["fetch", NAME, "--accept-licence", "--quiet"])
    capsys.readouterr()
    assert outcome(["list", what, "--json"]) == DONE
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[NAME]["state"] == "fetched"
    assert rows[NAME]["sha256"].startswith("recorded on")
    assert rows["stylegan2-ada-ffhq-1024"]["state"] == "missing"
    assert rows["stylegan2-ada-ffhq-1024"]["size"] == "382 MB"
    assert ("lpips-vgg16" in rows) == (what == "weights")
    assert outcome(["list", what]) == DONE
    assert "stylegan2-ada-ffhq-1024-transfer" in capsys.readouterr().out


def test_doctor_says_what_is_missing_and_what_that_costs(capsys: Capture) -> None:
    outcome(["fetch", NAME, "--accept-licence", "--quiet"])
    capsys.readouterr()
    assert outcome(["doctor", "--json"]) == DONE
    rows = {row["part"]: row for row in json.loads(capsys.readouterr().out)}
    assert NAME in rows["generators"]["state"]
    assert rows["facenet-vggface2"]["state"] == "missing"
    assert "identity_cosine" in rows["facenet-vggface2"]["meaning"]
    assert "pulse-audit fetch facenet-vggface2" in rows["facenet-vggface2"]["meaning"]


def test_a_generator_that_is_not_fetched_names_the_command() -> None:
    with pytest.raises(InputError, match=f"{NAME} is known but not fetched: pulse-audit fetch"):
        load_generator(NAME)
    with pytest.raises(InputError, match="not fetched"):
        find_generator(NAME)


def test_a_generator_that_changed_since_is_not_used() -> None:
    outcome(["fetch", NAME, "--accept-licence", "--quiet"])
    published.path_of(published.get(NAME)).write_bytes(CONTENT[1:])
    with pytest.raises(InputError, match=f"changed: pulse-audit fetch {NAME}"):
        load_generator(NAME)


def test_a_misspelt_generator_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean stylegan2-ffhq-256"):
        load_generator("stylegan2-ffqh-256")


def test_other_weights_are_no_generator() -> None:
    with pytest.raises(InputError, match="unknown generator 'lpips-vgg16'"):
        load_generator("lpips-vgg16")
