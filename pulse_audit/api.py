"""The public facade: what ``import pulse_audit as pa`` offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pulse_audit import store, summary
from pulse_audit.generators.adapt import as_generator
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.models.generators import load_generator
from pulse_audit.names import nearest
from pulse_audit.report import html
from pulse_audit.report.content import FIGURES
from pulse_audit.report.drawing import PAGE
from pulse_audit.search.pulse import Pulse
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
        """Estimates, what is unavailable, and findings: what ``summary.json`` holds.

        Where that file is missing or of another version, it is written anew.
        """
        try:
            return summary.read(self.path)
        except InputError:
            content = summary.summarise_run(self.run, self.samples)
            summary.write(self.run, content)
            return content

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """One row per estimate, with its interval."""
        return pd.DataFrame([row.model_dump() for row in self.summary.estimates])

    def figure(
        self,
        name: str,
        *,
        arms: Sequence[str] | None = None,
        condition: str | None = None,
        scale: int | None = None,
        group_by: str | None = None,
        width: float = PAGE,
    ) -> Figure:
        """Draw one of the report's figures.

        Parameters
        ----------
        name : str
            One of `pulse_audit.report.content.FIGURES`, such as ``retention`` or ``shift-matrix``.
        arms, condition, scale, group_by : optional
            Default: all arms, and the first condition, scale and grouping of the run.
        width : float
            Inches: 6.9, a page, or 3.25, one of its two columns.

        Raises
        ------
        InputError
            If the name is unknown, or there is nothing to draw.
        """
        if name not in FIGURES:
            raise InputError(f"figure {name!r} is unknown{nearest(name, list(FIGURES))}")
        spec = self.run.manifest.spec
        figure = FIGURES[name](
            self.summary,
            arms or list(self.run.manifest.arms),
            condition or spec.conditions[0],
            scale or spec.scales[0],
            group_by or next(iter(spec.group_by), "all"),
            width,
        )
        if figure is None:
            raise InputError(f"figure {name!r}: nothing to draw for this grouping")
        return figure

    def _repr_html_(self) -> str:
        """Show the findings and the table of the arms in a notebook."""
        return html.fragment(self.run.manifest, self.summary)

    def report(self, out: Path | str | None = None) -> Path:
        """Write the report and return its page."""
        folder = None if out is None else Path(out)
        return html.render(self.run, folder, summary=self.summary, samples=self.samples)


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
