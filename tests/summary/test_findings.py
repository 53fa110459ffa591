"""Sentences made of estimates: of rows given here, and of a whole summary."""

import numpy as np
import pytest

from pulse_audit import store
from pulse_audit.calibration.audits import AuditDesign, simulated_audit
from pulse_audit.summary import EstimateRow, summarise
from pulse_audit.summary.attributes import make_groupings
from pulse_audit.summary.findings import compared_outputs, planted_matrices
from pulse_audit.summary.findings import findings as make_findings
from pulse_audit.summary.groups import make_subsets

ARMS = {"pulse:g": {"kind": "pulse"}, "bicubic": {"kind": "interpolation"}}


def manifest(arms):
    return store.check_manifest(
        {
            "schema": 1,
            "spec": {"group_by": [["race"]]},
            "dataset": {"vocabulary": {}},
            "arms": arms,
            "faces": [],
            "units": [],
        }
    )


MANIFEST = manifest(ARMS)


def findings(*arguments):
    return [finding.text for finding in make_findings(*arguments)]


def row(metric, value, low, high, group="all", arm="pulse:g", **changes):
    return EstimateRow(
        **{
            "arm": arm,
            "condition": "clean",
            "scale": 8,
            "metric": metric,
            "group_by": "all" if group == "all" else "race",
            "group": group,
            "value": value,
            "low": low,
            "high": high,
            "n_faces": 10,
            "n_draws": 20,
            "method": "",
            **changes,
        }
    )


def rates(*groups):
    return [
        row("feasible_rate", 0.9, 0.8, 0.95, n_faces=30, n_draws=60),
        *(row("feasible_rate", v, low, high, name) for name, v, low, high in groups),
    ]


def test_feasibility_comes_with_interval_and_sample():
    said = findings(MANIFEST, rates())[0]
    assert said == (
        "pulse:g found a feasible image in 90 % [80, 95] of draws (30 faces, 60 draws)."
    )


def test_the_range_over_groups_is_no_comparison():
    groups = [("White", 1.0, 0.9, 1.0), ("Black", 0.4, 0.2, 0.6), ("Indian", 0.5, 0.3, 0.7)]
    (finding, *_) = make_findings(MANIFEST, rates(*groups))
    assert finding.text.endswith(
        "from 40 % (Black) to 100 % (White), of which chance explains a part."
    )
    assert finding.screen == "more" and finding.claims == []


def test_equal_rates_name_no_lowest_group():
    groups = [("White", 1.0, 0.8, 1.0), ("Black", 1.0, 0.8, 1.0)]
    said = findings(MANIFEST, rates(*groups))[0]
    assert said.endswith("; 100 % in every group of race.") and "from" not in said


def test_lightness_comes_with_its_interval():
    said = findings(MANIFEST, [row("lightness_shift", 3.1, 2.0, 4.2)])[0]
    assert said == (
        "Mean lightness of pulse:g's outputs less their originals': +3.1 [+2.0, +4.2] L*."
    )


def test_errors_are_counted():
    said = findings(MANIFEST, [row("error_rate", 0.15, 0.05, 0.36)])
    assert said[0] == "3 of 20 draws of pulse:g ended in an error; they count as infeasible."


def test_what_is_to_be_known_of_arms_is_said_once_for_all_it_holds_for():
    arms = {
        name: {"kind": "pulse", "caveats": ["interim model"]} for name in ("pulse:g", "pulse:h")
    }
    rows = [row("feasible_rate", 0.9, 0.8, 0.95, arm=arm) for arm in arms]
    said = findings(manifest(arms), rows)
    assert said.count("pulse:g and pulse:h: interim model.") == 1


def test_interpolation_is_left_out_beside_an_arm_on_trial():
    rows = [*rates(), row("feasible_rate", 1, 0.9, 1, arm="bicubic")]
    assert not any("bicubic" in said for said in findings(MANIFEST, rows))


def test_interpolation_alone_is_reported_without_calling_it_a_search():
    said = findings(MANIFEST, [row("feasible_rate", 1, 0.9, 1, arm="bicubic")])
    assert said[0].startswith("bicubic gave an image that fits its input in 100 % [90, 100]")


def test_several_settings_are_compared_and_the_first_is_named():
    rows = [*rates(), row("feasible_rate", 0.1, 0.0, 0.2, condition="gaussian:25")]
    said = findings(MANIFEST, rows)
    assert said[0].endswith("numbers are for condition clean at scale 8.")
    assert (
        "Over 2 settings, the feasible rate of pulse:g ranges from 10 % [0, 20] (gaussian:25, "
        "scale 8) to 90 % [80, 95] (clean, scale 8)." in said
    )


