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
from pulse_audit.metrics.registry import DRAW_METRICS
from pulse_audit.models.generators import load_generator
from pulse_audit.names import nearest
from pulse_audit.report import html
from pulse_audit.report.drawings import PAGE
from pulse_audit.report.figures import FIGURES
from pulse_audit.report.plots import distribution
from pulse_audit.search.pulse import Pulse
from pulse_audit.summary.groups import assign
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
            One of `pulse_audit.report.figures.FIGURES`, such as ``retention`` or ``shift-matrix``.
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

    def distribution(
        self, metric: str, *, group_by: str | None = None, width: float = PAGE
    ) -> Figure:
        """Draw how a metric is distributed over faces, by group and arm.

        Of the first condition and scale of the run; a face's value is the mean of its draws.

        Parameters
        ----------
        metric : str
            A metric of single draws, such as ``lpips`` or ``psnr``.
        group_by : str, optional
            Default: the first grouping.
        width : float
            Inches: 6.9, a page, or 3.25, one of its two columns.

        Raises
        ------
        InputError
            If the metric is unknown, or was not measured.
        """
        known = {m.name: m for m in DRAW_METRICS if m.kind == "mean"}
        if metric not in known:
            raise InputError(f"metric {metric!r} is unknown{nearest(metric, list(known))}")
        spec, measure = self.run.manifest.spec, known[metric]
        of_setting = (self.samples["condition"] == spec.conditions[0]) & (
            self.samples["scale"] == spec.scales[0]
        )
        samples = self.samples[of_setting]
        grouping = group_by or next(iter(spec.group_by), "")
        try:
            values = measure.values(samples) * measure.display_scale
        except KeyError:
            raise InputError(f"metric {metric!r} was not measured in this run") from None
        draws = samples.assign(group=assign(samples, grouping.split(",")), value=values).dropna(
            subset="value"
        )
        if draws.empty:
            reason = self.summary.unavailable.get(metric, "no draw has it")
            raise InputError(f"metric {metric!r}: nothing to draw, because {reason}")
        faces = draws.groupby(["arm", "group", "face_id"], sort=False)["value"].mean().reset_index()
        label = f"{measure.title}, {measure.unit}" if measure.unit else measure.title
        # In the order of the report, which has every grouping of the run; others as they come.
        order = [r.group for r in self.summary.estimates if r.group_by == grouping]
        groups = [g for g in dict.fromkeys([*order, *faces["group"]]) if g in set(faces["group"])]
        return distribution(faces, groups, label, width)

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
