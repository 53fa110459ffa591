"""From a name to a checked file: licences, hashes, records, mirrors, two at once."""

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pulse_audit.models import download, published
from pulse_audit.models.fetch import fetch, hash_warning
from pulse_audit.types import InputError

#: As in conftest.py.
CONTENT = random.Random(0).randbytes(2 * download.CHUNK + 12_345)
OTHER = random.Random(1).randbytes(len(CONTENT))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def yes(text: str) -> bool:
    return True


def no(text: str) -> bool:
    return False


def refusal(card, accept=yes) -> str:
    """The one line of a fetch that must fail; no file must have appeared."""
    with pytest.raises(InputError) as caught:
        fetch(card, accept)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leftovers() -> list[str]:
    return sorted(
        p.name for p in published.weights_folder().iterdir() if not p.name.startswith(".")
    )


def test_a_fetched_file_is_whole_recorded_and_alone(server, card) -> None:
    server.answers = [server.ranged()]
    wanted = card()
    path = fetch(wanted, yes)
    assert path.read_bytes() == CONTENT
    assert leftovers() == [wanted.file_name, f"{wanted.file_name}.seen.json"]
    assert published.first_download(wanted).sha256 == digest(CONTENT)
    assert published.fetched_file(wanted) == path


def test_a_file_that_is_there_is_not_fetched_again(server, card) -> None:
    server.answers = [server.ranged()]
    wanted = card()
    assert fetch(wanted, yes) == fetch(wanted, no)
    assert len(server.requests) == 1


