"""One HTTP request whose head, pace and time have limits; redirects stay within http and https."""

from __future__ import annotations

import functools
import http.client
import io
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pulse_audit.types import InputError

#: Seconds without a byte after which a connection counts as dropped.
TIMEOUT = 60.0
#: Seconds that the head of a response, and each chunk, may take, however the bytes come.
STEP = 120.0
#: Slowest mean rate in bytes per second; a whole download has ``SLACK`` seconds beside it.
MIN_RATE = 16_384
SLACK = 300.0
#: HTTP statuses after which another attempt may succeed.
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
#: Largest head of a response in bytes.
MAX_HEAD = 1 << 16


class TransientError(Exception):
    """The attempt failed, and another one may succeed; it continues where this one stopped."""


class Deadline:
    """When a download has to be done: a time that grows with the size of the file."""

    def __init__(self, size: int | None) -> None:
        self._started = time.monotonic()
        self.expect(size or 0)

    def expect(self, size: int) -> None:
        """Allow the time that ``size`` bytes take at the slowest rate."""
        self._end = self._started + SLACK + size / MIN_RATE

    def remaining(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within http and https, and never from https back to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        # Closed, so that the redirect's own page, of any length, is not read.
        fp.close()
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise InputError(f"{req.full_url}: redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _TimedReader(io.RawIOBase):
    """The bytes of a connection, as long as there is time for them.

    A time limit of a socket starts anew with every byte; a server that sends one a second would
    hold the program for ever. Here the head of a response, and each chunk, has ``STEP`` seconds.
    """

    def __init__(self, raw: io.RawIOBase, connection: Any, deadline: Deadline) -> None:
        self._raw, self._connection, self._deadline = raw, connection, deadline
        self.head_left: int | None = MAX_HEAD
        self.start_step()

    def start_step(self) -> None:
        """Allow the next step its own time."""
        self._step_end = time.monotonic() + STEP

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = min(self._step_end - time.monotonic(), self._deadline.remaining())
        if left <= 0:
            raise TimeoutError("the server is too slow")
        self._connection.settimeout(min(TIMEOUT, left))
        count = self._raw.readinto(buffer)
        # Interim answers (100 Continue) and headers may otherwise go on for ever.
        if self.head_left is not None:
            self.head_left -= count or 0
            if self.head_left < 0:
                raise http.client.HTTPException(f"over {MAX_HEAD:,} bytes of headers")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response whose head and whose pace have limits."""

    def __init__(self, sock: Any, *args: Any, deadline: Deadline, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.timed = _TimedReader(self.fp.detach(), sock, deadline)
        self.fp = io.BufferedReader(self.timed)

    def begin(self) -> None:
        super().begin()
        self.timed.head_left = None

    def _read_next_chunk_size(self) -> int:
        # http.client takes -1 for "everything that follows".
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:
            raise ValueError("a chunk of negative size")
        return size


class _TimedHandler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens http and https, redirects and proxies included, with `_Response` for the responses."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._response_class = functools.partial(_Response, deadline=deadline)

    def do_open(self, http_class: Any, req: urllib.request.Request, **options: Any) -> Any:
        def connect(host: str, **settings: Any) -> Any:
            connection = http_class(host, **settings)
            connection.response_class = self._response_class
            return connection

        return super().do_open(connect, req, **options)


def request(url: str, headers: Mapping[str, str], deadline: Deadline) -> Any:
    """Request a file; returns the open response, also where the server has no such range (416).

    Raises
    ------
    InputError
        If the address is none, the server refuses, or its certificate is not valid.
    TransientError
        If another attempt may succeed.
    """
    # http and https alone: the default opener would also follow file:, ftp: and data:.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _TimedHandler(deadline),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    try:
        sent = urllib.request.Request(url, headers={"User-Agent": "pulse-audit", **headers})
        return opener.open(sent, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error
        error.close()
        answer = f"the server answers {error.code} {one_line(error.reason)}"
        if error.code in TRANSIENT:
            raise TransientError(answer) from None
        raise InputError(f"{url}: {answer}") from None
    except (http.client.InvalidURL, ValueError) as error:
        raise InputError(f"{url}: is not an http address ({one_line(error)})") from None
    except (http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(f"{url}: {reason.verify_message}") from None
        raise TransientError(one_line(reason)) from None


def one_line(reason: object) -> str:
    """Return the words of an error on one line."""
    return " ".join(str(reason).split())[:200] or type(reason).__name__
