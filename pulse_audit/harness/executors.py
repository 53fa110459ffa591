"""Where the work units of a run are carried out; checked before torch is loaded."""

from __future__ import annotations

import importlib.util
import re
import socket
from dataclasses import dataclass

from pulse_audit.types import InputError

#: A node of Ray of this machine's own, started for the run and ended with it.
OWN_NODE = "local"
#: How long an address has to answer, in seconds.
ANSWER_WITHIN = 10


@dataclass(frozen=True)
class Workers:
    """How many processes carry out a run, on what, and where.

    Attributes
    ----------
    number : int
    gpus : float
        GPUs of each worker, in part or whole, where the run is on GPUs.
    ray : str, optional
        None: processes of this machine; else workers are actors of Ray: ``HOST:PORT`` of a
        cluster, ``auto`` for the one that this machine belongs to, `OWN_NODE` for one of its own.
    """

    number: int = 1
    gpus: float = 1.0
    ray: str | None = None


def requested_workers(
    number: int | None, gpus: float | None, executor: str | None = None, address: str | None = None
) -> Workers | None:
    """Read the options of ``run``; None where this process does all the work.

    Raises
    ------
    InputError
        If they do not go together, Ray is not installed, or nothing answers at its address.
    """
    if address is not None and executor != "ray":
        raise InputError("--ray-address needs --executor ray")
    if number is None:
        given = {"--gpus-per-worker": gpus, f"--executor {executor}": executor}
        if name := next((name for name, value in given.items() if value is not None), None):
            raise InputError(f"{name} needs --workers N")
        return None
    if executor != "ray":
        return Workers(number, gpus or 1.0)
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "--executor ray: Ray is not installed; pip install 'pulse-audit[ray]', or leave it "
            "out: --workers alone uses processes of this machine"
        )
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        raise InputError(f"--gpus-per-worker {gpus:g}: Ray gives a worker a part of one GPU or all")
    if address is not None:
        check_address(address)
    return Workers(number, gpus or 1.0, address or OWN_NODE)


def check_address(address: str) -> None:
    """Refuse an address at which nothing answers: Ray itself would try for minutes.

    Raises
    ------
    InputError
    """
    if address == "auto":
        return
    found = re.fullmatch(r"([\w.\-]+|\[[0-9a-fA-F:]+\]):([0-9]{1,5})", address)
    if not found or not 0 < int(found[2]) < 1 << 16:
        raise InputError(
            f"--ray-address {address}: wanted HOST:PORT of the cluster's head (ray:// is for "
            "clients; start the run on a machine of the cluster), or auto"
        )
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), ANSWER_WITHIN).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"--ray-address {address}: nothing answers there ({reason})") from None
