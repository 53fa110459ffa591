"""The public facade: what ``import pulse_audit as pa`` offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from pulse_audit import store, summary
from pulse_audit.audit.run import run_audit
from pulse_audit.audit.spec import AuditSpec
from pulse_audit.degrade.resample import check_factor, downscale
from pulse_audit.generators.adapt import StyleNetwork, as_generator
from pulse_audit.report import html
from pulse_audit.search.config import SearchConfig
from pulse_audit.search.pulse import Found
from pulse_audit.search.pulse import Pulse as Search
from pulse_audit.types import (
    Degradation,
    Generator,
    InputError,
    Request,
    Status,
    Upsampled,
    Upsampler,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "AuditRun",
    "AuditSpec",
    "Degradation",
    "Generator",
    "InputError",
    "Pulse",
    "Request",
    "Status",
    "Upsampled",
    "Upsampler",
    "as_generator",
    "audit",
]


class Pulse:
    """PULSE on one generator, with one downscaling operator.

    Parameters
    ----------
    generator : Generator, style network or decoder
        What is no `Generator` yet goes through `as_generator`.
    scale : int
        Downscaling factor: the generator's resolution over the input's.
    search : str or SearchConfig
        ``official``, ``paper``, ``fast``, or settings of one's own.
    kernel : str
        The operator DS: ``pulse``, ``bicubic``, ``lanczos``, ``bilinear``, ``area``, ``nearest``.

    Raises
    ------
    InputError
        If the scale does not fit the generator.
    """

    def __init__(
        self,
        generator: Generator | StyleNetwork,
        scale: int = 8,
        *,
        search: str | SearchConfig = "official",
        kernel: str = "pulse",
    ) -> None:
        self.generator = generator if isinstance(generator, Generator) else as_generator(generator)
        check_factor(self.generator.card.resolution, scale, kernel)
        self.scale = scale
        self._search = Search(
            self.generator, search, downscale=partial(downscale, factor=scale, kernel=kernel)
        )

    def upsample(
        self, lr: Tensor, seeds: Sequence[int] = (0,), *, frames_every: int = 0
    ) -> list[Found]:
        """Search images that downscale to the input, one a seed.

        Parameters
        ----------
        lr : Tensor
            (3, h, w) or (n, 3, h, w) in [0, 1]; for several inputs the results come input by
            input, each with all seeds.
        seeds : sequence of int
            0 is a seed like any other.
        frames_every : int
            Keep the best so far every so many steps; 0 keeps none.

        Raises
        ------
        InputError
            If the input's size is not the generator's over the scale.
        """
        inputs = lr[None] if lr.ndim == 3 else lr
        size = self.generator.card.resolution // self.scale
        if inputs.ndim != 4 or tuple(inputs.shape[1:]) != (3, size, size):
            raise InputError(
                f"upsample: the input is {tuple(lr.shape)}, it must be (3, {size}, {size}) "
                f"for {self.generator.card.name} at scale {self.scale}"
            )
        return self._search.search(
            inputs.repeat_interleave(len(seeds), 0).to(torch.get_default_dtype()),
            list(seeds) * len(inputs),
            frames_every=frames_every,
        )


@dataclass(frozen=True)
class AuditRun:
    """A finished audit."""

    run: store.Run

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.run.path

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per face x arm x condition x scale x draw."""
        return self.run.samples()

    @cached_property
    def summary(self) -> summary.Summary:
        """Estimates, what is unavailable, and findings, as in ``summary.json``."""
        return summary.summarise(self.run.manifest, self.samples)

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """One row an estimate, with its interval."""
        return pd.DataFrame([row.model_dump() for row in self.summary.estimates])

    def report(self, out: Path | str | None = None) -> Path:
        """Write the report and return its page."""
        return html.render(self.run, Path(out) if out is not None else None)


def audit(spec: AuditSpec, out: Path | str | None = None) -> AuditRun:
    """Run an audit, or resume it.

    Parameters
    ----------
    spec : AuditSpec
    out : path, optional
        The run directory; default ``runs/<dataset>-<8 hex of the spec's fingerprint>``.

    Raises
    ------
    InputError
        If the spec, its data or the directory cannot be used.
    """
    return AuditRun(run_audit(spec, Path(out) if out is not None else spec.default_out))