@pytest.fixture(scope="module")
def summary(apparent_manifest, apparent_samples):
    arms = {name: {"kind": "pulse"} for name in ("pulse:a", "pulse:g")}
    manifest = apparent_manifest(arms={**arms, "bicubic": {"kind": "interpolation"}})
    return summarise(manifest, apparent_samples(20, arms=("pulse:a", "pulse:g", "bicubic")))


def test_claims_come_first_and_numbers_as_classified_are_behind_more(summary):
    screens = [finding.screen for finding in summary.findings]
    assert screens == sorted(screens)  # "first" before "more"
    first = [finding for finding in summary.findings if finding.screen == "first"]
    assert 1 <= len(first) <= 4 and all(len(f.text.split()) <= 35 for f in first)
    more = [finding for finding in summary.findings if finding.screen == "more"]
    assert all(finding.claims == [] for finding in more)  # both arms have one shift
    classified = [f.text for f in more if f.text.startswith("As classified, pulse:a retained")]
    assert len(classified) == 1 and "equal groups would spread over" in classified[0]
    assert not any("bicubic" in finding.text for finding in first)
    assert any(f.text.startswith("A perfect upsampler would score from") for f in more)


def test_a_grouping_that_outputs_do_not_have_is_named_with_the_reason(
    apparent_manifest, apparent_samples
):
    samples = apparent_samples(10).drop(columns="sr_race")
    manifest = apparent_manifest(unavailable={"sr_race": "the words of model and labels differ"})
    first = [f.text for f in summarise(manifest, samples).findings if f.screen == "first"]
    assert first[0] == "Retention of race was not measured: the words of model and labels differ."


def test_groups_that_the_attribute_model_cannot_predict_are_named(
    apparent_manifest, apparent_samples
):
    samples = apparent_samples(10)
    samples["label_race"] = samples["label_race"].replace("Indian", "Others")
    labels = samples.drop_duplicates("face_id")["label_race"]
    words = ["White", "Black", "Others"]
    manifest = apparent_manifest(
        dataset={"vocabulary": {"race": words}, "labels_from": "people"},
        faces=[{"id": str(i), "labels": {"race": word}} for i, word in enumerate(labels)],
    )
    summary = summarise(manifest, samples)
    assert summary.findings[0].text == (
        "Retention of Others was not measured: the attribute model has no such group of race."
    )
    measured = {
        r.group for r in summary.estimates if r.metric == "retention" and r.value is not None
    }
    assert {"White", "Black"} <= measured and "Others" not in measured


def test_the_matrix_of_a_planted_arm_is_read_in_the_order_of_the_groups(apparent_manifest):
    matrix = [[0.9, 0.1], [0.4, 0.6]]
    planted = {"kind": "planted", "groups": ["Black", "White"], "matrix": matrix}
    arms = {"planted:m": planted, "bicubic": {"kind": "interpolation"}}
    found = planted_matrices(apparent_manifest(arms=arms), arms, ["White", "Black"])
    assert {arm: of.tolist() for arm, of in found.items()} == {
        "planted:m": [[0.6, 0.4], [0.1, 0.9]]
    }
    assert planted_matrices(apparent_manifest(arms=arms), arms, ["White", "Other"]) == {}


def test_outputs_of_two_arms_are_compared_as_classified(apparent_manifest, apparent_samples):
    arms = {name: {"kind": "pulse"} for name in ("pulse:g", "bicubic")}
    found = summarise(apparent_manifest(arms=arms), apparent_samples(100)).findings
    (claim,) = [c for f in found if f.screen == "more" for c in f.claims]
    # half of the Black faces turn White in one arm, none in the other
    assert (claim.metric, claim.correction, claim.direction) == ("output_share", "raw", "higher")
    assert (claim.arm, claim.minus, claim.group) in [
        ("pulse:g", "bicubic", "White"),
        ("bicubic", "pulse:g", "Black"),
    ]
    assert 0 < claim.bound < 0.16


def test_equal_arms_are_not_told_apart():
    design = AuditDesign("equal arms", faces=30, draws=2)
    random, false = np.random.default_rng(0), 0
    for _ in range(60):
        audit = simulated_audit(design, random)
        groupings = make_groupings(audit.manifest, audit.samples)
        subsets = list(make_subsets(audit.manifest, audit.samples))
        false += bool(list(compared_outputs(audit.manifest, subsets, groupings)))
    assert false <= 7  # 5 % of 60 are 3; 8 or more have a chance of 1 %
