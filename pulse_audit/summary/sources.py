"""Rows of ``sources/``: sources of the shift, compositions of priors, uninformative inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import numpy as np
import pandas as pd

from pulse_audit.fairness import sets, sources
from pulse_audit.fairness.correction import corrected_shares
from pulse_audit.fairness.divergence import DIVERGENCES, reference_shares
from pulse_audit.fairness.sources import AttributedDraws, Searches
from pulse_audit.seeding import fingerprint
from pulse_audit.store import SEARCHES, Manifest
from pulse_audit.store.manifest import AttributesEntry, SourcesEntry
from pulse_audit.summary.attributes import card_counts, group_numbers
from pulse_audit.summary.groups import DRAW_KEYS, JOIN, ordered
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
        Of the run, with ``label_<a>``, ``hr_<a>`` and ``sr_<a>`` of the guided attributes.
    manifest : Manifest
        Its entry ``sources`` says which attributes guided and what is known of the generators'
        training sets.
    confidence : float
        Of every interval.

    Raises
    ------
    InputError
        If the manifest has no such entry, or the searches are not those of the lost draws.
    """
    return [
        *guided_rows(tables["guided"], tables["originals"], samples, manifest, confidence),
        *composition_rows(tables["prior"], manifest, confidence),
        *uninformative_rows(tables["uninformative"], manifest, confidence),
        *ucpr_rows(tables["uninformative"], samples, manifest),
    ]


def unavailable_sources(rows: Sequence[EstimateRow], manifest: Manifest) -> dict[str, str]:
    """Say which metrics of ``sources/`` have no row in a run, and why.

    The preference of a fair sampler has none in any: it would stand beside ``source_preference``.
    """
    measured = {row.metric for row in rows}
    # Without a lost draw nothing is searched; of two groups every wrong one is that of the output.
    unsearched = "no draw of a face whose original is read right was lost"
    no_third = "the outputs of the lost draws show the only other group, so that none is wrong"
    # A run of an earlier version records no reason for having no second model.
    unchecked = _entry(manifest).as_dict().get("unchecked")
    unseen = str(unchecked or "no guided search shows the group")
    reasons = {
        "source_preference_fair": "the preference that a sampler fair in the sense of CPR would "
        "score needs draws from the posterior, which this run has not",
        "guided_shown": unsearched,
        "placebo_shown": unsearched,
        "wrong_shown": no_third if "guided_shown" in measured else unsearched,
        "source_adversarial": unseen,
        "guided_confirmed": unseen,
        "wrong_confirmed": unseen,
    }
    return {metric: reason for metric, reason in reasons.items() if metric not in measured}


def attributed(samples: pd.DataFrame, guided_by: Sequence[str]) -> pd.DataFrame:
    """Say of every draw what became of the group of its face.

    Parameters
    ----------
    samples : DataFrame
        With ``label_<a>``, ``hr_<a>`` and ``sr_<a>`` of the attributes that guide.
    guided_by : sequence of str

    Returns
    -------
    DataFrame
        The samples with ``group``, ``apparent`` (group of the output; empty where it has none), and
        the flags ``read`` (the original is classified as its group), ``retained`` (the output is)
        and ``lost`` (read and not retained).
    """
    labels, originals, outputs = (
        samples[[f"{side}_{a}" for a in guided_by]] for side in ("label", "hr", "sr")
    )
    # An output that failed or shows no face shows no group, whatever was predicted.
    failed = samples["status"].isin(["error", "no_face"])
    group = _joined(labels)
    read = (group == _joined(originals)) & (group != "")
    retained = (group == _joined(outputs)) & (group != "") & ~failed
    return samples.assign(
        group=group,
        apparent=_joined(outputs).mask(failed, ""),
        read=read,
        retained=retained,
        lost=read & ~retained,
    )


def _joined(words: pd.DataFrame) -> pd.Series[str]:
    """Group of every row of words; empty where a word is missing."""
    parts = [words[column].astype(str) for column in words]
    return reduce(lambda left, right: left + JOIN + right, parts).where(
        words.notna().all(axis=1), ""
    )


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
    checks = [f"check_{a}" for a in guided_by if f"check_{a}" in guided]
    # Draws of the arms that search, and what became of them.
    arms = [name for name, arm in manifest.arms.items() if arm.kind == "pulse"]
    rows = attributed(samples[samples["arm"].isin(arms)], guided_by)
    rows = rows.sort_values(DRAW_KEYS, kind="stable")
    searches = {kind: _searches(guided, rows, kind, checks) for kind in SEARCHES}
    if not all((searches[kind].made == rows["lost"]).all() for kind in ("own", "placebo")):
        raise InputError(
            "sources/guided.parquet: its searches are not those of the lost draws of the samples; "
            "run the same command again"
        )
    checked = None
    if checks:
        seen = _joined(originals.set_index("face_id")[checks]).reindex(rows["face_id"])
        checked = (seen.to_numpy() == rows["group"]).to_numpy(np.bool_)
    groups = ordered(rows["group"], guided_by, manifest)
    draws = AttributedDraws(
        faces=pd.factorize(rows["face_id"], sort=True)[0].astype(np.int64),
        groups=pd.Index(groups).get_indexer(pd.Index(rows["group"])).astype(np.int64),
        read=rows["read"].to_numpy(np.bool_),
        retained=rows["retained"].to_numpy(np.bool_),
        checked=checked,
        own=searches["own"],
        placebo=searches["placebo"],
        wrong=searches["wrong"],
    )

    # Of each setting all draws come first, then those of each group in order.
    settings = rows.reset_index(drop=True).groupby(["arm", "condition", "scale"], sort=False)
    for (arm, condition, _), chosen in settings:
        key = SubsetKey(str(arm), str(condition), int(chosen["scale"].iloc[0]))
        of_setting = draws.subset(np.isin(np.arange(len(rows)), chosen.index))
        splits = [(ALL, ALL, sources.split_estimates(of_setting, confidence, {}))]
        # The correlation of draws of a face is pooled over groups, as small ones cannot tell it.
        pooled = of_setting.correlations()
        for number, group in enumerate(groups):
            inside = of_setting.groups == number
            if inside.any():
                split = sources.split_estimates(of_setting.subset(inside), confidence, pooled)
                splits.append((",".join(guided_by), group, split))
        for group_by, group, split in splits:
            for (metric, correction), estimate in split.items():
                yield make_row(key, metric, group_by, group, estimate, correction=correction)


def _searches(
    guided: pd.DataFrame, rows: pd.DataFrame, kind: str, checks: Sequence[str]
) -> Searches:
    """Align the searches of one kind with draws; ``checks`` are the second model's columns."""
    of_kind = guided[guided["search"] == kind].set_index(DRAW_KEYS)
    index = pd.MultiIndex.from_frame(rows[DRAW_KEYS])
    if not of_kind.index.is_unique or not of_kind.index.isin(index).all():
        raise InputError(
            f"sources/guided.parquet: its {kind!r} searches are not one for each draw of the "
            "samples; run the same command again"
        )
    confirmed = None
    if checks:
        agrees = (_joined(of_kind[checks]) == of_kind["toward"]).reindex(index)
        confirmed = agrees.eq(True).to_numpy(np.bool_)
    flags = of_kind[["feasible", "shown"]].reindex(index)
    return Searches(
        made=flags["shown"].notna().to_numpy(np.bool_),
        feasible=flags["feasible"].eq(True).to_numpy(np.bool_),
        shown=flags["shown"].eq(True).to_numpy(np.bool_),
        confirmed=confirmed,
    )


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
