"""Simulated audits of known truth: a manifest and samples as a run leaves them.

Faces of seven groups are balanced by their labels. Every draw has a true group, by the arm's shift
matrix, and a predicted one, by the attribute model's confusion matrix. Both are correlated within
faces. Labels are people's (the true group), or the model's own predictions of the originals; the
model's card then holds a held-out confusion matrix of the size of the shipped net's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from pulse_audit import store
from pulse_audit.calibration.scenarios import categories
from pulse_audit.stats.intervals import FloatArray, IntArray

Outputs: TypeAlias = Literal["the originals", "other photos", "equal arms", "shifted"]
ModelName: TypeAlias = Literal["shipped net", "accuracy .9"]

#: The shipped attribute net, and the image size of its confusion matrix.
NET, SIZE = Path(__file__).resolve().parents[1] / "assets" / "faces-attributes.json", "32"
#: Retention of arms that are neither perfect nor biased, and of planted ones without their shift.
RETENTION, UNSHIFTED = 0.7, 0.88
#: The planted shift is from one group to another: positions of Black and White in the vocabulary.
FROM, TO = 1, 0
#: Share of draws without a face, alike in all groups, except where outputs are the originals.
NO_FACE = 0.05
#: Correlations within a face: of the draws' true groups, and of the model's answers to draws of
#: equal group.
GROUP_CORRELATION, ANSWER_CORRELATION = 0.5, 0.3


@dataclass(frozen=True)
class AuditDesign:
    """The situation that an audit is simulated in.

    Parameters
    ----------
    outputs : str
        ``the originals`` (a perfect upsampler), ``other photos`` (each of another person of the
        same group), ``equal arms`` (two arms that keep .7 of every group), or ``shifted`` (the
        first of two arms turns a share of one group into another).
    faces, draws : int
        Faces a labelled group, draws a face.
    model : str
        Whose confusion matrix is true of originals and outputs.
    labels_from : str
        ``people`` or ``model``.
    shift : float
        Share of Black faces that the first arm turns White; 0 unless ``shifted``.
    """

    outputs: Outputs
    faces: int
    draws: int
    model: ModelName = "shipped net"
    labels_from: Literal["people", "model"] = "people"
    shift: float = 0.0

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms; the planted shift is in the first."""
        return ("first", "second") if self.outputs in ("equal arms", "shifted") else ("first",)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is true of a simulated audit.

    Parameters
    ----------
    groups : tuple of str, (k,)
    composition : ndarray, (k,)
        Shares of the true groups among the faces; sums to 1.
    shift : mapping of arm to ndarray, (k, k)
        P(true group of the output | true group of the face); a row sums to 1 less the share of
        draws without a face.
    apparent : mapping of arm to ndarray, (k, k)
        P(predicted group of the output | label of the face): what uncorrected rows estimate.
    """

    groups: tuple[str, ...]
    composition: FloatArray
    shift: Mapping[str, FloatArray]
    apparent: Mapping[str, FloatArray]


@dataclass(frozen=True, eq=False)
class SimulatedAudit:
    """A manifest and samples as a run leaves them, and the truth behind them."""

    manifest: store.Manifest
    samples: pd.DataFrame
    truth: Truth


@cache
def held_out() -> tuple[tuple[str, ...], IntArray]:
    """Words and held-out confusion counts (7, 7) of the shipped attribute net at 32 px."""
    content = json.loads(NET.read_text())
    counts = content["card"]["held_out"][SIZE]["race"]
    return tuple(content["vocabulary"]["race"]), np.array(counts, dtype=np.int64)


def confusion(model: ModelName) -> FloatArray:
    """Return an attribute model's true confusion matrix, (7, 7), row the true group."""
    groups, counts = held_out()
    if model == "shipped net":
        return np.asarray(counts / counts.sum(axis=1, keepdims=True), dtype=np.float64)
    return retaining(0.9, len(groups))


def retaining(share: float, k: int) -> FloatArray:
    """Matrix (k, k) with ``share`` on the diagonal and the rest of each row spread evenly."""
    matrix = np.full((k, k), (1 - share) / (k - 1))
    np.fill_diagonal(matrix, share)
    return matrix


def shift_matrices(design: AuditDesign) -> dict[str, FloatArray]:
    """Return each arm's true shift matrix, (7, 7), of the draws that show a face."""
    k = len(held_out()[0])
    if design.outputs in ("the originals", "other photos"):
        return {"first": np.eye(k)}
    if design.outputs == "equal arms":
        return {arm: retaining(RETENTION, k) for arm in design.arms}
    planted = retaining(UNSHIFTED, k)
    planted[FROM, FROM] -= design.shift
    planted[FROM, TO] += design.shift
    return {"first": planted, "second": retaining(UNSHIFTED, k)}


