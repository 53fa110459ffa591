"""Which interval of the kernel distance (KID) covers: simulations with known truth.

    python benchmarks/kid_intervals.py --out benchmarks/results/kid_intervals.csv

Originals are Gaussian; every face has three outputs that resemble the original (half of their
spread) and each other (half of the rest). The true distance between the two Gaussians is a closed
form. Compared: the jackknife over faces with Student's t (what the package does), the same with the
second-order term of the variance taken off, and the cluster bootstrap over faces.
"""

import argparse
import csv
import math
from itertools import product
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from pulse_audit.calibration.distances import true_distance
from pulse_audit.stats.distances import kernel_distance

DRAWS = 3
SHIFTS = {"alike": (0.0, 1.0), "less spread": (0.0, 0.6), "near": (0.2, 1.0), "apart": (1.0, 1.0)}
COLUMNS = ("faces", "originals", "features", "cell", "truth", "mean", "method", "covered", "width")


def simulate(rng, faces, strangers, d, shift, scale):
    """Outputs (faces, 3, d) and originals: of the same faces, or of so many strangers."""
    spread = np.sqrt(np.linspace(1, 0.1, d))
    face, arm, draw = (rng.standard_normal((faces, k, d)) * spread for k in (1, 1, DRAWS))
    outputs = 1 + shift + scale * (0.5 * face + math.sqrt(0.375) * (arm + draw))
    if strangers:
        return outputs, 1 + rng.standard_normal((strangers, d)) * spread
    return outputs, 1 + face[:, 0]


def face_kernel(outputs, originals):
    """The U-statistic's kernel of two faces, (n, n); zero on the diagonal."""
    n, k, d = outputs.shape
    x = outputs.reshape(n * k, d)
    own = ((x @ x.T / d + 1) ** 3).reshape(n, k, n, k).mean((1, 3))
    cross = ((x @ originals.T / d + 1) ** 3).reshape(n, k, n).mean(1)
    kernel = own + (originals @ originals.T / d + 1) ** 3 - cross - cross.T
    np.fill_diagonal(kernel, 0)
    return kernel


def second_order(kernel):
    n = len(kernel)
    value, rows = kernel.sum() / (n * (n - 1)), kernel.sum(1) / (n - 1)
    whole = np.square(kernel).sum() / (n * (n - 1)) - value**2
    first = max(0.0, np.square(rows - value).sum() / (n - 1) - whole / (n - 1))
    half = stdtrit(n - 1, 0.975) * math.sqrt(4 * first / n + 2 * whole / (n * (n - 1)))
    return value - half, value + half


def bootstrap(kernel, rng, resamples=400):
    n = len(kernel)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
    values = ((counts @ kernel) * counts).sum(1) / (n * n - np.square(counts).sum(1))
    return tuple(np.quantile(values, [0.025, 0.975]))


def intervals(rng, outputs, originals):
    n, k, d = outputs.shape
    paired = len(originals) == n
    numbers = np.arange(n) if paired else np.arange(n, n + len(originals))
    found = kernel_distance(outputs.reshape(-1, d), originals, np.arange(n).repeat(k), numbers)
    estimate = found.estimate
    result = {"jackknife t": (estimate.low, estimate.high)}
    if paired:
        kernel = face_kernel(outputs, originals)
        result["jackknife t, second order off"] = second_order(kernel)
        result["cluster bootstrap"] = bootstrap(kernel, rng)
    return estimate.value, result


def cell(rng, faces, strangers, d, name, simulations):
    shift, scale = SHIFTS[name]
    s = np.diag(np.linspace(1, 0.1, d))
    truth = true_distance(np.full(d, 1 + shift), scale**2 * s, np.ones(d), s)
    values, ends = [], {}
    for _ in range(simulations):
        value, found = intervals(rng, *simulate(rng, faces, strangers, d, shift, scale))
        values.append(value)
        for method, interval in found.items():
            ends.setdefault(method, []).append(interval)
    for method, pairs in ends.items():
        low, high = np.array(pairs).T
        covered, width = np.mean((low <= truth) & (truth <= high)), np.mean(high - low)
        originals = f"{strangers} strangers" if strangers else "the same faces"
        numbers = (f"{value:.4g}" for value in (truth, np.mean(values)))
        yield (faces, originals, d, name, *numbers, method, f"{covered:.4f}", f"{width:.4g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rng, rows = np.random.default_rng(0), []
    sizes = [(10, 0), (20, 0), (50, 0), (10, 200), (50, 200)]
    for (faces, strangers), d, name in product(sizes, (16, 128), SHIFTS):
        for row in cell(rng, faces, strangers, d, name, asked.simulations):
            print(*row, sep="\t", flush=True)
            rows.append(row)
    if asked.out:
        with asked.out.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
