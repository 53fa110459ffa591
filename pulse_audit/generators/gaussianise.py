"""Mapping a generator's prior to a standard Gaussian, so that the sphere argument holds.

PULSE searches a Gaussian latent space and not z: the mapping network's output, passed backwards
through its last leaky ReLU, is close to a Gaussian with independent entries, so
``w = LeakyReLU0.2(latent * std + mean)`` with the entries' mean and standard deviation over many
z (Menon et al. 2020, section 3.2; the fit is diagonal in the official code).
"""

from __future__ import annotations

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
from pulse_audit.generators.checkpoints.pickle_data import Damaged, StoredTensor
from pulse_audit.generators.checkpoints.torch_archive import opened
from pulse_audit.seeding import hexdigest
from pulse_audit.types import InputError

SLOPE = 0.2
SAMPLES = 1_000_000
CHUNK = 10_000


@dataclass(frozen=True)
class GaussianFit:
    """Mean and standard deviation (w_dim,) of ``LeakyReLU5(mapping(z))``, float32."""

    mean: Tensor
    std: Tensor

    def styles(self, latents: Tensor) -> Tensor:
        """Map Gaussian latents (..., w_dim) to styles: ``LeakyReLU0.2(latents * std + mean)``."""
        mean, std = self.mean.to(latents), self.std.to(latents)
        return F.leaky_relu(torch.addcmul(mean, latents, std), SLOPE)


def fit_gaussian(
    mapping: Callable[[Tensor], Tensor],
    z_dim: int,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> GaussianFit:
    """Fit PULSE's diagonal Gaussian to a mapping network, in bounded memory.

    Parameters
    ----------
    mapping : callable
        ``mapping(z (n, z_dim)) -> w (n, w_dim)``, ending in a leaky ReLU of slope 0.2.
    z_dim : int
        Length of z, which is standard normal.
    samples : int
        Number of z; PULSE takes a million.
    seed : int
        Seed of the z, drawn on the CPU.
    device : torch.device or str
        Where ``mapping`` runs.

    Returns
    -------
    GaussianFit
        Sums are accumulated in float64; the deviation is the unbiased one.
    """
    source = torch.Generator().manual_seed(seed)
    total = square = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, samples, CHUNK):
            z = torch.randn(min(CHUNK, samples - start), z_dim, generator=source).to(device)
            before = F.leaky_relu(mapping(z), 1 / SLOPE).double()
            total = total + before.sum(0).cpu()
            square = square + before.square().sum(0).cpu()
    mean = total / samples
    variance = (square - samples * mean.square()) / (samples - 1)
    return GaussianFit(mean.float(), variance.clamp(min=0).sqrt().float())


def cached_fit(
    mapping: Callable[[Tensor], Tensor],
    z_dim: int,
    weights: Mapping[str, Tensor],
    *,
    label: int | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
) -> GaussianFit:
    """Fit once for each mapping network, and read the fit from disk ever after.

    Parameters
    ----------
    mapping, z_dim, samples, seed, device
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
    folder = cache_folder() / "gaussian-fits" if cache is None else cache
    key = hexdigest("gaussian-fit", weights_digest(weights), samples, seed, label)
    path = folder / f"{key[:32]}.safetensors"
    stored = _stored_fit(path)
    if stored is not None:
        return stored
    fit = fit_gaussian(mapping, z_dim, samples=samples, seed=seed, device=device)
    if not bool(torch.isfinite(fit.mean + fit.std).all()):
        raise InputError("the mapping network gives values that are not finite: damaged weights")
    _store(fit, path)
    return fit


def read_gaussian_fit(path: str | Path) -> GaussianFit:
    """Read a fit: PULSE's own ``gaussian_fit.pt`` or a ``.safetensors`` file of the cache.

    Nothing in the file is executed, and its CUDA tensors come to the CPU.

    Raises
    ------
    InputError
        If the file cannot be read or holds no ``mean`` and ``std`` of one length, finite, no
        deviation below zero.
    """
    path = Path(path)
    try:
        stored = load_file(path) if path.suffix == ".safetensors" else _torch_file(path)
    except (OSError, SafetensorError, Damaged) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be read as a gaussian fit ({line})") from error
    fit = _valid_fit(stored)
    if fit is None:
        raise InputError(
            f"{path}: not a gaussian fit; wanted the tensors mean and std, of one length, finite "
            "and with no std below 0"
        )
    return fit


def uniform_from_gaussian(latents: Tensor) -> Tensor:
    """Map standard Gaussian values to uniform ones in [-1, 1]: ``2 * Phi(x) - 1``."""
    return torch.erf(latents / math.sqrt(2))


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and values of tensors, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _torch_file(path: Path) -> dict[str, Tensor]:
    with opened(path) as root:
        entries = root if isinstance(root, dict) else {}
        return {key: t.tensor() for key, t in entries.items() if isinstance(t, StoredTensor)}


def _valid_fit(stored: Mapping[str, Tensor]) -> GaussianFit | None:
    if not {"mean", "std"} <= stored.keys():
        return None
    mean, std = (stored[key].float().flatten() for key in ("mean", "std"))
    finite = bool(torch.isfinite(mean).all() and torch.isfinite(std).all())
    if len(mean) != len(std) or not finite or not bool((std >= 0).all()):
        return None
    return GaussianFit(mean, std)


def _stored_fit(path: Path) -> GaussianFit | None:
    """Read a fit of the cache; None where there is none, or where it is damaged and is redone."""
    try:
        return read_gaussian_fit(path) if path.exists() else None
    except InputError:
        return None


def _store(fit: GaussianFit, path: Path) -> None:
    """Write whole or not at all: another process may read or write the same fit."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            new = Path(folder) / path.name
            save_file({"mean": fit.mean, "std": fit.std}, new)
            os.replace(new, path)
    except OSError as error:
        raise InputError(
            f"{path.parent}: the gaussian fit cannot be stored there ({error.strerror}); "
            "set PULSE_AUDIT_HOME to a folder that can be written"
        ) from error
