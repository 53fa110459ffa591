"""Update rules of the search: from a gradient and its moments to the direction of one step.

Written out here, because building the optimisers of torch takes seconds (they load its compiler)
and because images that leave a search take their moments along. A moment is updated in place;
the step is ``-learning_rate * direction``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
MOMENTUM = 0.9


@dataclass(frozen=True)
class Rule:
    """``direction(gradient, moments, t)`` at step t = 1, 2, ...; moments begin at zero."""

    moments: int
    direction: Callable[[Tensor, Sequence[Tensor], int], Tensor]


def _adam(gradient: Tensor, moments: Sequence[Tensor], t: int) -> Tensor:
    """Kingma & Ba 2015, algorithm 1."""
    first, second = moments
    first.lerp_(gradient, 1 - BETA1)
    second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    scale = second.sqrt().div_(math.sqrt(1 - BETA2**t)).add_(EPS)
    return (first / scale).div_(1 - BETA1**t)


def _adamax(gradient: Tensor, moments: Sequence[Tensor], t: int) -> Tensor:
    """Kingma & Ba 2015, algorithm 2."""
    first, largest = moments
    first.lerp_(gradient, 1 - BETA1)
    torch.maximum(largest.mul_(BETA2), gradient.abs().add_(EPS), out=largest)
    return (first / largest).div_(1 - BETA1**t)


def _sgd(gradient: Tensor, moments: Sequence[Tensor], t: int) -> Tensor:
    return gradient


def _momentum(gradient: Tensor, moments: Sequence[Tensor], t: int) -> Tensor:
    return moments[0].mul_(MOMENTUM).add_(gradient)


RULES = {
    "adam": Rule(2, _adam),
    "adamax": Rule(2, _adamax),
    "sgd": Rule(0, _sgd),
    "sgdm": Rule(1, _momentum),
}
