"""Image metrics: agreement with second implementations, and time per image on a CPU.

    python -m benchmarks.metrics [--sizes 64 224 256 1024] [--rounds 3]

writes ``benchmarks/results/metrics.csv`` and ``metrics.md``. The second implementations are those
of the tests (numpy, scipy, scikit-image, the papers' formulas). Trunks have random weights: the
arithmetic is the same. Times are CPU seconds of one thread, of one image, so that a machine that
others use as well measures the same thing as a quiet one, if not quite as fast.
"""

import argparse
import csv
import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import convolve
from scipy.spatial.distance import cosine
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn

from benchmarks.__main__ import RESULTS, machine
from pulse_audit.faces import embed
from pulse_audit.metrics.fidelity import ms_ssim, psnr, ssim
from pulse_audit.metrics.identity import cosines
from pulse_audit.metrics.naturalness import PATCH, SMALL_PATCH, NiqeModel, sharpness
from pulse_audit.metrics.perceptual import TRUNKS, Lpips, bare
from pulse_audit.metrics.registry import MEASURED
from pulse_audit.stats.distances import frechet_distance, kernel_distance
from pulse_audit.types import Unavailable

TESTS = Path(__file__).parents[1] / "tests" / "metrics"
#: No further round once a metric has taken so many seconds at one size.
PATIENCE = 8.0

Row = dict[str, object]


def tests_of(name: str):
    """The second implementations of a test file."""
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def agreement() -> Iterator[Row]:
    """Every metric on a few images, beside its second implementation."""
    for name, against, ours, theirs in (*of_pixels(), *of_trunks(), *of_patches(), *of_vectors()):
        ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
        difference, largest = np.abs(ours - theirs).max(), np.abs(theirs).max()
        yield {
            "metric": name,
            "against": against,
            "values": len(ours),
            "largest_value": f"{largest:.6g}",
            "max_abs_difference": f"{difference:.2g}",
        }


def of_pixels():
    second = tests_of("test_fidelity")
    sr, hr = second.pair(3, 170)
    expected = second.reference(peak_signal_noise_ratio, sr, hr, data_range=1)
    yield "psnr", "scikit-image", psnr(sr, hr), expected
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = second.reference(
        second.structural_similarity, sr, hr, data_range=1, channel_axis=2, **settings
    )
    yield "ssim", "scikit-image (float64)", ssim(sr, hr), expected
    for size in (170, 161):
        sr, hr = second.pair(2, size, seed=size)
        images = zip(sr.double().numpy(), hr.double().numpy(), strict=True)
        expected = [
            np.mean([second.by_the_paper(x, y) for x, y in zip(a, b, strict=True)])
            for a, b in images
        ]
        yield "ms_ssim", f"the paper on scipy's filters, {size} px", ms_ssim(sr, hr), expected
    stored = second.json.loads((second.DATA / "ms_ssim.json").read_text())["ms_ssim"]
    pairs = [map(torch.from_numpy, second.waves(int(size))) for size in stored]
    yield "ms_ssim", "pytorch-msssim 1.0.0", [float(ms_ssim(*p)) for p in pairs], [*stored.values()]


def of_trunks():
    second = tests_of("test_perceptual")
    sr, hr = second.pair(2)
    for net, trunk in TRUNKS.items():
        torch.manual_seed(5)
        model = seeded(net)
        ours = Lpips(model, net).compute(sr, hr)
        package = model(sr, hr, normalize=True).flatten()
        yield trunk.name, "lpips 0.1.4, its own forward (float32)", ours, package
        layers = nn.Sequential(*[layer for part in model.net.children() for layer in part])
        expected = second.by_the_paper(net, layers, sr, hr)
        yield trunk.name, "eq. 1 in numpy on torchvision's layers", ours, expected


def of_patches():
    second = tests_of("test_naturalness")
    originals, images = second.natural(16, 72), second.noisy(second.natural(3, 72, 5), 0.05)
    expected = [second.niqe_again(originals, image, 32) for image in images]
    ours = NiqeModel.fit(originals, 32).score(images)
    yield "niqe_small", "numpy and scipy, patch by patch, 32 px", ours, expected
    originals, images = second.natural(14, 192), second.noisy(second.natural(2, 192, 5), 0.05)
    expected = [second.niqe_again(originals, image, 96) for image in images]
    ours = NiqeModel.fit(originals, 96).score(images)
    yield "niqe", "numpy and scipy, patch by patch, 96 px", ours, expected
    grey = 255 * np.einsum("nchw,c->nhw", images.double(), [0.298936, 0.587043, 0.114021])
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    expected = [convolve(g, kernel)[1:-1, 1:-1].var() for g in grey]
    yield "sharpness", "scipy", sharpness(images, images), expected


