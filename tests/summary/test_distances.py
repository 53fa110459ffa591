"""Distances between features of outputs and of originals in the summary."""

import numpy as np
import pytest

from pulse_audit.stats.distances import kernel_distance
from pulse_audit.summary import summarise


def features_of(frame, rng, moved=0.0):
    originals = {face: rng.normal(size=4) for face in sorted(frame["face_id"].unique())}
    outputs = np.stack([originals[f] + rng.normal(moved, 0.5, 4) for f in frame["face_id"]])
    return outputs, originals


def only(made, **wanted):
    found = [r for r in made.estimates if all(getattr(r, k) == v for k, v in wanted.items())]
    assert len(found) == 1, found
    return found[0]


@pytest.fixture(scope="module")
def frame(apparent_samples):
    return apparent_samples(12, arms=("pulse:g",))


def test_kernel_distances_are_of_the_groups_own_outputs_and_originals(apparent_manifest, frame):
    outputs, originals = features_of(frame, np.random.default_rng(0), 1.0)
    manifest = apparent_manifest(features={"network": "net", "dim": 4, "why": None})
    shuffled = frame.sample(frac=1, random_state=1)  # features stay aligned with their rows
    made = summarise(manifest, shuffled, (outputs[shuffled.index.to_numpy()], originals))
    inside = (frame["label_race"] == "Black").to_numpy()
    names, faces = np.unique(frame["face_id"][inside], return_inverse=True)
    expected = kernel_distance(
        outputs[inside],
        np.stack([originals[name] for name in names]),
        faces,
        np.arange(len(names)),
    ).estimate
    row = only(made, metric="kid", group_by="race", group="Black")
    assert (row.value, row.low, row.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert row.detail == {"network": "net"}
    gap = only(made, metric="gpi_kid", group_by="race")
    groups = {r.group: r.value for r in made.estimates if (r.metric, r.group_by) == ("kid", "race")}
    assert gap.value == pytest.approx(max(groups.values()) - min(groups.values()))
    fid = only(made, metric="fid", group_by="all")
    assert fid.value > 3 and fid.low is None and "biased upwards" in fid.method


def test_draws_without_an_output_are_left_out_of_distances(apparent_manifest, frame):
    outputs, originals = features_of(frame, np.random.default_rng(0))
    outputs[:6] = np.nan
    made = summarise(apparent_manifest(), frame, (outputs, originals))
    assert only(made, metric="kid", group_by="all").n_draws == len(frame) - 6


def test_a_run_without_features_says_so(apparent_manifest, frame):
    manifest = apparent_manifest(features={"network": None, "dim": None, "why": "no model"})
    assert summarise(manifest, frame).unavailable["kid"] == "no model"
    unfinished = summarise(apparent_manifest(), frame, (np.zeros((len(frame), 4)), {}))
    assert "finished run" in unfinished.unavailable["kid"]
