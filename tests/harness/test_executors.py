"""Whose processes carry a run out: options that do not go together, and Ray where it is not."""

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pulse_audit.cli import BAD_INPUT, outcome
from pulse_audit.harness.executors import OWN_NODE, Workers, requested_workers
from pulse_audit.harness.ray_workers import count_places, failure_of
from pulse_audit.types import InputError

Capture = pytest.CaptureFixture[str]


def test_options_that_do_not_go_together(capsys: Capture, tmp_path: Path) -> None:
    audit = ["run", "default", "--out", str(tmp_path / "out")]
    for options, said in (
        (["--gpus-per-worker", "0.5"], "--gpus-per-worker needs --workers"),
        (["--workers", "0"], "--workers"),
        (["--workers", "2", "--executor", "dask"], "'local', 'ray'"),
        (["--executor", "ray"], "--executor ray needs --workers"),
        (["--workers", "2", "--ray-address", "auto"], "--ray-address needs --executor ray"),
    ):
        assert outcome([*audit, *options]) == BAD_INPUT
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_they_are_answered_before_torch_is_loaded() -> None:
    code = (
        "import sys\nfrom pulse_audit.cli import outcome\n"
        "assert outcome(['run', '--gpus-per-worker', '0.5']) == 2\n"
        "assert outcome(['run', '--ray-address', 'auto']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture
def with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Ray was installed, which is not loaded here."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_workers_of_each_kind(with_ray: None) -> None:
    assert requested_workers(None, None) is None
    assert requested_workers(3, None) == Workers(3)
    assert requested_workers(3, 0.5, "local") == Workers(3, 0.5)
    assert requested_workers(3, 0.5, "ray") == Workers(3, 0.5, OWN_NODE)
    assert requested_workers(3, 2, "ray", "auto") == Workers(3, 2, "auto")
    with pytest.raises(InputError, match="a part of one GPU or all"):
        requested_workers(3, 1.5, "ray")


def test_without_ray_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed; pip install 'pulse-audit\[ray\]'"):
        requested_workers(2, None, "ray")


def test_an_address_at_which_nothing_answers(with_ray: None) -> None:
    for address in ("ray://head:10001", "head", "head:0", "head:99999", "a b:1", ""):
        with pytest.raises(InputError, match="wanted HOST:PORT"):
            requested_workers(2, None, "ray", address)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        address = f"127.0.0.1:{port}"
        assert requested_workers(2, None, "ray", address) == Workers(2, ray=address)
    with pytest.raises(InputError, match=f"{port}: nothing answers there"):
        requested_workers(2, None, "ray", address)


def test_the_workers_that_fit_on_a_cluster() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 2.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"Alive": True, "Resources": {}},
    ]
    for threads, gpus, expected in ((1, 0, 11), (2, 0, 5), (4, 0, 2), (1, 0.3, 6), (2, 1, 2)):
        assert count_places(nodes, threads, gpus) == expected


def test_what_ray_says_of_a_lost_worker_becomes_one_line() -> None:
    lost = RuntimeError(
        "The actor died unexpectedly before finishing this task.\n\tpid: 7\nThe actor is dead "
        "because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
        "Worker unexpectedly exits with a connection error code 2. End of file. There are ..."
    )
    failure = failure_of(lost)
    assert not failure.refused and failure.reason == (
        "its worker ended (Worker unexpectedly exits with a connection error code 2)"
    )
    assert failure_of(RuntimeError("a\nb")).reason == "its worker ended (a b)"
    lost.actor_init_failed = True  # type: ignore[attr-defined]
    assert failure_of(lost).refused
