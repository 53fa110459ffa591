"""The public facade: what ``import pulse_audit as pa`` offers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
import torch

from pulse_audit import store, summary
from pulse_audit.audit.run import run_audit
from pulse_audit.audit.spec import AuditSpec
from pulse_audit.degrade.resample import check_factor, downscale
from pulse_audit.generators.adapt import StyleNetwork, as_generator
from pulse_audit.generators.checkpoints import load_generator
from pulse_audit.report import html
from pulse_audit.search.config import SearchConfig
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
    "load_generator",
]


class Pulse(Search):
    """PULSE on one generator, with one of the downscaling operators by name.

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
    device, dtype, batch_size
        As for `pulse_audit.search.pulse.Pulse`, whose ``upsample`` this is.

    Raises
    ------
    InputError
        If the scale does not fit the generator, or a name is unknown.
    """

    def __init__(
        self,
        generator: Generator | StyleNetwork,
        scale: int = 8,
        *,
        search: str | SearchConfig = "official",
        kernel: str = "pulse",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
    ) -> None:
        adapted = generator if isinstance(generator, Generator) else as_generator(generator)
        check_factor(adapted.card.resolution, scale, kernel)
        super().__init__(
            adapted,
            scale=scale,
            downscale=partial(downscale, factor=scale, kernel=kernel),
            config=search,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
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
