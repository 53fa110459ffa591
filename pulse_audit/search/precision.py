"""Whether bfloat16 is quicker here: measured once for a generator on a machine, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import pulse_audit
from pulse_audit.documents import read_json
from pulse_audit.files import as_json, atomic_write, cache_folder
from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.generators.network import MappedNetwork
from pulse_audit.search.config import SearchConfig
from pulse_audit.search.memory import LARGEST_BATCH, images_at_once
from pulse_audit.search.sphere import draw_start
from pulse_audit.types import Generator, InputError

#: SHA-256 of the generators on which paired audits have shown, within 5 points, that bfloat16 does
#: not move feasibility and retention of any arm (`benchmarks/fewer_steps.py`). Nothing else is
#: searched in bfloat16 unless it is asked for, however quick it is.
UNMOVED: frozenset[str] = frozenset()
#: Share of the float32 time under which bfloat16 counts as quicker.
QUICKER = 2 / 3
#: Timed steps of each precision.
ROUNDS = 3


def bf16_time(generator: Generator, device: torch.device) -> float | None:
    """Return the time of a bfloat16 step as a share of a float32 one; None where it is unknown.

    A step renders and differentiates one picture on a CPU, elsewhere as many as a search has at
    once, at most `LARGEST_BATCH`; the two precisions in turn, medians. On a CPU it is the processor
    time of this process, so that other work does not enter. The result is kept in the cache under
    the generator's weights, the device, the threads and the versions, and measured once.

    Unknown are generators other than our style networks, whose weights bfloat16 would round for
    good, and those without a SHA-256.
    """
    whole = generator.whole if isinstance(generator, FramedGenerator) else generator
    network, weights = getattr(whole, "network", None), generator.card.sha256
    if not isinstance(network, MappedNetwork) or weights is None:
        return None
    pieces = [weights, str(generator.card.resolution), describe_device(device), torch.__version__]
    pieces += [pulse_audit.__version__, str(torch.get_num_threads())]
    name = hashlib.sha256("\n".join(pieces).encode()).hexdigest()[:32]
    path = cache_folder() / "precision" / f"{name}.json"
    # A file that cannot be read, or holds something else, is measured anew.
    with contextlib.suppress(InputError, OSError, KeyError, TypeError, ValueError):
        share = float(read_json(path)["bf16 over fp32"])
        if 0 < share < 1e6:
            return share

    # One picture fills a CPU; a GPU needs as many as a search has.
    images = 1
    if device.type != "cpu":
        images = min(images_at_once(generator, device) or LARGEST_BATCH, LARGEST_BATCH)
    types = (torch.float32, torch.bfloat16)
    taken: dict[torch.dtype, list[float]] = {dtype: [] for dtype in types}
    try:
        for _ in range(ROUNDS + 1):
            for dtype in types:
                taken[dtype].append(step_seconds(generator.to(device, dtype), images, device))
    finally:
        generator.to(device, torch.float32)
    # The first round warms up.
    fp32, bf16 = (statistics.median(taken[dtype][1:]) for dtype in types)
    share = round(bf16 / fp32, 3)
    record = {"generator": generator.card.name, "sha256": weights, "images": images}
    record |= {"device": describe_device(device), "threads": torch.get_num_threads()}
    record |= {"fp32 seconds": fp32, "bf16 seconds": bf16, "bf16 over fp32": share}
    with contextlib.suppress(OSError):
        atomic_write(path, as_json(record))
    return share


def choose_precision(times: dict[str, float | None], weights: Sequence[str | None]) -> str:
    """Return ``bf16`` where it is measured quicker, and shown not to move findings, else ``fp32``.

    ``times`` are those of `bf16_time` by generator, ``weights`` the SHA-256 of all of them.
    """
    quicker = bool(times) and all(t is not None and t < QUICKER for t in times.values())
    return "bf16" if quicker and set(weights) <= UNMOVED else "fp32"


def step_seconds(generator: Generator, images: int, device: torch.device) -> float:
    """Seconds of rendering and differentiating: of the processor on a CPU, of the clock else."""
    start = draw_start(generator, range(images), SearchConfig()).to(device, torch.float32)
    latents = start.latents.requires_grad_()
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    began = clock()
    with torch.enable_grad():
        torch.autograd.grad(generator.synthesize(latents, start.noise).square().mean(), latents)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def describe_device(device: torch.device) -> str:
    """Name the GPU, or the processor with what it can do."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = [platform.machine(), str(os.cpu_count())]
    with contextlib.suppress(OSError):
        of_first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        kept = ("model name", "cpu family", "model\t", "stepping", "flags")
        facts += [line for line in of_first if line.startswith(kept)]
    return " ".join([*facts, platform.processor()]).replace("\t", "")
