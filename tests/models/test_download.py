"""Downloads from a server that drops, lies, changes its mind and redirects."""

import errno
import json
import random
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pulse_audit.models import connection, download
from pulse_audit.models.download import download as download_file
from pulse_audit.types import InputError

#: As in conftest.py.
CONTENT = random.Random(0).randbytes(2 * download.CHUNK + 12_345)
OTHER = random.Random(1).randbytes(len(CONTENT))
HALF = download.CHUNK + 1000


def silent(done: int, total: int, restored: int) -> None:
    """Report nothing."""


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


def refusal(url: str, part: Path, size: int | None = len(CONTENT)) -> str:
    """The one line of a download that must fail."""
    with pytest.raises(InputError) as caught:
        download_file(url, part, size, silent)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_comes_whole_and_is_counted(server, part: Path) -> None:
    server.answers = [server.ranged()]
    counted = []
    download_file(server.url, part, None, lambda *sizes: counted.append(sizes))
    assert part.read_bytes() == CONTENT
    assert counted[-1] == (len(CONTENT), len(CONTENT), 0)
    assert [done for done, _, _ in counted] == sorted(done for done, _, _ in counted)


def test_a_dropped_connection_is_gone_on_from(server, part: Path) -> None:
    server.answers = [server.ranged(cut=HALF), server.ranged()]
    counted = []
    download_file(server.url, part, len(CONTENT), lambda *sizes: counted.append(sizes))
    assert part.read_bytes() == CONTENT
    assert server.ranges[0] is None
    assert int(server.ranges[1].removeprefix("bytes=").rstrip("-")) == counted[-1][2] > 0
    assert server.requests[1].headers["If-Range"] == '"one"'


def test_an_interrupt_leaves_a_part_that_the_next_call_uses(server, part: Path) -> None:
    server.answers = [server.ranged()]

    def interrupt(done: int, total: int, restored: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_file(server.url, part, len(CONTENT), interrupt)
    have = part.stat().st_size
    assert 0 < have < len(CONTENT)
    download_file(server.url, part, len(CONTENT), silent)
    assert server.ranges == [None, f"bytes={have}-"]
    assert part.read_bytes() == CONTENT


def test_a_part_that_is_whole_is_not_asked_for_again(server, part: Path) -> None:
    server.answers = [server.ranged()]
    download_file(server.url, part, len(CONTENT), silent)
    download_file(server.url, part, len(CONTENT), silent)
    assert len(server.requests) == 1


def test_a_server_that_ignores_range_is_started_over(server, part: Path) -> None:
    server.answers = [server.ranged(cut=HALF), server.full(ETag='"one"')]
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == CONTENT


def test_a_file_that_changed_between_two_ranges_is_not_mixed(server, part: Path) -> None:
    server.answers = [server.ranged(cut=HALF), server.ranged(OTHER, '"two"')]
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == OTHER


def test_nor_is_one_of_a_server_that_ignores_if_range(server, part: Path) -> None:
    def stubborn(handler) -> None:
        handler.headers.replace_header("If-Range", '"two"')
        server.ranged(OTHER, '"two"')(handler)

    server.answers = [server.ranged(cut=HALF), stubborn, server.ranged(OTHER, '"two"')]
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == OTHER
    assert server.ranges[2] is None


def test_a_partial_answer_from_the_wrong_place_is_not_used(server, part: Path) -> None:
    def shifted(handler) -> None:
        extent = f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}"
        handler.head(206, ETag='"one"', Content_Range=extent, Content_Length=len(CONTENT) - 7)
        handler.wfile.write(CONTENT[7:])

    server.answers = [server.ranged(cut=HALF), shifted, server.ranged()]
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == CONTENT


def test_without_a_validator_a_part_is_not_trusted(server, part: Path) -> None:
    def cut(handler) -> None:
        handler.head(200, Content_Length=len(CONTENT))
        handler.wfile.write(CONTENT[:HALF])
        handler.close_connection = True

    server.answers = [cut, server.full()]
    download_file(server.url, part, len(CONTENT), silent)
    assert server.ranges == [None, None]
    assert part.read_bytes() == CONTENT


def test_a_weak_etag_gives_way_to_the_date() -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert download.PartRecord("u", 'W/"one"', date, 1).validator == date
    assert download.PartRecord("u", 'W/"one"', None, 1).validator is None
    assert download.PartRecord("u", '"one"', date, 1).validator == '"one"'