def test_an_interrupted_fetch_shows_no_file_and_goes_on(server, card) -> None:
    server.answers = [server.ranged()]
    wanted = card()

    def interrupt(done: int, total: int, restored: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(wanted, yes, interrupt)
    assert published.fetched_file(wanted) is None
    assert fetch(wanted, yes).read_bytes() == CONTENT
    assert server.ranges[1] is not None


def test_a_confirmed_hash_is_required(server, card) -> None:
    server.answers = [server.ranged(OTHER)]
    known = {"sha256": digest(CONTENT), "sha256_status": "confirmed", "sha256_source": "me"}
    line = refusal(card(**known))
    assert digest(CONTENT) in line and digest(OTHER) in line
    assert leftovers() == []
    server.answers = [server.ranged()]
    wanted = card(**known)
    fetch(wanted, yes)
    assert published.hash_state(wanted) == "confirmed"
    assert hash_warning(wanted) is None


def test_a_hash_confirmed_since_replaces_the_record(server, card) -> None:
    server.answers = [server.ranged(OTHER)]
    fetch(card(), yes)
    known = {"sha256": digest(CONTENT), "sha256_status": "confirmed", "sha256_source": "me"}
    wanted = card(**known)
    assert published.fetched_file(wanted) is None
    server.answers = [server.ranged()]
    assert fetch(wanted, yes).read_bytes() == CONTENT
    assert published.first_download(wanted).sha256 == digest(CONTENT)


def test_the_publishers_own_digits_are_required(server, card) -> None:
    server.answers = [server.ranged()]
    assert "12345678" in refusal(card(sha256_prefix="12345678"))
    assert leftovers() == []


def test_a_claimed_hash_is_compared_and_the_outcome_shown(server, card) -> None:
    server.answers = [server.ranged()]
    claim = {"sha256_status": "claimed", "sha256_source": "two repositories"}
    wanted = card(sha256=digest(CONTENT), **claim)
    assert published.hash_state(wanted) == "claimed"
    fetch(wanted, yes)
    assert published.hash_state(wanted) == "as claimed"
    assert "as claimed by two repositories" in hash_warning(wanted)
    doubted = card(sha256=digest(OTHER), **claim)
    assert published.hash_state(doubted) == "NOT as claimed"
    assert digest(OTHER) in hash_warning(doubted)


def test_an_unknown_hash_is_recorded_and_binds_later_downloads(server, card) -> None:
    server.answers = [server.ranged()]
    wanted = card()
    assert published.hash_state(wanted) == "unknown"
    path = fetch(wanted, yes)
    assert published.hash_state(wanted).startswith("recorded on 20")
    assert digest(CONTENT) in hash_warning(wanted)
    path.unlink()
    server.answers = [server.ranged(OTHER, '"two"')]
    line = refusal(wanted)
    assert digest(CONTENT) in line and str(published.record_path(wanted)) in line
    assert leftovers() == [published.record_path(wanted).name]
    published.record_path(wanted).unlink()
    assert fetch(wanted, yes).read_bytes() == OTHER


def test_a_damaged_file_is_noticed_and_fetched_anew(server, card) -> None:
    server.answers = [server.ranged()]
    wanted = card()
    path = fetch(wanted, yes)
    path.write_bytes(OTHER)
    assert published.file_state(wanted) == "changed"
    assert published.fetched_file(wanted) is None
    assert fetch(wanted, yes).read_bytes() == CONTENT


def test_a_touched_file_is_hashed_once(server, card, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = [server.ranged()]
    wanted = card()
    path = fetch(wanted, yes)
    os.utime(path, ns=(1, 1))
    assert published.fetched_file(wanted) == path
    monkeypatch.setattr(published, "file_sha256", lambda path: pytest.fail("hashed again"))
    assert published.fetched_file(wanted) == path


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"url": "x"}', "\x00"])
def test_a_damaged_record_is_made_anew(server, card, record: str) -> None:
    server.answers = [server.ranged()]
    wanted = card()
    fetch(wanted, yes)
    published.record_path(wanted).write_text(record)
    assert published.file_state(wanted) == "not checked"
    fetch(wanted, yes)
    assert published.first_download(wanted).sha256 == digest(CONTENT)


def test_a_licence_is_shown_asked_once_and_remembered(server, card) -> None:
    server.answers = [server.ranged()]
    wanted = card()
    shown = []
    fetch(wanted, lambda text: bool(shown.append(text)) or True)
    assert len(shown) == 1
    for expected in (wanted.licence.name, wanted.licence.url, wanted.trained_on):
        assert expected in shown[0]
    published.path_of(wanted).unlink()
    fetch(wanted, no)


def test_a_licence_that_is_not_accepted_fetches_nothing(server, card) -> None:
    wanted = card()
    assert wanted.licence.url in refusal(wanted, no)
    assert server.requests == []


def test_a_licence_that_asks_nothing_is_not_asked_about(server, card) -> None:
    server.answers = [server.ranged()]
    assert fetch(card(licence=published.get("fairface-race7").licence), no).is_file()


def test_a_quota_page_in_place_of_the_file_leaves_nothing(server, card) -> None:
    server.answers = [
        server.full(b"<html>Too many users have viewed this", Content_Type="text/html")
    ]
    assert "web page" in refusal(card())
    assert leftovers() == []


def by_hand(card):
    return card(url=None, obtain="Google Drive hands it to browsers only", size=None)


def test_a_drive_link_is_explained(server, card) -> None:
    wanted = by_hand(card)
    line = refusal(wanted)
    for expected in ("Google Drive", wanted.page, str(published.path_of(wanted)), "MIRROR"):
        assert expected in line
    assert server.requests == []


def test_a_file_put_there_by_hand_is_checked_and_recorded(card) -> None:
    wanted = by_hand(card)
    published.weights_folder().mkdir(parents=True)
    published.path_of(wanted).write_bytes(CONTENT)
    assert published.fetched_file(wanted) is None
    assert fetch(wanted, yes) == published.fetched_file(wanted)


@pytest.mark.parametrize(
    ("content", "expected"), [(b"<html>Quota exceeded", "web page"), (b"", "0 bytes")]
)
def test_what_was_put_there_by_hand_may_be_wrong(card, content: bytes, expected: str) -> None:
    wanted = by_hand(card)
    published.weights_folder().mkdir(parents=True)
    published.path_of(wanted).write_bytes(content)
    assert expected in refusal(wanted)
    assert published.path_of(wanted).read_bytes() == content


def test_another_file_put_there_by_hand_is_refused(card) -> None:
    wanted = by_hand(card)
    published.weights_folder().mkdir(parents=True)
    published.path_of(wanted).write_bytes(CONTENT)
    fetch(wanted, yes)
    published.path_of(wanted).write_bytes(OTHER)
    assert str(published.record_path(wanted)) in refusal(wanted)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "a mirror"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("form", [str, Path.as_uri])
def test_a_mirror_may_be_a_folder(server, card, mirror, form, monkeypatch) -> None:
    wanted = card(url=None, obtain="by hand, in a browser")
    (mirror / wanted.file_name).write_bytes(CONTENT)
    monkeypatch.setenv("PULSE_AUDIT_MIRROR", form(mirror))
    assert fetch(wanted, yes).read_bytes() == CONTENT
    assert published.first_download(wanted).url.startswith("file://")
    assert server.requests == []


def test_a_mirror_may_be_an_address(server, card, monkeypatch) -> None:
    monkeypatch.setenv("PULSE_AUDIT_MIRROR", f"{server.url}/mirrored/")
    server.answers = [server.ranged()]
    wanted = card(url="https://example.org/x.pkl")
    fetch(wanted, yes)
    assert [request.path for request in server.requests] == [f"/mirrored/{wanted.file_name}"]


def test_a_mirror_is_checked_like_the_publisher(card, mirror, monkeypatch) -> None:
    monkeypatch.setenv("PULSE_AUDIT_MIRROR", str(mirror))
    wanted = card()
    (mirror / wanted.file_name).write_bytes(CONTENT[:-1])
    assert f"{len(CONTENT) - 1:,}" in refusal(wanted)
    assert leftovers() == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/no/such/folder", "MIRROR"),
        ("ftp://x/y", "ftp://x/y"),
        ("~nobody-here/x", "home"),
        ("http://[x", "http://[x"),
        ("file:///a%00b", "null byte"),
    ],
)
def test_a_mirror_that_is_none(card, monkeypatch, value: str, expected: str) -> None:
    monkeypatch.setenv("PULSE_AUDIT_MIRROR", value)
    assert expected in refusal(card())


