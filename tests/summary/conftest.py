"""A made-up run whose outputs have apparent groups, by a known matrix and a known instrument."""

import numpy as np
import pandas as pd
import pytest

from pulse_audit import store

RACES = ["White", "Black", "Indian"]
GENDERS = ["Male", "Female"]
#: Retention of the planted arm: Black faces kept to .4, else turned White.
SHIFT = np.array([[0.9, 0.05, 0.05], [0.5, 0.4, 0.1], [0.1, 0.05, 0.85]])
#: What the attribute model answers for each true group.
CONFUSION = np.array([[0.85, 0.05, 0.10], [0.05, 0.90, 0.05], [0.15, 0.10, 0.75]])


def seen(rng, groups, matrix=CONFUSION):
    cumulative = np.cumsum(matrix, axis=1)[groups]
    return np.minimum((rng.random(len(groups))[:, None] > cumulative).sum(axis=1), 2)


def make_samples(per_group=20, draws=2, arms=("pulse:g", "bicubic"), seed=0):
    """``pulse:g`` shifts groups by SHIFT, ``bicubic`` keeps them; the model errs by CONFUSION."""
    rng, n = np.random.default_rng(seed), 3 * per_group
    truth, original = np.arange(n) % 3, None
    original = seen(rng, truth)
    frames = []
    for arm in arms:
        kept = np.repeat(truth, draws)
        shown = kept if arm == "bicubic" else seen(rng, kept, SHIFT)
        output = seen(rng, shown)
        face = np.repeat(np.arange(n), draws)
        status = np.where(rng.random(len(face)) < 0.05, "no_face", "ok")
        frames.append(
            pd.DataFrame(
                {
                    "face_id": [f"val/{f:04d}.jpg" for f in face],
                    "arm": arm,
                    "condition": "clean",
                    "scale": 8,
                    "draw": np.tile(np.arange(draws), n),
                    "status": status,
                    "feasible": rng.random(len(face)) < 0.8,
                    "psnr": rng.normal(22, 2, len(face)),
                    "label_race": [RACES[g] for g in kept],
                    "hr_race": [RACES[g] for g in original[face]],
                    "sr_race": [RACES[g] for g in output],
                    "label_gender": [GENDERS[f // 3 % 2] for f in face],
                    "hr_ita": 40.0 - 30 * kept,
                    "sr_ita": 40.0 - 30 * shown,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def make_manifest(**changes):
    content = {
        "schema": 1,
        "faces": [],
        "units": [],
        "spec": {
            "group_by": [["race"], ["race", "gender"], ["skin_tone"]],
            "conditions": ["clean"],
            "scales": [8],
            "seed": 0,
        },
        "dataset": {"vocabulary": {"race": RACES, "gender": GENDERS}, "labels_from": "people"},
        "attributes": {
            "name": "net",
            "vocabulary": {"race": RACES},
            "predicted_as": {"race": "race"},
            "labels_from": "people",
            "card": {
                # another order than the run's, as cards may have
                "vocabulary": {"race": ["Black", "White", "Indian"]},
                "confusion": {"race": [[90, 5, 5], [5, 85, 10], [10, 15, 75]]},
            },
        },
        "arms": {"pulse:g": {"kind": "pulse"}, "bicubic": {"kind": "interpolation"}},
        "unavailable": {},
        **changes,
    }
    return store.check_manifest(content)


@pytest.fixture(scope="session")
def apparent_samples():
    return make_samples


@pytest.fixture(scope="session")
def apparent_manifest():
    return make_manifest
