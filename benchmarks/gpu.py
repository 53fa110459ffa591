"""PULSE at 1024 px on a GPU: milliseconds an image-step, bfloat16 beside float32, GPU beside CPU.

``python -m benchmarks.gpu`` writes ``benchmarks/results/gpu.md``. A step is that of the real
search: rendering, DS, the loss, the pass back to latents and noise, the update. The StyleGAN 2
(config-f) has random weights, which does not change its time; MobileStyleGAN is there if fetched.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import pulse_audit as pa
from benchmarks.__main__ import RESULTS, machine
from pulse_audit.degrade.resample import downscale
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.models.generators import load_generator
from pulse_audit.search.config import SearchConfig
from pulse_audit.search.engine import BatchSearch, SearchResult
from pulse_audit.search.posterior import start_images
from pulse_audit.search.sphere import draw_start
from pulse_audit.types import Generator, InputError, Status

CONFIG_F = (512, 512, 512, 512, 512, 256, 128, 64, 32)
PUBLISHED, TWIN = "mobilestylegan-ffhq", "faces-balanced"
INPUT_SIDE, STEPS, ROUNDS = 32, 10, 3
BATCHES = (1, 4, 16, 32)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def random_stylegan2() -> Generator:
    """A StyleGAN 2 of 1024 px with random weights."""
    network = StyleGAN2.fresh(StyleGAN2Config(CONFIG_F), seed=0).requires_grad_(False)
    return pa.as_generator(network, name="random")


#: The 1024 px generators by name.
NETWORKS: dict[str, Callable[[], Generator]] = {
    "MobileStyleGAN": lambda: load_generator(PUBLISHED),
    "StyleGAN 2 config-f": random_stylegan2,
}


def search(generator: Generator, lr: torch.Tensor, config: SearchConfig) -> list[SearchResult]:
    """Search every input (n, 3, h, w) from the seed of its place."""
    factor = generator.card.resolution // lr.shape[-1]
    start = draw_start(generator, range(len(lr)), config)
    task = BatchSearch(generator, lr, start, lambda images: downscale(images, factor), config)
    return list(task.run())


def own_inputs(generator: Generator, n: int, side: int, device: str) -> torch.Tensor:
    """DS of n pictures that the generator makes itself, (n, 3, side, side)."""
    factor, config = generator.card.resolution // side, SearchConfig()
    lr = []
    with torch.no_grad():
        for seed in range(1000, 1000 + n):
            picture = start_images(generator, [seed], config, torch.device(device))
            lr.append(downscale(picture, factor))
    return torch.cat(lr).clamp(0, 1)


def seconds_a_step(generator: Generator, batch: int, device: str) -> float:
    """Median over rounds of the seconds of one step of a batch, the first round left out."""
    lr = torch.rand(batch, 3, INPUT_SIDE, INPUT_SIDE, device=device)
    taken = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        search(generator, lr, SearchConfig(steps=STEPS))
        if device != "cpu":
            torch.cuda.synchronize()
        taken.append((time.perf_counter() - started) / STEPS)
    return statistics.median(taken[1:])


def step_times(device: str) -> list[str]:
    """Rows of the table of times."""
    rows = []
    for name, make in NETWORKS.items():
        for precision, dtype in PRECISIONS.items():
            try:
                generator = make().to(device, dtype)
            except InputError as reason:
                rows.append(f"| {name} | unavailable, because {reason} | | | |")
                break
            for batch in BATCHES if device != "cpu" else BATCHES[:1]:
                if device != "cpu":
                    torch.cuda.reset_peak_memory_stats()
                try:
                    step = seconds_a_step(generator, batch, device)
                except torch.OutOfMemoryError:
                    rows.append(f"| {name} | {precision} | {batch} | out of memory | |")
                    break
                peak = torch.cuda.max_memory_allocated() / 2**30
                row = f"| {name} | {precision} | {batch} | {1000 * step / batch:.2f} | {peak:.1f} |"
                print(row, flush=True)
                rows.append(row)
            del generator
    return rows


def agreement(n: int, device: str) -> list[str]:
    """Rows that hold bfloat16 against float32 on the published generator's own faces."""
    results, gradients = {}, {}
    for precision, dtype in PRECISIONS.items():
        try:
            generator = load_generator(PUBLISHED).to(device, dtype)
        except InputError as error:
            return [f"| {precision} | unavailable, because {error} | | | |"]
        if precision == "float32":
            lr = own_inputs(generator, n, INPUT_SIDE, device)
        found: list[SearchResult] = []
        started = time.perf_counter()
        for first in range(0, n, 16):
            found += search(generator, lr[first : first + 16], SearchConfig())
        results[precision] = found, time.perf_counter() - started
        gradients[precision] = gradient(generator, lr[:8])
    a, b = (gradients[precision].flatten(1).double() for precision in PRECISIONS)
    cosine = torch.cosine_similarity(a, b).min()
    reference = [one.status == Status.OK for one in results["float32"][0]]
    rows = []
    for precision, (found, taken) in results.items():
        feasible = [one.status == Status.OK for one in found]
        same = sum(x == y for x, y in zip(feasible, reference, strict=True))
        error = statistics.median(one.downscale_error for one in found)
        row = (
            f"| {precision} | {sum(feasible)} of {n} | {same} of {n} | {error:.2e} | {taken:.0f} |"
        )
        print(row, flush=True)
        rows.append(row)
    return [*rows, "", f"Cosine of the gradients at the start, lowest of 8: {float(cosine):.5f}."]


