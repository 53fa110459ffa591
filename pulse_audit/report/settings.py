"""What a run varies, one axis each: settings of a sweep, conditions and scales; as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.report.content import NamedFigure, Stems
from pulse_audit.report.drawings import COLUMN, PAGE, Drawings
from pulse_audit.store import Manifest
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.schema import ALL, EstimateRow, SubsetKey, Summary
from pulse_audit.sweeps import VARIANT, point_name, value_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Measures of every axis, and those beside them where they were requested or are all there is.
MEASURES, REQUESTED = ("retention", "feasible_rate"), ("latent_radius", "spread")
#: Lines of an axis that one figure shows, at most.
MAX_LINES = 6


@dataclass(frozen=True)
class Line:
    """An arm, everything else held: the value on the axis of each place, and the subset there."""

    title: str
    places: Sequence[tuple[str, SubsetKey]]


@dataclass(frozen=True)
class Axis:
    """Something that a run varies, with its lines; ``label`` is what the figure's axis says."""

    name: str
    label: str
    lines: Sequence[Line]

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers, between which a line says something."""
        try:
            return all(np.isfinite(float(value.removeprefix("×"))) for value in self.values)
        except ValueError:
            return False

    @property
    def values(self) -> list[str]:
        """All values, in the order of the run."""
        return list(dict.fromkeys(value for line in self.lines for value, _ in line.places))


def axes_of(manifest: Manifest, summary: Summary) -> list[Axis]:
    """Everything that a run varies and measured at two values or more."""
    measured = {(r.arm, r.condition, r.scale) for r in summary.estimates if r.scale}
    arms = on_trial(manifest, [arm for arm in manifest.arms if any(arm == m[0] for m in measured)])
    spec = manifest.spec
    keys = [
        SubsetKey(arm, condition, scale)
        for arm in arms
        for condition in spec.conditions
        for scale in spec.scales
        if (arm, condition, scale) in measured
    ]
    several = {"condition": len(spec.conditions) > 1, "scale": len(spec.scales) > 1}

    def where(key: SubsetKey, *left_out: str) -> str:
        """Say which condition and scale a subset has, where there are several."""
        words = [key.condition] * several["condition"] + [f"×{key.scale}"] * several["scale"]
        kinds = ["condition"] * several["condition"] + ["scale"] * several["scale"]
        return "".join(
            f", {word}" for word, kind in zip(words, kinds, strict=True) if kind not in left_out
        )

    axes = []
    # Settings of a sweep: the variants of an arm that differ in this one alone.
    values: dict[str, set[float | str]] = {}
    for arm in arms:
        for name, value in manifest.arms[arm].settings.items():
            values.setdefault(name, set()).add(value)
    for name in values:
        places = []
        for key in keys:
            settings = manifest.arms[key.arm].settings
            if name not in settings:
                continue
            # The other settings that have several values are those of the line.
            others = point_name(
                tuple((k, v) for k, v in settings.items() if k != name and len(values[k]) > 1)
            )
            title = f"{key.arm.rpartition(VARIANT)[0]}{f', {others}' if others else ''}"
            places.append((f"{title}{where(key)}", value_name(settings[name]), key))
        axes.append(Axis(name, name.replace("_", " "), list(_lines(places))))
    if several["condition"]:
        places = [(f"{k.arm}{where(k, 'condition')}", k.condition, k) for k in keys]
        axes.append(Axis("condition", "condition", list(_lines(places))))
    if several["scale"]:
        places = [(f"{k.arm}{where(k, 'scale')}", f"×{k.scale}", k) for k in keys]
        axes.append(Axis("scale", "downscaling factor", list(_lines(places))))
    return [axis for axis in axes if len(axis.values) > 1]


def _lines(places: Sequence[tuple[str, str, SubsetKey]]) -> Iterator[Line]:
    """Gather places of one title, in order."""
    found: dict[str, list[tuple[str, SubsetKey]]] = {}
    for title, value, key in places:
        found.setdefault(title, []).append((value, key))
    for title, of_title in found.items():
        yield Line(title, of_title)


def measures_of(summary: Summary) -> list[str]:
    """Metrics that figures of axes show: retention, feasibility, and what was requested."""
    measured = {r.metric for r in summary.estimates if r.value is not None}
    shown = [name for name in (*MEASURES, *REQUESTED) if name in measured]
    return shown if len(shown) > 1 else [*shown, *({"no_face_rate"} & measured)]


def label_of(metric: str) -> str:
    """Title of a measure with its unit."""
    definition = BY_NAME[metric]
    return f"{definition.title}, {definition.unit}" if definition.unit else definition.title


class Estimates:
    """Plain estimates of a summary by metric, subset and group, found at once."""

    def __init__(self, summary: Summary, group_by: str) -> None:
        self._rows: Mapping[tuple[str, SubsetKey, str], EstimateRow] = {
            (r.metric, SubsetKey(r.arm, r.condition, r.scale), r.group): r
            for r in summary.estimates
            # Rows of the set as a whole are of no group.
            if r.plain and r.group_by in (ALL, group_by) and (r.group_by == ALL) == (r.group == ALL)
        }
        groups = (g for metric, _, g in self._rows if g != ALL and metric == MEASURES[1])
        #: Those of the grouping that have faces, in order.
        self.groups: list[str] = list(dict.fromkeys(groups))

    def at(self, metric: str, key: SubsetKey, group: str) -> EstimateRow | None:
        """Return the estimate of a group, or of all faces."""
        return self._rows.get((metric, key, group))


CAPTION = (
    "{measures} against {axis}: all faces in black with 95 % intervals, groups of the first "
    "grouping in colour. Values stand at equal distances, in the order of the run; one row an "
    "arm, all else held. The numbers are in data/estimates.csv."
)
SOAP_BUBBLE = (
    "The soap bubble: how long the latent vectors of outputs are, over the square root of their "
    "number of values, one point a draw. Nearly all draws of a Gaussian in many dimensions lie in "
    "the thin shell around 1, and next to none near 0, where its density is highest. A search on "
    "the sphere stays in the shell; one that adds -log p to its loss leaves it toward 0."
)


def setting_figures(
    manifest: Manifest, summary: Summary, samples: pd.DataFrame, drawn: Drawings
) -> list[NamedFigure]:
    """Draw every measure against what a run varies, and the radii of latents where measured."""
    stems, figures = Stems(), list[NamedFigure]()
    columns = next(iter(manifest.spec.groupings), [])
    estimates, measures = Estimates(summary, ",".join(columns)), measures_of(summary)
    titles = [BY_NAME[name].title for name in measures]
    for axis in axes_of(manifest, summary) if measures else ():
        for first in range(0, len(axis.lines), MAX_LINES):
            lines = axis.lines[first : first + MAX_LINES]
            make = partial(_axis, axis, lines, estimates, measures)
            named = ", ".join(titles[:-1]) + f" and {titles[-1]}" if titles[1:] else titles[0]
            alt = f"{named} against {axis.label}, one row for each of "
            alt += "; ".join(line.title for line in lines)
            caption = CAPTION.format(measures=named, axis=axis.label)
            figures += _named(stems.make("against", axis.name), drawn, make, caption, alt)
    by_arm = radii_of(manifest, samples)
    if by_arm:
        alt = f"Latent radii of the draws of {', '.join(by_arm)}"
        make = partial(_radii, by_arm)
        figures += _named(stems.make("soap-bubble"), drawn, make, SOAP_BUBBLE, alt)
    return figures


def radii_of(manifest: Manifest, samples: pd.DataFrame) -> dict[str, tuple[Sequence[float], float]]:
    """Latent radii of the draws of every arm that has them, and their spread under its prior."""
    found: dict[str, tuple[Sequence[float], float]] = {}
    if "latent_radius" not in samples:
        return found
    for arm, entry in manifest.arms.items():
        values = samples.loc[samples["arm"] == arm, "latent_radius"].dropna().tolist()
        generator = entry.as_dict().get("generator") or {}
        size = generator.get("n_latents", 1) * generator.get("latent_dim", 1)
        if values:
            found[arm] = values, (2 * size) ** -0.5
    return found


def _named(
    stem: str, drawn: Drawings, make: Callable[[float], Figure], caption: str, alt: str
) -> Iterator[NamedFigure]:
    """Draw a figure at both widths."""
    drawing = drawn.drawing(stem, partial(make, PAGE))
    narrow = drawn.drawing(f"{stem}_column", partial(make, COLUMN))
    if drawing is not None and narrow is not None:
        yield NamedFigure(stem, drawing, narrow, caption, alt)


def _axis(
    axis: Axis, lines: Sequence[Line], estimates: Estimates, measures: Sequence[str], width: float
) -> Figure:
    """Draw an axis; only figures that were not drawn before need matplotlib."""
    from pulse_audit.report.plots import draw_axis

    return draw_axis(axis, lines, estimates, measures, width)


def _radii(by_arm: Mapping[str, tuple[Sequence[float], float]], width: float) -> Figure:
    """Draw radii; only figures that were not drawn before need matplotlib."""
    from pulse_audit.report.plots import radii

    return radii(by_arm, width)