def test_a_cache_that_cannot_be_written(card, home: Path) -> None:
    home.write_text("a file where the folder should be")
    assert "PULSE_AUDIT_HOME" in refusal(card())


def test_two_threads_fetch_one_file_once(server, card) -> None:
    server.answers = [server.ranged()]
    wanted = card()
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(wanted, yes))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert [path.read_bytes() == CONTENT for path in found] == [True] * 3


def test_two_processes_fetch_one_file_once(server, home: Path) -> None:
    server.answers = [server.ranged()]
    code = (
        "from pulse_audit.models.fetch import fetch\n"
        "from pulse_audit.models.published import get\n"
        "print(fetch(get('stylegan2-ffhq-512'), lambda text: True))"
    )
    environment = {**os.environ, "PULSE_AUDIT_MIRROR": server.url}
    root = Path(__file__).resolve().parents[2]
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=root, stdout=-1)
        for _ in range(2)
    ]
    printed = {process.communicate()[0].decode().strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(server.requests) == 1
    assert [Path(path).read_bytes() == CONTENT for path in printed] == [True]


def test_licences_are_kept_in_readable_form(server, card, home: Path) -> None:
    server.answers = [server.ranged()]
    wanted = card()
    fetch(wanted, yes)
    kept = json.loads((home / "licences.json").read_text())
    assert list(kept) == [f"{wanted.licence.name} {wanted.licence.url}"]


def test_a_mirror_with_a_pipe_in_the_place_of_a_file_is_refused(
    card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_AUDIT_MIRROR", str(tmp_path))
    wanted = card()
    os.mkfifo(tmp_path / wanted.file_name)
    assert "is not a file" in refusal(wanted)
