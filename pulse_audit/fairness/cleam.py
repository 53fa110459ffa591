"""Composition of outputs by CLEAM, beside which an audit shows its own.

References
----------
C. T. H. Teo, M. Abdollahzadeh and N.-M. Cheung (2023), On Measuring Fairness in Generative Models,
NeurIPS (CLassifier Error-Aware Measurement).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from pulse_audit.fairness.confusion import group_numbers, tabulate
from pulse_audit.types import Estimate


def cleam(
    faces: ArrayLike,
    predicted: ArrayLike,
    confusion: ArrayLike,
    confidence: float = 0.95,
) -> list[Estimate]:
    """Shares of the groups among all draws, for an attribute model of known accuracy.

    Parameters
    ----------
    faces : array_like of int, (draws,)
        The face each draw belongs to. The published estimator takes the mean over batches of
        outputs; here the draws of a face are a batch.
    predicted : array_like of int, (draws,)
        Apparent group, 0 to k - 1, or -1 where there is none.
    confusion : array_like, (k, k)
        Shares of predictions by true group, rows summing to 1, not singular.
    confidence : float

    Returns
    -------
    list of Estimate, (k,)
        Not clipped, as published.

    Notes
    -----
    For two groups with accuracies a and b and the mean m over batches of the share predicted as the
    first, the estimate is (m - (1 - b)) / (a - (1 - b)) and its interval m plus and minus
    1.96 s / sqrt(batches), transformed alike (s the standard deviation, divided by the number of
    batches). This is m M^-1 with the confusion matrix M, which is what is computed for any number
    of groups. The accuracies are taken as known: that M was itself estimated widens nothing, and
    faces are taken as one sample, not as balanced over groups.
    """
    matrix = np.asarray(confusion, dtype=np.float64)
    k = len(matrix)
    answers = group_numbers(predicted, -1, k, "predicted")
    outputs = tabulate(faces, np.zeros(len(answers), dtype=np.int64), answers, k)
    # shares of each face's draws, corrected; (faces, k)
    draws = outputs.counts.sum(axis=1, keepdims=True)
    corrected = outputs.counts[:, :k] / draws @ np.linalg.inv(matrix)
    n = len(corrected)
    means = corrected.mean(axis=0)
    half = float(ndtri(0.5 + confidence / 2)) * corrected.std(axis=0) / math.sqrt(n)
    ends = np.stack([means, means - half, means + half], axis=1).tolist()
    method = "CLEAM (accuracy of the attribute model taken as known), a batch a face"
    numbers = n, int(draws.sum()), method, confidence
    return [Estimate(value, low, high, *numbers) for value, low, high in ends]