def gradient(generator: Generator, lr: torch.Tensor) -> torch.Tensor:
    """Gradient of the summed DS error at the start, with respect to the latents, one a row."""
    start = draw_start(generator, range(len(lr)), SearchConfig()).to(lr.device, torch.float32)
    latents = start.latents.requires_grad_()
    images = generator.synthesize(latents, start.noise).float()
    loss = (downscale(images, images.shape[-1] // lr.shape[-1]) - lr).square().sum()
    return torch.autograd.grad(loss, latents)[0]


def devices(device: str, n: int) -> str:
    """A line that holds the GPU against the CPU: the same searches of a shipped twin."""
    found = {}
    for where in ("cpu", device):
        generator = load_generator(TWIN).to(where, torch.float32)
        if where == "cpu":
            lr = own_inputs(generator, n, 8, where)
        found[where] = search(generator, lr.to(where), SearchConfig())
    here, there = found["cpu"], found[device]
    same = sum(a.status == b.status for a, b in zip(here, there, strict=True))
    pictures = max(
        float((a.image - b.image.to("cpu")).abs().mean()) for a, b in zip(here, there, strict=True)
    )
    return (
        f"{TWIN}, {n} searches of 100 steps on the CPU and on {device}: the same status in {same}; "
        f"largest mean difference of two pictures {pictures:.4f} (of 1)."
    )


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--searches", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.md")
    asked = parser.parse_args()
    told = ", ".join(f"{key} {value}" for key, value in machine().items())
    parts = [
        "# PULSE at 1024 px on a GPU",
        f"Machine: {told}.",
        f"Milliseconds an image-step of the search ({STEPS} steps, median of {ROUNDS} after one "
        "round of warming up), and the peak of the GPU's memory.",
        "| generator | precision | batch | ms an image-step | peak GiB |\n|---|---|---|---|---|\n"
        + "\n".join(step_times(asked.device)),
        f"bfloat16 against float32: {asked.searches} of MobileStyleGAN's own faces at "
        f"{INPUT_SIDE} px, official search, 16 at once.",
        "| precision | feasible | same verdict as float32 | median error | seconds |\n"
        "|---|---|---|---|---|\n" + "\n".join(agreement(asked.searches, asked.device)),
        devices(asked.device, min(asked.searches, 64)),
    ]
    asked.out.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
