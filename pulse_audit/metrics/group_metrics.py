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

#: Shares of all draws, of draws whose original is read right, of faces, and of searches.
_SOURCES: Mapping[str, tuple[str, str, Direction]] = {
    "source_misread": (
        "Source: misread",
        "share of all draws: the attribute model misreads the original itself",
        "neither",
    ),
    "source_misread_lost": (
        "Source: misread and lost",
        "share of all draws: the original is misread, and the output does not show its group",
        "neither",
    ),
    "source_retained": (
        "Source: retained",
        "share of draws whose original is read right: the output shows the face's group",
        "higher",
    ),
    "source_found": (
        "Source: found",
        "of the same draws: lost, and guidance finds a feasible image of the group; chance and "
        "preference",
        "neither",
    ),
    "source_chance": (
        "Source: chance",
        "of the same draws: lost, and the same search without guidance finds such an image",
        "neither",
    ),
    "source_preference": (
        "Source: preference",
        "of the same draws: what guidance finds beyond the search without guidance",
        "lower",
    ),
    "source_adversarial": (
        "Source: adversarial",
        "of the same draws: guidance finds one in which a second attribute model does not see it",
        "neither",
    ),
    "source_incapacity": (
        "Source: incapacity",
        "of the same draws: lost, and guidance finds no such image: an upper bound",
        "lower",
    ),
    "source_incapacity_infeasible": (
        "Source: incapacity, infeasible",
        "of the same draws: lost, and guidance finds no image that fits the input",
        "lower",
    ),
    "source_incapacity_faces": (
        "Source: incapacity, faces",
        "share of faces whose original is read right: no draw and no search shows the group",
        "lower",
    ),
    "guided_shown": (
        "Guided: shown",
        "share of lost draws in which guidance toward the face's own group shows it",
        "neither",
    ),
    "placebo_shown": (
        "Placebo: shown",
        "share of the same draws in which the same search without guidance shows it",
        "neither",
    ),
    "wrong_shown": (
        "Wrong group: shown",
        "share of the same draws in which guidance toward a group that neither the face nor the "
        "output shows makes the output show that one",
        "neither",
    ),
    "guided_confirmed": (
        "Guided: confirmed",
        "share of those that guidance shows in which a second attribute model sees the group too",
        "higher",
    ),
    "wrong_confirmed": (
        "Wrong group: confirmed",
        "share of those shown as a wrong group in which a second attribute model sees it too",
        "neither",
    ),
}
_COMPOSITIONS = {
    "prior": ("Prior", "a generator's samples"),
    "training": ("Training", "the photos a generator was trained on, as its card counts them"),
    "evaluation": ("Evaluation", "the faces of this run"),
}
#: Priors of a search: see `pulse_audit.fairness.prior`.
_STARTS = {
    "z": "the generator's own prior",
    "diagonal_tied": "PULSE's fit of independent entries with one latent for all layers",
    "diagonal_per_layer": "PULSE's own prior, that fit with one latent a layer",
    "full_tied": "the fit of the full covariance with one latent for all layers",
    "full_per_layer": "the fit of the full covariance with one latent a layer",
}
_PROPERTIES = {
    "rdp": ("RDP", "of retention per group from equality (representation demographic parity)"),
    "pr": ("PR", "of the outputs' composition from the evaluation set's (proportional)"),
    "cpr": ("CPR", "lower bound, from pairs of draws (conditional proportional representation)"),
    "spe": ("SPE", "between who becomes whom and its reverse (symmetric pairwise error)"),
    "ucpr": ("UCPR", "of outputs of uninformative inputs from the evaluation set's composition"),
}
_TESTS = {
    "pr_p": ("PR, p", "PR by goodness of fit to the composition of the faces"),
    "pr_p_published": ("PR, p as published", "PR against a made-up sample (Laszkiewicz et al.)"),
    "rdp_p": ("RDP, p", "RDP by homogeneity of retention"),
    "rdp_p_published": ("RDP, p as published", "RDP by shares as counts (Laszkiewicz et al.)"),
}
_DIVERGENCES = {
    "chi2": "chi-squared divergence",
    "kl": "Kullback-Leibler divergence in nats",
    "tv": "total variation",
    "chebyshev": "largest difference of a share",
}


