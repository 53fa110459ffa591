"""What a run takes from all of its originals before it judges an output.

NIQE's model of natural faces, and the cosine above which two faces count as one person. Both are
taken once, from the originals one by one in the order of the plan, and kept beside the samples,
so that a resumed run judges by the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_audit.metrics.identity import Threshold, group_false_accepts, impostor_threshold
from pulse_audit.metrics.naturalness import PATCH, NiqeModel
from pulse_audit.types import Estimate, InputError, Unavailable

Embedding = NDArray[np.float32]


@dataclass(frozen=True)
class References:
    """What outputs are judged by; None where it is not asked for or cannot be taken.

    ``unavailable`` says why, by metric; ``false_accepts`` are the shares of pairs of different
    originals above the threshold, by group.
    """

    niqe: NiqeModel | None
    threshold: Threshold | None
    false_accepts: Mapping[str, Estimate]
    unavailable: Mapping[str, str]

    def summary(self) -> dict[str, Any]:
        """Return what the manifest says of them."""
        niqe = self.niqe and {
            "patch": self.niqe.patch,
            "n_images": self.niqe.n_images,
            "n_patches": self.niqe.n_patches,
        }
        verified = self.threshold and {
            **asdict(self.threshold),
            "rule": self.threshold.describe(),
            "false_accepts": {group: asdict(e) for group, e in self.false_accepts.items()},
        }
        return {"niqe": niqe, "verified": verified, "unavailable": dict(self.unavailable)}

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON values, exact to the bit."""
        model = self.niqe and {
            "mean": self.niqe.mean.tolist(),
            "covariance": self.niqe.covariance.tolist(),
        }
        return {**self.summary(), "model": model}


def read(stored: Mapping[str, Any]) -> References:
    """Read what `References.as_json` wrote.

    Raises
    ------
    InputError
        If it is something else.
    """
    try:
        niqe, verified = stored["niqe"], stored["verified"]
        model = niqe and NiqeModel(
            mean=torch.tensor(stored["model"]["mean"], dtype=torch.float64),
            covariance=torch.tensor(stored["model"]["covariance"], dtype=torch.float64),
            **niqe,
        )
        numbers = ("cosine", "rate", "n_pairs", "n_faces")
        threshold = verified and Threshold(**{name: verified[name] for name in numbers})
        accepts = verified["false_accepts"] if verified else {}
        return References(
            model,
            threshold,
            {group: Estimate(**values) for group, values in accepts.items()},
            dict(stored["unavailable"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"references.json: damaged ({error}); choose another --out") from None


def fit(
    originals: Iterable[tuple[Tensor, Embedding | None]],
    groups: Sequence[str],
    patch: int | None,
    verify: bool,
) -> References:
    """Take the references of a run.

    Parameters
    ----------
    originals : iterable of (image (3, R, R), embedding (d,) or None)
        Every original once, in the order of the plan.
    groups : sequence of str
        Group of each original, for the false-accept rates.
    patch : int or None
        Side of NIQE's patches; None: no NIQE.
    verify : bool
        Whether a threshold of verification is wanted.
    """
    embeddings: list[Embedding] = []

    def images() -> Iterable[Tensor]:
        for image, embedding in originals:
            if embedding is not None:
                embeddings.append(embedding)
            yield image

    reasons: dict[str, str] = {}
    niqe = NiqeModel.fit(images(), patch) if patch else None
    if patch is None:
        list(images())
    if isinstance(niqe, Unavailable):
        reasons["niqe" if patch == PATCH else "niqe_small"] = niqe.reason
    threshold = impostor_threshold(np.stack(embeddings)) if verify else None
    accepts: dict[str, Estimate] = {}
    if isinstance(threshold, Unavailable):
        reasons["verified"] = threshold.reason
    elif threshold is not None:
        found = group_false_accepts(np.stack(embeddings), groups, threshold)
        accepts = {group: e for group, e in found.items() if isinstance(e, Estimate)}
    return References(
        None if isinstance(niqe, Unavailable) else niqe,
        None if isinstance(threshold, Unavailable) else threshold,
        accepts,
        reasons,
    )
