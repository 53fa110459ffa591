"""Metrics of apparent groups: those with one number a draw, and those of a set of draws."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pulse_audit.stats.intervals import FloatArray
from pulse_audit.summary.kinds import Better, Measure, SampleMeasure


def numbers(samples: pd.DataFrame, column: str) -> FloatArray:
    """Return a column as floats, null as NaN."""
    return np.asarray(samples[column].astype("float64"), dtype=np.float64)


def _share(name: str, title: str, what: str, better: Better) -> SampleMeasure:
    return SampleMeasure(
        name=name,
        title=title,
        what=what,
        unit="%",
        better=better,
        kind="proportion",
        columns=(name,),
        values=lambda samples: numbers(samples, name),
        display_scale=100.0,
    )


#: Taken from columns that `apparent.outcomes` makes for the attribute a grouping tests.
TESTED: tuple[SampleMeasure, ...] = (
    _share(
        "retention",
        "Retention",
        "share of all draws whose output has the apparent group of its face; outputs without a "
        "face and errors count as not retained",
        "higher",
    ),
    _share(
        "retention_feasible",
        "Retention, feasible",
        "retention among draws that fit their input",
        "higher",
    ),
    _share(
        "retention_classified",
        "Retention, classified",
        "retention among draws whose output has an apparent group",
        "higher",
    ),
    _share(
        "conversion",
        "Conversion",
        "share of all draws whose output has another apparent group than its face",
        "lower",
    ),
)


def _percent(name: str, title: str, what: str, better: Better) -> Measure:
    return Measure(name=name, title=title, what=what, unit="%", better=better, display_scale=100.0)


def _number(name: str, title: str, what: str, better: Better, unit: str = "") -> Measure:
    return Measure(name=name, title=title, what=what, unit=unit, better=better, decimals=4)


_SOURCES: dict[str, tuple[str, Better]] = {
    "retained": ("the unguided output shows the face's group", "higher"),
    "classifier": ("not retained, and the original itself is not read as its group", "neither"),
    "preference": ("not retained, though guidance finds a feasible image that is", "lower"),
    "adversarial": (
        "guidance finds one, but a second attribute model does not see the group",
        "neither",
    ),
    "incapacity": ("not retained, and guidance finds none either: an upper bound", "lower"),
}
_COMPOSITIONS = {
    "prior": ("Prior", "a generator's samples"),
    "training": ("Training", "the photos a generator was trained on, as its card counts them"),
    "evaluation": ("Evaluation", "the faces of this run"),
}
_PROPERTIES = {
    "rdp": ("RDP", "of retention per group from equality (representation demographic parity)"),
    "pr": ("PR", "of the outputs' composition from the evaluation set's (proportional)"),
    "cpr": ("CPR", "lower bound, from pairs of draws (conditional proportional representation)"),
    "spe": ("SPE", "between who becomes whom and its reverse (symmetric pairwise error)"),
    "ucpr": ("UCPR", "of outputs of uninformative inputs from the evaluation set's composition"),
}
_DIVERGENCES = {
    "chi2": "chi-squared divergence",
    "kl": "Kullback-Leibler divergence in nats",
    "tv": "total variation",
    "chebyshev": "largest difference of a share",
}

#: Metrics of matrices and of sets: no number belongs to one draw.
DERIVED: tuple[Measure, ...] = (
    _percent(
        "retention_corrected",
        "Retention, corrected",
        "retention after correction for the attribute model's measured errors (metric retention, "
        "correction corrected)",
        "higher",
    ),
    _percent(
        "retention_pooled",
        "Retention, pooled",
        "retention of an intersection, shrunk toward what its parts predict",
        "higher",
    ),
    _percent("shift", "Shift", "P(apparent group of the output | group of the face)", "neither"),
    _percent(
        "output_share",
        "Share of outputs",
        "share of all draws whose output has this apparent group; of the originals: the same",
        "neither",
    ),
    _percent(
        "net_flow",
        "Net flow",
        "outputs a group gains from another (to_group gains), or from all, less those it loses, "
        "of all draws",
        "nearer 0",
    ),
    _percent(
        "flip_rate",
        "Flip rate",
        "probability that two draws of one face differ in apparent group",
        "neither",
    ),
    _number("entropy", "Entropy", "of the apparent group over a face's draws", "neither", "nats"),
    *(
        _number(f"{name}_{kind}", f"{title} {kind}", f"{divergence} {what}", "lower")
        for name, (title, what) in _PROPERTIES.items()
        for kind, divergence in _DIVERGENCES.items()
    ),
    *(
        _percent(f"source_{part}", f"Source: {part}", f"share of all draws: {what}", better)
        for part, (what, better) in _SOURCES.items()
    ),
    _percent(
        "guided_shown",
        "Guided: shown",
        "draws whose guided search fits the input and shows the face's own group",
        "higher",
    ),
    _percent(
        "guided_confirmed",
        "Guided: confirmed",
        "of those, the ones in which a second attribute model sees the group too",
        "higher",
    ),
    *(
        _percent(f"{name}_share", f"{title} share", f"apparent groups of {what}", "neither")
        for name, (title, what) in _COMPOSITIONS.items()
    ),
    _number("fid", "FID", "Frechet distance between features of outputs and originals", "lower"),
    _number("kid", "KID", "kernel distance between features, unbiased", "lower"),
    _number("gpi_kid", "GPI", "largest less smallest KID of the groups", "lower"),
)
