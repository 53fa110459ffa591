"""Finished runs of known outcomes, written as a run's are."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pulse_audit import store
from pulse_audit.summary import summarise_run, write

GROUPS = ["White", "Black", "Indian"]
#: Held-out counts of the attribute model's card.
CARD = [[190, 5, 5], [5, 190, 5], [5, 5, 190]]


def draw_outcomes(rates, faces, draws, icc=0.5, seed=0):
    """Outcomes (groups, faces, draws) with these rates and correlation within faces."""
    rng = np.random.default_rng(seed)
    usual, is_usual = rng.random((2, len(rates), faces, draws))
    usual = np.where(is_usual < np.sqrt(icc), usual[..., :1], usual)
    return usual < np.array(rates)[:, None, None]


def lighter(shade):
    return None if np.isnan(shade) else 50.0 + shade


def make_run(path: Path, outcomes: dict, lightness=0.0, prefix="", vectors=None, **changes):
    """A run whose arms retain the group of (groups, faces, draws) as ``outcomes`` says.

    Odd faces of each group are women. ``lightness`` is added to that of the outputs; ``vectors``
    are features of outputs (groups, faces, draws, d) and originals (groups, faces, d); ``changes``
    replace entries of the manifest.
    """
    if vectors is not None:
        changes["features"] = {"network": "net", "dim": vectors[1].shape[-1]}
    first = next(iter(outcomes.values()))
    k, n, draws = first.shape
    faces = [(f"{prefix}{g}-{i:04d}.png", g, i) for g in range(k) for i in range(n)]
    units = [
        {
            "id": f"u{number}", "arm": arm, "condition": "clean", "scale": 4,
            "draws": [[name, draw] for name, _, _ in faces for draw in range(draws)],
        }
        for number, arm in enumerate(outcomes)
    ]  # fmt: skip
    words = {"race": GROUPS[:k], "gender": ["Male", "Female"]}
    manifest = {
        "schema": 1,
        "status": "complete",
        "spec": {"dataset": "x", "conditions": ["clean"], "scales": [4], "group_by": ["race"]},
        "dataset": {"name": "x", "vocabulary": words, "labels_from": "people"},
        "attributes": {
            "name": "net", "vocabulary": {"race": GROUPS[:k]}, "predicted_as": {"race": "race"},
            "labels_from": "people", "confusion": {"race": [row[:k] for row in CARD[:k]]},
        },
        "faces": [
            {"id": name, "labels": {"race": GROUPS[g]}, "sha256": name} for name, g, _ in faces
        ],
        "arms": {
            arm: {"kind": "interpolation" if arm == "bicubic" else "pulse"} for arm in outcomes
        },
        "units": units,
        "unavailable": {"lpips": "its weights are not fetched"},
        **changes,
    }  # fmt: skip
    path.mkdir()
    run = store.create_run(path, store.check_manifest(manifest))
    rng = np.random.default_rng(9)
    shades = rng.normal(0, 1, (k, n, draws)) + lightness
    for unit, (arm, kept) in zip(units, outcomes.items(), strict=True):
        run.write_unit(
            unit["id"],
            [
                {
                    "face_id": name, "dataset": "x", "arm": arm, "condition": "clean", "scale": 4,
                    "draw": draw, "seed": 1, "status": "ok", "feasible": bool(kept[g, i, draw]),
                    "label_race": GROUPS[g], "label_gender": ["Male", "Female"][i % 2],
                    "hr_race": GROUPS[g],
                    "sr_race": GROUPS[g if kept[g, i, draw] else (g + 1) % k],
                    "hr_lightness": 50.0, "sr_lightness": lighter(shades[g, i, draw]),
                }
                for name, g, i in faces
                for draw in range(draws)
            ],
            None if vectors is None else vectors[0].reshape(-1, vectors[0].shape[-1]),
        )  # fmt: skip
    if vectors is not None:
        run.write_originals({name: vectors[1][g, i] for name, g, i in faces})
    write(run, summarise_run(run))
    return path


@pytest.fixture
def outcomes():
    return draw_outcomes


@pytest.fixture
def run_of(tmp_path):
    """Make a run in a folder of its own."""
    return lambda name, kept, **more: make_run(tmp_path / name, kept, **more)


@pytest.fixture
def rules_of(tmp_path):
    """Write rules, each given as keywords, into a file."""

    def write_rules(*rules, **more):
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump({**more, "rules": list(rules)}))
        return path

    return write_rules