def simulated_audit(design: AuditDesign, random: np.random.Generator) -> SimulatedAudit:
    """Simulate an audit: its faces, what each arm makes of them, and what the model says of both.

    Parameters
    ----------
    design : AuditDesign
    random : numpy.random.Generator

    Notes
    -----
    With probability `GROUP_CORRELATION` all draws of a face have the face's own usual group, which
    arms share, otherwise each draw has a group of its own: this is the correlation of their
    groups. With probability `ANSWER_CORRELATION` the model's answers to all draws of a face come
    from one random number, so that draws of equal group get equal answers.
    """
    groups, counts = held_out()
    model, k = confusion(design.model), len(groups)
    n, draws = k * design.faces, design.draws
    # faces balanced by label; a model's label hides a true group, all equally frequent beforehand
    labels = np.repeat(np.arange(k), design.faces)
    by_people = design.labels_from == "people"
    behind = np.eye(k) if by_people else (model / model.sum(axis=0)).T
    faces = categories(random.random(n), behind[labels])
    originals = categories(random.random(n), model[faces]) if by_people else labels
    # random numbers that arms share: the usual group of a face, and whether its draws have it
    usual, has_usual = random.random((n, 1)), random.random((n, 1)) < GROUP_CORRELATION

    matrices, is_original = shift_matrices(design), design.outputs == "the originals"
    frames = []
    for arm, matrix in matrices.items():
        # true groups of the draws, and the model's answers to them, (faces, draws) each
        numbers = np.where(has_usual, usual, random.random((n, draws)))
        outputs = categories(numbers, matrix[faces][:, None])
        is_alike = random.random((n, 1)) < ANSWER_CORRELATION
        numbers = np.where(is_alike, random.random((n, 1)), random.random((n, draws)))
        answers = categories(numbers, model[outputs])
        no_face = random.random((n, draws)) < NO_FACE
        if is_original:
            answers, no_face = np.repeat(originals[:, None], draws, axis=1), np.zeros_like(no_face)
        frames.append(samples_of_arm(arm, groups, labels, originals, answers, no_face))

    # the truth in numbers; without a face a draw has no group
    shown = 1.0 if is_original else 1 - NO_FACE
    posterior, seen = behind, {arm: shown * matrix @ model for arm, matrix in matrices.items()}
    apparent = {arm: posterior @ matrix for arm, matrix in seen.items()}
    if is_original:
        apparent = {"first": model if by_people else np.eye(k)}
    truth = Truth(
        groups,
        np.bincount(faces, minlength=k) / n,
        {arm: shown * matrix for arm, matrix in matrices.items()},
        apparent,
    )
    # the card is a sample, too: as many held-out faces a group as the shipped net's
    card = np.stack(
        [random.multinomial(size, row) for size, row in zip(counts.sum(axis=1), model, strict=True)]
    )
    return SimulatedAudit(manifest_of(design, card), pd.concat(frames, ignore_index=True), truth)


def samples_of_arm(
    arm: str,
    groups: tuple[str, ...],
    labels: IntArray,
    originals: IntArray,
    answers: IntArray,
    no_face: np.ndarray[Any, np.dtype[np.bool_]],
) -> pd.DataFrame:
    """Rows of one arm in the columns of a run's samples.

    ``labels`` and ``originals`` are (faces,), ``answers`` and ``no_face`` (faces, draws).
    """
    n, draws = answers.shape
    names, face = np.array(groups, dtype=object), np.repeat(np.arange(n), draws)
    samples = pd.DataFrame(
        {
            "face_id": np.array([f"{i:05d}.jpg" for i in range(n)], dtype=object)[face],
            "arm": arm,
            "condition": "clean",
            "scale": 8,
            "draw": np.tile(np.arange(draws), n),
            "status": np.where(no_face.ravel(), "no_face", "ok"),
            "feasible": True,
            "label_race": names[labels[face]],
            "hr_race": names[originals[face]],
            "sr_race": names[answers.ravel()],
        }
    )
    samples.loc[no_face.ravel(), "sr_race"] = None
    return samples


def manifest_of(design: AuditDesign, card: IntArray) -> store.Manifest:
    """Manifest of a simulated audit whose attribute model has these held-out counts, (k, k)."""
    words = list(held_out()[0])
    return store.check_manifest(
        {
            "schema": 1,
            "spec": {"group_by": ["race"], "conditions": ["clean"], "scales": [8]},
            "dataset": {"vocabulary": {"race": words}, "labels_from": design.labels_from},
            "attributes": {
                "name": design.model,
                "vocabulary": {"race": words},
                "predicted_as": {"race": "race"},
                "labels_from": design.labels_from,
                "card": {"vocabulary": {"race": words}, "confusion": {"race": card.tolist()}},
            },
            "arms": {arm: {"kind": "folder", "promises_feasibility": False} for arm in design.arms},
            "faces": [],
            "units": [],
        }
    )
