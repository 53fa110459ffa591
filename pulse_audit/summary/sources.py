"""Rows of ``sources/``: sources of the shift, compositions of priors, uninformative inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from pulse_audit.fairness import sets, sources
from pulse_audit.fairness.correction import corrected_shares
from pulse_audit.fairness.divergence import DIVERGENCES, reference_shares
from pulse_audit.fairness.sources import GuidedDraws
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.intervals import intraclass_correlation
from pulse_audit.store import Manifest
from pulse_audit.store.manifest import AttributesEntry, SourcesEntry
from pulse_audit.summary.groups import DRAW_KEYS, JOIN, card_counts, group_numbers, ordered
from pulse_audit.summary.schema import ALL, EstimateRow, SubsetKey, make_row
from pulse_audit.types import InputError, Unavailable


def source_rows(
    tables: Mapping[str, pd.DataFrame],
    samples: pd.DataFrame,
    manifest: Manifest,
    confidence: float = 0.95,
) -> list[EstimateRow]:
    """Make the rows of all tables of ``sources/``.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        From `pulse_audit.store.Run.source_tables`.
    samples : DataFrame
        Of the run, with ``label_<a>`` and ``sr_<a>`` of the guided attributes.
    manifest : Manifest
        Its entry ``sources`` says which attributes guided and what is known of the generators'
        training sets.
    confidence : float
        Of every interval.

    Raises
    ------
    InputError
        If the manifest has no such entry, or the guided draws are not those of the samples.
    """
    return [
        *guided_rows(tables["guided"], tables["originals"], samples, manifest, confidence),
        *composition_rows(tables["prior"], manifest, confidence),
        *uninformative_rows(tables["uninformative"], manifest, confidence),
        *ucpr_rows(tables["uninformative"], samples, manifest),
    ]


def guided_rows(
    guided: pd.DataFrame,
    originals: pd.DataFrame,
    samples: pd.DataFrame,
    manifest: Manifest,
    confidence: float,
) -> Iterator[EstimateRow]:
    """Estimate the sources of the shift for all draws and for each group of the guided attributes.

    The metrics are those of `pulse_audit.fairness.sources.split_estimates`.
    """
    guided_by = _entry(manifest).guided_by
    rows = _joined(guided, originals, samples, guided_by)
    groups = ordered(rows["group"], guided_by, manifest)
    for (arm, condition, _), chosen in rows.groupby(["arm", "condition", "scale"], sort=False):
        key = SubsetKey(str(arm), str(condition), int(chosen["scale"].iloc[0]))
        # Arrays of bool (n,); without a second model, "confirmed" and "checked" are missing.
        flags = {
            name: np.asarray(chosen[name].to_numpy(np.bool_))
            for name in ("retained", "read", "feasible", "shown", "confirmed", "checked")
            if name in chosen
        }
        confirmed = flags.get("confirmed")
        draws = GuidedDraws(
            faces=pd.factorize(chosen["face_id"], sort=True)[0].astype(np.int64),
            part=sources.parts(flags["retained"], ~flags["read"], flags["shown"], confirmed),
            retained=flags["retained"],
            feasible=flags["feasible"],
            shown=flags["shown"],
            confirmed=confirmed,
            checked=flags.get("checked"),
            read=flags["read"],
        )
        # The correlation of draws of a face is pooled over groups, as small ones cannot tell it.
        of_draw = chosen["group"].to_numpy()
        pooled = {
            metric: intraclass_correlation(outcomes, draws.faces, of_draw)
            for metric, outcomes in draws.outcomes().items()
        }
        # (group_by, group, estimates): all draws first, then each group in order
        splits = [(ALL, ALL, sources.split_estimates(draws, confidence, {}))]
        for group in groups:
            inside = of_draw == group
            if inside.any():
                split = sources.split_estimates(draws.subset(inside), confidence, pooled)
                splits.append((",".join(guided_by), group, split))
        for group_by, group, split in splits:
            for (metric, correction), estimate in split.items():
                yield make_row(key, metric, group_by, group, estimate, correction=correction)


def _joined(
    guided: pd.DataFrame, originals: pd.DataFrame, samples: pd.DataFrame, guided_by: Sequence[str]
) -> pd.DataFrame:
    """Join each guided draw to the unguided one of the same seed, and to its original."""
    labels = [f"label_{a}" for a in guided_by]
    checks = [f"check_{a}" for a in guided_by if f"check_{a}" in guided]
    unguided = samples[[*DRAW_KEYS, "status", *labels, *(f"sr_{a}" for a in guided_by)]]
    rows = unguided.merge(
        guided[[*DRAW_KEYS, "feasible", "shown", *checks]], on=DRAW_KEYS, validate="1:1"
    )
    # columns of the second model that both tables have: those of originals end in _hr
    faces = originals[["face_id", *(f"hr_{a}" for a in guided_by), *checks]]
    rows = rows.merge(faces, on="face_id", validate="m:1", suffixes=("", "_hr"))
    if len(rows) != len(guided):
        raise InputError(
            f"sources/guided.parquet: {len(guided) - len(rows)} of its {len(guided)} draws are "
            "not in the samples; run the same command again"
        )

    def labelled_as(columns: Sequence[str]) -> pd.Series[bool]:
        # what is missing agrees with nothing
        equal = [
            rows[a].eq(rows[b]) & rows[a].notna() for a, b in zip(labels, columns, strict=True)
        ]
        return pd.concat(equal, axis=1).all(axis=1)

    # An output that failed or shows no face does not show the group, whatever was predicted.
    failed = rows["status"].isin(["error", "no_face"])
    rows["group"] = rows[labels].astype(str).agg(JOIN.join, axis=1)
    rows["retained"] = labelled_as([f"sr_{a}" for a in guided_by]) & ~failed
    rows["read"] = labelled_as([f"hr_{a}" for a in guided_by])
    if checks:
        rows["confirmed"] = labelled_as(checks)
        rows["checked"] = labelled_as([f"{c}_hr" for c in checks])
    return rows.sort_values(DRAW_KEYS, kind="stable")


def composition_rows(
    prior: pd.DataFrame, manifest: Manifest, confidence: float
) -> Iterator[EstimateRow]:
    """Compositions of each generator's prior, its training set and the evaluation faces.

    Per arm, for every group of every labelled attribute: ``prior_share`` (also ``corrected`` by
    the model card's confusion, where it has one), ``training_share``, ``evaluation_share``, and
    their differences such as ``prior_minus_training``; for the whole prior ``prior_lightness`` and
    ``prior_ita``. Training and evaluation shares are counts of known sets.
    """
    # the samples of a prior are independent of each other: no clusters
    for arm, drawn in prior.groupby("arm", sort=False):
        # A prior belongs to no condition and no scale.
        key = SubsetKey(str(arm), ALL, 0)
        for tone in ("lightness", "ita"):
            values = drawn[tone].dropna().to_numpy()
            if len(values) > 1:
                mean = sources.independent_mean(values, confidence)
                yield make_row(key, f"prior_{tone}", ALL, ALL, mean)
        for attribute in _model(manifest).vocabulary:
            yield from _attribute_compositions(key, attribute, drawn, manifest, confidence)


def _attribute_compositions(
    key: SubsetKey, attribute: str, drawn: pd.DataFrame, manifest: Manifest, confidence: float
) -> Iterator[EstimateRow]:
    """Shares of one attribute's groups in the three sets, and the differences between sets."""
    # An attribute that the data set does not label has nothing to be compared with.
    labels = [face.labels.get(attribute) for face in manifest.faces]
    if attribute not in manifest.dataset.vocabulary or not any(labels):
        return
    # Shares of the prior are a sample's, those of the two data sets are counts.
    model = _model(manifest)
    words = model.vocabulary[attribute]
    counts = [int((drawn[f"sr_{attribute}"] == word).sum()) for word in words]
    shares = {"prior": sources.composition(counts, confidence)}
    counted: dict[str, Mapping[str, int] | None] = {
        "evaluation": {word: labels.count(word) for word in labels if word},
        "training": (_entry(manifest).training.get(key.arm) or {}).get(attribute),
    }
    for name, of_set in counted.items():
        if of_set:
            total = sum(of_set.values())
            shares[name] = [sources.census(of_set.get(w, 0), total, confidence) for w in words]
    for name, of_words in shares.items():
        for word, share in zip(words, of_words, strict=True):
            yield make_row(key, f"{name}_share", attribute, word, share)

    # Shares of the prior are also corrected by the held-out confusion of the model's card.
    card = card_counts(model, attribute, words)
    if card is not None:
        corrected = corrected_shares(
            np.arange(len(drawn)),
            pd.Index(words).get_indexer(pd.Index(drawn[f"sr_{attribute}"])),
            len(words),
            card,
            seed=fingerprint(manifest.spec.seed, "prior", key.arm, attribute),
            confidence=confidence,
        )
        for word, estimate in zip(words, corrected, strict=True):
            if estimate is not None:
                yield make_row(
                    key, "prior_share", attribute, word, estimate, correction="corrected"
                )

    # A known share has no error: the interval of a difference is that of the prior, moved.
    for one, other in (("prior", "training"), ("prior", "evaluation"), ("training", "evaluation")):
        if one in shares and other in shares:
            for word, share, less in zip(words, shares[one], shares[other], strict=True):
                difference = sources.less_known(share, less)
                yield make_row(key, f"{one}_minus_{other}", attribute, word, difference)


def uninformative_rows(
    table: pd.DataFrame, manifest: Manifest, confidence: float
) -> Iterator[EstimateRow]:
    """Apparent groups of the outputs of inputs that say little or nothing of a group.

    ``ucpr_share_<kind>`` per arm and scale, with condition ``clean``. The inputs are these and no
    sample of others, and draws of one input are independent, so that intervals of a multinomial
    sample are, if anything, too wide.
    """
    for (arm, _, kind), drawn in table.groupby(["arm", "scale", "kind"], sort=False):
        key = SubsetKey(str(arm), "clean", int(drawn["scale"].iloc[0]))
        for attribute, words in _model(manifest).vocabulary.items():
            # outputs of each apparent group; those without one are left out
            counts = [int((drawn[f"sr_{attribute}"] == word).sum()) for word in words]
            if sum(counts) == 0:
                continue
            for word, share in zip(words, sources.composition(counts, confidence), strict=True):
                yield make_row(key, f"ucpr_share_{kind}", attribute, word, share)


def ucpr_rows(
    table: pd.DataFrame, samples: pd.DataFrame, manifest: Manifest
) -> Iterator[EstimateRow]:
    """UCPR of each kind of input (the row's group), from the composition of the faces."""
    faces, vocabulary = samples.drop_duplicates("face_id"), _model(manifest).vocabulary
    # Reference composition of each labelled attribute: that of the evaluation faces.
    references = {
        attribute: reference_shares([int((faces[f"label_{attribute}"] == w).sum()) for w in words])
        for attribute, words in vocabulary.items()
        if f"label_{attribute}" in faces and faces[f"label_{attribute}"].notna().any()
    }
    for (arm, _, kind), drawn in table.groupby(["arm", "scale", "kind"], sort=False):
        key = SubsetKey(str(arm), "clean", int(drawn["scale"].iloc[0]))
        for attribute, reference in references.items():
            if f"sr_{attribute}" not in drawn:
                continue
            predicted = group_numbers(drawn[f"sr_{attribute}"], vocabulary[attribute])
            seed = fingerprint(manifest.spec.seed, "ucpr", str(kind), attribute)
            # draws of one input are resampled together
            for divergence in DIVERGENCES:
                inputs = drawn["input"].to_numpy()
                ucpr = sets.ucpr(inputs, predicted, reference, divergence, seed=seed)
                if isinstance(ucpr, Unavailable):
                    continue
                metric, detail = f"ucpr_{divergence}", {"plug_in": ucpr.plug_in}
                yield make_row(key, metric, attribute, str(kind), ucpr.estimate, detail=detail)


def _model(manifest: Manifest) -> AttributesEntry:
    """Return what the manifest says of the attribute model, without which there are no sources."""
    if manifest.attributes is None:
        raise InputError("manifest.json: sources/ needs an attribute model, and none is recorded")
    return manifest.attributes


def _entry(manifest: Manifest) -> SourcesEntry:
    """Return what the manifest says of ``sources/``."""
    if manifest.sources is None:
        raise InputError("manifest.json: sources/ is there, and no entry describes it")
    return manifest.sources
