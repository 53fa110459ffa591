"""What a run takes from all its originals: NIQE's model and the threshold of verification."""

import json

import numpy as np
import pytest
import torch

from pulse_audit.harness.measure import fit_references, read_references
from pulse_audit.types import InputError


def originals(n: int) -> list:
    """Noise of 64 px with four patches of 32 px each, and unit vectors in 16 dimensions."""
    draw = torch.Generator().manual_seed(0)
    images = 0.5 + 0.1 * torch.randn(n, 3, 64, 64, generator=draw)
    vectors = np.random.default_rng(0).standard_normal((n, 16)).astype(np.float32)
    return list(zip(images, vectors, strict=True))


def test_what_is_stored_comes_back_to_the_bit() -> None:
    found = fit_references(iter(originals(50)), ["a", "b"] * 25, 32, verify=True)
    again = read_references(json.loads(json.dumps(found.as_json())))
    assert found.niqe is not None and again.niqe is not None
    assert torch.equal(again.niqe.mean, found.niqe.mean)
    assert torch.equal(again.niqe.covariance, found.niqe.covariance)
    assert again.threshold == found.threshold and again.threshold is not None
    assert again.false_accepts == found.false_accepts and set(found.false_accepts) == {"a", "b"}


def test_the_threshold_lets_the_stated_share_of_strangers_through() -> None:
    """Counted anew over all pairs."""
    pairs = originals(50)
    threshold = fit_references(iter(pairs), ["a"] * 50, None, verify=True).threshold
    assert threshold is not None and threshold.rate == 0.01
    unit = np.stack([v / np.linalg.norm(v) for _, v in pairs]).astype(float)
    cosines = (unit @ unit.T)[np.triu_indices(50, 1)]
    assert (cosines > threshold.cosine).sum() == int(0.01 * len(cosines))


def test_too_few_originals_are_a_reason_not_a_number() -> None:
    found = fit_references(iter(originals(5)), ["a"] * 5, 32, verify=True)
    assert found.niqe is None and found.threshold is None
    assert set(found.unavailable) == {"niqe_small", "verified"}


def test_nothing_is_taken_that_was_not_asked_for() -> None:
    found = fit_references(iter(()), [], None, verify=False)
    assert found.summary() == {"niqe": None, "verified": None, "unavailable": {}}


def test_a_damaged_file_costs_one_line() -> None:
    with pytest.raises(InputError, match=r"references\.json"):
        read_references({"niqe": {"patch": 32}})


@pytest.mark.parametrize("part", ["niqe", "verified", "unavailable"])
def test_parts_of_another_kind_are_refused_in_one_line(part):
    whole = {"niqe": None, "verified": None, "unavailable": {}}
    verified = {"cosine": 0.5, "rate": 0.01, "n_pairs": 9, "n_faces": 9, "false_accepts": None}
    changed = {"niqe": {"patch": [1]}, "verified": verified, "unavailable": 3}
    with pytest.raises(InputError, match="references.json: damaged"):
        read_references(whole | {part: changed[part]})
