import http.client
import signal
import subprocess
import sys
import threading
from functools import partial
from urllib.parse import urlsplit

import pytest

from pulse_audit.cli import BAD_INPUT, outcome
from pulse_audit.report.html import render
from pulse_audit.report.server import ReportServer
from pulse_audit.types import InputError
from tests.report.browser import PROGRAM, Browser


@pytest.fixture(scope="module")
def folder(write_run, tmp_path_factory):
    return render(write_run(tmp_path_factory.mktemp("run"), per_group=2)).parent


@pytest.fixture
def server(folder):
    with ReportServer(folder) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def answer(server, path, method="GET", host=None):
    """Status, headers and content; ``path`` follows the token unless it begins with ``//``."""
    place = path[1:] if path.startswith("//") else f"/{server.token}/{path}"
    client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    client.putrequest(method, place, skip_host=True)
    client.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    client.endheaders()
    got = client.getresponse()
    content = got.read()
    client.close()
    return got.status, dict(got.headers), content


def test_the_files_of_the_report_are_served_as_they_are(server, folder):
    kinds = {
        "index.html": "text/html",
        "data/part-000.js": "text/javascript",
        "methods.md": "text/",
    }
    for name, kind in kinds.items():
        status, headers, content = answer(server, name)
        assert (status, content) == (200, (folder / name).read_bytes())
        assert headers["Content-Type"].startswith(kind) and headers["Cache-Control"] == "no-store"
    assert answer(server, "")[2] == (folder / "index.html").read_bytes()
    status, headers, content = answer(server, "index.html", "HEAD")
    assert (status, content) == (200, b"") and int(headers["Content-Length"]) > 1000


def test_nothing_else_is_served(server, folder, tmp_path):
    (folder / "link.txt").symlink_to(folder.parent / "manifest.json")
    (folder / "away").symlink_to(folder.parent)
    refused = (
        "../manifest.json", "%2e%2e/manifest.json", "data/../../manifest.json", "data",
        "link.txt", "away/manifest.json", "/etc/hosts", "data//part-000.js", "..%5cmanifest.json",
        "index.html%00", "missing.html", "//", "//index.html", f"//{'x' * 22}/index.html",
        "//%ff/index.html",
    )  # fmt: skip
    for path in refused:
        assert answer(server, path)[::2] == (404, b"not found\n"), path
    # Another site whose name points at this machine, and methods that change things.
    assert answer(server, "index.html", host=f"evil.example:{server.server_port}")[0] == 404
    assert answer(server, "index.html", host="127.0.0.1.evil.example")[0] == 404
    assert {answer(server, "index.html", method)[0] for method in ("POST", "PUT", "DELETE")} == {
        501
    }


def test_tokens_differ_and_only_loopback_listens(folder):
    with ReportServer(folder) as a, ReportServer(folder) as b:
        assert a.token != b.token and len(a.token) >= 20
        assert a.server_address[0] == "127.0.0.1" and urlsplit(a.address).port == a.server_port
        with pytest.raises(InputError, match=r"--port \d+: Address already in use"):
            ReportServer(folder, a.server_port)


def test_a_run_without_report_is_refused_in_one_line(tmp_path, capsys):
    assert outcome(["view", str(tmp_path), "--no-browser"]) == BAD_INPUT
    assert (
        "report/index.html: is missing; `pulse-audit report RUN` makes it"
        in capsys.readouterr().err
    )


def test_the_command_says_where_and_ends_with_ctrl_c(folder):
    command = [sys.executable, "-m", "pulse_audit.cli", "view", str(folder.parent), "--no-browser"]
    # A job in the background of a shell ignores Ctrl-C, and its children would as well.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        address = urlsplit(process.stdout.readline().decode().strip())
        client = http.client.HTTPConnection(address.netloc, timeout=10)
        client.request("GET", address.path)
        assert client.getresponse().read() == (folder / "index.html").read_bytes()
        client.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0 and process.stderr.read() == b""
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
def test_the_viewer_works_when_served(server, tmp_path):
    browser = Browser(str(tmp_path))
    try:
        browser.open(server.address)
        browser.wait("document.querySelector('#v-card img.face') !== null")
        prefix = f"http://127.0.0.1:{server.server_port}/{server.token}/"
        asked = [each for each in browser.requests if not each.startswith("data:")]
        assert len(asked) >= 3 and all(each.startswith(prefix) for each in asked)
        assert not browser.faults
    finally:
        browser.close()
