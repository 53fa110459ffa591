"""Sampling errors of a confusion matrix and of the outputs' shares, joint over all arms.

Faces are the sample. A face brings its original's prediction and all its draws of all arms, so that
these have a joint covariance, estimated within every labelled group. Replicates of the errors are
normal with that covariance: unlike resampled faces they have spread where few faces show none, and
cost the same for any number of faces. To every group two faces are added whose predictions are
independent of each other: half as all faces of the arm, half evenly over the groups.

References
----------
A. Agresti and B. A. Coull (1998), American Statistician 52:119 (added observations). A. C. Davison
and D. V. Hinkley (1997), Bootstrap Methods and their Application, section 2.2 (parametric
resampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pulse_audit.fairness.confusion import Confusion, Outputs
from pulse_audit.stats.contrasts import with_covariance
from pulse_audit.stats.intervals import FloatArray

#: Faces added to each group.
ADDED = 2.0


@dataclass(frozen=True, eq=False)
class Noise:
    """Replicates of sampling errors, aligned: number r of each belongs to the same faces.

    Parameters
    ----------
    originals : ndarray, (replicates, k, k)
        Of the confusion matrix of the run's originals; 0 where it has none.
    card : ndarray, (replicates, k, k)
        Of the confusion matrix of the card; 0 where there is none.
    outputs : ndarray, (arms, replicates, rows, k)
        Of the shares of all draws.
    likeness : ndarray, (arms,)
        Slope of the predictions on a face's outputs on that on its original, within [0, 1]: 1
        where every output has the apparent group of its original, 0 where they are unrelated.
    """

    originals: FloatArray
    card: FloatArray
    outputs: FloatArray
    likeness: FloatArray


def sampling_noise(
    arms: Sequence[Outputs],
    confusion: Confusion,
    rows: int,
    replicates: int,
    rng: np.random.Generator,
) -> Noise:
    """Draw joint sampling errors.

    Parameters
    ----------
    arms : sequence of Outputs
    confusion : Confusion
    rows : int
        Rows of the matrices of observed shares: k, or another number where the confusion is a
        card's alone.
    replicates : int
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        If a face has one label among the originals and another among the outputs.
    """
    k = len(confusion.counts)
    # residuals of every face, (faces, parts k): of its original, then of its draws of each arm, so
    # that their sum of squares is the covariance of the shares
    originals = np.empty(0, dtype=np.int64) if confusion.faces is None else confusion.faces
    every = np.unique(np.concatenate([originals, *(outputs.faces for outputs in arms)]))
    row_of = np.full(len(every), -1, dtype=np.int64)
    residuals = np.zeros((len(every), (1 + len(arms)) * k))
    # shares of every part, (rows, parts k), and the predictions of added faces, (parts k,)
    n_rows = max(rows, k)
    shares, added = np.zeros((n_rows, (1 + len(arms)) * k)), np.zeros((1 + len(arms)) * k)
    truth, predicted = (
        np.empty(0, dtype=np.int64) if numbers is None else numbers
        for numbers in (confusion.truth, confusion.predicted)
    )
    parts = [(originals, truth, np.eye(k, k + 1, dtype=np.int64)[predicted])]
    parts += [(outputs.faces, outputs.row, outputs.counts) for outputs in arms]
    for part, (faces, row, counts) in enumerate(parts):
        columns, place = slice(part * k, (part + 1) * k), np.searchsorted(every, faces)
        if ((row_of[place] >= 0) & (row_of[place] != row)).any():
            raise ValueError("a face has one label among the originals, another among the outputs")
        row_of[place] = row
        # draws of every row by predicted group, (rows, k + 1), and their share
        totals = np.zeros((n_rows, k + 1))
        np.add.at(totals, row, counts)
        draws = np.maximum(totals.sum(axis=1, keepdims=True), 1.0)
        shares[:, columns] = (totals / draws)[:, :k]
        expected = shares[row, columns] * counts.sum(axis=1, keepdims=True)
        residuals[place, columns] = (counts[:, :k] - expected) / draws[row]
        if len(faces):
            added[columns] = (totals.sum(axis=0) / totals.sum())[:k] / 2 + 1 / (2 * k)

    noise = np.zeros((replicates, n_rows, (1 + len(arms)) * k))
    apart = np.kron(np.eye(1 + len(arms)), np.ones((k, k)))
    of_added = np.diag(added) - np.outer(added, added) * apart
    for row in np.unique(row_of):
        inside = residuals[row_of == row]
        n_faces = len(inside)
        # added faces: their own spread about their mean, and the distance of that from the group's
        away = np.where(added > 0, added - shares[row], 0.0)
        covariance = inside.T @ inside + ADDED * (of_added + np.outer(away, away)) / n_faces**2
        standard = rng.standard_normal((replicates, len(covariance)))
        noise[:, row] = with_covariance(standard, covariance * n_faces / max(n_faces - 1, 1))

    # faces of a card are independent, one multinomial a row; one face is added, evenly
    of_card = np.zeros((replicates, k, k))
    for group, counted in enumerate(() if confusion.card is None else confusion.card):
        n_card = max(int(counted.sum()), 1)
        share = (counted + 1 / k) / (n_card + 1)
        covariance = (np.diag(share) - np.outer(share, share)) / n_card
        standard = rng.standard_normal((replicates, len(covariance)))
        of_card[:, group] = with_covariance(standard, covariance)

    # the slope of each arm's residuals on those of the originals
    spread = float(np.square(residuals[:, :k]).sum())
    products = [
        float((residuals[:, :k] * residuals[:, part * k : (part + 1) * k]).sum())
        for part in range(1, 1 + len(arms))
    ]
    likeness = np.clip(np.array(products) / max(spread, 1e-12), 0.0, 1.0)
    by_part = noise.reshape(replicates, n_rows, 1 + len(arms), k)
    outputs = by_part[:, :rows, 1:].transpose(2, 0, 1, 3)
    return Noise(by_part[:, :k, 0], of_card, outputs, likeness)