def of_vectors():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((60, 16)), 0.7 * random.standard_normal((50, 16)) + 0.2
    expected = [1 - cosine(a, b) for a, b in zip(x[:50], y, strict=True)]
    yield "identity_cosine", "scipy", cosines(x[:50], y), expected
    root = sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    yield "fid", "scipy's matrix root", [frechet_distance(x, y).value], [expected]
    kernels = [(a @ b.T / 16 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
    expected = sum(within) - 2 * kernels[2].mean()
    yield "kid", "the U-statistic written out", [kernel_distance(x, y).estimate.value], [expected]


def seeded(net: str) -> nn.Module:
    """LPIPS on a trunk of random weights, of which no layer dies away."""
    model = bare(net)
    for parameter in model.net.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return model


def scenes(n: int, size: int) -> Tensor:
    return tests_of("test_naturalness").natural(n, size)


def calls(size: int) -> Iterator[tuple[str, Callable[[], object] | Unavailable]]:
    """What is timed at one size, each a call that measures one image."""
    hr = scenes(1, size)
    sr = (hr + 0.05 * torch.randn_like(hr)).clamp(0, 1)
    for metric in (MEASURED[name].load() for name in ("psnr", "ssim", "ms_ssim", "sharpness")):
        yield metric.name, metric.available(size) or (lambda m=metric: m.compute(sr, hr))
    patch = PATCH if size >= 2 * PATCH else SMALL_PATCH
    model = NiqeModel.fit(scenes(16, 2 * patch), patch)
    yield model.metric.name, lambda: model.score(sr)
    for net, trunk in TRUNKS.items():
        network = Lpips(seeded(net), net)
        yield (
            f"{trunk.name}, a new original",
            lambda lp=network: (
                lp._kept.clear(),
                lp.compute(sr, hr),
            ),
        )
        yield f"{trunk.name}, its original met before", lambda lp=network: lp.compute(sr, hr)
    facenet = embed.FaceNet(embed_network())
    yield (
        "identity_cosine (FaceNet, one image)",
        MEASURED["identity_cosine"].available(size) or (lambda: facenet.embed(sr)),
    )


def embed_network() -> nn.Module:
    from facenet_pytorch import InceptionResnetV1

    return InceptionResnetV1(pretrained=None)


def seconds(call: Callable[[], object], rounds: int) -> list[float]:
    """CPU seconds of each round, after a first one that is not counted where it is quick."""
    taken: list[float] = []
    started = time.process_time()
    call()
    first = time.process_time() - started
    if first > PATIENCE / 2:
        return [first]
    while len(taken) < rounds and sum(taken) < PATIENCE:
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return taken


def times(size: int, rounds: int) -> Iterator[Row]:
    for name, call in calls(size):
        row: Row = {"metric": name, "size": size, "seconds": math.nan, "rounds": 0}
        if not isinstance(call, Unavailable):
            taken = seconds(call, rounds)
            row |= {"seconds": f"{statistics.median(taken):.4g}", "rounds": len(taken)}
        print(row, flush=True)
        yield row


def table(rows: list[Row]) -> str:
    lines = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    lines += [f"| {' | '.join(map(str, row.values()))} |" for row in rows]
    return "\n".join(lines)


def by_size(rows: list[Row]) -> list[Row]:
    """One line a metric, one column a size; a dash where the metric is not defined."""
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    found = {(row["metric"], row["size"]): row["seconds"] for row in rows if row["rounds"]}
    return [
        {"metric": name, **{f"{size} px": found.get((name, size), "-") for size in sizes}}
        for name in dict.fromkeys(row["metric"] for row in rows)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224, 256, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    agreeing = [*agreement()]
    print(table(agreeing), flush=True)
    timed: list[Row] = []
    for size in asked.sizes:
        timed += times(size, asked.rounds)
        write(agreeing, timed)


def write(agreeing: list[Row], timed: list[Row]) -> None:
    columns = list(dict.fromkeys([*agreeing[0], *timed[0]]))
    with (RESULTS / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*agreeing, *timed])
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    text = (
        f"# Image metrics\n\nMade by `python -m benchmarks.metrics` on: {where}.\n\n"
        f"## Agreement with second implementations\n\n{table(agreeing)}\n\n"
        "## CPU seconds of one thread for one image\n\nRandom weights, medians, a machine shared "
        "with other work. LPIPS passes an original through its trunk once, however many draws are "
        f"compared with it.\n\n{table(by_size(timed))}\n"
    )
    (RESULTS / "metrics.md").write_text(text)


if __name__ == "__main__":
    main()
