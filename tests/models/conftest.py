"""A server on this machine that misbehaves on request, and a cache in a temporary folder."""

import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from pulse_audit.models import connection, download, published
from pulse_audit.models.published import WeightCard

Answer = Callable[["Handler"], None]

#: Longer than two chunks, so that a cut leaves something to go on from.
CONTENT = random.Random(0).randbytes(2 * download.CHUNK + 12_345)
OTHER = random.Random(1).randbytes(len(CONTENT))


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the next of the server's answers; the last one stays."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        owner = self.server.owner
        owner.requests.append(SimpleNamespace(path=self.path, headers=self.headers))
        with owner.lock:
            answer = owner.answers.pop(0) if len(owner.answers) > 1 else owner.answers[0]
        try:
            answer(self)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Stay silent."""

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


def full(content: bytes = CONTENT, **headers: object) -> Answer:
    """The whole file, whatever was asked for."""

    def answer(handler: Handler) -> None:
        handler.head(200, Content_Length=len(content), **headers)
        handler.wfile.write(content)

    return answer


def ranged(content: bytes = CONTENT, etag: str = '"one"', cut: int | None = None) -> Answer:
    """A server by the book (Range, If-Range, ETag); ``cut``: drops the connection after so many."""

    def answer(handler: Handler) -> None:
        wanted, condition = handler.headers.get("Range"), handler.headers.get("If-Range", etag)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        start = start if condition == etag else 0
        if start >= len(content):
            handler.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
            return
        extent = f"bytes {start}-{len(content) - 1}/{len(content)}"
        fields = {"ETag": etag, "Content_Length": len(content) - start}
        if start:
            handler.head(206, Content_Range=extent, **fields)
        else:
            handler.head(200, **fields)
        handler.wfile.write(content[start:][:cut])
        handler.close_connection = cut is not None

    return answer


def status(code: int, **headers: object) -> Answer:
    return lambda handler: handler.head(code, Content_Length=0, **headers)


class Server(ThreadingHTTPServer):
    """Counts requests and gives the answers it is told to."""

    full, ranged, status = map(staticmethod, (full, ranged, status))
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.owner = self
        self.lock = threading.Lock()
        self.answers: list[Answer] = []
        self.requests: list[SimpleNamespace] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up: some tests do so."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def ranges(self) -> list[str | None]:
        return [request.headers.get("Range") for request in self.requests]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no mirror, no proxy, and no patience."""
    folder = tmp_path / "home"
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(folder))
    monkeypatch.delenv("PULSE_AUDIT_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(connection, "TIMEOUT", 5.0)
    return folder


@pytest.fixture
def card(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., WeightCard]:
    """Make a card of a file on the server; the catalogue then holds that card alone."""

    def make(**changes: object) -> WeightCard:
        base = published.get("stylegan2-ffhq-256")
        url = {"url": f"{server.url}/{base.file_name}"}
        made = base.model_copy(update={**url, "size": len(CONTENT), **changes})
        monkeypatch.setattr(published, "cards", lambda: {made.name: made})
        return made

    return make