#: What metrics of raters need.
_RATINGS = "answers to a rating kit"


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
        **{"decimals": 4, **more},
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
        "shift_pooled",
        "Shift, pooled",
        "shift under a hierarchical model, its rows shrunk toward what the other groups show",
        "neither",
    ),
    _derived_share(
        "retention_check",
        "Retention, second model",
        "corrected retention under the second attribute model",
        "higher",
    ),
    _derived_share(
        "shift_check",
        "Shift, second model",
        "corrected shift under the second attribute model",
        "neither",
    ),
    _derived_share(
        "model_agreement",
        "Agreement of the models",
        "share of outputs, or originals, to which both attribute models give the same group",
        "neither",
    ),
    _derived_share(
        "model_kappa",
        "Kappa of the models",
        "agreement of both attribute models beyond chance (Cohen's kappa)",
        "neither",
    ),
    # The attribute model on outputs that people labelled (--hand-labels).
    _derived_share(
        "hand_accuracy",
        "Accuracy, hand labels",
        "share of the outputs that people labelled with a group which the attribute model gives "
        "the same group; outputs that it gives none are left out",
        "higher",
        in_report=True,
    ),
    _derived_share(
        "drift",
        "Drift",
        "that accuracy less the model's accuracy on photos of the group, which corrections use",
        "nearer 0",
        in_report=True,
    ),
    _derived_share(
        "planted_shift",
        "Planted shift",
        "share of a group's draws for which a planted arm returned a face labelled as this group: "
        "what a correct audit should find in the shift matrix",
        "neither",
    ),
    _derived_share(
        "output_share",
        "Share of outputs",
        "share of all draws whose output has this apparent group; of the originals: the same",
        "neither",
    ),
    _derived_share(
        "output_share_cleam",
        "Share of outputs, CLEAM",
        "the same, corrected as published by Teo et al. (2023): the attribute model's accuracy is "
        "taken as known",
        "neither",
    ),
    _derived_share(
        "net_flow",
        "Net flow",
        "outputs a group gains from another (to_group gains), or from all, less those it loses, "
        "of all draws; outputs without an apparent group are neither",
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
    _derived(
        "entropy",
        "Entropy",
        "of the apparent group over a face's draws",
        "neither",
        "nats",
        lower_bound=0.0,
    ),
    # Fairness of sets of outputs, by divergence.
    *(
        _derived(f"{name}_{kind}", f"{title} {kind}", f"{divergence} {what}", "lower")
        for name, (title, what) in _PROPERTIES.items()
        for kind, divergence in _DIVERGENCES.items()
    ),
    # P-values of tests of one output a face, as published and by the right test.
    *(
        _derived_share(name, title, f"p-value of {what}", "neither")
        for name, (title, what) in _TESTS.items()
    ),
    # Sources of the shift (--sources).
    *(
        _derived_share(name, title, description, direction)
        for name, (title, description, direction) in _SOURCES.items()
    ),
    *(
        _derived_share(f"{name}_share", f"{title} share", f"apparent groups of {what}", "neither")
        for name, (title, what) in _COMPOSITIONS.items()
    ),
    # What a search can start from, before any input.
    *(
        _derived_share(
            f"start_share_{name}",
            f"Start: {name.replace('_', ' ')}",
            f"share of an apparent group under {what}, before any input",
            "neither",
        )
        for name, what in _STARTS.items()
    ),
    *(
        _derived(
            f"start_variance_{name}",
            f"Start, variance: {name.replace('_', ' ')}",
            f"variance of a pixel, values in [0, 1], between samples of {what} at 32 px",
            "neither",
        )
        for name, what in _STARTS.items()
    ),
    *(
        _derived_share(
            f"start_moved_{name}",
            f"Start, moved: {name.replace('_', ' ')}",
            f"total variation between the groups of {what} and of the generator's own",
            "nearer 0",
        )
        for name, what in _STARTS.items()
        if name != "z"
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
    # What raters say (`pulse-audit rate`).
    _derived(
        "mos",
        "Opinion score",
        "mean opinion score: quality of a picture in the eyes of raters who do not know the arm, "
        "from 1 (bad) to 5 (excellent); ITU-T P.800 and P.910",
        "higher",
        decimals=2,
        needs=_RATINGS,
    ),
    _derived(
        "mos_p",
        "Opinion score, rank test",
        "p of the Mann-Whitney test of two arms, ratings as if independent; Holm",
        "neither",
        decimals=4,
        needs=_RATINGS,
    ),
    _derived_share(
        "preference",
        "Preference",
        "share of answers that find the output closer to the original than another arm's",
        "higher",
        needs=_RATINGS,
    ),
    _derived(
        "rater_alpha",
        "Agreement of raters",
        "Krippendorff's alpha of the raters: 1 they agree, 0 as by chance",
        "neither",
        decimals=2,
        needs=_RATINGS,
    ),
)
