"""Sentences made of estimates: of rows given here, and of a whole summary."""

import pytest

from pulse_audit import store
from pulse_audit.summary import EstimateRow, summarise
from pulse_audit.summary.findings import findings as make_findings

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


def test_overlapping_intervals_claim_neither_a_difference_nor_equality():
    groups = [("White", 0.95, 0.8, 1.0), ("Black", 0.85, 0.7, 0.95)]
    said = findings(MANIFEST, rates(*groups))[0]
    assert "Lowest for Black, 85 % [70, 95]; highest for White, 95 % [80, 100]." in said
    assert said.endswith("this neither shows a difference nor rules one out.")


def test_parted_intervals_are_a_sign_and_not_a_test():
    groups = [("White", 1.0, 0.9, 1.0), ("Black", 0.4, 0.2, 0.6), ("Indian", 0.5, 0.3, 0.7)]
    said = findings(MANIFEST, rates(*groups))[0]
    assert "The intervals of Black and White do not overlap (2 pairs of 3)" in said
    assert "an indication of a difference, not a test" in said
    assert "not corrected" not in said and "without correction for 3 comparisons" in said


def test_equal_rates_name_no_lowest_group():
    groups = [("White", 1.0, 0.8, 1.0), ("Black", 1.0, 0.8, 1.0)]
    said = findings(MANIFEST, rates(*groups))[0]
    assert "It is 100 % in every group of race." in said and "Lowest" not in said


def test_lightness_has_a_direction_only_when_the_interval_leaves_out_zero():
    lighter = findings(MANIFEST, [row("lightness_shift", 3.1, 2.0, 4.2)])[0]
    assert lighter == (
        "Outputs of pulse:g are lighter than their originals: +3.1 [+2.0, +4.2] L* on average."
    )
    unclear = findings(MANIFEST, [row("lightness_shift", -0.2, -1.0, 0.6)])[0]
    assert unclear.endswith("no direction is shown.")


def test_lightness_names_the_group_furthest_off():
    groups = [("White", 0.5, -1, 2), ("Black", 8.0, 5, 11), ("Indian", -3.0, -5, -1)]
    rows = [
        row("lightness_shift", 2, 1, 3),
        *(row("lightness_shift", v, low, high, name) for name, v, low, high in groups),
    ]
    said = findings(MANIFEST, rows)[0]
    assert "Largest for Black: +8.0 [+5.0, +11.0] L*" in said
    assert "the interval lies above 0 in 1 of 3 groups and below 0 in 1." in said


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


def test_the_width_of_the_widest_group_interval_says_what_cannot_be_seen():
    groups = [("White", 0.95, 0.8, 1.0), ("Black", 0.85, 0.5, 0.95)]
    said = findings(MANIFEST, rates(*groups))[-1]
    assert said.startswith("With 10 faces in group Black, the interval of its feasible rate is")
    assert "45 points wide" in said


@pytest.fixture(scope="module")
def summary(apparent_manifest, apparent_samples):
    arms = {name: {"kind": "pulse"} for name in ("pulse:a", "pulse:g")}
    manifest = apparent_manifest(arms={**arms, "bicubic": {"kind": "interpolation"}})
    return summarise(manifest, apparent_samples(20, arms=("pulse:a", "pulse:g", "bicubic")))


def test_the_first_findings_are_of_retention_with_its_worst_and_best_group(summary):
    said = [finding.text for finding in summary.findings]
    assert said[0].startswith("pulse:a retained the apparent race in ")
    assert "lowest for Black, " in said[0] and "; highest for " in said[0]
    assert any(s.startswith("A perfect upsampler would score from") for s in said)
    compared = [s.startswith("On the same faces, pulse:a retained the group") for s in said]
    assert compared.index(True) < next(i for i, s in enumerate(said) if "gap of retention" in s)
    assert not any("bicubic retained" in s for s in said)


def test_a_gap_is_called_shown_only_where_its_lower_bound_is_above_zero(summary):
    rows = [
        r
        for r in summary.estimates
        if (r.metric, r.group_by, r.statistic, r.correction)
        == ("retention", "race", "max_gap", "corrected")
        and r.arm.startswith("pulse")
    ]
    gaps = [
        s for s in (f.text for f in summary.findings) if "largest gap of retention, corrected" in s
    ]
    for row, sentence in zip(rows, gaps, strict=True):
        assert ("after correcting for all pairwise comparisons" in sentence) == (row.low > 0)
        assert ("neither shown nor ruled out" in sentence) == (row.low == 0)
        assert row.high <= 1


def test_gains_are_told_where_the_interval_leaves_out_zero(summary):
    said = [s for s in (f.text for f in summary.findings) if s.startswith("Net gain by conversion")]
    assert said and all("Black -" in s for s in said)
