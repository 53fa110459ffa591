"""Measured speed: ratios within one run, medians, the machine named.

``python -m benchmarks [NAME ...]`` prints a table and writes ``benchmarks/results/NAME.json``.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from benchmarks import downscaling, generators, search, startup

RESULTS = Path(__file__).parent / "results"
BENCHMARKS = {
    "downscaling": downscaling,
    "generators": generators,
    "search": search,
    "startup": startup,
}


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ] if Path("/proc/cpuinfo").exists() else [platform.processor()]  # fmt: skip
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": f"{len(names)} x {names[0]}",
        "gpu": gpu,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def write_section(page: Path, head: str, title: str, lines: Iterable[str]) -> None:
    """Put a section of a page of results in the place of an earlier one of its title.

    ``head`` is the text above the sections, which are in the order of their titles.
    """
    parts = page.read_text().split("\n## ")[1:] if page.exists() else []
    sections = {part.splitlines()[0]: part.rstrip() for part in parts}
    sections[title] = "\n".join([title, "", *lines])
    page.write_text("\n".join([head, *(f"## {sections[name]}\n" for name in sorted(sections))]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], default=[])
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of each variant")
    asked = parser.parse_args()
    for name in asked.names or BENCHMARKS:
        variants = BENCHMARKS[name].variants()
        rows = alternate(variants, asked.rounds)
        show(name, rows)
        RESULTS.mkdir(exist_ok=True)
        content = {"machine": machine(), "rounds": asked.rounds, "rows": rows}
        (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def alternate(variants: dict[str, Callable[[], object]], rounds: int) -> list[dict[str, object]]:
    """Time the variants in turn, A B A B ..., after one warm-up each; ratios are to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for call in variants.values():
        call()
    for _ in range(rounds):
        for name, call in variants.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    first = next(iter(seconds.values()))
    return [
        {
            "variant": name,
            "median_s": round(statistics.median(taken), 5),
            "min_s": round(min(taken), 5),
            "ratio": round(statistics.median(t / f for t, f in zip(taken, first, strict=True)), 3),
        }
        for name, taken in seconds.items()
    ]


def show(name: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{name}")
    for row in rows:
        print(f"  {row['variant']:58} {row['median_s']:>9.4f} s   x{row['ratio']:.2f}")


if __name__ == "__main__":
    main()
