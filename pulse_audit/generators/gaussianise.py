"""Mapping a generator's prior to a standard Gaussian, so that the sphere argument holds.

PULSE searches a Gaussian latent space and not z: the mapping network's output, passed backwards
through its last leaky ReLU, is close to a Gaussian with independent entries, so
``w = LeakyReLU0.2(latent * std + mean)`` with the entries' mean and standard deviation over many
z (Menon et al. 2020, section 3.2; the fit is diagonal in the official code). The entries are
strongly correlated, so a Gaussian with their full covariance is closer to the prior (Wulff and
Torralba 2020, arXiv:2009.06529; Zhu et al. 2020, arXiv:2012.09036, whose P_N space this is):
``w = LeakyReLU0.2(mean + L latent)``, L the Cholesky factor of the covariance.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pulse_audit.files import cache_folder
from pulse_audit.generators.checkpoints.budget import Damaged
from pulse_audit.generators.checkpoints.pickle_data import StoredTensor
from pulse_audit.generators.checkpoints.torch_archive import opened
from pulse_audit.seeding import hexdigest
from pulse_audit.types import InputError

SLOPE = 0.2
SAMPLES = 1_000_000
CHUNK = 10_000


#: Added to the variances of a covariance that is singular in float64, as a share of their mean.
RIDGES = (0.0, 1e-12, 1e-9, 1e-6)


@dataclass(frozen=True)
class GaussianFit:
    """The Gaussian fitted to ``LeakyReLU5(mapping(z))``, in float32.

    Parameters
    ----------
    mean, std : Tensor
        (w_dim,) both; PULSE's fit.
    factor : Tensor, optional
        Lower-triangular Cholesky factor (w_dim, w_dim) of the covariance; None leaves the entries
        independent.
    """

    mean: Tensor
    std: Tensor
    factor: Tensor | None = None

    def styles(self, latents: Tensor) -> Tensor:
        """Map Gaussian latents (..., w_dim) to styles (..., w_dim)."""
        mean = self.mean.to(latents)
        if self.factor is None:
            before = torch.addcmul(mean, latents, self.std.to(latents))
        else:
            before = mean + latents @ self.factor.to(latents).T
        styles: Tensor = F.leaky_relu(before, SLOPE)
        return styles

    def tensors(self) -> dict[str, Tensor]:
        """Return what a file of the fit holds."""
        factor = {} if self.factor is None else {"factor": self.factor.contiguous()}
        return {"mean": self.mean, "std": self.std, **factor}

    def to(self, device: torch.device | str) -> GaussianFit:
        """Return the fit on a device."""
        factor = None if self.factor is None else self.factor.to(device)
        return GaussianFit(self.mean.to(device), self.std.to(device), factor)


def fit_gaussian(
    mapping: Callable[[Tensor], Tensor],
    z_dim: int,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    full: bool = False,
    device: torch.device | str = "cpu",
) -> GaussianFit:
    """Fit a Gaussian to a mapping network, in bounded memory: PULSE's diagonal one, or a full one.

    ``mapping`` takes z (n, z_dim) to w (n, w_dim) on ``device`` and ends in a leaky ReLU of slope
    0.2. The ``samples`` z (PULSE takes a million) are standard normal, drawn on the CPU from
    ``seed``. Sums are accumulated in float64; the variances are the unbiased ones.
    """
    # Sums of x and x**2 in float64, over chunks; slope 5 is the inverse of the last leaky ReLU.
    source = torch.Generator().manual_seed(seed)
    total = square = products = centre = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, samples, CHUNK):
            z = torch.randn(min(CHUNK, samples - start), z_dim, generator=source).to(device)
            before = F.leaky_relu(mapping(z), 1 / SLOPE).double()
            total = total + before.sum(0).cpu()
            square = square + before.square().sum(0).cpu()
            if full:
                # About the first chunk's mean, so that no digits are lost to large means.
                centre = total / len(z) if start == 0 else centre
                centred = before - centre.to(before)
                products = products + (centred.T @ centred).cpu()
    # Unbiased variance from the sums: (sum x**2 - n mean**2) / (n - 1).
    mean = total / samples
    variance = (square - samples * mean.square()) / (samples - 1)
    std = variance.clamp(min=0).sqrt().float()
    if not full:
        return GaussianFit(mean.float(), std)
    offset = mean - centre
    covariance = (products - samples * torch.outer(offset, offset)) / (samples - 1)
    return GaussianFit(mean.float(), std, cholesky(covariance).float())


def cholesky(covariance: Tensor) -> Tensor:
    """Return the lower-triangular factor of a covariance (d, d), float64.

    One that is singular (an entry of w that never varies) gets the least of `RIDGES` that serves.

    Raises
    ------
    InputError
        If none does: the covariance is not finite, or none.
    """
    unit = torch.eye(len(covariance), dtype=torch.float64) * covariance.diagonal().mean()
    for ridge in RIDGES:
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(covariance + ridge * unit)
        if not failed and bool(torch.isfinite(factor).all()):
            return factor
    raise InputError("the mapping network gives values that have no covariance: damaged weights")


def cached_fit(
    mapping: Callable[[Tensor], Tensor],
    z_dim: int,
    weights: Mapping[str, Tensor],
    *,
    label: int | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    full: bool = False,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
) -> GaussianFit:
    """Fit once for each mapping network, and read the fit from disk ever after.

    Parameters
    ----------
    mapping, z_dim, samples, seed, full, device
        As for `fit_gaussian`.
    weights : mapping of str to Tensor
        The mapping network's tensors; with ``label``, ``samples`` and ``seed`` they are the key.
    label : int, optional
        The class for which ``mapping`` is fixed, if any.
    cache : Path, optional
        Folder of the fits; default: ``gaussian-fits`` in the cache folder.

    Raises
    ------
    InputError
        If the mapping network gives NaN or infinity, or the folder cannot be written.
    """
    # The key is whatever changes the fit: the mapping's weights, the samples and the class.
    folder = cache_folder() / "gaussian-fits" if cache is None else cache
    kind = "gaussian-fit-full" if full else "gaussian-fit"
    key = hexdigest(kind, weights_digest(weights), samples, seed, label)
    path = folder / f"{key[:32]}.safetensors"
    # A fit of the cache that is damaged is made again.
    if path.exists():
        with contextlib.suppress(InputError):
            return read_gaussian_fit(path)
    fit = fit_gaussian(mapping, z_dim, samples=samples, seed=seed, full=full, device=device)
    if not bool(torch.isfinite(fit.mean + fit.std).all()):
        raise InputError("the mapping network gives values that are not finite: damaged weights")
    # Written whole or not at all: another process may read or write the same fit.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            new = Path(temporary) / path.name
            save_file(fit.tensors(), new)
            os.replace(new, path)
    except OSError as error:
        raise InputError(
            f"{path.parent}: the gaussian fit cannot be stored there ({error.strerror}); "
            "set PULSE_AUDIT_HOME to a folder that can be written"
        ) from error
    return fit


def read_gaussian_fit(path: str | Path) -> GaussianFit:
    """Read a fit: PULSE's own ``gaussian_fit.pt`` or a ``.safetensors`` file of the cache.

    Nothing in the file is executed, and its CUDA tensors come to the CPU.

    Raises
    ------
    InputError
        If the file cannot be read or holds no ``mean`` and ``std`` of one length, finite, no
        deviation below zero, or a ``factor`` that does not fit them.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            stored = load_file(path)
        else:
            with opened(path) as root:
                entries = root if isinstance(root, dict) else {}
                lazy = {k: t for k, t in entries.items() if isinstance(t, StoredTensor)}
                stored = {key: tensor.tensor() for key, tensor in lazy.items()}
    except (OSError, SafetensorError, Damaged) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be read as a gaussian fit ({line})") from error
    empty = torch.empty(0)
    mean, std = (stored.get(key, empty).float().flatten() for key in ("mean", "std"))
    valid = len(mean) == len(std) and {"mean", "std"} <= stored.keys()
    # NaN fails the comparison too, infinity does not.
    valid = valid and bool(torch.isfinite(mean).all() and torch.isfinite(std).all())
    if not valid or not bool((std >= 0).all()):
        raise InputError(
            f"{path}: not a gaussian fit; wanted the tensors mean and std, of one length, finite "
            "and with no std below 0"
        )
    factor = stored.get("factor")
    if factor is not None and (
        factor.shape != (len(mean), len(mean)) or not bool(torch.isfinite(factor).all())
    ):
        raise InputError(f"{path}: not a gaussian fit; its factor does not fit its mean")
    return GaussianFit(mean, std, None if factor is None else factor.float())


def uniform_from_gaussian(latents: Tensor) -> Tensor:
    """Map standard Gaussian values to uniform ones in [-1, 1]: ``2 * Phi(x) - 1``."""
    return torch.erf(latents / math.sqrt(2))


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and values of tensors, in order of name."""
    digest = hashlib.sha256()
    # Names, types and shapes too, so that equal bytes of another network do not collide.
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
