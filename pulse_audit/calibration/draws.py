"""Simulated draws: outcomes nested in faces, with a rate and a within-face correlation."""

from __future__ import annotations

import numpy as np

from pulse_audit.stats.intervals import FloatArray


def face_rates(
    random: np.random.Generator, shape: tuple[int, ...], rate: float, icc: float
) -> FloatArray:
    """Chance of each face: Beta with mean ``rate``; draws of a face then correlate by ``icc``.

    At an ICC of 0 all faces have the same chance, at 1 every face has 0 or 1. Skellam (1948).
    """
    if icc == 0 or rate in (0.0, 1.0):
        return np.full(shape, rate)
    if icc == 1:
        return (random.random(shape) < rate).astype(np.float64)
    weight = (1 - icc) / icc
    return random.beta(rate * weight, (1 - rate) * weight, shape)


def successes(
    random: np.random.Generator, faces: int, rate: float, icc: float, draws: int
) -> FloatArray:
    """Successes of each face among its draws, (faces,): beta-binomial."""
    chances = face_rates(random, (faces,), rate, icc)
    return random.binomial(draws, chances).astype(np.float64)


def paired_outcomes(
    random: np.random.Generator,
    faces: int,
    draws: int,
    first: float,
    second: float,
    icc: float,
    alike: float,
) -> tuple[FloatArray, FloatArray]:
    """Outcomes of two arms on the same faces, (faces, draws) each, at rates ``first``, ``second``.

    With probability ``icc`` all draws of a face share their luck in an arm; with probability
    ``alike`` a face has the same luck in both arms, so that they differ only by their rates.
    """
    luck = random.random((2, faces, draws))
    together = random.random((2, faces)) < icc
    luck = np.where(together[..., None], luck[..., :1], luck)
    same = random.random(faces) < alike
    luck[1] = np.where(same[:, None], luck[0], luck[1])
    return (luck[0] < first).astype(np.float64), (luck[1] < second).astype(np.float64)
