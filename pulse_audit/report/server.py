"""A report served to the browsers of this machine: read-only, under a secret path.

Nothing outside the report's folder is served, no link is followed, and a page of another site that
guesses the port learns nothing: every path begins with a random token, and the host that a request
names has to be this machine.
"""

from __future__ import annotations

import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pulse_audit.report.html import PAGE
from pulse_audit.types import InputError

LOOPBACK = "127.0.0.1"
#: By the ends of names, since what a system knows of them differs; all other files are plain text.
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
TEXT = "text/plain; charset=utf-8"
#: Sent with every answer: nothing is loaded from elsewhere, kept, or told to other sites.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; "
    "style-src 'unsafe-inline'; script-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class ReportServer(ThreadingHTTPServer):
    """Serves the folder of a report on loopback.

    Parameters
    ----------
    folder : Path
        Holds ``index.html``.
    port : int
        0: one that is free.

    Attributes
    ----------
    address : str
        Of the face viewer, with the token.

    Raises
    ------
    InputError
        If there is no report, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        if not (folder / PAGE).is_file():
            raise InputError(f"{folder / PAGE}: is missing; `pulse-audit report RUN` makes it")
        self.folder, self.token = folder, secrets.token_urlsafe(16)
        try:
            super().__init__((LOOPBACK, port), _Answer)
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror}") from None
        self.address = f"http://{LOOPBACK}:{self.server_port}/{self.token}/{PAGE}#viewer"

    def find(self, path: str) -> Path | None:
        """Return the file that the path of a request names; None where there is none to serve."""
        token, _, rest = unquote(urlsplit(path).path).lstrip("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return None
        # Names only: no step up, no other drive, nothing through a link.
        names = (rest or PAGE).split("/")
        if any(name in ("", ".", "..") or set(name) & set("\\:\0") for name in names):
            return None
        found = self.folder
        for name in names:
            found /= name
            if found.is_symlink():
                return None
        return found if found.is_file() else None

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a browser that goes away within an answer is no fault."""


class _Answer(BaseHTTPRequestHandler):
    """Answers GET and HEAD; other methods are not known."""

    server: ReportServer
    server_version, sys_version = "pulse-audit", ""

    def do_GET(self) -> None:
        """Send a file of the report, or 404 whatever the reason."""
        # A site whose name was pointed at this machine asks with its own name.
        host = (self.headers["Host"] or "").rpartition(":")[0]
        file = self.server.find(self.path) if host in (LOOPBACK, "localhost") else None
        content = b"not found\n" if file is None else file.read_bytes()
        kind = TEXT if file is None else KINDS.get(file.suffix, TEXT)
        self.send_response(HTTPStatus.NOT_FOUND if file is None else HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing: the token is in every request."""
