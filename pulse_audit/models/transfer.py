"""Bringing one file here: over HTTP with resumption, or from a folder. Standard library only.

A download grows in ``<file>.part``; ``<file>.part.json`` holds the address and the server's
validator (RFC 9110: ETag, Last-Modified), so that a part is only ever continued with bytes of the
same version (Range with If-Range).
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pulse_audit.files import atomic_write
from pulse_audit.models.cache import unwritable
from pulse_audit.types import InputError

#: Bytes done, bytes in all (as far as known), bytes that an earlier try had brought.
Progress = Callable[[int, int, int], None]

ATTEMPTS = 4
#: Seconds before the second attempt; doubled before each further one.
BACKOFF = 1.0
#: Seconds without a byte after which a connection counts as dropped.
TIMEOUT = 60.0
#: What an interrupt may cost, in bytes.
CHUNK = 1 << 16
_PASSING = {408, 425, 429, 500, 502, 503, 504}
WEB_PAGE = "a web page (a quota or log-in page?) in place of the file; it is not kept"
_HTML = re.compile(rb"^(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head)", re.IGNORECASE)


class Dropped(Exception):
    """A failure that may pass: the download is tried again, and goes on where it stopped."""


@dataclass(frozen=True)
class Part:
    """What is known of the beginning of a file that lies in the part file."""

    url: str
    etag: str | None
    modified: str | None
    total: int | None

    @property
    def sound(self) -> bool:
        """Whether every entry is of its type, as in notes that nobody damaged."""
        texts = (self.etag, self.modified)
        return all(isinstance(t, str | None) for t in texts) and isinstance(self.total, int | None)

    @property
    def validator(self) -> str | None:
        """What If-Range may hold: a strong ETag, else a date."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if strong else self.modified


def download(url: str, part: Path, size: int | None, progress: Progress) -> None:
    """Bring ``url`` into the file ``part``, going on where an earlier try stopped.

    Parameters
    ----------
    url : str
        An http or https address.
    part : Path
        The file to fill. What an interrupt leaves there is used by the next call.
    size : int or None
        Bytes the file must have.
    progress : callable
        Told after every chunk.

    Raises
    ------
    InputError
        If the server refuses, sends another number of bytes or an HTML page, redirects to
        something other than http(s), keeps failing, or the disk is full.
    """
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        try:
            return _attempt(url, part, size, progress)
        except Dropped as error:
            reason = str(error)
    raise InputError(
        f"{url}: {reason}; gave up after {ATTEMPTS} attempts, the same command goes on from there"
    )


def copy(source: Path, part: Path, progress: Progress) -> None:
    """Copy a file of a local mirror into ``part``.

    Raises
    ------
    InputError
        If it cannot be read, or the disk is full.
    """
    try:
        with source.open("rb") as origin:
            total, done = source.stat().st_size, 0
            with _opened(part, "wb") as file:
                while chunk := origin.read(CHUNK):
                    _write(file, chunk)
                    done += len(chunk)
                    progress(done, total, 0)
    except OSError as error:
        raise InputError(
            f"{source}: cannot be read ({error.strerror}); it is looked for there because of "
            "PULSE_AUDIT_MIRROR"
        ) from None


def looks_like_html(beginning: bytes) -> bool:
    """Whether bytes are the beginning of a web page rather than of a file of weights."""
    return _HTML.match(beginning) is not None


def discard(part: Path) -> None:
    """Remove a part and what is known of it."""
    try:
        part.unlink(missing_ok=True)
        _notes(part).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(error) from None


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _attempt(url: str, part: Path, size: int | None, progress: Progress) -> None:
    known, have = _resumable(url, part)
    if known and known.total == have:
        return
    with _open(url, known, have) as response:
        start = _start(response, known, have, part, url)
        if response.headers.get_content_type() == "text/html":
            raise InputError(f"{url}: {WEB_PAGE}")
        total = _total(response, start, size, url)
        _require_space(part, (total or 0) - start)
        first = _read(response)
        if start == 0:
            if looks_like_html(first):
                raise InputError(f"{url}: {WEB_PAGE}")
            _begin(url, response, part, total)
        chunks = chain([first], iter(partial(_read, response), b""))
        _receive(chunks, part, start, total, progress, url)


