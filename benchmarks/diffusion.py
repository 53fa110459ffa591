"""How far DPS and DDNM are from the exact posterior, by number of steps and size of a step.

    python -m benchmarks.diffusion [--scale 4] [--draws 300] [--inputs 1] [--time]

The prior is a Gaussian with the mean and the covariance of 6,000 samples of the balanced twin,
shrunk to 8 px: the exact answer of its network, and the exact posterior of an image given what it
downscales to (PULSE's operator), are in closed form. Inputs are samples of that prior. The distance
is the Wasserstein-2 distance of the Gaussians that have the moments of draws and posterior, a pixel
value, on the scale from 0 to 1; the sampling floor is that of as many exact draws.

``--time`` measures a step of a U-Net of ddpm-celebahq-256's shape, with random weights, and needs
the extra diffusers. The tables are written to ``benchmarks/results/diffusion.md``.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from benchmarks.__main__ import RESULTS, machine
from pulse_audit.degrade.resample import downscale, resize
from pulse_audit.generators.searchable import prior_images
from pulse_audit.models.generators import load_generator
from pulse_audit.seeding import fingerprint
from pulse_audit.upsamplers.diffusion import Schedule, draws
from pulse_audit.upsamplers.pseudo_inverse import SeparableOperator

SIDE, SAMPLES = 8, 6_000
STEPS, SIZES = (1000, 100, 20), (0.3, 1.0, 3.0, 10.0)
CPU = torch.device("cpu")
#: The levels of Ho et al. 2020.
SIGNAL = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


class GaussianPrior:
    """Images (3, SIDE, SIDE) in [-1, 1] with the moments of a generator's samples."""

    def __init__(self, generator: str) -> None:
        network = load_generator(generator)
        parts = []
        for first in range(0, SAMPLES, 200):
            seeds = [fingerprint("diffusion benchmark", i) for i in range(first, first + 200)]
            parts.append(resize(prior_images(network, seeds, CPU), SIDE).flatten(1))
        images = 2 * torch.cat(parts).double() - 1
        self.mean = images.mean(0)
        # A hundredth of a grey level more, so that no direction is without variance.
        self.covariance = images.T.cov() + 1e-4 * torch.eye(images.shape[1])
        self.variances, self.axes = torch.linalg.eigh(self.covariance)
        # Of the network, in float32.
        self._of_network = [v.float() for v in (self.mean, self.variances, self.axes)]

    def network(self, noisy: Tensor, level: Tensor) -> Tensor:
        """Expected noise, exactly."""
        signal = float(SIGNAL[int(level[0])])
        mean, variances, axes = self._of_network
        scores = (noisy.flatten(1) - signal**0.5 * mean) @ axes
        expected = (1 - signal) ** 0.5 * scores / (signal * variances + 1 - signal)
        return (expected @ axes.T).view_as(noisy)

    def posterior(self, whole: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance given an input without noise; ``whole`` is the matrix of DS."""
        small = self.covariance @ whole.T
        gain = small @ torch.linalg.inv(whole @ small)
        return self.mean + gain @ (lr - whole @ self.mean), self.covariance - gain @ small.T

    def samples(self, count: int, seed: int) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        standard = torch.randn(count, len(self.mean), dtype=torch.float64, generator=random)
        return self.mean + standard @ root(self.covariance)


def root(matrix: Tensor) -> Tensor:
    """Symmetric square root."""
    values, vectors = torch.linalg.eigh(matrix)
    found: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return found


def distance(images: Tensor, exact: tuple[Tensor, Tensor]) -> float:
    """Wasserstein-2 distance of the moments of images (n, d) in [-1, 1] from a Gaussian."""
    mean, covariance = images.mean(0), images.T.cov()
    half = root(exact[1])
    inner = root(half @ covariance @ half)
    squared = (mean - exact[0]).square().sum() + (covariance + exact[1] - 2 * inner).trace()
    return float(squared.clamp(min=0) / len(mean)) ** 0.5 / 2


def row(prior: GaussianPrior, scale: int, inputs: Tensor, count: int, **how: object) -> list[float]:
    """Mean over inputs: distance, share of the posterior's variance, downscale error."""

    def small(images: Tensor) -> Tensor:
        return downscale(images, scale, "pulse")

    units = torch.eye(len(prior.mean), dtype=torch.float64).view(-1, 3, SIDE, SIDE)
    whole = small(units).flatten(1).T
    found = []
    for number, image in enumerate(inputs):
        exact = prior.posterior(whole, whole @ image)
        lr = small(image.view(1, 3, SIDE, SIDE)).float().expand(count, -1, -1, -1)
        if how:
            drawn = draws(
                prior.network, Schedule(SIGNAL, clip=None), lr, noise(count, number), small,
                **how,  # type: ignore[arg-type]
            ).flatten(1).double()  # fmt: skip
        else:
            random = torch.Generator().manual_seed(number)
            standard = torch.randn(count, len(image), dtype=torch.float64, generator=random)
            drawn = exact[0] + standard @ root(exact[1])
        variance = float(drawn.T.cov().trace() / exact[1].trace())
        error = float(((drawn @ whole.T - whole @ image) / 2).square().mean())
        found.append([distance(drawn, exact), variance, error])
    return [statistics.mean(column) for column in zip(*found, strict=True)]


def noise(count: int, seed: int) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(count, 3, SIDE, SIDE, generator=random)


def tables(prior: GaussianPrior, inputs: Tensor, count: int, scales: Sequence[int]) -> list[str]:
    """One table a scale: methods by steps and sizes."""
    lines = []
    for scale in scales:
        floor = row(prior, scale, inputs, count)
        exact_prior = prior.samples(count, 9)
        units = torch.eye(len(prior.mean), dtype=torch.float64).view(-1, 3, SIDE, SIDE)
        whole = downscale(units, scale, "pulse").flatten(1).T
        away = [distance(exact_prior, prior.posterior(whole, whole @ image)) for image in inputs]
        lines += [
            f"\n## {SIDE // scale} px to {SIDE} px\n",
            f"Sampling floor {1000 * floor[0]:.0f}; draws of the prior, without any input, are at "
            f"{1000 * statistics.mean(away):.0f}.\n",
            "| method | steps | size | distance, thousandths | variance, % | downscale error |",
            "|---|---|---|---|---|---|",
        ]
        inverse = SeparableOperator.of(
            lambda images, scale=scale: downscale(images, scale, "pulse"), SIDE, CPU
        ).inverse
        settings = [("DDNM", steps, None) for steps in STEPS]
        settings += [("DPS", steps, size) for steps in STEPS for size in SIZES]
        for method, steps, size in settings:
            how = {"inverse": inverse} if size is None else {"step_size": size}
            far, variance, error = row(prior, scale, inputs, count, steps=steps, **how)
            line = f"| {method} | {steps} | {size or '–'} | {1000 * far:.0f} "
            lines.append(f"{line}| {100 * variance:.0f} | {error:.1g} |")
            print(lines[-1], flush=True)
    return lines


def seconds(rounds: int = 3) -> list[str]:
    """Time a step of a U-Net of 256 px, with and without its gradient, in processor seconds."""
    from pulse_audit.upsamplers.unet import UNetConfig, empty_network

    plain, attention = "DownBlock2D", "AttnDownBlock2D"
    up, attention_up = "UpBlock2D", "AttnUpBlock2D"
    config = UNetConfig(
        sample_size=256, block_out_channels=(128, 128, 256, 256, 512, 512), freq_shift=1,
        flip_sin_to_cos=False, downsample_padding=0, norm_eps=1e-6, attention_head_dim=None,
        down_block_types=(plain, plain, plain, plain, attention, plain),
        up_block_types=(up, attention_up, up, up, up, up),
    )  # fmt: skip
    network = empty_network(config, RESULTS).to_empty(device=CPU).requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(0, 0.02)
    noisy = torch.zeros(1, 3, 256, 256)
    torch.set_num_threads(1)
    taken: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):
        for gradient in taken:
            began = time.process_time()
            with torch.set_grad_enabled(gradient):
                given = noisy.clone().requires_grad_(gradient)
                answer = network(given, torch.tensor([500]), return_dict=False)[0]
                if gradient:
                    torch.autograd.grad(answer.square().sum(), given)
            if number:  # the first warms up
                taken[gradient].append(time.process_time() - began)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    ddnm, dps = (statistics.median(taken[gradient]) for gradient in (False, True))
    return [
        "\n## Time\n",
        f"A U-Net of ddpm-celebahq-256's shape ({parameters / 1e6:.0f} million parameters, random "
        f"weights), one image of 256 px, one thread, medians of {rounds} in turn: a step of DDNM "
        f"takes {ddnm:.1f} s of processor time and one of DPS, with its gradient, {dps:.1f} s "
        f"({dps / ddnm:.1f} times). A draw of 100 steps takes {100 * ddnm / 60:.0f} and "
        f"{100 * dps / 60:.0f} minutes, one of 1,000 steps ten times that.",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diffusion", description=__doc__)
    parser.add_argument("--generator", default="faces-balanced")
    parser.add_argument("--scale", type=int, action="append", help="repeatable; default 4")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--inputs", type=int, default=1)
    parser.add_argument("--time", action="store_true")
    asked = parser.parse_args(arguments)
    began = time.perf_counter()
    prior = GaussianPrior(asked.generator)
    inputs = prior.samples(asked.inputs, 5)
    lines = tables(prior, inputs, asked.draws, asked.scale or [4])
    minutes = (time.perf_counter() - began) / 60
    on = machine()
    head = [
        "# DPS and DDNM against the exact posterior\n",
        f"`python -m benchmarks.diffusion` ({minutes:.0f} minutes beside other work; {on['cpu']}, "
        f"torch {on['torch']}). The prior is a Gaussian with the moments of {SAMPLES:,} samples of "
        f"{asked.generator} at {SIDE} px; inputs: {asked.inputs}, with {asked.draws} draws each. "
        "Distance: Wasserstein-2 between the moments of draws and the exact posterior, a pixel "
        "value, on the scale from 0 to 1. Variance: that of the draws over the posterior's. "
        "Downscale error: MSE on that scale, as in the samples of a run, whose usual eps is 2e-3. "
        "Images are not clamped.",
    ]
    lines += seconds() if asked.time else []
    (RESULTS / "diffusion.md").write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    main()
