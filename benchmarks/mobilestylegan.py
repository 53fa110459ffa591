"""The published MobileStyleGAN at 1024 px: its pixels, and what a step of the search costs.

    python -m benchmarks.mobilestylegan [--steps 12] [--rounds 2]

Pixels are compared with those that OpenVINO renders from the same file (``../shared/conformance``),
as the relative error of a sample of pixels and of averages over 32 x 32. A step is one of PULSE at
a factor of 32: rendering, downscaling, loss, gradient and update of one image. Each variant is
timed in processes of its own, in turn, since the allocator's settings and the peak of memory are
the process's; a variant's time is the median over its steps, the first two left out. Written to
``benchmarks/results/mobilestylegan.md``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.__main__ import RESULTS, machine
from pulse_audit.degrade.resample import downscale
from pulse_audit.generators.checkpoints import read_checkpoint
from pulse_audit.harness.single import peak_memory
from pulse_audit.models.generators import find_generator, load_generator
from pulse_audit.search.config import PRESETS
from pulse_audit.search.engine import BatchSearch
from pulse_audit.search.memory import keep_freed_memory
from pulse_audit.search.sphere import draw_start

NAME, SCALE = "mobilestylegan-ffhq", 32
EXPECTED = Path(__file__).resolve().parents[2] / "shared/conformance/mobilestylegan_ffhq.npz"
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: Arithmetic, threads, and whether the C library keeps freed memory, as `upsample` lets it.
VARIANTS = [(name, threads, kept) for kept in (True, False) for threads in (2, 1) for name in TYPES]


@torch.no_grad()
def conformance() -> list[str]:
    """Relative errors, in words."""
    network, expected = read_checkpoint(find_generator(NAME).path), np.load(EXPECTED)
    w = network.mapping(torch.from_numpy(expected["z"]))
    images = torch.cat([network.synthesis(one[None]) for one in w])
    ours = {
        "w": w[:, 0],
        "every 31st pixel, both ways": images[:, :, ::31, ::31],
        "averages of 32 x 32 pixels": F.avg_pool2d(images, 32),
    }
    names = ("w", "img_every_31", "box32")
    lines = [f"Against OpenVINO, {len(images)} pictures, relative error (root of squares):", ""]
    for (what, values), name in zip(ours.items(), names, strict=True):
        wanted = expected[name]
        error = np.linalg.norm(values.numpy() - wanted) / np.linalg.norm(wanted)
        largest = np.abs(values.numpy() - wanted).max()
        lines.append(f"- {what}: {error:.1e}, largest difference {largest:.1e}")
    return [*lines, ""]


def searched(dtype: str, threads: int, kept: bool, steps: int) -> dict[str, float]:
    """Seconds a step, and the peak of this process in bytes."""
    torch.set_num_threads(threads)
    if kept:
        keep_freed_memory()
    generator = load_generator(NAME).to("cpu", TYPES[dtype])
    ends: list[float] = []
    config = replace(PRESETS["official"], steps=steps)
    start = draw_start(generator, [0], config)
    with torch.no_grad():
        target = draw_start(generator, [1], config).latents
        lr = downscale(generator.synthesize(target, []).clamp(0, 1), SCALE)
    search = BatchSearch(
        generator, lr, start, lambda p: downscale(p, SCALE), config,
        observe=lambda iterate: ends.append(time.perf_counter()),
    )  # fmt: skip
    search.run()
    taken = [after - one for one, after in zip(ends[1:], ends[2:], strict=False)]
    return {"seconds": statistics.median(taken), "peak": peak_memory()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mobilestylegan")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--variant", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.variant is not None:
        print(json.dumps(searched(*VARIANTS[asked.variant], asked.steps)))
        return
    found = [[] for _ in VARIANTS]
    for _ in range(asked.rounds):
        for number, (_, threads, _) in enumerate(VARIANTS):
            command = [sys.executable, "-m", "benchmarks.mobilestylegan"]
            options = ["--variant", str(number), "--steps", str(asked.steps)]
            surroundings = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            done = subprocess.run(
                [*command, *options], env=surroundings, capture_output=True, text=True, check=True
            )
            found[number].append(json.loads(done.stdout.splitlines()[-1]))
            print(VARIANTS[number], found[number][-1], flush=True)

    facts = machine()
    lines = [
        f"# {NAME} at 1024 px",
        "",
        f"Made by `{' '.join(['python -m benchmarks.mobilestylegan', *sys.argv[1:]])}` on "
        f"{facts['cpu']}, Python {facts['python']}, torch {facts['torch']}.",
        "",
        *conformance(),
        "A step of PULSE, one image, factor 32; the least of the medians of "
        f"{asked.rounds} processes, and the largest of them in brackets:",
        "",
        "| arithmetic | threads | allocator | seconds a step | peak of the process, GB |",
        "|---|---|---|---|---|",
    ]
    for (dtype, threads, kept), runs in zip(VARIANTS, found, strict=True):
        seconds = sorted(run["seconds"] for run in runs)
        peak = max(run["peak"] for run in runs) / 1e9
        allocator = "keeps freed memory, as `upsample` sets it" if kept else "default"
        lines.append(
            f"| {dtype} | {threads} | {allocator} | {seconds[0]:.2f} ({seconds[-1]:.2f}) "
            f"| {peak:.1f} |"
        )
    (RESULTS / "mobilestylegan.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