@pytest.mark.parametrize(
    "notes",
    [
        "",
        "{",
        "[]",
        '{"url": 1, "x": 2}',
        '{"url": "URL", "etag": "e", "modified": null, "total": "many"}',
        '{"url": "URL", "etag": 1, "modified": null, "total": null}',
        '{"url": "URL", "etag": "e", "modified": null, "total": 3}',
    ],
)
def test_damaged_notes_start_over(server, part: Path, notes: str) -> None:
    part.write_bytes(OTHER[:HALF])
    part.with_name("file.part.json").write_text(notes.replace("URL", server.url))
    server.answers = [server.ranged()]
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == CONTENT


def test_a_part_of_another_address_is_not_used(server, part: Path) -> None:
    part.write_bytes(OTHER[:HALF])
    notes = download.PartRecord("https://example.org/other", '"one"', None, len(CONTENT))
    part.with_name("file.part.json").write_text(json.dumps(vars(notes)))
    server.answers = [server.ranged()]
    download_file(server.url, part, len(CONTENT), silent)
    assert server.ranges == [None]
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("offered", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_another_length_than_the_catalogues_is_refused_before_the_first_byte(
    server, part: Path, offered: int
) -> None:
    server.answers = [server.full((CONTENT + b"x")[:offered])]
    line = refusal(server.url, part)
    assert f"{offered:,}" in line and f"{len(CONTENT):,}" in line
    assert not part.exists()


def test_a_length_that_is_never_reached_is_given_up(server, part: Path) -> None:
    def short(handler) -> None:
        handler.head(200, Content_Length=len(CONTENT) + 10, ETag='"one"')
        handler.wfile.write(CONTENT)
        handler.close_connection = True

    server.answers = [short]
    assert "gave up" in refusal(server.url, part, size=None)
    assert len(server.requests) == download.ATTEMPTS


def chunked(content: bytes):
    """The file in chunks, without a length."""

    def answer(handler) -> None:
        handler.head(200, Transfer_Encoding="chunked", ETag='"one"')
        for start in range(0, len(content), 100_000):
            piece = content[start : start + 100_000]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return answer


def test_chunks_without_a_length_are_taken(server, part: Path) -> None:
    server.answers = [chunked(CONTENT)]
    download_file(server.url, part, None, silent)
    assert part.read_bytes() == CONTENT


def test_more_than_the_catalogues_bytes_are_cut_off_and_not_kept(server, part: Path) -> None:
    server.answers = [chunked(CONTENT + b"x")]
    assert "more than" in refusal(server.url, part)
    assert not part.exists()


def test_a_file_of_unknown_end_is_refused(server, part: Path) -> None:
    def endless(handler) -> None:
        handler.head(200, Connection="close")
        handler.wfile.write(CONTENT)
        handler.close_connection = True

    server.answers = [endless]
    assert "how long" in refusal(server.url, part, size=None)


def test_nothing_at_all_is_no_file(server, part: Path) -> None:
    server.answers = [server.full(b"")]
    assert "gave up" in refusal(server.url, part, size=None)


PAGE = b"<!DOCTYPE html><title>Quota exceeded</title>"


@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8"])
@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_web_page_is_refused(server, part: Path, kind: str, size: int | None) -> None:
    server.answers = [server.full(PAGE, Content_Type=kind)]
    assert "web page" in refusal(server.url, part, size)
    assert not part.exists()


@pytest.mark.parametrize("page", [PAGE, b"\n  <HTML><body>", b"\xef\xbb\xbf<!doctype HTML>"])
def test_a_web_page_that_calls_itself_binary_is_refused(server, part: Path, page: bytes) -> None:
    server.answers = [server.full(page, Content_Type="application/octet-stream")]
    assert "web page" in refusal(server.url, part, size=None)
    assert not part.exists()


def test_a_web_page_does_not_cost_the_part_that_is_there(server, part: Path) -> None:
    server.answers = [server.ranged(cut=HALF), server.full(PAGE, Content_Type="text/html")]
    refusal(server.url, part)
    have = part.stat().st_size
    server.answers = [server.ranged()]
    download_file(server.url, part, len(CONTENT), silent)
    assert server.ranges[-1] == f"bytes={have}-"
    assert part.read_bytes() == CONTENT


def test_a_compressed_answer_is_refused(server, part: Path) -> None:
    server.answers = [server.full(Content_Encoding="gzip")]
    assert "compressed" in refusal(server.url, part)


def test_a_redirect_is_followed_and_keeps_the_range(server, part: Path) -> None:
    away = server.status(302, Location="/elsewhere")
    server.answers = [away, server.ranged(cut=HALF), away, server.ranged()]
    download_file(f"{server.url}/here", part, len(CONTENT), silent)
    assert [request.path for request in server.requests] == ["/here", "/elsewhere"] * 2
    assert server.ranges[3] is not None
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_another_scheme_is_refused(server, part: Path, target: str) -> None:
    server.answers = [server.status(302, Location=target)]
    assert target in refusal(server.url, part)
    assert len(server.requests) == 1


def test_a_redirect_from_https_to_http_is_refused() -> None:
    handler = connection._Redirects()
    request = SimpleNamespace(full_url="https://example.org/x")
    reply = SimpleNamespace(close=lambda: None)
    with pytest.raises(InputError, match="not followed"):
        handler.redirect_request(request, reply, 302, "Found", {}, "http://example.org/x")


def test_redirects_in_a_circle_end_in_one_line(server, part: Path) -> None:
    server.answers = [server.status(302, Location="/")]
    assert "302" in refusal(server.url, part)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_of_the_server_is_final(server, part: Path, code: int) -> None:
    server.answers = [server.status(code)]
    assert str(code) in refusal(server.url, part)
    assert len(server.requests) == 1


def test_an_answer_without_a_file_is_refused(server, part: Path) -> None:
    server.answers = [server.status(204)]
    assert "204" in refusal(server.url, part)


def test_a_server_that_is_busy_is_asked_again(server, part: Path) -> None:
    server.answers = [server.status(503), server.status(429), server.ranged()]
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == CONTENT


def test_a_server_that_stays_busy_costs_one_line(server, part: Path) -> None:
    server.answers = [server.status(503)]
    line = refusal(server.url, part)
    assert "503" in line and "same command" in line
    assert len(server.requests) == download.ATTEMPTS


def test_no_server_at_all_costs_one_line(part: Path) -> None:
    assert "refused" in refusal("http://127.0.0.1:9/x", part).lower()


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/x", "gopher://127.0.0.1/x"])
def test_an_address_that_is_none_costs_one_line(part: Path, url: str) -> None:
    assert url in refusal(url, part)


def test_a_server_that_falls_silent_is_asked_again(
    server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT", 0.3)

    def silent_after_half(handler) -> None:
        handler.head(200, Content_Length=len(CONTENT), ETag='"one"')
        handler.wfile.write(CONTENT[:HALF])
        time.sleep(1)
        handler.close_connection = True

    server.answers = [silent_after_half, server.ranged()]
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == CONTENT


def test_a_slow_server_is_waited_for(server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TIMEOUT", 1.0)

    def slow(handler) -> None:
        handler.head(200, Content_Length=5, ETag='"one"')
        for byte in b"slow!":
            time.sleep(0.25)
            handler.wfile.write(bytes([byte]))

    server.answers = [slow]
    download_file(server.url, part, 5, silent)
    assert part.read_bytes() == b"slow!"
    assert len(server.requests) == 1


def test_a_full_disk_is_noticed_beforehand(
    server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    server.answers = [server.ranged()]
    line = refusal(server.url, part)
    assert "1,000 free" in line and "PULSE_AUDIT_HOME" in line


class Full(download.FileIO):
    """A file on a disk with room for one chunk."""

    def write(self, data: memoryview) -> int:
        if self.tell() >= download.CHUNK:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data[:100_000])


def test_a_disk_that_runs_full_costs_one_line_and_keeps_the_part(
    server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [server.ranged()]
    with monkeypatch.context() as patch:
        patch.setattr(download, "FileIO", Full)
        assert "No space left" in refusal(server.url, part)
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == CONTENT
    assert server.ranges[1] is not None


# --- Servers that lie about lengths, or never come to an end ---


def raw(*pieces: bytes, pause: float = 0.0, repeat: bytes = b"", last: bytes = b""):
    """An answer of these very bytes; ``repeat`` follows, up to 20 MB, a ``pause`` after each."""

    def answer(handler) -> None:
        handler.close_connection = True
        for piece in pieces:
            handler.wfile.write(piece)
        for _ in range(20_000_000 // len(repeat) if repeat else 0):
            handler.wfile.write(repeat)
            time.sleep(pause)
        handler.wfile.write(last)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"Content-Length: " + b"9" * 5000, "more bytes than any file has"),
        (b"Content-Length: " + b"9" * 18, "make room"),
        (b"Content-Length: -5", "does not say how long"),
        ("Content-Length: \u0661\u0662".encode(), "does not say how long"),
    ],
)
def test_a_length_that_no_file_has_is_one_line(server, part: Path, head, reason) -> None:
    server.answers = [raw(OK, head, b"\r\n\r\n", CONTENT[:100])]
    assert reason in refusal(server.url, part, None)
    assert not part.exists()


@pytest.mark.parametrize("size", [b"-1", b"-ffffffffffffff", b"zz", b""])
def test_a_chunk_of_no_size_is_one_line(server, part: Path, size: bytes) -> None:
    server.answers = [raw(CHUNKED, size + b"\r\n", repeat=b"x" * 100_000)]
    assert "the connection was lost" in refusal(server.url, part, None)


def test_a_content_range_of_5000_digits_starts_over(server, part: Path) -> None:
    extent = b"Content-Range: bytes " + b"9" * 5000 + b"-9/9\r\n\r\n"
    partial = raw(b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n", extent, b"abc")
    server.answers = [server.ranged(cut=HALF), partial, server.ranged()]
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == CONTENT


def test_a_validator_that_cannot_be_sent_back_is_not_used(server, part: Path) -> None:
    folded = raw(OK, b"ETag: a\r\n b\r\n", b"Content-Length: %d\r\n\r\n" % len(CONTENT), b"abc")
    server.answers = [folded, server.ranged()]
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "repeat", [b"HTTP/1.1 100 Continue\r\n\r\n", b"X: " + b"y" * 60_000 + b"\r\n"]
)
def test_headers_without_end_are_cut_off(
    server, part: Path, monkeypatch: pytest.MonkeyPatch, repeat: bytes
) -> None:
    monkeypatch.setattr(connection, "MAX_HEAD", 4096)
    start = b"" if repeat.startswith(b"HTTP") else OK
    server.answers = [raw(start, repeat=repeat)]
    assert "bytes of headers" in refusal(server.url, part)


@pytest.mark.parametrize(
    ("start", "repeat"),
    [
        (b"", b"H"),
        (OK, b"X"),
        (OK + b"Content-Length: %d\r\n\r\n" % len(CONTENT), b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"Trailer: x\r\n"),
    ],
    ids=["status", "headers", "body", "chunks", "trailers"],
)
def test_a_server_of_one_byte_at_a_time_is_given_up(
    server, part: Path, monkeypatch: pytest.MonkeyPatch, start: bytes, repeat: bytes
) -> None:
    monkeypatch.setattr(connection, "STEP", 0.05)
    server.answers = [raw(start, repeat=repeat, pause=0.002)]
    line = refusal(server.url, part)
    assert "too slow" in line or "timed out" in line
    assert len(server.requests) == download.ATTEMPTS


def test_a_download_has_the_time_that_its_size_takes(
    server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every attempt brings a little, so that none of them stalls; their sum is over time.
    monkeypatch.setattr(connection, "SLACK", 0.05)
    monkeypatch.setattr(connection, "MIN_RATE", 10 * len(CONTENT))
    head = OK + b"Content-Length: %d\r\n\r\n" % len(CONTENT)
    server.answers = [raw(head, repeat=b"x" * 100, pause=0.001)]
    assert "gave up after 1 attempts" in refusal(server.url, part)


def test_a_deadline_grows_with_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: 100.0)
    monkeypatch.setattr(connection, "time", clock)
    deadline = connection.Deadline(None)
    assert deadline.remaining() == connection.SLACK
    deadline.expect(1000 * connection.MIN_RATE)
    assert deadline.remaining() == connection.SLACK + 1000
    clock.monotonic = lambda: 100.0 + connection.SLACK + 1001
    assert deadline.remaining() == -1


def test_a_file_of_unknown_length_has_a_limit(
    server, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_UNKNOWN", 3 * download.CHUNK)
    server.answers = [raw(CHUNKED, repeat=b"400\r\n" + b"x" * 1024 + b"\r\n")]
    assert "more than the 196,608 bytes" in refusal(server.url, part, None)
    assert not part.exists()


def test_the_page_of_a_redirect_is_not_read(server, part: Path) -> None:
    location = f"HTTP/1.1 302 Found\r\nLocation: {server.url}/there\r\n\r\n".encode()
    server.answers = [raw(location, repeat=b"x" * 1000, pause=0.01), server.ranged()]
    started = time.monotonic()
    download_file(server.url, part, len(CONTENT), silent)
    assert part.read_bytes() == CONTENT
    assert time.monotonic() - started < 2
