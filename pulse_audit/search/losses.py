"""The terms of PULSE's loss, each one value an image, so that batch mates never matter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_audit.types import InputError

GEOCROSS = "GEOCROSS"
# The official factor, written there as 512 / 8 whatever the size of the latent space.
GEOCROSS_FACTOR = 64.0
L1_FACTOR = 10.0
ROOT_FLOOR = 1e-9  # keeps the gradient of a square root finite at zero

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"\s*(?:({_NUMBER})\s*\*)?\s*([A-Za-z][\w.]*)\s*(\+(?=\s*\S)|$)")


@dataclass(frozen=True)
class Term:
    """One weighted term; ``power`` is p of an Lp term and None for GEOCROSS."""

    name: str
    weight: float
    power: float | None


def parse_loss(text: str) -> tuple[Term, ...]:
    """Read a loss such as ``100*L2+0.05*GEOCROSS``.

    Parameters
    ----------
    text : str
        Terms joined by ``+``, each ``weight*NAME`` or ``NAME``; names are ``GEOCROSS`` and ``Lp``
        with p at least 1 (``L1``, ``L2``, ``L1.5``, ...).

    Raises
    ------
    InputError
        If it cannot be read, or a term is unknown or given twice.
    """
    terms: list[Term] = []
    position = 0
    while position < len(text) or not terms:
        match = _TERM.match(text, position)
        if match is None:
            raise InputError(f'loss "{text}": cannot be read; write it as 100*L2+0.05*GEOCROSS')
        # One term, ``weight*NAME`` or ``NAME``, with the plus sign behind it if another follows.
        weight, name = float(match[1] or 1), match[2]
        norm = re.fullmatch(r"L(\d+(?:\.\d+)?)", name)
        if name != GEOCROSS and (norm is None or float(norm[1]) < 1):
            raise InputError(f'loss "{text}": {name} is not known; use GEOCROSS or Lp with p >= 1')
        terms.append(Term(name, weight, None if norm is None else float(norm[1])))
        position = match.end()
    if len({term.name for term in terms}) < len(terms):
        raise InputError(f'loss "{text}": a term is given twice')
    return tuple(terms)


def loss_terms(
    terms: Sequence[Term], downscaled: Tensor, lr: Tensor, styles: Tensor, eps: float
) -> dict[str, Tensor]:
    """Evaluate the terms, without their weights.

    Parameters
    ----------
    terms : sequence of Term
        From `parse_loss`.
    downscaled, lr : Tensor
        DS of the images and the input, (n, 3, h, w).
    styles : Tensor
        The network's own styles (n, L, D), on which GEOCROSS acts.
    eps : float
        Floor of each pixel term.

    Returns
    -------
    dict of str to Tensor
        One (n,) tensor a term.
    """
    difference = downscaled - lr
    return {
        term.name: geocross(styles)
        if term.power is None
        else pixel_loss(difference, term.power, eps)
        for term in terms
    }


def pixel_loss(difference: Tensor, power: float, eps: float) -> Tensor:
    """``max(mean |difference|^p, eps)`` of each image; ten times that for p = 1.

    Below eps the term is flat: an image that fits well enough is no longer pulled (Menon et al.
    2020, section 3.1). The factor of L1 is the official one. ``difference`` is (n, 3, h, w) on the
    [0, 1] scale, ``power`` is p, at least 1; returns (n,).
    """
    powered = difference.square() if power == 2 else difference.abs().pow(power)
    # The floor is on the mean of each image: (n, 3, h, w) -> (n,).
    floored = powered.mean(dim=(1, 2, 3)).clamp(min=eps)
    return floored * L1_FACTOR if power == 1 else floored


def geocross(styles: Tensor) -> Tensor:
    """Geodesic cross loss: mean squared angle between an image's style vectors, times 64.

    The mean is over all ordered pairs, a vector with itself included, of theta squared,
    ``theta = 2 atan2(|x - y|, |x + y|)``: the angle for vectors of one norm, and nearly it for
    others (Menon et al. 2020, section 3.3). Styles are (n, L, D); returns (n,), about 0 where all
    vectors of an image are equal.
    """
    # All pairs by broadcasting: (n, L, 1, D) with (n, 1, L, D) -> (n, L, L)
    x, y = styles[:, :, None], styles[:, None]
    apart = ((x - y).square().sum(-1) + ROOT_FLOOR).sqrt()
    along = ((x + y).square().sum(-1) + ROOT_FLOOR).sqrt()
    theta = 2 * torch.atan2(apart, along)
    return GEOCROSS_FACTOR * theta.square().mean(dim=(1, 2))


def negative_log_prior(tensors: Sequence[Tensor]) -> Tensor:
    """``-log p`` (n,) of standard normal values (n, ...) each, without its constant."""
    # Half the sum of squares over all tensors of an image.
    return torch.stack([t.square().flatten(1).sum(1) for t in tensors]).sum(0) / 2
