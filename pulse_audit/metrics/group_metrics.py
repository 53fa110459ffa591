"""Metrics of apparent groups and of sets of draws, one entry each. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pulse_audit.metrics.definition import MetricDefinition, share
from pulse_audit.types import Direction

#: Taken from the apparent group of each output, for the attribute that a grouping tests.
OUTCOME_METRICS: Sequence[MetricDefinition] = (
    share(
        "retention",
        "Retention",
        "share of all draws whose output has the apparent group of its face; outputs without a "
        "face and errors count as not retained",
        "higher",
        terminal=("retained %", 0),
        in_report=True,
    ),
    share(
        "retention_feasible",
        "Retention, feasible",
        "retention among draws that fit their input",
        "higher",
    ),
    share(
        "retention_classified",
        "Retention, classified",
        "retention among draws whose output has an apparent group",
        "higher",
    ),
    share(
        "conversion",
        "Conversion",
        "share of all draws whose output has another apparent group than its face",
        "lower",
    ),
)

_SOURCES: Mapping[str, tuple[str, Direction]] = {
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


def _derived(
    name: str, title: str, description: str, direction: Direction, unit: str = "", **more: Any
) -> MetricDefinition:
    """Define a distance or divergence of groups or sets of draws."""
    return MetricDefinition(
        name=name,
        title=title,
        description=description,
        direction=direction,
        kind="derived",
        unit=unit,
        decimals=4,
        **more,
    )


_derived_share = partial(share, kind="derived")

#: Metrics of groups and of sets of draws: no number belongs to one draw.
DERIVED_METRICS: Sequence[MetricDefinition] = (
    # The shift matrix: its diagonal, cells, margins and flows.
    _derived_share(
        "retention_corrected",
        "Retention, corrected",
        "retention after correction for the attribute model's measured errors (metric retention, "
        "correction corrected)",
        "higher",
    ),
    _derived_share(
        "retention_pooled",
        "Retention, pooled",
        "retention of an intersection, shrunk toward what its parts predict",
        "higher",
    ),
    _derived_share(
        "shift", "Shift", "P(apparent group of the output | group of the face)", "neither"
    ),
    _derived_share(
        "output_share",
        "Share of outputs",
        "share of all draws whose output has this apparent group; of the originals: the same",
        "neither",
    ),
    _derived_share(
        "net_flow",
        "Net flow",
        "outputs a group gains from another (to_group gains), or from all, less those it loses, "
        "of all draws",
        "nearer 0",
    ),
    # Diversity over the draws of a face.
    _derived_share(
        "flip_rate",
        "Flip rate",
        "probability that two draws of one face differ in apparent group",
        "neither",
        in_report=True,
    ),
    _derived("entropy", "Entropy", "of the apparent group over a face's draws", "neither", "nats"),
    # Fairness of sets of outputs, by divergence.
    *(
        _derived(f"{name}_{kind}", f"{title} {kind}", f"{divergence} {what}", "lower")
        for name, (title, what) in _PROPERTIES.items()
        for kind, divergence in _DIVERGENCES.items()
    ),
    # Sources of the shift (--sources).
    *(
        _derived_share(f"source_{part}", f"Source: {part}", f"share of all draws: {what}", better)
        for part, (what, better) in _SOURCES.items()
    ),
    _derived_share(
        "guided_shown",
        "Guided: shown",
        "draws whose guided search fits the input and shows the face's own group",
        "higher",
    ),
    _derived_share(
        "guided_confirmed",
        "Guided: confirmed",
        "of those, the ones in which a second attribute model sees the group too",
        "higher",
    ),
    *(
        _derived_share(f"{name}_share", f"{title} share", f"apparent groups of {what}", "neither")
        for name, (title, what) in _COMPOSITIONS.items()
    ),
    # Distances between the sets of outputs and of originals.
    _derived(
        "fid",
        "FID",
        "Frechet distance between features of outputs and originals: Inception's where fid is "
        "named in --metrics (then for KID and GPI too), else the attribute model's",
        "lower",
        measured_from="set features",
        computed_by="pulse_audit.metrics.distribution:inception",
        settings=lambda: {"network": "inception-2015-12-05 pool3"},
        weights="fid-inception",
        on_request=True,
    ),
    _derived("kid", "KID", "kernel distance between features, unbiased", "lower", in_report=True),
    _derived("gpi_kid", "GPI", "largest less smallest KID of the groups", "lower"),
)
