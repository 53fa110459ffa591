"""Whom a generator knows: compositions of its prior, its training set and the evaluation faces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy.special import ndtri

from pulse_audit.fairness.confusion import Confusion
from pulse_audit.fairness.correction import corrected_shares
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.intervals import wilson
from pulse_audit.types import Estimate

Row: TypeAlias = dict[str, Any]

#: Condition and scale of rows that belong to none: compositions of a prior or of a data set.
NO_CONDITION, NO_SCALE = "all", 0
#: Kinds of uninformative inputs.
KINDS = ("group_mean", "noisy_mean", "grey")
CENSUS = "count of a known set"


def row(
    metric: str,
    estimate: Estimate,
    correction: str = "raw",
    *,
    arm: str,
    condition: str = NO_CONDITION,
    scale: int = NO_SCALE,
    group_by: str = "all",
    group: str = "all",
) -> Row:
    """Make one row with the fields of `summary.schema.EstimateRow`."""
    return {
        "arm": arm,
        "condition": condition,
        "scale": scale,
        "metric": metric,
        "group_by": group_by,
        "group": group,
        "to_group": None,
        "correction": correction,
        "value": _number(estimate.value),
        "low": _number(estimate.low),
        "high": _number(estimate.high),
        "n_faces": estimate.n_faces,
        "n_draws": estimate.n_draws,
        "method": estimate.method,
    }


def _number(value: float) -> float | None:
    """Ten significant digits, so that rounding noise between machines does not reach the file."""
    return float(f"{value:.10g}") if math.isfinite(value) else None


def composition(counts: Sequence[int], confidence: float = 0.95) -> list[Estimate]:
    """Shares of a multinomial sample, with simultaneous intervals.

    Goodman (1965, Technometrics 7:247): Wilson's interval at the level that k comparisons leave
    each class.

    Parameters
    ----------
    counts : sequence of int
        One a class.
    confidence : float
        That all shares lie in their intervals.

    Raises
    ------
    ValueError
        If nothing was counted.
    """
    total = int(sum(counts))
    each = 1 - (1 - confidence) / len(counts)
    method = f"Goodman's simultaneous Wilson intervals, {len(counts)} classes"
    return [
        Estimate(c / total, *wilson(c, total, each), total, total, method, confidence)
        for c in counts
    ]


def rows(prior: pd.DataFrame, manifest: Mapping[str, Any], confidence: float) -> Iterator[Row]:
    """Compositions and their differences, see `sources.estimates`."""
    words: Mapping[str, Sequence[str]] = manifest["attributes"]["vocabulary"]
    training = manifest["sources"]["training"]
    for arm, drawn in prior.groupby("arm", sort=False):
        for name in ("lightness", "ita"):
            yield from _tone_rows(str(arm), name, drawn[name].dropna().to_numpy(), confidence)
        for attribute in words:
            known = _labels(manifest, attribute)
            if known is None:
                continue
            sets = {"evaluation": known, "training": (training.get(arm) or {}).get(attribute)}
            yield from _attribute_rows(str(arm), attribute, drawn, sets, manifest, confidence)


def _labels(manifest: Mapping[str, Any], attribute: str) -> Mapping[str, int] | None:
    """Count evaluation faces by label; None where the data set does not label the attribute."""
    labels = [face["labels"].get(attribute) for face in manifest["faces"]]
    if attribute not in manifest["dataset"]["vocabulary"] or not any(labels):
        return None
    return {word: labels.count(word) for word in labels if word}


def _tone_rows(arm: str, name: str, values: Any, confidence: float) -> Iterator[Row]:
    """Mean of a skin tone over the prior; its samples are independent."""
    if len(values) > 1:
        z = float(ndtri(0.5 + confidence / 2))
        mean, half = float(values.mean()), z * float(values.std(ddof=1)) / math.sqrt(len(values))
        method = "normal, independent samples"
        estimate = Estimate(
            mean, mean - half, mean + half, len(values), len(values), method, confidence
        )
        yield row(f"prior_{name}", estimate, arm=arm)


def _attribute_rows(
    arm: str,
    attribute: str,
    drawn: pd.DataFrame,
    sets: Mapping[str, Mapping[str, int] | None],
    manifest: Mapping[str, Any],
    confidence: float,
) -> Iterator[Row]:
    """Rows of one arm and attribute: shares of each set, and what lies between them."""
    words = list(manifest["attributes"]["vocabulary"][attribute])
    counts = [int((drawn[f"sr_{attribute}"] == word).sum()) for word in words]
    shares = {"prior": composition(counts, confidence)}
    shares |= {
        name: [_census(known.get(word, 0), sum(known.values()), confidence) for word in words]
        for name, known in sets.items()
        if known
    }
    for name, of_set in shares.items():
        for word, share in zip(words, of_set, strict=True):
            yield row(f"{name}_share", share, arm=arm, group_by=attribute, group=word)
    yield from _corrected_rows(arm, attribute, drawn, words, manifest, confidence)
    for one, other in (("prior", "training"), ("prior", "evaluation"), ("training", "evaluation")):
        if one in shares and other in shares:
            for word, left, right in zip(words, shares[one], shares[other], strict=True):
                gap = _minus(left, right)
                yield row(f"{one}_minus_{other}", gap, arm=arm, group_by=attribute, group=word)


def _corrected_rows(
    arm: str,
    attribute: str,
    drawn: pd.DataFrame,
    words: Sequence[str],
    manifest: Mapping[str, Any],
    confidence: float,
) -> Iterator[Row]:
    """Prior shares corrected by the held-out confusion of the model's card."""
    counts = card_counts(manifest["attributes"], attribute, words)
    if counts is None:
        return
    codes = pd.Index(words).get_indexer(pd.Index(drawn[f"sr_{attribute}"]))
    corrected = corrected_shares(
        np.arange(len(drawn)),
        codes,
        len(words),
        Confusion.from_counts(counts),
        seed=fingerprint(int(manifest["spec"].get("seed", 0)), "prior", arm, attribute),
        confidence=confidence,
    )
    for word, share in zip(words, corrected, strict=True):
        if share is not None:
            yield row("prior_share", share, "corrected", arm=arm, group_by=attribute, group=word)


