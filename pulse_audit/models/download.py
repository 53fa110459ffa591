"""Downloads one file over HTTP, resumable, or copies it from a folder. Standard library only.

A download is written to ``<file>.part``. ``<file>.part.json`` holds the address and the server's
validator (RFC 9110: ETag, Last-Modified), so that a part is continued only with bytes of the same
version (Range with If-Range).
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from pulse_audit.documents import read_json
from pulse_audit.files import atomic_write
from pulse_audit.models.connection import Deadline, TransientError, one_line, request
from pulse_audit.models.published import unwritable
from pulse_audit.types import InputError, Progress

#: The environment variable with a folder or an address to use in place of the publishers' sites.
MIRROR = "PULSE_AUDIT_MIRROR"

ATTEMPTS = 4
#: Seconds before the second attempt; doubled before each further one.
BACKOFF = 1.0
#: Bytes written at once; an interrupt loses at most so many.
CHUNK = 1 << 16
#: Largest file where nobody says how long it is, in bytes.
MAX_UNKNOWN = 4 << 30
WEB_PAGE = "a web page (a quota or log-in page?) in place of the file; it is not kept"
_HTML = re.compile(rb"^(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head)", re.IGNORECASE)


@dataclass(frozen=True)
class PartRecord:
    """Address, validators and full length of the file whose beginning lies in the part file."""

    url: str
    etag: str | None
    modified: str | None
    total: int | None

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong ETag, else a date; None if it cannot be sent."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        value = self.etag if strong else self.modified
        return value if value and re.fullmatch(r"[ -~]+", value) else None

    def continued_by(self, response: Any, length: int) -> bool:
        """Whether a partial response is of the same version and starts after ``length`` bytes."""
        # bytes FIRST-LAST/TOTAL, where the total may be unknown (*).
        content_range = response.headers.get("Content-Range", "")
        extent = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]+|\*)", content_range)
        if not extent or int(extent[1]) != length:
            return False
        same_total = self.total is None or extent[2] in ("*", str(self.total))
        return same_total and response.headers.get("ETag", self.etag) == self.etag


def download(url: str, part: Path, size: int | None, progress: Progress) -> None:
    """Download ``url`` into the file ``part``, continuing what an earlier attempt left there.

    Parameters
    ----------
    url : str
        An http or https address.
    part : Path
        The file to fill.
    size : int or None
        Bytes the file must have.
    progress : callable
        Called after every chunk.

    Raises
    ------
    InputError
        If the server refuses, sends another number of bytes or an HTML page, redirects to
        something other than http(s), keeps failing or is too slow, or the disk is full.
    """
    # Seconds between attempts: 1, 2, 4.
    reason, deadline = "", Deadline(size)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        try:
            return _attempt(url, part, size, progress, deadline)
        except TransientError as error:
            reason = str(error)
        if deadline.remaining() <= 0:
            break
    raise InputError(
        f"{url}: {reason}; gave up after {attempt + 1} attempts, the same command continues from "
        "there"
    )


def copy(source: Path, part: Path, progress: Progress) -> None:
    """Copy a file of a local mirror into ``part``; `InputError` if it cannot be read or written."""
    try:
        # A pipe or a device would never end.
        if source.exists() and not source.is_file():
            raise InputError(f"{source}: is not a file; it is looked for there because of {MIRROR}")
        with source.open("rb") as origin:
            total, done = source.stat().st_size, 0
            with _open_part(part, "wb") as file:
                while chunk := origin.read(CHUNK):
                    _write(file, chunk)
                    done += len(chunk)
                    progress(done, total, 0)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{str(source)!r}: cannot be read ({reason}); it is looked for there because of "
            f"{MIRROR}"
        ) from None


def looks_like_html(beginning: bytes) -> bool:
    """Whether bytes are the beginning of a web page rather than of a file of weights."""
    return _HTML.match(beginning) is not None


def discard(part: Path) -> None:
    """Remove a part and its record."""
    try:
        part.unlink(missing_ok=True)
        _record_path(part).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(error) from None


def _record_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _attempt(
    url: str, part: Path, size: int | None, progress: Progress, deadline: Deadline
) -> None:
    """Make one request and write what it returns to the part; see `download`."""
    record, length = _continuable(url, part)
    if record and record.total == length:
        return
    # If-Range: the rest is sent only where the version is still that of the part.
    headers = {}
    if record and record.validator:
        headers = {"Range": f"bytes={length}-", "If-Range": record.validator}
    with request(url, headers, deadline) as response:
        # Where the server continues the part, its first byte follows the part's last one.
        if response.status == 200:
            start = 0
        elif response.status == 206 and record and record.continued_by(response, length):
            start = length
        elif response.status in (206, 416):
            discard(part)
            raise TransientError("the file has changed on the server meanwhile")
        else:
            raise InputError(f"{url}: the server answers {response.status}, not with the file")

        # Refuse before the first byte what cannot become the file.
        if response.headers.get_content_type() == "text/html":
            raise InputError(f"{url}: {WEB_PAGE}")
        total = _total(response, start, size, url)
        limit = MAX_UNKNOWN if total is None else total
        deadline.expect(limit)
        free = shutil.disk_usage(part.parent).free
        if (total or 0) - start > free:
            raise InputError(
                f"{part.parent}: {(total or 0) - start:,} bytes to come, {free:,} free; make room, "
                "or set PULSE_AUDIT_HOME to a folder that has it"
            )

        # A new file: record its version before its first byte is written.
        chunk = _read(response)
        if start == 0:
            if looks_like_html(chunk):
                raise InputError(f"{url}: {WEB_PAGE}")
            headers = response.headers
            new = PartRecord(url, headers.get("ETag"), headers.get("Last-Modified"), total)
            try:
                part.write_bytes(b"")
                atomic_write(_record_path(part), json.dumps(asdict(new)).encode())
            except OSError as error:
                raise unwritable(error) from None

        # Write chunk by chunk; an interrupt leaves a part that the next attempt continues.
        done = start
        with _open_part(part, "r+b") as file:
            file.truncate(start)
            file.seek(start)
            while chunk:
                done += len(chunk)
                if done > limit:
                    break
                _write(file, chunk)
                progress(done, max(done, total or 0), start)
                chunk = _read(response)
    if done > limit:
        discard(part)
        raise InputError(f"{url}: the server sends more than the {limit:,} bytes it should")
    if done < (total or 1):
        raise TransientError(f"the connection ended after {done:,} of {total or 'some'} bytes")


def _continuable(url: str, part: Path) -> tuple[PartRecord | None, int]:
    """Return the record and the length of a part that may be continued; else (None, 0)."""
    try:
        record = PartRecord(**read_json(_record_path(part)))
        length = part.stat().st_size
    except (OSError, InputError, TypeError):
        return None, 0
    # A damaged record may hold values of other types.
    sound = all(isinstance(text, str | None) for text in (record.etag, record.modified))
    if not sound or not isinstance(record.total, int | None):
        return None, 0
    if record.url != url or record.validator is None:
        return None, 0
    return (record, length) if 0 < length <= (record.total or length) else (None, 0)


def _total(response: Any, start: int, size: int | None, url: str) -> int | None:
    """Return the bytes of the whole file; the server and weights.yaml must agree."""
    length = response.headers.get("Content-Length", "")
    if re.fullmatch(r"[0-9]{19,}", length):
        raise InputError(f"{url}: the server announces more bytes than any file has")
    # Of a continued part the server declares the rest only.
    declared = start + int(length) if re.fullmatch(r"[0-9]+", length) else None
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise InputError(f"{url}: the server sends the file compressed, which was not requested")
    if declared is not None and size is not None and declared != size:
        raise InputError(
            f"{url}: the server has {declared:,} bytes, weights.yaml says {size:,}; not fetched"
        )
    if declared is None and size is None and not response.chunked:
        raise InputError(
            f"{url}: the server does not say how long the file is, so a truncated one could not be "
            "recognised; fetch it by hand"
        )
    return declared if size is None else size


def _read(response: Any) -> bytes:
    try:
        response.timed.start_step()
        data: bytes = response.read(CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise TransientError(f"the connection was lost ({one_line(error)})") from None
    return data


def _open_part(part: Path, mode: str) -> FileIO:
    """Open a part unbuffered, so that closing it cannot fail."""
    try:
        return FileIO(part, mode)
    except OSError as error:
        raise unwritable(error) from None


def _write(file: FileIO, chunk: bytes) -> None:
    # An unbuffered file may take less than it is given.
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise unwritable(error) from None