def _resumable(url: str, part: Path) -> tuple[Part | None, int]:
    """Return what is known of a part that may be continued, and its length; else (None, 0)."""
    try:
        known = Part(**json.loads(_notes(part).read_bytes()))
        have = part.stat().st_size
    except (OSError, ValueError, TypeError):
        return None, 0
    if not known.sound or known.url != url or known.validator is None:
        return None, 0
    return (known, have) if 0 < have <= (known.total or have) else (None, 0)


def _begin(url: str, response: Any, part: Path, total: int | None) -> None:
    headers = response.headers
    notes = Part(url, headers.get("ETag"), headers.get("Last-Modified"), total)
    try:
        part.write_bytes(b"")
        atomic_write(_notes(part), json.dumps(asdict(notes)).encode())
    except OSError as error:
        raise unwritable(error) from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within http and https, and never from https back to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            fp.close()
            raise InputError(f"{req.full_url}: redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Build an opener for http and https alone: no file:, no ftp:, no data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _open(url: str, known: Part | None, have: int) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "pulse-audit"})
    if known and known.validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known.validator)
    try:
        return _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                return error
            raise _refusal(url, error) from None
    except (http.client.InvalidURL, ValueError) as error:
        raise InputError(f"{url}: no address that can be fetched ({_words(error)})") from None
    except (http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(f"{url}: {reason.verify_message}") from None
        raise Dropped(_words(reason)) from None


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    said = f"the server answers {error.code} {_words(error.reason)}"
    return Dropped(said) if error.code in _PASSING else InputError(f"{url}: {said}")


def _words(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__


def _start(response: Any, known: Part | None, have: int, part: Path, url: str) -> int:
    """Offset of the first byte the server sends; a part that does not fit is thrown away."""
    if response.status == 200:
        return 0
    if response.status == 206 and known and _continues(response, known, have):
        return have
    if response.status not in (206, 416):
        raise InputError(f"{url}: the server answers {response.status}, not with the file")
    discard(part)
    raise Dropped("the file has changed on the server meanwhile")


def _continues(response: Any, known: Part, have: int) -> bool:
    """Whether a partial answer begins where the part ends and is of the same version."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != have:
        return False
    same_total = known.total is None or found[2] in ("*", str(known.total))
    etag = response.headers.get("ETag", known.etag)
    return same_total and etag == known.etag


def _total(response: Any, start: int, size: int | None, url: str) -> int | None:
    """Bytes of the whole file: what the server says has to be what the catalogue says."""
    length = response.headers.get("Content-Length", "")
    declared = start + int(length) if length.isdecimal() else None
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise InputError(f"{url}: the server sends the file compressed, which was not asked for")
    if declared is not None and size is not None and declared != size:
        raise InputError(
            f"{url}: the server has {declared:,} bytes, the catalogue says {size:,}; not fetched"
        )
    if declared is None and size is None and not response.chunked:
        raise InputError(
            f"{url}: the server does not say how long the file is, so that a whole one cannot be "
            "told from a cut one; fetch it by hand"
        )
    return declared if size is None else size


def _require_space(part: Path, wanted: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if wanted > free:
        raise InputError(
            f"{part.parent}: {wanted:,} bytes to come, {free:,} free; make room, or set "
            "PULSE_AUDIT_HOME to a folder that has it"
        )


def _receive(
    chunks: Iterable[bytes],
    part: Path,
    start: int,
    total: int | None,
    progress: Progress,
    url: str,
) -> None:
    done = start
    with _opened(part, "r+b") as file:
        file.truncate(start)
        file.seek(start)
        for chunk in chunks:
            done += len(chunk)
            if total is not None and done > total:
                break
            _write(file, chunk)
            progress(done, max(done, total or 0), start)
    if total is not None and done > total:
        discard(part)
        raise InputError(f"{url}: the server sends more than the {total:,} bytes it should")
    if done < (total or 1):
        raise Dropped(f"the connection ended after {done:,} of {total or 'some'} bytes")


def _read(response: Any) -> bytes:
    try:
        data: bytes = response.read(CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise Dropped(f"the connection was lost ({_words(error)})") from None
    return data


def _opened(part: Path, mode: str) -> FileIO:
    """Open a part unbuffered: what was written is on disk, and closing cannot fail late."""
    try:
        return FileIO(part, mode)
    except OSError as error:
        raise unwritable(error) from None


def _write(file: FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise unwritable(error) from None
