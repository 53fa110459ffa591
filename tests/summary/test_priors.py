"""Rows and sentences on priors, from counts that are known."""

import pytest

from pulse_audit import store
from pulse_audit.fairness.prior import OWN, PRIORS, PULSE
from pulse_audit.metrics.registry import METRICS
from pulse_audit.store.priors import PriorTable
from pulse_audit.summary.priors import prior_rows, prior_sentences

ARM = "pulse:net"
MANIFEST = store.check_manifest(
    {
        "schema": 1, "units": [], "arms": {ARM: {"kind": "pulse"}}, "faces": [],
        "dataset": {"vocabulary": {"race": ["A", "B"]}},
        "spec": {"seed": 0, "group_by": ["age,race"]},
        "attributes": {"vocabulary": {"race": ["A", "B"]}},
    }
)  # fmt: skip


def table(pulse: list[int]) -> PriorTable:
    words = {prior: [500, 500] for prior in PRIORS} | {PULSE: pulse}
    counts = {prior: dict(zip("AB", of, strict=True)) for prior, of in words.items()}
    return PriorTable(
        counts={"race": counts},
        pairs={prior: [0.02, 0.04] * 250 for prior in PRIORS},
        unavailable={},
    )


def test_every_row_is_of_a_known_metric() -> None:
    rows = {(row.metric, row.group): row for row in prior_rows({ARM: table([900, 100])}, MANIFEST)}
    assert {metric for metric, _ in rows} <= {metric.name for metric in METRICS}
    share = rows["start_share_diagonal_per_layer", "A"]
    assert (share.value, share.n_draws, share.scale) == (0.9, 1000, 0)
    assert share.detail == {"prior": PULSE}
    moved = rows["start_moved_diagonal_per_layer", "all"]
    assert moved.low < 0.4 < moved.high
    assert rows["start_moved_full_tied", "all"].low == 0
    assert rows["start_variance_z", "all"].value == pytest.approx(0.03)
    assert ("start_moved_z", "all") not in rows


def test_a_sentence_says_who_is_shown_more_often() -> None:
    (said,) = prior_sentences({ARM: table([900, 100])}, MANIFEST)
    assert said.startswith("net: before any input, the prior of PULSE's search shows A faces more")
    assert "90 % against 50 % (by 40 points [36, 4" in said
    (said,) = prior_sentences({ARM: table([505, 495])}, MANIFEST)
    assert said == "net: no share under the prior of PULSE's search is shown to differ."


def test_without_both_priors_nothing_is_said() -> None:
    alone = PriorTable(
        counts={"race": {OWN: {"A": 1, "B": 3}}},
        pairs={OWN: [0.1, 0.2]},
        unavailable={PULSE: "why"},
    )
    assert list(prior_sentences({ARM: alone}, MANIFEST)) == []