def card_counts(
    about: Mapping[str, Any], attribute: str, words: Sequence[str]
) -> list[list[int]] | None:
    """Held-out counts of an attribute model's card, in the order of the run's words.

    Parameters
    ----------
    about : mapping
        The manifest's entry ``attributes``.
    attribute : str
        A predicted column; a derived grouping has to be on the card under its own name, in the
        order of its words.
    words : sequence of str

    Returns
    -------
    list of list of int or None
        None where the card has none in these words.
    """
    card = about.get("card") or {}
    confusion, vocabulary = card.get("confusion") or {}, card.get("vocabulary") or {}
    if attribute in confusion and attribute not in vocabulary:
        counts = confusion[attribute]
        fits = [len(row) for row in counts] == [len(words)] * len(words)
        return [[int(count) for count in row] for row in counts] if fits else None
    predicted_as = (about.get("predicted_as") or {}).get(attribute, attribute)
    counts = confusion.get(predicted_as)
    own = [str(word).casefold() for word in vocabulary.get(predicted_as, ())]
    wanted = [word.casefold() for word in words]
    if not counts or sorted(own) != sorted(wanted):
        return None
    order = [own.index(word) for word in wanted]
    return [[int(counts[i][j]) for j in order] for i in order]


def _census(count: int, total: int, confidence: float) -> Estimate:
    share = count / total
    return Estimate(share, share, share, total, total, CENSUS, confidence)


def _minus(left: Estimate, right: Estimate) -> Estimate:
    """Difference to a known share: the interval of the other one, moved."""
    return Estimate(
        left.value - right.value,
        left.low - right.value,
        left.high - right.value,
        left.n_faces,
        left.n_draws,
        f"{left.method}, less a known share",
        left.confidence,
    )


def uninformative_rows(
    table: pd.DataFrame, manifest: Mapping[str, Any], confidence: float
) -> Iterator[Row]:
    """Predicted groups of the outputs of uninformative inputs, one composition a kind of input.

    The inputs are these and no sample of others, and draws of one input are independent, so that
    intervals of a multinomial sample are, if anything, too wide.
    """
    words: Mapping[str, Sequence[str]] = manifest["attributes"]["vocabulary"]
    for _, drawn in table.groupby(["arm", "scale", "kind"], sort=False):
        arm, kind, scale = drawn[["arm", "kind", "scale"]].to_numpy()[0]
        for attribute, known in words.items():
            counts = [int((drawn[f"sr_{attribute}"] == word).sum()) for word in known]
            if sum(counts) == 0:
                continue
            for word, share in zip(known, composition(counts, confidence), strict=True):
                yield row(
                    f"ucpr_share_{kind}",
                    share,
                    arm=str(arm),
                    condition="clean",
                    scale=int(scale),
                    group_by=attribute,
                    group=word,
                )
